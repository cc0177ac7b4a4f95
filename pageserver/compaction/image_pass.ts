/**
 * One pass over a timeline as of its diskConsistentLsn: finds the extents that are due, rebuilds
 * their pages and writes them into image layers under temporary names, in key order.
 *
 * Runs in a worker (compaction_worker.ts), and in tests without one. It reads finished layers only.
 * What it holds: the caller's page cache and layer directories, one layer's index (24 bytes a page,
 * a few MB at most), the records of one page, and 100 bytes for each relation.
 *
 * Images are made of blocks of relations and of SLRU segments, as many as these have at that LSN.
 * Everything else is left in delta layers: values are few and small, and have no chains. A page
 * that cannot be rebuilt is left out, reported, and not tried again before a newer layer changes
 * its extent; reads of it find what they found before.
 */
import { PAGE_SIZE } from "../../libs/postgres/constants.ts";
import type { PgVersion } from "../../libs/postgres/versions.ts";
import { Corrupt, messageOf, NotFound } from "../../libs/utils/errors.ts";
import { INVALID_LSN, type Lsn } from "../../libs/utils/lsn.ts";
import type { SearchKey } from "../repository/blob_source.ts";
import {
  compareKeys,
  type Key,
  KeyClass,
  makeKey,
  relationSizeKey,
  slruSizeKey,
} from "../repository/key.ts";
import { NO_OBJECT } from "../repository/key_interner.ts";
import type { Layer } from "../repository/layer.ts";
import { EntryKind, KIND_MASK, layerFileName } from "../repository/layer_format.ts";
import { writeLayerFile } from "../repository/layer_writer.ts";
import { MemoryLayer } from "../repository/memory_layer.ts";
import { collectPage, type ReadableTimeline, scanKeys } from "../repository/read_path.ts";
import { Reconstruction } from "../repository/reconstruction.ts";
import type { Resources } from "../repository/resources.ts";
import type { WrittenLayer } from "../repository/timeline_flush.ts";
import { openSnapshot, type TimelineSnapshot } from "../repository/timeline_snapshot.ts";
import { reconstructPage } from "../walredo/reconstruct.ts";
import { newRedoKey, type PageTarget, type RedoKey } from "../walredo/types.ts";
import { ChainCounter, type Decision, type Extent, extentsOf, Sample } from "./image_plan.ts";

const U32_MAX = 0xffffffff;
/** Values closer to each other than this come with one read, if they are read ahead. */
const NEAR_BYTES = 32 * 1024;
/** Relations, extents and pages between pauses. */
const SLICE_STEPS = 64;

/** What to look at, and how. */
export interface ImagePassOrder {
  readonly snapshot: TimelineSnapshot;
  /** No other pass of this process has it. */
  readonly number: number;
  /** Delta layers up to here were looked at by an earlier pass. */
  readonly after: Lsn;
  readonly imageCreationThreshold: number;
  readonly targetBytes: number;
  /** Every page with a chain of records gets an image. */
  readonly force: boolean;
}

/** What a pass came to. */
export interface ImagePassResult {
  readonly pages: number;
  readonly bytes: number;
  readonly layers: number;
  /** Pages that could not be rebuilt, and why the first could not. */
  readonly failedPages: number;
  readonly firstFailure: string | undefined;
  /**
   * Of delta layers in order of arrival: reads that lie far from each other, if the blocks that got
   * no image are read in order. By file name.
   */
  readonly scatteredReads: ReadonlyMap<string, number>;
}

/** Brings what was collected of a page to its bytes; throws for one that cannot be rebuilt. */
export type Rebuild = (collected: Reconstruction, key: RedoKey, into: PageTarget) => number;

/** Redo as the page service does it; the bytes are into.bytes from into.offset. */
export function rebuildWith(version: PgVersion): Rebuild {
  return (collected, key, into) => {
    collected.placeForPage(PAGE_SIZE, into);
    reconstructPage(collected, key, into, version);
    return PAGE_SIZE;
  };
}

/** What a pass is given beside its order. */
interface ImagePassContext {
  readonly resources: Resources;
  readonly rebuild: Rebuild;
  /** Called after every few pages; throws to stop the pass. */
  readonly pause: () => Promise<void>;
  /** A layer is written and synced at `temporaryPath`; it is the receiver's from now on. */
  readonly onLayer: (written: WrittenLayer) => Promise<void> | void;
}

/** The pass. */
export async function makeImages(
  order: ImagePassOrder,
  context: ImagePassContext,
): Promise<ImagePassResult> {
  const pass = new ImagePass(order, context);
  try {
    return await pass.run();
  } finally {
    pass.close();
  }
}

/** The key of a block of the object whose block 0 has the key `object`. */
function blockKey({ f1, f2, f3, f4, f5 }: Readonly<Key>, block: number): Key {
  return makeKey(f1, f2, f3, f4, f5, block);
}

