/**
 * Which pages get an image, so that reading them takes one value instead of a chain of records.
 *
 * Pure. The unit of decision is an extent, EXTENT_BLOCKS neighbouring blocks of a relation fork or
 * of an SLRU segment (a page of pg_xact has a record for each of 32768 transactions).
 * The chain of a block is what a read of it has to collect from the timeline's own delta layers:
 * the records down to its newest image, or to one that rebuilds the page. (What lies further down,
 * in an ancestor, is there already and is not copied for its own sake.)
 *
 *   written   all blocks, if at least half of them have a chain: neighbours are read together.
 *             Else those that have one: the rest is found where it is.
 *   due       if the chains' records have at least 1/2 of the bytes of the images to be written, or
 *             at least 1/16 and they lie in image_creation_threshold or more delta layers
 *
 * So reads get shorter where they were long, and what is written is in proportion to what came:
 * 2 bytes for each byte of records where they are dense, 16 at most where they are thin, and a
 * record pays once, because its image ends its chain.
 */
import { PAGE_SIZE } from "../../libs/postgres/constants.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import type { Key } from "../repository/key.ts";
import { EntryKind, KIND_MASK, type LayerDescription } from "../repository/layer_format.ts";

/** Blocks of an extent: 8 MiB. */
export const EXTENT_BLOCKS = 1024;
/** Bytes of images for one byte of records that lie in few layers. */
const DENSE_COST = 2;
/** Bytes of images for one byte of records that lie in many layers. */
const DEEP_COST = 16;
/** Numbers that a Sample keeps: an even one. */
const SAMPLE_MAX = 16;
/** Bytes of new delta layers that are worth a look however few they are. */
const LOOK_BYTES_MIN = 16 * 1024 * 1024;

/** Blocks [first, end) of the relation fork or SLRU segment whose block 0 has the key `object`. */
export interface Extent {
  readonly object: Readonly<Key>;
  readonly first: number;
  readonly end: number;
}

/** What is to be written of an extent: none of its blocks, those with a chain, or all. */
export type Decision = "none" | "changed" | "all";

/** The extents of an object of `blocks` blocks, ascending. */
export function* extentsOf(object: Readonly<Key>, blocks: number): Generator<Extent> {
  for (let first = 0; first < blocks; first += EXTENT_BLOCKS) {
    yield { object, first, end: Math.min(blocks, first + EXTENT_BLOCKS) };
  }
}

/**
 * Whether new layers may have made an extent due. `layers` are newest first; what is in those up to
 * `after` was looked at already.
 */
export function isWorthALook(
  layers: readonly LayerDescription[],
  after: Lsn,
  imageCreationThreshold: number,
): boolean {
  let count = 0;
  let bytes = 0;
  for (const { kind, lsnEnd, sizeBytes } of layers) {
    if (lsnEnd <= after) return false;
    if (kind === "image") continue;
    bytes += sizeBytes;
    if (++count >= imageCreationThreshold || bytes >= LOOK_BYTES_MIN) return true;
  }
  return false;
}

/**
 * The chains of one extent's blocks. Feed it the entries of each layer, newest layer first and
 * within it by block, then LSN; end each layer with endLayer(). Reused for all extents.
 */
export class ChainCounter {
  readonly #chain = new Uint32Array(EXTENT_BLOCKS);
  readonly #settled = new Uint8Array(EXTENT_BLOCKS);
  #first = 0;
  #blocks = 0;
  #unsettled = 0;
  #changed = 0;
  #recordBytes = 0;
  #deltaLayers = 0;
  // Of the layer that is being fed: the block, its records since the last base, and the sum
  #block = -1;
  #run = 0;
  #hasBase = false;
  #isInit = false;
  #layerRecords = 0;
  #layerInits = 0;

