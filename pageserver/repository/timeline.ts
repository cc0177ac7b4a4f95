/**
 * One branch of a tenant: its versions of all keys, over a range of LSNs.
 *
 * The single ingest of the timeline puts changes at the end LSN of their record and then advances;
 * only then are they visible. Readers may ask for any LSN up to lastRecordLsn, at any time. What
 * is put goes to the open layer; advance() freezes it when it is large or old, and the flush moves
 * it to disk (timeline_flush.ts).
 *
 *   startLsn ... diskConsistentLsn ... lastRecordLsn
 *      | finished layers | frozen, open layers |          (what is beyond is not visible yet)
 *
 * Invariant: startLsn <= diskConsistentLsn <= lastRecordLsn. Without remote storage the
 * remote-consistent LSN is diskConsistentLsn.
 */
import { assert } from "../../libs/utils/assert.ts";
import { Unavailable } from "../../libs/utils/errors.ts";
import type { TenantId, TimelineId } from "../../libs/utils/id.ts";
import { type Lsn, minLsn } from "../../libs/utils/lsn.ts";
import type { SearchKey } from "./blob_source.ts";
import type { IndexPart } from "./index_part.ts";
import { isScannable, type Key } from "./key.ts";
import { type KeyInterner, NO_OBJECT, type ObjectId } from "./key_interner.ts";
import { Layer } from "./layer.ts";
import { EntryKind, type LayerDescription, layerFileName } from "./layer_format.ts";
import { LsnWaiters } from "./lsn_waiters.ts";
import { MemoryLayer } from "./memory_layer.ts";
import { collectPage, type ExplainedEntry, explainPage, getValue, scanKeys } from "./read_path.ts";
import type { Reconstruction } from "./reconstruction.ts";
import type { Resources } from "./resources.ts";
import { TimelineFlush, type WrittenLayer } from "./timeline_flush.ts";
import { type LayerInfo, TimelineLayers } from "./timeline_layers.ts";
import { takeSnapshot, type TimelineSnapshot } from "./timeline_snapshot.ts";

/** A layer with more entries is frozen: bounds its index at about 64 MB. */
const LAYER_ENTRIES_MAX = 2_000_000;
/** Frozen layers that may await their flush before ingest has to wait. */
const FROZEN_LAYERS_MAX = 2;
/** A layer smaller than this is not frozen for the sake of the shared memory limit. */
const CROWDED_LAYER_BYTES_MIN = 4 * 1024 * 1024;

/** How long flush() waits for the end of the batch that is being put. */
const BATCH_TIMEOUT_MS = 60_000;

declare const blobBrand: unique symbol;

/** Where a record's bytes were stored by beginBlob; good until the next advance(). */
export type BlobRef = number & { readonly [blobBrand]: true };

/** Tenant settings that a timeline follows; may change while it is open. */
export interface TimelineSettings {
  /** Bytes of values or of WAL after which the open layer is frozen. */
  checkpointDistanceBytes: number;
  /** Milliseconds after which it is frozen. */
  checkpointTimeoutMs: number;
  /** Milliseconds between looks for what is to be compacted; 0 for never. */
  compactionPeriodMs: number;
  /** Bytes after which the next layer of a compaction is begun. */
  compactionTargetBytes: number;
  /** Runs of delta layers from which on they become one. */
  compactionThreshold: number;
  /** Delta layers over a part of a relation from which on images of it may be made. */
  imageCreationThreshold: number;
}

/** What a tenant opens a timeline with. */
interface TimelineOptions {
  readonly tenantId: TenantId;
  readonly timelineId: TimelineId;
  /** The directory, with exactly the files that `part` lists. */
  readonly directory: string;
  readonly part: IndexPart;
  readonly ancestor: Timeline | undefined;
  readonly generation: () => number;
  readonly settings: TimelineSettings;
  readonly resources: Resources;
}

