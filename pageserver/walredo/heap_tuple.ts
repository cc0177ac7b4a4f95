/**
 * The header of a heap tuple (HeapTupleHeaderData, htup_details.h), 23 bytes and a null bitmap:
 *
 *   0 t_xmin u32 | 4 t_xmax u32 | 8 t_cid (or xvac) u32 | 12 t_ctid: block high, block low,
 *       item (u16)
 *   18 t_infomask2 u16 | 20 t_infomask u16 | 22 t_hoff u8 | 23 null bitmap ...
 *
 * `at` is always the tuple's position in the slab.
 */
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import {
  copyBytes,
  getPointer,
  HEAP_ITEMS_MAX,
  itemPosition,
  LP_NORMAL,
  pointerState,
  reserveItem,
} from "./page_items.ts";
import { fault, require } from "./redo_fault.ts";
import type { PageTarget } from "./types.ts";

/** Bytes before the null bitmap (SizeofHeapTupleHeader). */
export const TUPLE_HEADER_SIZE = 23;
/** Longest possible tuple (MaxHeapTupleSize). */
const TUPLE_SIZE_MAX = 8160;
/** The part of a tuple's header that is logged (xl_heap_header): infomask2, infomask, hoff. */
export const LOGGED_HEADER_SIZE = 5;

const T_XMIN = 0;
const T_XMAX = 4;
const T_CID = 8;
const T_CTID = 12;
const T_INFOMASK2 = 18;
const T_INFOMASK = 20;
const T_HOFF = 22;

/** Bits of t_infomask. */
const HEAP_XMAX_KEYSHR_LOCK = 0x0010;
const HEAP_COMBOCID = 0x0020;
const HEAP_XMAX_EXCL_LOCK = 0x0040;
const HEAP_XMAX_LOCK_ONLY = 0x0080;
export const HEAP_XMIN_FROZEN = 0x0300;
export const HEAP_XMAX_COMMITTED = 0x0400;
export const HEAP_XMAX_INVALID = 0x0800;
const HEAP_XMAX_IS_MULTI = 0x1000;
const HEAP_MOVED = 0xc000;
const HEAP_LOCK_MASK = HEAP_XMAX_KEYSHR_LOCK | HEAP_XMAX_EXCL_LOCK;
const HEAP_XMAX_BITS = HEAP_XMAX_COMMITTED | HEAP_XMAX_INVALID | HEAP_XMAX_IS_MULTI |
  HEAP_LOCK_MASK | HEAP_XMAX_LOCK_ONLY;

/** Bits of t_infomask2. */
const HEAP_KEYS_UPDATED = 0x2000;
const HEAP_HOT_UPDATED = 0x4000;

/** Bits of the infobits_set byte of lock, delete and update records (heapam_xlog.h). */
const XLHL_XMAX_IS_MULTI = 0x01;
const XLHL_XMAX_LOCK_ONLY = 0x02;
const XLHL_XMAX_EXCL_LOCK = 0x04;
const XLHL_XMAX_KEYSHR_LOCK = 0x08;
const XLHL_KEYS_UPDATED = 0x10;

/**
 * Position of the tuple of item `number`. Throws unless the item is a normal one with a whole
 * header.
 */
export function tupleAt(page: PageTarget, number: number): number {
  const pointer = getPointer(page, number);
  if (pointerState(pointer) !== LP_NORMAL) fault(`item ${number} holds no tuple`);
  return itemPosition(page, pointer, TUPLE_HEADER_SIZE);
}

export function setXmin(view: DataView, at: number, xid: number): void {
  view.setUint32(at + T_XMIN, xid, true);
}

export function setXmax(view: DataView, at: number, xid: number): void {
  view.setUint32(at + T_XMAX, xid, true);
}

/** Sets t_cid, or t_xvac which shares its place. */
export function setCommandId(view: DataView, at: number, cid: number): void {
  view.setUint32(at + T_CID, cid, true);
}

export function infomask(view: DataView, at: number): number {
  return view.getUint16(at + T_INFOMASK, true);
}

export function setInfomask(view: DataView, at: number, bits: number): void {
  view.setUint16(at + T_INFOMASK, bits, true);
}

export function infomask2(view: DataView, at: number): number {
  return view.getUint16(at + T_INFOMASK2, true);
}

export function setInfomask2(view: DataView, at: number, bits: number): void {
  view.setUint16(at + T_INFOMASK2, bits, true);
}