/** What redo is to know of the page with this key. */
function setRedoKey(redoKey: RedoKey, { f1, f2, f3, f4, f5, f6 }: Readonly<Key>): void {
  redoKey.block = f6;
  if (f1 === KeyClass.slru) {
    redoKey.kind = "slru";
    redoKey.slruKind = f2;
    redoKey.segno = f4;
    return;
  }
  redoKey.kind = "relation";
  redoKey.spc = f2;
  redoKey.db = f3;
  redoKey.rel = f4;
  redoKey.fork = f5;
}

class ImagePass {
  readonly #order: ImagePassOrder;
  readonly #context: ImagePassContext;
  readonly #timeline: ReadableTimeline;
  readonly #lsn: Lsn;
  /** Delta layers that no pass has looked at. */
  readonly #fresh: readonly Layer[];
  readonly #chains = new ChainCounter();
  /** Where values of one layer are, some of each kind. */
  readonly #records = new Sample();
  readonly #inits = new Sample();
  readonly #collected = new Reconstruction();
  readonly #target: PageTarget;
  readonly #key: SearchKey = { f1: 0, f2: 0, f3: 0, f4: 0, f5: 0, f6: 0, object: NO_OBJECT };
  readonly #redoKey: RedoKey = newRedoKey();
  /** Scattered reads of the extent that is looked at, by layer, and of all that got no images. */
  readonly #extentReads = new Map<Layer, number>();
  readonly #scatteredReads = new Map<string, number>();
  #open: MemoryLayer | undefined;
  #serial = 0;
  #sincePause = 0;
  #pages = 0;
  #bytes = 0;
  #layers = 0;
  #failedPages = 0;
  #firstFailure: string | undefined;

