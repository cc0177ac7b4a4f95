/**
 * Pages and tuples of an SP-GiST index (PostgreSQL 17, spgist_private.h; the same since 14).
 *
 *   special space, 8 bytes: 0 flags u16, 2 redirections u16, 4 placeholders u16, 6 page id u16
 *   inner tuple: 0 state (2 bits), all the same (1), nodes (13), prefix size (16) in a u32;
 *     4 size u16; 8 prefix; then the nodes, each: 0 downlink tid, 6 info u16 (size in the low 13
 *     bits), 8 label
 *   leaf tuple: 0 state (2 bits) and size (30 bits) in a u32; 4 info u16 (number of the next leaf
 *     of the same parent node in the low 14 bits); 6 heap tid; 12 value
 *   dead tuple, 16 bytes: state and size as in a leaf tuple; 6 tid; 12 xid u32
 *
 * Links lead to item numbers, so these must stay: a tuple that moves away or dies leaves a dead
 * tuple in its place. A redirection leads scans that are under way to the new place; when nobody
 * can be under way it becomes a placeholder, whose number the next new tuple takes. "Dead" is the
 * head of a chain of leaves that are all gone, while the parent still leads to it.
 */
import { PAGE_SIZE } from "../../libs/postgres/constants.ts";
import { pageSpecial } from "../../libs/postgres/page.ts";
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import { INDEX_TUPLE_HEADER_SIZE, setTidBlock, tupleLength } from "./btree_page.ts";
import { deleteIndexItems, replaceIndexItem } from "./page_compact.ts";
import {
  addItem,
  getPointer,
  initPage,
  itemCount,
  itemPosition,
  PAGE_ITEMS_MAX,
  pointerLength,
  reserveItem,
} from "./page_items.ts";
import { fault, require } from "./redo_fault.ts";
import type { PageTarget } from "./types.ts";

const SPGIST_SPECIAL_SIZE = 8;
/** Size of a dead tuple, and the least size of every other tuple. */
const DEAD_TUPLE_SIZE = 16;
const INNER_HEADER_SIZE = 8;
const SPGIST_PAGE_ID = 0xff82;
/** No such page, in a tid (InvalidBlockNumber). */
const NO_BLOCK = 0xffffffff;

/** Flags of the special space. */
const SPGIST_LEAF = 0x04;
const SPGIST_NULLS = 0x08;

/** States of a tuple. */
const STATE_MASK = 3;
const REDIRECT = 1;
export const DEAD = 2;
export const PLACEHOLDER = 3;

const NEXT_ITEM_MASK = 0x3fff;

/** Position in the slab of the special space. Throws if the page has none of the right size. */
function specialAt(page: PageTarget): number {
  const special = pageSpecial(page.view, page.offset);
  if (special !== PAGE_SIZE - SPGIST_SPECIAL_SIZE) {
    fault(`not an SP-GiST page: special = ${special}`);
  }
  return page.offset + special;
}

/** Adds to the special space's count of redirections. */
export function countRedirections(page: PageTarget, change: number): void {
  const at = specialAt(page) + 2;
  page.view.setUint16(at, page.view.getUint16(at, true) + change, true);
}

/** Adds to the special space's count of placeholders. */
export function countPlaceholders(page: PageTarget, change: number): void {
  const at = specialAt(page) + 4;
  page.view.setUint16(at, page.view.getUint16(at, true) + change, true);
}

/** Makes an empty page of inner tuples, or of leaves; for keys that are null, or for the others. */
export function initSpgistPage(page: PageTarget, leaf: boolean, nulls: boolean): void {
  initPage(page, SPGIST_SPECIAL_SIZE);
  const at = specialAt(page);
  page.view.setUint16(at, (leaf ? SPGIST_LEAF : 0) | (nulls ? SPGIST_NULLS : 0), true);
  page.view.setUint16(at + 6, SPGIST_PAGE_ID, true);
}

/** Size of the leaf tuple at `at` in a record. Throws unless the record's main data holds it. */
export function leafSize(cursor: RecordCursor, at: number): number {
  return checkedSize(cursor, at, cursor.view.getUint32(at, true) >>> 2);
}

/** Size of the inner tuple at `at` in a record. Throws unless the record's main data holds it. */
export function innerSize(cursor: RecordCursor, at: number): number {
  return checkedSize(cursor, at, cursor.view.getUint16(at + 4, true));
}

function checkedSize(cursor: RecordCursor, at: number, size: number): number {
  const end = cursor.mainOffset + cursor.mainLength;
  if (size < INNER_HEADER_SIZE || at + size > end) fault(`a tuple of ${size} bytes in the record`);
  return size;
}

/** Position in the slab of tuple `number`. Throws unless the item holds at least a header. */
function tupleAt(page: PageTarget, number: number): number {
  return itemPosition(page, getPointer(page, number), INNER_HEADER_SIZE);
}

/** Makes leaf `number` lead to leaf `next` of the same chain (SGLT_SET_NEXTOFFSET). */
export function setNextLeaf(page: PageTarget, number: number, next: number): void {
  const at = tupleAt(page, number) + 4;
  const info = page.view.getUint16(at, true);
  page.view.setUint16(at, (info & ~NEXT_ITEM_MASK) | (next & NEXT_ITEM_MASK), true);
}

