/**
 * Compressed posting lists of GIN (PostgreSQL 17, ginpostinglist.c; the same in 14 to 18).
 *
 *   0 first tid (block high, block low, item: u16 each), 6 count of bytes u16,
 *   8 the other tids: differences in varbyte encoding; then a zero byte if the count is odd
 *
 * A tid counts as the number block * 2048 + item, at most 43 bits. Varbyte: 7 bits to a byte, the
 * lowest first, the top bit set in all but the last; at most 7 bytes. Both directions must be
 * PostgreSQL's bit for bit: a record that adds tids to a list says only which, and the list is
 * decoded, merged and encoded here.
 *
 * 43 bits are exact in a float, but too many for JavaScript's bit operators, hence the arithmetic.
 * Tids are decoded into Float64Arrays that the caller owns and reuses.
 */
import { PAGE_SIZE } from "../../libs/postgres/constants.ts";
import { tidBlock } from "./btree_page.ts";
import { TID_SIZE } from "./btree_posting.ts";
import { fault, require } from "./redo_fault.ts";

/** Size of a list without its differences. */
export const LIST_HEADER_SIZE = 8;
/** Tids that a list of one page can hold, and with room to spare: one byte each. */
export const LIST_TIDS_MAX = PAGE_SIZE;

const COUNT_AT = TID_SIZE;
const ITEMS_PER_BLOCK = 2048;
const TID_LIMIT = 0x100000000 * ITEMS_PER_BLOCK;
const VARBYTE_BYTES_MAX = 7;

/** Size in bytes of the list at `at`, with its padding (SizeOfGinPostingList). */
export function listSize(view: DataView, at: number): number {
  const bytes = view.getUint16(at + COUNT_AT, true);
  return LIST_HEADER_SIZE + bytes + (bytes & 1);
}

function readTid(view: DataView, at: number): number {
  const item = view.getUint16(at + 4, true);
  require(item > 0 && item < ITEMS_PER_BLOCK, "tid without a proper item number");
  return tidBlock(view, at) * ITEMS_PER_BLOCK + item;
}

/** Reads `count` uncompressed tids at `at`; they must fit into `into`. */
export function readTids(view: DataView, at: number, count: number, into: Float64Array): void {
  if (count > into.length) fault(`${count} tids are too many`);
  for (let i = 0; i < count; i++) into[i] = readTid(view, at + i * TID_SIZE);
}

/** Decodes the list at `at` (ginPostingListDecode); returns how many tids it holds. */
export function decodeList(view: DataView, at: number, into: Float64Array): number {
  let value = readTid(view, at);
  into[0] = value;
  let count = 1;
  let from = at + LIST_HEADER_SIZE;
  const end = from + view.getUint16(at + COUNT_AT, true);
  while (from < end) {
    let delta = 0;
    let scale = 1;
    let byte = 0x80;
    for (const last = from + VARBYTE_BYTES_MAX; byte >= 0x80; scale *= 0x80) {
      require(from < end && from < last, "posting list ends within a number");
      byte = view.getUint8(from++);
      delta += (byte & 0x7f) * scale;
    }
    value += delta;
    require(delta > 0 && value < TID_LIMIT, "posting list is out of order");
    require(count < into.length, "posting list has too many tids");
    into[count++] = value;
  }
  return count;
}

/**
 * Encodes `count` ascending tids, at least one, as the list at the start of `target`
 * (ginCompressPostingList); returns its size. Throws if they do not fit.
 */
export function encodeList(tids: Float64Array, count: number, target: Uint8Array): number {
  let previous = tids[0]!;
  const block = Math.floor(previous / ITEMS_PER_BLOCK);
  writeWord(target, 0, block >>> 16);
  writeWord(target, 2, block & 0xffff);
  writeWord(target, 4, previous % ITEMS_PER_BLOCK);
  let at = LIST_HEADER_SIZE;
  for (let i = 1; i < count; i++) {
    const tid = tids[i]!;
    let delta = tid - previous;
    require(delta > 0, "tids of a posting list are out of order");
    previous = tid;
    for (; delta > 0x7f; delta = Math.floor(delta / 0x80)) target[at++] = 0x80 | (delta % 0x80);
    target[at++] = delta;
    require(at <= target.length, "posting list is too long");
  }
  writeWord(target, COUNT_AT, at - LIST_HEADER_SIZE);
  if (at & 1) target[at++] = 0;
  require(at <= target.length, "posting list is too long");
  return at;
}

function writeWord(target: Uint8Array, at: number, word: number): void {
  target[at] = word & 0xff;
  target[at + 1] = word >>> 8;
}

/**
 * Merges two ascending runs, of `countA` and `countB` tids; one that is in both counts once
 * (ginMergeItemPointers). `into` must have room for both together. Returns the count.
 */
export function mergeTids(
  a: Float64Array,
  countA: number,
  b: Float64Array,
  countB: number,
  into: Float64Array,
): number {
  require(countA + countB <= into.length, "too many tids to merge");
  let fromA = 0;
  let fromB = 0;
  let count = 0;
  while (fromA < countA && fromB < countB) {
    const tidA = a[fromA]!;
    const tidB = b[fromB]!;
    if (tidA <= tidB) fromA++;
    if (tidB <= tidA) fromB++;
    into[count++] = Math.min(tidA, tidB);
  }
  while (fromA < countA) into[count++] = a[fromA++]!;
  while (fromB < countB) into[count++] = b[fromB++]!;
  return count;
}
