/**
 * Posting lists (PostgreSQL 17, nbtdedup.c): one index tuple for many heap tuples with the same
 * key.
 *
 *   0 tid block = offset of the list within the tuple, tid item = count | 0x2000; 6 info | 0x2000
 *   8 key data, padded to a multiple of 8; then count heap tids of 6 bytes, ascending
 *
 * New tuples are put together in a scratch buffer, because they are made from the one they replace.
 */
import { PAGE_SIZE } from "../../libs/postgres/constants.ts";
import {
  INDEX_ALT_TID,
  INDEX_SIZE_MASK,
  INDEX_TUPLE_HEADER_SIZE,
  setTidBlock,
  tidBlock,
  tupleLength,
} from "./btree_page.ts";
import { copyBytes, maxAlign } from "./page_items.ts";
import { fault, require } from "./redo_fault.ts";

/** Size of a heap tid. */
export const TID_SIZE = 6;
/** Most heap tids that one tuple, hence one page, can hold. */
export const TIDS_MAX = Math.floor(PAGE_SIZE / TID_SIZE);

const IS_POSTING = 0x2000;
const COUNT_MASK = 0x0fff;

/** Whether the tuple at `at` has a posting list. */
export function isPosting(view: DataView, at: number): boolean {
  return (view.getUint16(at + 6, true) & INDEX_ALT_TID) !== 0 &&
    (view.getUint16(at + 4, true) & IS_POSTING) !== 0;
}

/** Count of heap tids of the tuple at `at`. */
export function tidCount(view: DataView, at: number): number {
  return isPosting(view, at) ? view.getUint16(at + 4, true) & COUNT_MASK : 1;
}

/** Length of the tuple at `at` without its posting list. */
function keyLength(view: DataView, at: number): number {
  return isPosting(view, at) ? tidBlock(view, at) : tupleLength(view, at);
}

/** Position of the first heap tid. Throws if the list is not inside the tuple. */
export function tidsAt(view: DataView, at: number): number {
  if (!isPosting(view, at)) return at;
  const offset = tidBlock(view, at);
  const end = offset + tidCount(view, at) * TID_SIZE;
  const inside = offset >= INDEX_TUPLE_HEADER_SIZE && end <= tupleLength(view, at);
  require(inside, "posting list reaches beyond its tuple");
  return at + offset;
}

const formed = new Uint8Array(PAGE_SIZE);
const formedView = new DataView(formed.buffer);
/** The tuple made by formPosting; valid until the next call. */
export const formedTuple: Uint8Array = formed;

/**
 * Puts a tuple together from the key of the tuple at `baseAt` and `count` heap tids at
 * `tids[tidsFrom]` (_bt_form_posting); one tid makes a plain tuple. Returns its length; the bytes
 * are in formedTuple.
 */
export function formPosting(
  base: Uint8Array,
  baseView: DataView,
  baseAt: number,
  tids: Uint8Array,
  tidsFrom: number,
  count: number,
): number {
  const key = keyLength(baseView, baseAt);
  const size = count > 1 ? maxAlign(key + count * TID_SIZE) : key;
  if (size > INDEX_SIZE_MASK || count < 1) fault(`posting list of ${count} tids, ${size} bytes`);
  formed.fill(0, 0, size);
  copyBytes(formed, 0, base, baseAt, key);
  const info = formedView.getUint16(6, true) & ~(INDEX_SIZE_MASK | INDEX_ALT_TID);
  formedView.setUint16(6, info | size | (count > 1 ? INDEX_ALT_TID : 0), true);
  if (count > 1) {
    setTidBlock(formedView, 0, key);
    formedView.setUint16(4, count | IS_POSTING, true);
  }
  copyBytes(formed, count > 1 ? key : 0, tids, tidsFrom, count * TID_SIZE);
  return size;
}

/**
 * Splits a posting list in place (_bt_swap_posting): the new tuple's tid, at `newAt`, goes into
 * the list at index `at`, and the list's last tid becomes the new tuple's. No length changes.
 */
export function swapPosting(
  bytes: Uint8Array,
  view: DataView,
  postingAt: number,
  index: number,
  newTuple: Uint8Array,
  newAt: number,
): void {
  const count = tidCount(view, postingAt);
  if (!isPosting(view, postingAt) || index < 1 || index >= count) {
    fault(`posting list with ${count} tids cannot be split at ${index}`);
  }
  const tids = tidsAt(view, postingAt);
  const gap = tids + index * TID_SIZE;
  const last = tids + (count - 1) * TID_SIZE;
  copyBytes(lastTid, 0, bytes, last, TID_SIZE);
  bytes.copyWithin(gap + TID_SIZE, gap, last);
  copyBytes(bytes, gap, newTuple, newAt, TID_SIZE);
  copyBytes(newTuple, newAt, lastTid, 0, TID_SIZE);
}

const lastTid = new Uint8Array(TID_SIZE);