  constructor(order: ImagePassOrder, context: ImagePassContext) {
    this.#order = order;
    this.#context = context;
    this.#timeline = openSnapshot(order.snapshot, context.resources);
    this.#lsn = order.snapshot.diskConsistentLsn;
    this.#fresh = this.#timeline.layers.finished.layers.filter(({ kind, lsnEnd }) =>
      kind === "delta" && (order.force || lsnEnd > order.after)
    );
    const { bytes, view } = this.#collected;
    this.#target = { bytes, view, offset: 0 };
  }

  async run(): Promise<ImagePassResult> {
    for (const [object, blocks] of await this.#changedObjects()) {
      for (const extent of extentsOf(object, blocks)) await this.#look(extent);
    }
    await this.#finishLayer();
    return {
      pages: this.#pages,
      bytes: this.#bytes,
      layers: this.#layers,
      failedPages: this.#failedPages,
      firstFailure: this.#firstFailure,
      scatteredReads: this.#scatteredReads,
    };
  }

  /** Drops a layer that is not finished, and closes all files. */
  close(): void {
    this.#open?.file.discard();
    for (let at: ReadableTimeline | undefined = this.#timeline; at; at = at.ancestor) {
      for (const layer of at.layers.finished.layers) layer.close();
    }
  }

  /** What fresh layers may have something of, in key order, with its blocks. */
  async #changedObjects(): Promise<[Key, number][]> {
    const found: [Key, number][] = [];
    const scan = (from: Key, to: Key, objectOf: (sizeKey: Key) => Key) =>
      scanKeys(this.#timeline, from, to, this.#lsn, (key, size) => {
        const blocks = new DataView(size.buffer, size.byteOffset).getUint32(0, true);
        if (blocks > 0) found.push([objectOf(key), blocks]);
      });
    scan(
      relationSizeKey(0, 0, 0, 0),
      relationSizeKey(U32_MAX, U32_MAX, U32_MAX, 255),
      ({ f2, f3, f4, f5 }) => makeKey(KeyClass.relation, f2, f3, f4, f5, 0),
    );
    scan(
      slruSizeKey(0, 0),
      slruSizeKey(U32_MAX, U32_MAX),
      ({ f2: kind, f3: segno }) => makeKey(KeyClass.slru, kind, 1, segno, 0, 0),
    );
    const changed: [Key, number][] = [];
    for (const [object, blocks] of found) {
      const all = { object, first: 0, end: blocks };
      const isChanged = this.#ifReadable(all, () => this.#isChanged(all));
      if (isChanged === true) changed.push([object, blocks]);
      await this.#slice();
    }
    return changed;
  }

  /** Whether fresh layers have something of these blocks. */
  #isChanged({ object, first, end }: Extent): boolean {
    const key = blockKey(object, first);
    const last = blockKey(object, end);
    return this.#fresh.some((layer) =>
      compareKeys(layer.last, key) >= 0 && compareKeys(layer.first, last) < 0 &&
      layer.reader().entries(key, end, () => true)
    );
  }

  /** What `look` finds in the indexes of layers; harm to them is that of these blocks alone. */
  #ifReadable<T>({ first, end }: Extent, look: () => T): T | undefined {
    try {
      return look();
    } catch (thrown) {
      if (!(thrown instanceof Corrupt)) throw thrown;
      this.#fail(thrown, end - first);
      return undefined;
    }
  }

  /** Looks at an extent, and writes its images if they are due. */
  async #look(extent: Extent): Promise<void> {
    const { object, first, end } = extent;
    await this.#slice();
    const decision = this.#ifReadable(extent, () => this.#decide(extent));
    if (decision === undefined || decision === "none") return;
    for (let block = first; block < end; block++) {
      if (decision === "changed" && this.#chains.chainOf(block) === 0) continue;
      this.#writePage(object, block);
      await this.#slice();
    }
    if (this.#open !== undefined && this.#open.file.length >= this.#order.targetBytes) {
      await this.#finishLayer();
    }
  }

  #decide(extent: Extent): Decision {
    if (!this.#isChanged(extent)) return "none";
    this.#countChains(extent);
    const { imageCreationThreshold, force } = this.#order;
    const decision = this.#chains.decide(imageCreationThreshold, force);
    if (decision === "none") this.#noteScattered();
    return decision;
  }

  #noteScattered(): void {
    for (const [layer, reads] of this.#extentReads) {
      const name = layerFileName(layer);
      this.#scatteredReads.set(name, reads + (this.#scatteredReads.get(name) ?? 0));
    }
  }

  #countChains(extent: Extent): void {
    const chains = this.#chains;
    const key = blockKey(extent.object, extent.first);
    chains.begin(extent);
    this.#extentReads.clear();
    const { finished } = this.#timeline.layers;
    const last = blockKey(extent.object, extent.end);
    for (
      let i = finished.nextInRange(0, key, last, this.#lsn);
      i >= 0 && !chains.isComplete;
      i = finished.nextInRange(i + 1, key, last, this.#lsn)
    ) {
      const { layer, lsnStart, lsnEnd } = finished.visits[i]!;
      const reader = layer.reader();
      this.#records.clear();
      this.#inits.clear();
      let before = 0;
      let scattered = 0;
      reader.entries(key, extent.end, (block, word, lsn) => {
        if (lsn <= lsnStart || lsn > lsnEnd) return false;
        chains.add(block, word);
        const kind = word & KIND_MASK;
        const position = word - kind;
        if (kind === EntryKind.record) this.#records.add(position);
        else if (kind === EntryKind.initRecord) this.#inits.add(position);
        if (Math.abs(position - before) > NEAR_BYTES) scattered++;
        before = position;
        return false;
      });
      if (layer.kind === "delta" && !layer.inKeyOrder) this.#extentReads.set(layer, scattered);
      const lengthOf = (position: number) => reader.blobLength(position);
      chains.endLayer(this.#records.mean(lengthOf), this.#inits.mean(lengthOf));
    }
  }

  #writePage(object: Readonly<Key>, block: number): void {
    if (!this.#collect(object, block)) return;
    let length: number;
    try {
      length = this.#context.rebuild(this.#collected, this.#redoKey, this.#target);
    } catch (thrown) {
      return this.#fail(thrown);
    }
    const { bytes, offset } = this.#target;
    const layer = this.#openLayer();
    const blob = layer.file.appendBlob(bytes, offset, length);
    const { interner } = this.#context.resources;
    const { f1, f2, f3, f4, f5 } = object;
    layer.put(interner.intern(f1, f2, f3, f4, f5), block, this.#lsn, blob + EntryKind.image);
    this.#pages++;
  }

  /** Collects a page; false if there is nothing to be made of it. */
  #collect(object: Readonly<Key>, block: number): boolean {
    const key = this.#key;
    Object.assign(key, blockKey(object, block));
    setRedoKey(this.#redoKey, key);
    const collected = this.#collected;
    try {
      collectPage(this.#timeline, key, this.#lsn, collected, undefined);
    } catch (thrown) {
      if (thrown instanceof Corrupt) this.#fail(thrown);
      // A block that nobody has written, in the middle of a relation, is no failure
      else if (!(thrown instanceof NotFound)) throw thrown;
      return false;
    }
    return collected.recordCount > 0 || collected.imageLsn !== this.#lsn;
  }

  #fail(thrown: unknown, pages = 1): void {
    this.#failedPages += pages;
    this.#firstFailure ??= messageOf(thrown);
  }

  #openLayer(): MemoryLayer {
    if (this.#open !== undefined) return this.#open;
    const { snapshot } = this.#order;
    const path = `${snapshot.directory}/images-${this.#order.number}-${this.#serial++}`;
    const { resources } = this.#context;
    this.#open = new MemoryLayer(`${path}.___temp`, INVALID_LSN, snapshot, resources);
    return this.#open;
  }

  async #finishLayer(): Promise<void> {
    const layer = this.#open;
    if (layer === undefined) return;
    const { snapshot } = this.#order;
    const { resources, pause, onLayer } = this.#context;
    const description = await writeLayerFile({
      kind: "image",
      owner: snapshot,
      generation: snapshot.generation,
      lsnStart: (this.#lsn - 1) as Lsn,
      lsnEnd: this.#lsn,
      file: layer.file,
      index: layer.index,
      interner: resources.interner,
      pause,
    });
    this.#open = undefined;
    layer.file.closeWriter();
    resources.files.release(layer.file.file);
    this.#layers++;
    this.#bytes += description.sizeBytes;
    await onLayer({ layer: description, temporaryPath: layer.file.file.path });
  }

  async #slice(): Promise<void> {
    if (++this.#sincePause < SLICE_STEPS) return;
    this.#sincePause = 0;
    await this.#context.pause();
  }
}