  /** Begins an extent. */
  begin({ first, end }: Extent): void {
    this.#first = first;
    this.#blocks = end - first;
    this.#chain.fill(0);
    this.#settled.fill(0);
    this.#unsettled = this.#blocks;
    this.#changed = 0;
    this.#recordBytes = 0;
    this.#deltaLayers = 0;
  }

  /** Blocks with a chain. */
  get changed(): number {
    return this.#changed;
  }

  /** Every block's base is known: older layers have nothing to add. */
  get isComplete(): boolean {
    return this.#unsettled === 0;
  }

  /** The next entry of the layer. */
  add(block: number, word: number): void {
    if (block !== this.#block) this.#endBlock();
    this.#block = block;
    const kind = word & KIND_MASK;
    if (kind === EntryKind.record) {
      this.#run++;
      return;
    }
    this.#hasBase = true;
    this.#run = 0;
    this.#isInit = kind === EntryKind.initRecord;
  }

  /**
   * Ends a layer. On average its records of this extent have so many bytes: those that need the
   * page as it was, and those that rebuild it.
   */
  endLayer(bytesPerRecord: number, bytesPerInit: number): void {
    this.#endBlock();
    if (this.#layerRecords + this.#layerInits > 0) this.#deltaLayers++;
    this.#recordBytes += this.#layerRecords * bytesPerRecord + this.#layerInits * bytesPerInit;
    this.#layerRecords = 0;
    this.#layerInits = 0;
  }

  /** What is to be written of the extent. */
  decide(imageCreationThreshold: number, force: boolean): Decision {
    if (this.#changed === 0) return "none";
    const all = this.#changed * 2 >= this.#blocks;
    const imageBytes = (all ? this.#blocks : this.#changed) * PAGE_SIZE;
    const isDense = this.#recordBytes * DENSE_COST >= imageBytes;
    const isDeep = this.#deltaLayers >= imageCreationThreshold &&
      this.#recordBytes * DEEP_COST >= imageBytes;
    if (!force && !isDense && !isDeep) return "none";
    return all ? "all" : "changed";
  }

  /** Records in the chain of a block. */
  chainOf(block: number): number {
    return this.#chain[block - this.#first]!;
  }

  /** What a layer has of a block is complete: it counts unless a newer layer had the base. */
  #endBlock(): void {
    if (this.#block < 0) return;
    const at = this.#block - this.#first;
    if (this.#settled[at] === 0) {
      const inits = this.#isInit ? 1 : 0;
      if (this.#run + inits > 0 && this.#chain[at] === 0) this.#changed++;
      this.#chain[at]! += this.#run + inits;
      this.#layerRecords += this.#run;
      this.#layerInits += inits;
      if (this.#hasBase) {
        this.#settled[at] = 1;
        this.#unsettled--;
      }
    }
    this.#block = -1;
    this.#run = 0;
    this.#hasBase = false;
    this.#isInit = false;
  }
}

/**
 * A few of many numbers that come one by one, evenly spread over all of them: every first, second,
 * fourth, ... is kept.
 */
export class Sample {
  readonly #kept: number[] = [];
  #seen = 0;
  #stride = 1;

  /** Forgets them. */
  clear(): void {
    this.#kept.length = 0;
    this.#seen = 0;
    this.#stride = 1;
  }

  /** The next number. */
  add(value: number): void {
    if (this.#seen++ % this.#stride !== 0) return;
    if (this.#kept.length === SAMPLE_MAX) {
      for (let i = 1; i < SAMPLE_MAX / 2; i++) this.#kept[i] = this.#kept[2 * i]!;
      this.#kept.length = SAMPLE_MAX / 2;
      this.#stride *= 2;
    }
    this.#kept.push(value);
  }

  /** The mean of what `of` says of those that were kept; 0 for none. */
  mean(of: (value: number) => number): number {
    if (this.#kept.length === 0) return 0;
    return this.#kept.reduce((sum, value) => sum + of(value), 0) / this.#kept.length;
  }
}
