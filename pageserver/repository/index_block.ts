/**
 * One index block of a layer (layer_format.ts), read in place at an offset of a page slab, and
 * built.
 *
 * The objects of a block are a run-length coding of the first five key fields: object i covers the
 * entries from its first entry up to that of object i + 1. An object that goes on in the next
 * block is repeated there.
 */
import { crc32c } from "../../libs/utils/crc32c.ts";
import { Corrupt } from "../../libs/utils/errors.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import type { Key } from "./key.ts";
import {
  BLOCK_ITEM_BYTES,
  BLOCK_ITEMS,
  BLOCK_ITEMS_MAX,
  CACHE_PAGE_BYTES,
  readLsn,
  writeLsn,
} from "./layer_format.ts";

/** Objects in the block at `block`. */
export function blockObjects(view: DataView, block: number): number {
  return view.getUint16(block + 8, true);
}

/** Entries in the block at `block`. */
export function blockEntries(view: DataView, block: number): number {
  return view.getUint16(block + 10, true);
}

/**
 * The number of the first entry of object `object`; the number of entries for the one past the
 * last.
 */
export function objectFirstEntry(view: DataView, block: number, object: number): number {
  if (object === blockObjects(view, block)) return blockEntries(view, block);
  return view.getUint16(block + BLOCK_ITEMS + object * BLOCK_ITEM_BYTES + 2, true);
}

/** The offset of an entry: u32 f6, u32 word, u64 LSN. */
export function entryOffset(view: DataView, block: number, entry: number): number {
  return block + BLOCK_ITEMS + (blockObjects(view, block) + entry) * BLOCK_ITEM_BYTES;
}

/** Reads f1..f5 of object `object` into `out`. */
export function readObject(view: DataView, block: number, object: number, out: Key): void {
  const at = block + BLOCK_ITEMS + object * BLOCK_ITEM_BYTES;
  out.f1 = view.getUint8(at);
  out.f5 = view.getUint8(at + 1);
  out.f2 = view.getUint32(at + 4, true);
  out.f3 = view.getUint32(at + 8, true);
  out.f4 = view.getUint32(at + 12, true);
}

function compareObject(view: DataView, at: number, key: Key): number {
  return view.getUint8(at) - key.f1 || view.getUint32(at + 4, true) - key.f2 ||
    view.getUint32(at + 8, true) - key.f3 || view.getUint32(at + 12, true) - key.f4 ||
    view.getUint8(at + 1) - key.f5;
}

/** The number of the object with the key's first five fields, or -1. */
export function findObject(view: DataView, block: number, key: Key): number {
  let low = 0;
  let high = blockObjects(view, block) - 1;
  while (low <= high) {
    const middle = (low + high) >>> 1;
    const order = compareObject(view, block + BLOCK_ITEMS + middle * BLOCK_ITEM_BYTES, key);
    if (order === 0) return middle;
    if (order < 0) low = middle + 1;
    else high = middle - 1;
  }
  return -1;
}

/** The last entry in [start, end) at or before (f6, lsn), or start - 1. Of equal ones the last. */
export function findEntry(
  view: DataView,
  block: number,
  start: number,
  end: number,
  f6: number,
  lsn: Lsn,
): number {
  let low = start;
  let high = end;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const at = entryOffset(view, block, middle);
    const order = view.getUint32(at, true) - f6 || readLsn(view, at + 8) - lsn;
    if (order <= 0) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** Throws Corrupt unless the block at `block` of `bytes` is index block `number` and unharmed. */
export function checkBlock(
  bytes: Uint8Array,
  view: DataView,
  block: number,
  number: number,
  path: string,
): void {
  const crc = crc32c(bytes.subarray(block + 4, block + CACHE_PAGE_BYTES));
  const items = blockObjects(view, block) + blockEntries(view, block);
  if (
    view.getUint32(block, true) !== crc || view.getUint32(block + 4, true) !== number ||
    items > BLOCK_ITEMS_MAX
  ) {
    throw new Corrupt(
      `Cannot read layer file "${path}": checksum mismatch in index block ${number}`,
    );
  }
}

/** Fills one block at a time. */
export class IndexBlockBuilder {
  readonly #objects = new Uint8Array(CACHE_PAGE_BYTES);
  readonly #objectView = new DataView(this.#objects.buffer);
  readonly #entries = new Uint8Array(CACHE_PAGE_BYTES);
  readonly #entryView = new DataView(this.#entries.buffer);
  #objectCount = 0;
  #entryCount = 0;

  /** Nothing was added since the last finish(). */
  get isEmpty(): boolean {
    return this.#entryCount === 0;
  }

  /** Whether one more entry fits, with its object if that is not the block's last. */
  hasRoom(newObject: boolean): boolean {
    return this.#objectCount + this.#entryCount + (newObject ? 2 : 1) <= BLOCK_ITEMS_MAX;
  }

  /** Begins the entries of f1..f5 of `key`. */
  addObject(key: Key): void {
    const at = this.#objectCount++ * BLOCK_ITEM_BYTES;
    const view = this.#objectView;
    view.setUint8(at, key.f1);
    view.setUint8(at + 1, key.f5);
    view.setUint16(at + 2, this.#entryCount, true);
    view.setUint32(at + 4, key.f2, true);
    view.setUint32(at + 8, key.f3, true);
    view.setUint32(at + 12, key.f4, true);
  }

  /** Adds an entry of the last object. */
  addEntry(f6: number, lsn: number, word: number): void {
    const at = this.#entryCount++ * BLOCK_ITEM_BYTES;
    this.#entryView.setUint32(at, f6, true);
    this.#entryView.setUint32(at + 4, word, true);
    writeLsn(this.#entryView, at + 8, lsn);
  }

  /** Writes the block, numbered `number`, into out[at, at + 8192) and empties the builder. */
  finish(number: number, out: Uint8Array, at: number): void {
    const view = new DataView(out.buffer, out.byteOffset + at, CACHE_PAGE_BYTES);
    const objectBytes = this.#objectCount * BLOCK_ITEM_BYTES;
    const entryBytes = this.#entryCount * BLOCK_ITEM_BYTES;
    view.setUint32(4, number, true);
    view.setUint16(8, this.#objectCount, true);
    view.setUint16(10, this.#entryCount, true);
    view.setUint32(12, 0, true);
    out.set(this.#objects.subarray(0, objectBytes), at + BLOCK_ITEMS);
    out.set(this.#entries.subarray(0, entryBytes), at + BLOCK_ITEMS + objectBytes);
    out.fill(0, at + BLOCK_ITEMS + objectBytes + entryBytes, at + CACHE_PAGE_BYTES);
    view.setUint32(0, crc32c(out.subarray(at + 4, at + CACHE_PAGE_BYTES)), true);
    this.#objectCount = 0;
    this.#entryCount = 0;
  }
}