/** One branch of a tenant. */
export class Timeline {
  readonly tenantId: TenantId;
  readonly timelineId: TimelineId;
  readonly pgVersion: number;
  readonly ancestorTimelineId: TimelineId | undefined;
  /** INVALID_LSN for a root. */
  readonly ancestorLsn: Lsn;
  readonly initdbLsn: Lsn;
  /** Where it begins: the import's LSN, or the branch point. */
  readonly startLsn: Lsn;
  readonly interner: KeyInterner;
  readonly ancestor: Timeline | undefined;
  /** For the read path. */
  readonly layers = new TimelineLayers();

  #lastRecordLsn: Lsn;
  #prevRecordLsn: Lsn;
  readonly #directory: string;
  readonly #resources: Resources;
  /** The tenant's; they may change. */
  readonly settings: Readonly<TimelineSettings>;
  readonly #generation: () => number;
  readonly #closing = new AbortController();
  readonly #background = new Set<Promise<unknown>>();
  readonly #flush: TimelineFlush;
  readonly #waiters: LsnWaiters;
  readonly #searchKey: SearchKey = { f1: 0, f2: 0, f3: 0, f4: 0, f5: 0, f6: 0, object: NO_OBJECT };
  /** For the WAL receiver: called when somebody begins to wait for what has not come. */
  onWait: (() => void) | undefined;
  #layerNumber = 0;
  #dirtySinceMs: number | undefined;
  #closed = false;

  constructor(options: TimelineOptions) {
    const { part, resources } = options;
    this.tenantId = options.tenantId;
    this.timelineId = options.timelineId;
    this.pgVersion = part.pgVersion;
    this.ancestorTimelineId = part.ancestorTimelineId;
    this.ancestorLsn = part.ancestorLsn;
    this.initdbLsn = part.initdbLsn;
    this.startLsn = part.startLsn;
    this.interner = resources.interner;
    this.ancestor = options.ancestor;
    this.#lastRecordLsn = part.diskConsistentLsn;
    this.#prevRecordLsn = part.prevRecordLsn;
    this.#directory = options.directory;
    this.#resources = resources;
    this.settings = options.settings;
    this.#generation = options.generation;
    this.#waiters = new LsnWaiters(`timeline ${this.timelineId}`);
    for (const description of part.layers) {
      const file = resources.files.register(`${options.directory}/${layerFileName(description)}`);
      this.layers.finished.insert(new Layer(description, file, options, resources));
    }
    const { directory, generation } = options;
    this.#flush = new TimelineFlush(directory, options, part, this.layers, generation, resources);
  }

  /** The end of the last record that reads see. */
  get lastRecordLsn(): Lsn {
    return this.#lastRecordLsn;
  }

  /** The start of that record; INVALID_LSN if unknown (a branch not made at its ancestor's tip). */
  get prevRecordLsn(): Lsn {
    return this.#prevRecordLsn;
  }

  /** All changes up to here are durable. */
  get diskConsistentLsn(): Lsn {
    return this.#flush.diskConsistentLsn;
  }