/** Replaces tuple `number` by one of another size. */
export function replaceTuple(
  page: PageTarget,
  number: number,
  source: Uint8Array,
  at: number,
  size: number,
): void {
  replaceIndexItem(page, number, source, at, size);
}

/**
 * Adds a tuple as item `number`; if there is one already it must be a placeholder, which goes
 * (addOrReplaceTuple).
 */
export function placeTuple(
  page: PageTarget,
  number: number,
  source: Uint8Array,
  at: number,
  size: number,
): void {
  if (number <= itemCount(page)) {
    const state = page.view.getUint32(tupleAt(page, number), true) & STATE_MASK;
    require(state === PLACEHOLDER, "tuple to be replaced is not a placeholder");
    countPlaceholders(page, -1);
    replaceIndexItem(page, number, source, at, size);
  } else {
    addItem(page, number, source, at, size);
  }
}

/** Makes node `node` of inner tuple `number` lead to an item (spgUpdateNodeLink). */
export function setDownlink(
  page: PageTarget,
  number: number,
  node: number,
  block: number,
  item: number,
): void {
  const { view } = page;
  const pointer = getPointer(page, number);
  const tuple = itemPosition(page, pointer, INNER_HEADER_SIZE);
  const end = tuple + pointerLength(pointer);
  const header = view.getUint32(tuple, true);
  const nodes = (header >>> 3) & 0x1fff;
  if (node >= nodes) fault(`node ${node} of an inner tuple with ${nodes}`);
  let at = tuple + INNER_HEADER_SIZE + (header >>> 16);
  for (let i = 0; i < node && at + INDEX_TUPLE_HEADER_SIZE <= end; i++) at += tupleLength(view, at);
  require(at + INDEX_TUPLE_HEADER_SIZE <= end, "inner tuple is shorter than its nodes");
  setTidBlock(view, at, block);
  view.setUint16(at + 4, item, true);
}

/** Where a redirection leads, and the transaction that others must have seen the end of first. */
export interface Redirection {
  readonly block: number;
  readonly item: number;
  readonly xid: number;
}

/**
 * Adds a dead tuple as item `number` and counts it: a redirection, or one of `state` that leads
 * nowhere (spgFormDeadTuple).
 */
export function addDeadTuple(
  page: PageTarget,
  number: number,
  state: number,
  redirection?: Redirection,
): void {
  const { view } = page;
  const at = reserveItem(page, number, DEAD_TUPLE_SIZE, false);
  view.setUint16(at + 4, 0, true);
  if (redirection !== undefined) {
    view.setUint32(at, (DEAD_TUPLE_SIZE << 2) | REDIRECT, true);
    setTidBlock(view, at + 6, redirection.block);
    view.setUint16(at + 10, redirection.item, true);
    view.setUint32(at + 12, redirection.xid, true);
    countRedirections(page, 1);
  } else {
    view.setUint32(at, (DEAD_TUPLE_SIZE << 2) | state, true);
    clearDeadTid(page, at);
    view.setUint32(at + 12, 0, true);
    if (state === PLACEHOLDER) countPlaceholders(page, 1);
  }
}

/** Makes the tid of the dead tuple at `at` lead nowhere. */
function clearDeadTid(page: PageTarget, at: number): void {
  setTidBlock(page.view, at + 6, NO_BLOCK);
  page.view.setUint16(at + 10, 0, true);
}

/** Makes redirection `number` a placeholder; it keeps its xid. */
export function retireRedirection(page: PageTarget, number: number): void {
  const { view } = page;
  const at = itemPosition(page, getPointer(page, number), DEAD_TUPLE_SIZE);
  const header = view.getUint32(at, true);
  require((header & STATE_MASK) === REDIRECT, "tuple to become a placeholder is no redirection");
  view.setUint32(at, (header & ~STATE_MASK) | PLACEHOLDER, true);
  clearDeadTid(page, at);
}

/**
 * End of a list of `count` item numbers that begins at `at`. Throws if the record ends before it.
 */
export function endOfNumbers(cursor: RecordCursor, at: number, count: number): number {
  const end = at + 2 * count;
  require(end <= cursor.mainOffset + cursor.mainLength, "item numbers beyond the record");
  return end;
}

/** Item numbers in ascending order, and the same as the bytes that deleteIndexItems reads. */
const sorted = new Uint16Array(PAGE_ITEMS_MAX);
const sortedList = new DataView(new ArrayBuffer(2 * PAGE_ITEMS_MAX));

/**
 * Replaces the tuples whose numbers are the `count` u16 at `listAt` by dead tuples of `state`; the
 * one that the list names first by a redirection, if there is one (spgPageIndexMultiDelete).
 */
export function killTuples(
  page: PageTarget,
  cursor: RecordCursor,
  listAt: number,
  count: number,
  state: number,
  redirection?: Redirection,
): void {
  if (count === 0) return;
  require(count <= PAGE_ITEMS_MAX, "more tuples to replace than a page holds");
  const numbers = sorted.subarray(0, count);
  for (let i = 0; i < count; i++) numbers[i] = cursor.view.getUint16(listAt + 2 * i, true);
  const first = numbers[0];
  numbers.sort();
  for (let i = 0; i < count; i++) sortedList.setUint16(2 * i, numbers[i]!, true);
  deleteIndexItems(page, sortedList, 0, count);
  for (const number of numbers) {
    addDeadTuple(page, number, state, number === first ? redirection : undefined);
  }
}
