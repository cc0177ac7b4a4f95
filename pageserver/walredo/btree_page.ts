/**
 * Pages of a btree index (PostgreSQL 17, nbtree.h): the special space, index tuples, the metapage.
 *
 *   special space, 16 bytes: 0 left sibling u32, 4 right sibling u32, 8 level u32, 12 flags u16,
 *     14 vacuum cycle id u16
 *   index tuple: 0 tid (block high, block low, item: u16 each), 6 info u16 (length in the low
 *     13 bits, 0x2000 = the tid means something else), 8 key data; always a multiple of 8 long
 *   metapage contents from byte 24: magic, version, root, level, fastroot, fastlevel, deleted pages
 *     (u32 each), 4 bytes padding, heap tuples f64, allequalimage u8; 48 bytes with padding
 */
import { PAGE_SIZE } from "../../libs/postgres/constants.ts";
import { PAGE_HEADER_SIZE, pageSpecial, setPageLower } from "../../libs/postgres/page.ts";
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import {
  copyBytes,
  getPointer,
  initPage,
  itemCount,
  itemPosition,
  LP_NORMAL,
  makePointer,
  maxAlign,
  PAGE_ITEMS_MAX,
  pointerAt,
  reserveItem,
  stampLsn,
} from "./page_items.ts";
import { setPageUpper } from "../../libs/postgres/page.ts";
import { fault, require } from "./redo_fault.ts";
import type { PageTarget } from "./types.ts";

/** Size of the special space. */
export const BTREE_SPECIAL_SIZE = 16;
/** No such page (P_NONE): the left sibling of the first page, the right one of the last. */
export const NO_PAGE = 0;
/** Size of an index tuple's header. */
export const INDEX_TUPLE_HEADER_SIZE = 8;

/** Flags of the special space. */
export const BTP_LEAF = 0x01;
export const BTP_ROOT = 0x02;
export const BTP_DELETED = 0x04;
const BTP_META = 0x08;
export const BTP_HALF_DEAD = 0x10;
export const BTP_SPLIT_END = 0x20;
export const BTP_HAS_GARBAGE = 0x40;
export const BTP_INCOMPLETE_SPLIT = 0x80;
export const BTP_HAS_FULLXID = 0x100;

/** Bits of an index tuple's info word. */
export const INDEX_SIZE_MASK = 0x1fff;
export const INDEX_ALT_TID = 0x2000;

const BTREE_MAGIC = 0x053162;
const META_SIZE = 48;
const META_RECORD_SIZE = 28;

/** Position in the slab of the special space. Throws if the page has none of the right size. */
export function specialAt(page: PageTarget): number {
  const special = pageSpecial(page.view, page.offset);
  if (special !== PAGE_SIZE - BTREE_SPECIAL_SIZE) fault(`not a btree page: special = ${special}`);
  return page.offset + special;
}

export function setLeftSibling(page: PageTarget, block: number): void {
  page.view.setUint32(specialAt(page), block, true);
}

export function setRightSibling(page: PageTarget, block: number): void {
  page.view.setUint32(specialAt(page) + 4, block, true);
}

function rightSibling(page: PageTarget): number {
  return page.view.getUint32(specialAt(page) + 4, true);
}

export function btreeFlags(page: PageTarget): number {
  return page.view.getUint16(specialAt(page) + 12, true);
}

export function setBtreeFlags(page: PageTarget, flags: number): void {
  page.view.setUint16(specialAt(page) + 12, flags, true);
}

export function setCycleId(page: PageTarget, cycleId: number): void {
  page.view.setUint16(specialAt(page) + 14, cycleId, true);
}

/** Number of the first item that is not the high key: only the rightmost page has none. */
export function firstDataItem(page: PageTarget): number {
  return rightSibling(page) === NO_PAGE ? 1 : 2;
}

/** Makes an empty btree page. */
export function initBtreePage(
  page: PageTarget,
  left: number,
  right: number,
  level: number,
  flags: number,
): void {
  initPage(page, BTREE_SPECIAL_SIZE);
  const at = specialAt(page);
  page.view.setUint32(at, left, true);
  page.view.setUint32(at + 4, right, true);
  page.view.setUint32(at + 8, level, true);
  page.view.setUint16(at + 12, flags, true);
}