/** Length of the header with null bitmap and padding: where the columns start. */
export function headerLength(view: DataView, at: number): number {
  return view.getUint8(at + T_HOFF);
}

/** Item number in t_ctid. */
export function ctidItem(view: DataView, at: number): number {
  return view.getUint16(at + T_CTID + 4, true);
}

/** Sets t_ctid. A block number is stored as its high and low half. */
export function setCtid(view: DataView, at: number, block: number, item: number): void {
  view.setUint16(at + T_CTID, block >>> 16, true);
  view.setUint16(at + T_CTID + 2, block & 0xffff, true);
  view.setUint16(at + T_CTID + 4, item, true);
}

/** Marks the tuple as not HOT-updated. */
export function clearHotUpdated(view: DataView, at: number): void {
  setInfomask2(view, at, infomask2(view, at) & ~HEAP_HOT_UPDATED);
}

/** Marks the tuple as HOT-updated. */
export function setHotUpdated(view: DataView, at: number): void {
  setInfomask2(view, at, infomask2(view, at) | HEAP_HOT_UPDATED);
}

/** Whether xmax only locks: by its bit, or as a plain exclusive lock of before 9.3. */
export function isOnlyLocked(mask: number): boolean {
  return (mask & HEAP_XMAX_LOCK_ONLY) !== 0 ||
    (mask & (HEAP_XMAX_IS_MULTI | HEAP_LOCK_MASK)) === HEAP_XMAX_EXCL_LOCK;
}

/** Forgets what is known of xmax and sets the bits that a record's infobits_set byte stands for. */
export function replaceXmaxBits(view: DataView, at: number, infobits: number): void {
  let mask = infomask(view, at) & ~(HEAP_XMAX_BITS | HEAP_MOVED);
  if (infobits & XLHL_XMAX_IS_MULTI) mask |= HEAP_XMAX_IS_MULTI;
  if (infobits & XLHL_XMAX_LOCK_ONLY) mask |= HEAP_XMAX_LOCK_ONLY;
  if (infobits & XLHL_XMAX_EXCL_LOCK) mask |= HEAP_XMAX_EXCL_LOCK;
  if (infobits & XLHL_XMAX_KEYSHR_LOCK) mask |= HEAP_XMAX_KEYSHR_LOCK;
  setInfomask(view, at, mask);
  const mask2 = infomask2(view, at) & ~HEAP_KEYS_UPDATED;
  setInfomask2(view, at, infobits & XLHL_KEYS_UPDATED ? mask2 | HEAP_KEYS_UPDATED : mask2);
}

/** Sets cmax to the first command, never a combined one: command ids are not logged. */
export function resetCommandId(view: DataView, at: number): void {
  setCommandId(view, at, 0);
  setInfomask(view, at, infomask(view, at) & ~HEAP_COMBOCID);
}

/**
 * Makes a new tuple as item `number` with `dataLength` bytes after its header, which the caller
 * copies to the returned position + 23. `headerAt` is where infomask2, infomask and hoff are in
 * the record. xmin is the record's transaction, t_ctid the tuple itself.
 */
export function newTuple(
  page: PageTarget,
  number: number,
  dataLength: number,
  cursor: RecordCursor,
  headerAt: number,
  block: number,
): number {
  const size = TUPLE_HEADER_SIZE + dataLength;
  require(dataLength >= 0 && size <= TUPLE_SIZE_MAX, "tuple longer than a page");
  require(number <= HEAP_ITEMS_MAX, "more items than a heap page can have");
  const at = reserveItem(page, number, size, true);
  const { view } = page;
  setXmin(view, at, cursor.xid);
  setXmax(view, at, 0);
  setCommandId(view, at, 0);
  setCtid(view, at, block, number);
  setInfomask2(view, at, cursor.view.getUint16(headerAt, true));
  setInfomask(view, at, cursor.view.getUint16(headerAt + 2, true) & ~HEAP_COMBOCID);
  view.setUint8(at + T_HOFF, cursor.view.getUint8(headerAt + 4));
  return at;
}

/** newTuple whose data is all in the record, right after the logged header at `headerAt`. */
export function insertTuple(
  page: PageTarget,
  number: number,
  dataLength: number,
  cursor: RecordCursor,
  headerAt: number,
  block: number,
): void {
  const at = newTuple(page, number, dataLength, cursor, headerAt, block);
  const from = headerAt + LOGGED_HEADER_SIZE;
  copyBytes(page.bytes, at + TUPLE_HEADER_SIZE, cursor.bytes, from, dataLength);
}
