/**
 * Moving a timeline's frozen layers to disk, one after the other, beside everything else.
 *
 * A layer is flushed in this order: its file and name durable (layer_writer.ts), index_part that
 * lists it durable, and only then, in one step, the finished layer takes the frozen one's place
 * and diskConsistentLsn moves. A crash anywhere leaves the former state: the WAL from the former
 * diskConsistentLsn comes again.
 *
 * Layers that a worker has written (compaction/) are listed here, too, because index_part has one
 * writer: names durable, index_part, and then they are searched. What is in them is in other layers
 * as well, so a crash loses work and nothing else. Layers whose place they take leave the list with
 * the same index_part, and are removed behind it.
 *
 * A failed write (a full disk) takes nothing back: what was to be written is in memory or in the
 * open layer's file, and is tried again each second (timeline.ts tick()) and by whoever asks for a
 * flush; ingest waits meanwhile.
 *
 * A failed sync says nothing of what it covered, nor does a later one that succeeds. Of index_part
 * the disk may have the old content or the new: all files of both stay, and a new file takes its
 * place, tried again after growing pauses. A layer whose sync failed is never listed: the timeline
 * takes no more changes (`failure`) until it starts over, as after a crash (start_over.ts): what is
 * not listed is thrown away, and its WAL comes again from diskConsistentLsn on.
 */
import { assert } from "../../libs/utils/assert.ts";
import { logger } from "../../libs/utils/log.ts";
import { Conflict, messageOf, Unavailable } from "../../libs/utils/errors.ts";
import { ifThere } from "../../libs/utils/if_there.ts";
import { formatLsn, INVALID_LSN, type Lsn } from "../../libs/utils/lsn.ts";
import { flushMetrics } from "../metrics.ts";
import { syncDirectory, SyncFailed } from "./durable_async.ts";
import { type IndexPart, writeIndexPart } from "./index_part.ts";
import { Layer } from "./layer.ts";
import { type LayerDescription, layerFileName, type LayerOwner } from "./layer_format.ts";
import { writeLayer } from "./layer_writer.ts";
import type { MemoryLayer } from "./memory_layer.ts";
import type { Resources } from "./resources.ts";
import type { TimelineLayers } from "./timeline_layers.ts";

const log = logger("pageserver", "flush");

/** Pauses after a failed sync: the first, the longest. They double. */
const SYNC_PAUSE_MS = 1000;
const SYNC_PAUSE_MS_MAX = 60_000;

/** A layer that is written and synced, a file in the timeline's directory. */
export interface WrittenLayer {
  readonly layer: LayerDescription;
  readonly temporaryPath: string;
}

/** Layers that wait to be listed, and those that leave the list with that. */
interface Listing {
  readonly written: readonly WrittenLayer[];
  /** Names. */
  readonly replaced: ReadonlySet<string>;
  /** The files have their names, durably, unless `failure` says that the sync of these failed. */
  isNamed: boolean;
}

/** The flushing side of one timeline. */
export class TimelineFlush {
  readonly #directory: string;
  readonly #owner: LayerOwner;
  readonly #layers: TimelineLayers;
  readonly #resources: Resources;
  readonly #generation: () => number;
  #part: IndexPart;
  #wantedLsn: Lsn = INVALID_LSN;
  #wantedPrevLsn: Lsn = INVALID_LSN;
  #running: Promise<void> | undefined;
  #stopping = false;
  /** What others have written, in the order in which it came. */
  readonly #listings: Listing[] = [];
  /** The first frozen layer, once its file is durable and only index_part has to list it. */
  #written: LayerDescription | undefined;
  /** Why the timeline takes no more changes until startOver(). */
  failure: Error | undefined;
  /** Why the last attempt failed; the next may succeed. */
  stuck: string | undefined;
  /** A sync of index_part failed, and none has succeeded since: its files on disk are in doubt. */
  #isPartInDoubt = false;
  #failedSyncs = 0;
  /** After a failed sync nothing is tried before. */
  #nextMs = -Infinity;

  constructor(
    directory: string,
    owner: LayerOwner,
    part: IndexPart,
    layers: TimelineLayers,
    generation: () => number,
    resources: Resources,
  ) {
    this.#directory = directory;
    this.#owner = owner;
    this.#part = part;
    this.#layers = layers;
    this.#generation = generation;
    this.#resources = resources;
  }

  /** All changes up to here are durable. */
  get diskConsistentLsn(): Lsn {
    return this.#part.diskConsistentLsn;
  }

  /** Notes that everything up to `lsn` is frozen and wanted on disk; run() makes it so. */
  want(lsn: Lsn, prevRecordLsn: Lsn): void {
    this.#wantedLsn = lsn;
    this.#wantedPrevLsn = prevRecordLsn;
  }