/**
 * Length of the index tuple at `at`, from its info word. Throws if it is shorter than its header.
 */
export function tupleLength(view: DataView, at: number): number {
  const length = view.getUint16(at + 6, true) & INDEX_SIZE_MASK;
  require(length >= INDEX_TUPLE_HEADER_SIZE, "index tuple shorter than its header");
  return length;
}

/** Position of the index tuple of item `number`. Throws unless the item has storage. */
export function indexTupleAt(page: PageTarget, number: number): number {
  return itemPosition(page, getPointer(page, number), INDEX_TUPLE_HEADER_SIZE);
}

/** Block number in a tuple's tid: a downlink, the top parent, or a posting list's offset. */
export function tidBlock(view: DataView, at: number): number {
  return view.getUint16(at, true) * 0x10000 + view.getUint16(at + 2, true);
}

export function setTidBlock(view: DataView, at: number, block: number): void {
  view.setUint16(at, block >>> 16, true);
  view.setUint16(at + 2, block & 0xffff, true);
}

/** Adds the dummy high key of a half-dead leaf page, which leads to `topParent`. */
export function addHalfDeadHighKey(page: PageTarget, topParent: number): void {
  const at = reserveItem(page, 1, INDEX_TUPLE_HEADER_SIZE, false);
  setTidBlock(page.view, at, topParent);
  page.view.setUint16(at + 4, 0, true);
  page.view.setUint16(at + 6, INDEX_TUPLE_HEADER_SIZE | INDEX_ALT_TID, true);
}

/**
 * Fills an empty page with logged index tuples (_bt_restore_page): the record holds them as they
 * lay on the page, the last item first, so they go back in one copy.
 */
export function restoreItems(
  page: PageTarget,
  cursor: RecordCursor,
  from: number,
  length: number,
): void {
  const { view } = page;
  let count = 0;
  for (let at = from; at < from + length; at += maxAlign(tupleLength(cursor.view, at))) count++;
  require(count <= PAGE_ITEMS_MAX && itemCount(page) === 0, "page to be restored is not empty");
  const special = pageSpecial(view, page.offset);
  const upper = special - length;
  const lower = pointerAt(page, count + 1) - page.offset;
  if (lower > upper) fault(`${count} items of ${length} bytes do not fit on a page`);
  copyBytes(page.bytes, page.offset + upper, cursor.bytes, from, length);
  let offset = upper;
  for (let number = count; number >= 1; number--) {
    const size = maxAlign(tupleLength(view, page.offset + offset));
    view.setUint32(pointerAt(page, number), makePointer(offset, LP_NORMAL, size), true);
    offset += size;
  }
  require(offset === special, "logged index tuples do not fill their data");
  setPageLower(view, page.offset, lower);
  setPageUpper(view, page.offset, upper);
}

/** Rebuilds the metapage from block data `id` (_bt_restore_meta, xl_btree_metadata). */
export function restoreMetapage(page: PageTarget, cursor: RecordCursor, id: number): void {
  require(cursor.dataLength[id]! >= META_RECORD_SIZE, "metapage data is too short");
  const from = cursor.dataOffset[id]!;
  const record = cursor.view;
  const { view } = page;
  initBtreePage(page, NO_PAGE, NO_PAGE, 0, BTP_META);
  const at = page.offset + PAGE_HEADER_SIZE;
  view.setUint32(at, BTREE_MAGIC, true);
  // version, root, level, fastroot, fastlevel, deleted pages: the same six words in both.
  for (let word = 0; word < 6; word++) {
    view.setUint32(at + 4 + 4 * word, record.getUint32(from + 4 * word, true), true);
  }
  view.setFloat64(at + 32, -1, true);
  view.setUint8(at + 40, record.getUint8(from + 24));
  setPageLower(view, page.offset, PAGE_HEADER_SIZE + META_SIZE);
  stampLsn(page, cursor.endLsn);
}

/** The parent got the downlink: the split of this page is complete (_bt_clear_incomplete_split). */
export function clearIncompleteSplit(page: PageTarget, cursor: RecordCursor): void {
  setBtreeFlags(page, btreeFlags(page) & ~BTP_INCOMPLETE_SPLIT);
  stampLsn(page, cursor.endLsn);
}