  /** Active, or Broken: a sync failed, reads only until it starts over. */
  get state(): "Active" | "Broken" | "Stopping" {
    if (this.#closed) return "Stopping";
    return this.#flush.failure === undefined ? "Active" : "Broken";
  }

  /** Why it is Broken, or cannot be flushed for now. */
  get problem(): string | undefined {
    return this.#flush.failure?.message ?? this.#flush.stuck;
  }

  /** Whether it is Broken, and the pause after what failed is over. */
  get isStartOverDue(): boolean {
    return this.state === "Broken" && this.#flush.isDue;
  }

  /**
   * Begins again at what is on disk, as after a crash: drops what was put since, so lastRecordLsn
   * goes back to diskConsistentLsn, and its WAL has to come again. Nobody may be putting anything.
   * Throws what keeps the files from being removed; then it is Broken as before.
   */
  startOver(): void {
    assert(this.state === "Broken", "only what has failed starts over");
    const { open, frozen } = this.layers;
    const dropped = open === undefined ? [...frozen] : [...frozen, open];
    for (const layer of dropped) layer.file.discard();
    const { diskConsistentLsn, prevRecordLsn } = this.#flush.startOver();
    for (const layer of dropped) layer.unaccount();
    this.layers.open = undefined;
    frozen.length = 0;
    this.#dirtySinceMs = undefined;
    this.#lastRecordLsn = diskConsistentLsn;
    this.#prevRecordLsn = prevRecordLsn;
  }

  /** How many wait in waitForLsn now. */
  get waiterCount(): number {
    return this.#waiters.count;
  }

  /**
   * Waits until `lsn` is readable: ingested here and, on a branch, what lies below the branch
   * point in every ancestor. Throws TimedOut naming both LSNs, Unavailable when the timeline is
   * closed.
   */
  async waitForLsn(lsn: Lsn, timeoutMs: number, signal?: AbortSignal): Promise<void> {
    if (this.#closed) throw this.#closedError();
    await this.#waitUntil(lsn, this.#resources.now() + timeoutMs, signal);
  }

  /** Ingest awaits this before each batch: it waits while too many layers await their flush. */
  async waitForRoom(): Promise<void> {
    while (this.layers.frozen.length >= FROZEN_LAYERS_MAX) await this.#flush.run();
  }

  /** Stores a record's bytes once, for any number of putRecord. */
  beginBlob(bytes: Uint8Array, start: number, length: number): BlobRef {
    return this.#openLayer().file.appendBlob(bytes, start, length) as BlobRef;
  }

  /**
   * Adds a WAL record that changes a page. `lsn` is the record's end, at or above the last one put.
   */
  putRecord(object: ObjectId, block: number, lsn: Lsn, blob: BlobRef, willInit: boolean): void {
    const kind = willInit ? EntryKind.initRecord : EntryKind.record;
    this.#putWord(object, block, lsn, blob + kind);
  }

  /** Adds a whole page or value. */
  putImage(
    object: ObjectId,
    block: number,
    lsn: Lsn,
    bytes: Uint8Array,
    start: number,
    length: number,
  ): void {
    const blob = this.#openLayer().file.appendBlob(bytes, start, length);
    this.#putWord(object, block, lsn, blob + EntryKind.image);
  }

  /** Adds a value; null deletes a key of a scannable class. */
  putValue(key: Key, lsn: Lsn, bytes: Uint8Array | null): void {
    const object = this.interner.intern(key.f1, key.f2, key.f3, key.f4, key.f5);
    if (bytes !== null) return this.putImage(object, key.f6, lsn, bytes, 0, bytes.length);
    assert(isScannable(key.f1), "only keys of scannable classes are deleted");
    this.#putWord(object, key.f6, lsn, EntryKind.tombstone);
  }

  /**
   * Makes everything put so far visible: the last record ends at `lastRecordLsn` and starts at
   * `prevRecordLsn`. Freezes the open layer if it is due and lets it be flushed in the background.
   */
  advance(lastRecordLsn: Lsn, prevRecordLsn: Lsn): void {
    this.#checkWritable();
    const open = this.layers.open;
    assert(lastRecordLsn >= this.#lastRecordLsn, "lastRecordLsn never goes back");
    assert(
      open === undefined || open.lastPutLsn <= lastRecordLsn,
      "a batch ends at its last record",
    );
    if (lastRecordLsn > this.#lastRecordLsn) this.#dirtySinceMs ??= this.#resources.now();
    this.#lastRecordLsn = lastRecordLsn;
    this.#prevRecordLsn = prevRecordLsn;
    open?.commit();
    this.#waiters.reached(lastRecordLsn);
    if (open === undefined) return;
    if (this.#isDue(open)) this.#freezeAndFlush();
  }

  /**
   * Drops what was put since the last advance(): for an ingest that failed inside a batch and will
   * receive the same WAL again.
   */
  rollback(): void {
    this.layers.open?.rollback();
  }

  /**
   * Makes everything that is visible durable; resolves to diskConsistentLsn. Inside a batch it
   * waits for the batch's end.
   */
  async flush(): Promise<Lsn> {
    if (this.#closed) throw this.#closedError();
    const target = this.#lastRecordLsn;
    while (this.isInBatch) {
      const { lastPutLsn } = this.layers.open!;
      await this.#waiters.wait(lastPutLsn, () => this.#lastRecordLsn, BATCH_TIMEOUT_MS);
    }
    this.#freeze();
    await this.#flush.run();
    // Closing stops a flush between layers.
    if (this.diskConsistentLsn < target) throw this.#closedError();
    return this.diskConsistentLsn;
  }

  /** To be called now and then: flushes in the background what is not durable for too long. */
  tick(): void {
    if (this.#flush.stuck !== undefined) this.#flush.runInBackground();
    if (this.#dirtySinceMs === undefined || this.state !== "Active" || this.isInBatch) return;
    const ageMs = this.#resources.now() - this.#dirtySinceMs;
    if (ageMs >= this.settings.checkpointTimeoutMs) this.#freezeAndFlush();
  }

  /**
   * Collects the newest image at or below `lsn` and the records after it, oldest first.
   * Synchronous: wait for the LSN before. With `after`, the caller holds the page as of that LSN;
   * only what is newer is collected, and `into.continues` says that the caller's page is the base.
   *
   * Throws NotFound if there is no version, Corrupt if there are records without a base or a layer
   * is harmed, Unavailable if `lsn` (here or in an ancestor) is not ingested; Postponed, if `into`
   * allows that.
   */
  collect(
    object: ObjectId,
    block: number,
    lsn: Lsn,
    into: Reconstruction,
    after?: Lsn,
  ): void {
    if (this.#closed) throw this.#closedError();
    const key = this.#searchKey;
    this.interner.fields(object, key);
    key.f6 = block;
    key.object = object;
    collectPage(this, key, lsn, into, after);
  }

  /**
   * What collect() would collect, oldest first, with the layers it is in: for people. Throws as
   * collect() does.
   */
  explain(object: ObjectId, block: number, lsn: Lsn): ExplainedEntry[] {
    if (this.#closed) throw this.#closedError();
    const key = this.#searchKey;
    this.interner.fields(object, key);
    key.f6 = block;
    key.object = object;
    return explainPage(this, key, lsn);
  }

  /** The value of a key at `lsn`, or undefined. Throws as collect(). */
  getValue(key: Key, lsn: Lsn): Uint8Array | undefined {
    if (this.#closed) throw this.#closedError();
    const search = Object.assign(this.#searchKey, key);
    search.object = this.interner.find(key.f1, key.f2, key.f3, key.f4, key.f5);
    return getValue(this, search, lsn);
  }

  /**
   * Visits the keys of scannable classes in [from, to) that exist at `lsn`, ascending. The key
   * object is reused; the value is the visitor's to keep. Throws as collect().
   */
  scan(from: Key, to: Key, lsn: Lsn, visit: (key: Key, value: Uint8Array) => void): void {
    if (this.#closed) throw this.#closedError();
    assert(isScannable(from.f1), "only scannable classes are scanned");
    scanKeys(this, from, to, lsn, visit);
  }

  /** All layers, newest first. */
  layerInfos(): LayerInfo[] {
    return this.layers.infos(this.#lastRecordLsn);
  }

  /** Bytes of all layer files. */
  get physicalSizeBytes(): number {
    return this.layers.finished.layers.reduce((sum, layer) => sum + layer.sizeBytes, 0);
  }

  /** What a worker needs to read what is on disk here, and to write layers of it. */
  snapshot(): TimelineSnapshot {
    return takeSnapshot(this, this.#directory, this.#generation());
  }

  /**
   * Takes over layers, in the place of others of which they have all entries; searched and durable
   * when it resolves. Throws as TimelineFlush.list.
   */
  async addLayers(
    written: readonly WrittenLayer[],
    replaced: readonly LayerDescription[] = [],
  ): Promise<void> {
    if (this.#closed) throw this.#closedError();
    await this.#flush.list(written, replaced);
  }

  /** Does `work`, with which no file of a snapshot goes; closing aborts it and waits for it. */
  async whileOpen<T>(work: (closing: AbortSignal) => Promise<T>): Promise<T> {
    if (this.#closed) throw this.#closedError();
    this.#resources.retired.hold();
    const working = work(this.#closing.signal);
    this.#background.add(working);
    try {
      return await working;
    } finally {
      this.#background.delete(working);
      this.#resources.retired.release();
    }
  }

  /** Closes it: waiters fail, what is not flushed is dropped (its WAL comes again). */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#waiters.fail(this.#closedError());
    this.#closing.abort();
    await Promise.allSettled(this.#background);
    await this.#flush.stop();
    const { open, frozen, finished } = this.layers;
    for (const layer of open === undefined ? frozen : [...frozen, open]) {
      layer.unaccount();
      layer.file.discard();
    }
    this.layers.open = undefined;
    frozen.length = 0;
    for (const layer of finished.layers) layer.close();
  }

  async #waitUntil(lsn: Lsn, deadlineMs: number, signal?: AbortSignal): Promise<void> {
    if (this.#lastRecordLsn < lsn) {
      const leftMs = Math.max(0, deadlineMs - this.#resources.now());
      const reached = this.#waiters.wait(lsn, () => this.#lastRecordLsn, leftMs, signal);
      this.onWait?.();
      await reached;
    }
    if (this.ancestor === undefined) return;
    await this.ancestor.#waitUntil(minLsn(lsn, this.ancestorLsn), deadlineMs, signal);
  }

  #putWord(object: ObjectId, block: number, lsn: Lsn, word: number): void {
    assert(lsn > this.#lastRecordLsn, "a change comes after the last visible record");
    this.#openLayer().put(object, block, lsn, word);
  }

  #openLayer(): MemoryLayer {
    const open = this.layers.open;
    if (open !== undefined && this.#flush.failure === undefined && !this.#closed) return open;
    this.#checkWritable();
    const path = `${this.#directory}/open-${this.#layerNumber++}.___temp`;
    const layer = new MemoryLayer(path, this.#lastRecordLsn, this, this.#resources);
    this.layers.open = layer;
    return layer;
  }

  #checkWritable(): void {
    if (this.#closed) throw this.#closedError();
    if (this.#flush.failure !== undefined) throw this.#flush.failure;
  }

  /** Changes were put that advance() has not made visible. */
  get isInBatch(): boolean {
    const open = this.layers.open;
    return open !== undefined && open.lastPutLsn > this.#lastRecordLsn;
  }

  #isDue(open: MemoryLayer): boolean {
    const { checkpointDistanceBytes, checkpointTimeoutMs } = this.settings;
    return open.file.length >= checkpointDistanceBytes ||
      this.#lastRecordLsn - open.lsnStart >= checkpointDistanceBytes ||
      open.index.entryCount >= LAYER_ENTRIES_MAX ||
      (this.#resources.isCrowded && open.index.memoryBytes >= CROWDED_LAYER_BYTES_MIN) ||
      this.#resources.now() - open.openedAtMs >= checkpointTimeoutMs;
  }

  #freeze(): void {
    const open = this.layers.open;
    this.#dirtySinceMs = undefined;
    if (open !== undefined && open.index.entryCount > 0) {
      open.freeze(this.#lastRecordLsn, this.#prevRecordLsn);
      this.layers.frozen.push(open);
      this.layers.open = undefined;
    }
    this.#flush.want(this.#lastRecordLsn, this.#prevRecordLsn);
  }

  #freezeAndFlush(): void {
    this.#freeze();
    this.#flush.runInBackground();
  }

  #closedError(): Error {
    return new Unavailable(`Cannot use timeline ${this.timelineId}: it is closed`);
  }
}