  /** Resolves when what is wanted is durable. Throws Unavailable if it cannot be made so. */
  run(): Promise<void> {
    if (this.failure !== undefined) return Promise.reject(this.failure);
    if (!this.isDue) {
      const why = `Cannot change timeline ${this.#owner.timelineId}: a flush failed: ${this.stuck}`;
      return Promise.reject(new Unavailable(why));
    }
    this.#running ??= this.#flushAll();
    return this.#running;
  }

  /** Whether the pause after a failed sync is over. */
  get isDue(): boolean {
    return this.#resources.now() >= this.#nextMs;
  }

  /**
   * After `failure`: what is wanted is given up, so that the timeline can begin again at what
   * index_part says, which is returned. Frozen layers are the caller's to drop.
   */
  startOver(): IndexPart {
    assert(this.failure !== undefined && !this.#isPartInDoubt, "only a layer's sync has failed");
    for (const { written, isNamed } of this.#listings.splice(0)) {
      if (isNamed) this.#removeFiles(written);
    }
    this.#written = undefined;
    this.#wantedLsn = this.#part.diskConsistentLsn;
    this.failure = undefined;
    return this.#part;
  }

  /** Starts run() without waiting for it; a failure is logged. */
  runInBackground(): void {
    this.run().catch(() => {}); // #flushAll has noted it
  }

  /**
   * Gives layers their names and lists them, in one step in the place of `replaced`; resolves when
   * that is durable. Throws Conflict if one is listed already, or one to be replaced is not, and
   * Unavailable if it cannot be done now: what has its name then is listed with the next flush,
   * what still has its temporary path is the caller's.
   */
  async list(written: readonly WrittenLayer[], replaced: readonly LayerDescription[]) {
    const names = new Set(replaced.map(layerFileName));
    const listing: Listing = { written, replaced: names, isNamed: false };
    this.#checkListing(listing);
    this.#listings.push(listing);
    const what = `Cannot list ${written.length} layers of timeline ${this.#owner.timelineId}`;
    try {
      while (this.#listings.includes(listing)) {
        if (this.#stopping) throw new Unavailable(`${what}: it is closed`);
        await this.run();
      }
    } finally {
      if (!listing.isNamed) this.#forget(listing);
    }
    if (!this.#part.layers.includes(written[0]!.layer)) {
      throw new Unavailable(`${what}: it has started over`);
    }
  }

  #forget(listing: Listing): void {
    const at = this.#listings.indexOf(listing);
    if (at >= 0) this.#listings.splice(at, 1);
  }

  #checkListing({ written, replaced }: Listing): void {
    const known = this.#part.layers.map(layerFileName);
    const coming = this.#listings.flatMap((listing) =>
      listing.written.map(({ layer }) => layerFileName(layer))
    );
    const taken = new Set([...known, ...coming]);
    const leaving = new Set(this.#listings.flatMap((listing) => [...listing.replaced]));
    for (const { layer } of written) {
      assert(layer.lsnEnd <= this.diskConsistentLsn, "what others write is of what is on disk");
      const name = layerFileName(layer);
      if (taken.has(name)) throw new Conflict(`Cannot list layer ${name}: it is listed already`);
    }
    for (const name of replaced) {
      if (known.includes(name) && !leaving.has(name)) continue;
      throw new Conflict(`Cannot replace layer ${name}: it is not listed any more`);
    }
  }

  #removeFiles(written: readonly WrittenLayer[]): void {
    for (const { layer } of written) {
      ifThere(() => Deno.removeSync(`${this.#directory}/${layerFileName(layer)}`));
    }
  }

  /** Stops after the layer that is being written, and waits for that. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await this.#running?.catch(() => {});
  }

  async #flushAll(): Promise<void> {
    // The first step runs in the caller's turn; #running has to be set before it can end.
    await Promise.resolve();
    try {
      while (!this.#stopping && this.#hasWork()) {
        const { diskConsistentLsn, prevRecordLsn, layers } = this.#part;
        const layer = this.#layers.frozen[0];
        if (this.#isPartInDoubt) {
          await this.#replacePart(diskConsistentLsn, prevRecordLsn, layers);
        } else if (this.#listings.length > 0) await this.#carryOut(this.#listings[0]!);
        else if (layer !== undefined) await this.#flushLayer(layer);
        else await this.#replacePart(this.#wantedLsn, this.#wantedPrevLsn, this.#part.layers);
      }
      const id = this.#owner.timelineId;
      if (this.stuck !== undefined) log.info("timeline {id} can be flushed again", { id });
      this.stuck = undefined;
      if (!this.#stopping) this.#failedSyncs = 0;
    } catch (thrown) {
      throw this.#failed(thrown);
    } finally {
      this.#running = undefined;
    }
  }

  #failed(thrown: unknown): Error {
    const id = this.#owner.timelineId;
    const why = messageOf(thrown);
    const error = new Unavailable(`Cannot change timeline ${id}: a flush failed: ${why}`);
    if (thrown instanceof SyncFailed) this.#pauseAfterSync();
    if (thrown instanceof SyncFailed && !this.#isPartInDoubt) {
      log.error(
        "timeline {id} takes no changes for now, a sync failed: {why}; " +
          "in {s} s it begins again at {lsn}",
        { id, why, s: this.#pauseSeconds, lsn: formatLsn(this.diskConsistentLsn) },
      );
      this.failure = error;
    } else {
      if (this.stuck === undefined) {
        log.error("timeline {id} cannot be flushed, and is tried again: {why}", { id, why });
      }
      this.stuck = why;
    }
    return error;
  }

  #pauseAfterSync(): void {
    flushMetrics.failedSyncs.inc();
    const pauseMs = Math.min(SYNC_PAUSE_MS * 2 ** this.#failedSyncs++, SYNC_PAUSE_MS_MAX);
    this.#nextMs = this.#resources.now() + pauseMs;
  }

  get #pauseSeconds(): number {
    return Math.round((this.#nextMs - this.#resources.now()) / 1000);
  }

  #hasWork(): boolean {
    return this.#isPartInDoubt || this.#listings.length > 0 || this.#layers.frozen.length > 0 ||
      this.#wantedLsn > this.#part.diskConsistentLsn;
  }

  async #carryOut(listing: Listing): Promise<void> {
    const { written, replaced } = listing;
    const added = written.map(({ layer }) => layer);
    if (!listing.isNamed) await this.#giveNames(listing);
    const { diskConsistentLsn, prevRecordLsn, layers } = this.#part;
    const kept = layers.filter((layer) => !replaced.has(layerFileName(layer)));
    await this.#replacePart(diskConsistentLsn, prevRecordLsn, [...kept, ...added]);
    const { finished } = this.#layers;
    const leaving = finished.layers.filter((layer) => replaced.has(layerFileName(layer)));
    finished.remove(new Set(leaving));
    for (const layer of added) {
      const file = this.#resources.files.register(`${this.#directory}/${layerFileName(layer)}`);
      finished.insert(new Layer(layer, file, this.#owner, this.#resources));
    }
    this.#forget(listing);
    for (const layer of leaving) {
      layer.close();
      this.#resources.retired.add(layer.file.path);
    }
  }

  /** A sync of the directory that fails before or after this one says nothing of these names. */
  async #giveNames(listing: Listing): Promise<void> {
    for (const { layer, temporaryPath } of listing.written) {
      Deno.renameSync(temporaryPath, `${this.#directory}/${layerFileName(layer)}`);
    }
    listing.isNamed = true;
    await syncDirectory(this.#directory);
  }

  async #flushLayer(frozen: MemoryLayer): Promise<void> {
    const job = {
      kind: "delta" as const,
      owner: this.#owner,
      generation: this.#generation(),
      lsnStart: frozen.lsnStart,
      lsnEnd: frozen.lsnEnd,
      file: frozen.file,
      index: frozen.index,
      interner: this.#resources.interner,
      pause: this.#resources.pause,
    };
    this.#written ??= await writeLayer(job, this.#directory);
    const description = this.#written;
    const listed = [...this.#part.layers, description];
    await this.#replacePart(frozen.lsnEnd, frozen.prevRecordLsn, listed);
    this.#written = undefined;
    const layer = new Layer(description, frozen.file.file, this.#owner, this.#resources);
    const removed = this.#layers.frozen.shift();
    assert(removed === frozen, "layers are flushed in the order they were frozen");
    this.#layers.finished.insert(layer);
    frozen.file.closeWriter();
    frozen.unaccount();
  }

  async #replacePart(
    diskConsistentLsn: Lsn,
    prevRecordLsn: Lsn,
    layers: readonly LayerDescription[],
  ): Promise<void> {
    assert(diskConsistentLsn >= this.#part.diskConsistentLsn, "diskConsistentLsn never goes back");
    const part = { ...this.#part, diskConsistentLsn, prevRecordLsn, layers };
    try {
      await writeIndexPart(this.#directory, part);
    } catch (thrown) {
      if (thrown instanceof SyncFailed) this.#isPartInDoubt = true;
      throw thrown;
    }
    this.#isPartInDoubt = false;
    this.#part = part;
  }
}
