/**
 * Pages of a GIN index (PostgreSQL 17, ginblock.h; the same in 14 to 18): the special space, the
 * metapage, inner pages of posting trees.
 *
 *   special space, 8 bytes: 0 right sibling u32, 4 count u16 (posting items of an inner posting
 *     tree page; heap tuples on a pending list page), 6 flags u16
 *   metapage contents from byte 24: head and tail of the pending list, free bytes in the tail,
 *     pages (u32 each), heap tuples i64, total, entry and data pages (u32 each), 4 bytes padding,
 *     entries i64, version i32, 4 bytes padding; 56 bytes
 *   posting tree page: 24 right bound (a tid, padded to 8 bytes), then from 32 on posting items
 *     (inner page) or compressed lists (leaf, gin_leaf.ts), up to pd_lower
 *   posting item, 10 bytes: 0 child block, 4 greatest tid below it; a block number is two u16, the
 *     high half first, as in a tid
 *
 * An entry tree's pages and pending list pages hold ordinary index tuples (page_items.ts).
 */
import { PAGE_SIZE } from "../../libs/postgres/constants.ts";
import {
  PAGE_HEADER_SIZE,
  pageLower,
  pageSpecial,
  setPageLower,
} from "../../libs/postgres/page.ts";
import { setTidBlock } from "./btree_page.ts";
import { copyBytes, initPage } from "./page_items.ts";
import { fault, require } from "./redo_fault.ts";
import type { PageTarget } from "./types.ts";

/** Flags of the special space. */
export const GIN_DATA = 0x01;
export const GIN_LEAF = 0x02;
export const GIN_DELETED = 0x04;
const GIN_META = 0x08;
export const GIN_LIST = 0x10;
export const GIN_LIST_FULLROW = 0x20;
const GIN_INCOMPLETE_SPLIT = 0x40;
export const GIN_COMPRESSED = 0x80;

/** No such page (InvalidBlockNumber). */
export const NO_BLOCK = 0xffffffff;
/** Offset in a posting tree page of its posting items or lists. */
export const GIN_DATA_START = 32;
/** Size of the special space. */
export const GIN_SPECIAL_SIZE = 8;

const META_SIZE = 56;
const POSTING_ITEM_SIZE = 10;

/** Position in the slab of the special space. Throws if the page has none of the right size. */
function specialAt(page: PageTarget): number {
  const special = pageSpecial(page.view, page.offset);
  if (special !== PAGE_SIZE - GIN_SPECIAL_SIZE) fault(`not a GIN page: special = ${special}`);
  return page.offset + special;
}

export function ginFlags(page: PageTarget): number {
  return page.view.getUint16(specialAt(page) + 6, true);
}

export function setGinFlags(page: PageTarget, flags: number): void {
  page.view.setUint16(specialAt(page) + 6, flags, true);
}

export function setGinRightSibling(page: PageTarget, block: number): void {
  page.view.setUint32(specialAt(page), block, true);
}

/** Posting items of an inner posting tree page; heap tuples on a pending list page (maxoff). */
export function ginCount(page: PageTarget): number {
  return page.view.getUint16(specialAt(page) + 4, true);
}

export function setGinCount(page: PageTarget, count: number): void {
  page.view.setUint16(specialAt(page) + 4, count, true);
}

/** Makes an empty page without right sibling (GinInitPage). */
export function initGinPage(page: PageTarget, flags: number): void {
  initPage(page, GIN_SPECIAL_SIZE);
  setGinFlags(page, flags);
  setGinRightSibling(page, NO_BLOCK);
}

/**
 * Makes the metapage with the contents at `source[at]`, which a record carries as they lie on the
 * page (GinInitMetabuffer).
 */
export function restoreGinMetapage(page: PageTarget, source: Uint8Array, at: number): void {
  initGinPage(page, GIN_META);
  copyBytes(page.bytes, page.offset + PAGE_HEADER_SIZE, source, at, META_SIZE);
  setPageLower(page.view, page.offset, PAGE_HEADER_SIZE + META_SIZE);
}

/** The parent got the downlink: the split of this page is complete. */
export function clearGinIncompleteSplit(page: PageTarget): void {
  setGinFlags(page, ginFlags(page) & ~GIN_INCOMPLETE_SPLIT);
}

/** Throws unless the page belongs to a posting tree, and is a leaf or not as asked. */
export function requirePostingTreePage(page: PageTarget, leaf: boolean): void {
  const flags = ginFlags(page);
  require((flags & GIN_DATA) !== 0, "not a page of a posting tree");
  require(((flags & GIN_LEAF) !== 0) === leaf, "wrong level of a posting tree");
}

/** Where the data of a posting tree page ends, by `bytes` of data (GinDataPageSetDataSize). */
export function setGinDataSize(page: PageTarget, bytes: number): void {
  require(bytes <= PAGE_SIZE - GIN_SPECIAL_SIZE - GIN_DATA_START, "too much data for one page");
  setPageLower(page.view, page.offset, GIN_DATA_START + bytes);
}

/** Bytes of lists on a compressed leaf. Throws if pd_lower is not between start and end. */
export function ginDataSize(page: PageTarget): number {
  const lower = pageLower(page.view, page.offset);
  if (lower < GIN_DATA_START || lower > pageSpecial(page.view, page.offset)) {
    fault(`corrupted page pointers: lower = ${lower}`);
  }
  return lower - GIN_DATA_START;
}

function postingItemAt(page: PageTarget, number: number): number {
  return page.offset + GIN_DATA_START + (number - 1) * POSTING_ITEM_SIZE;
}

/** The count of posting items, checked to fit on the page; `number` must be one of them. */
function checkPostingItem(page: PageTarget, number: number): number {
  const count = ginCount(page);
  require(postingItemAt(page, count + 1) <= specialAt(page), "too many posting items for a page");
  if (number < 1 || number > count) fault(`posting item ${number} of a page with ${count}`);
  return count;
}

/**
 * A child was split: puts the posting item at `source[at]`, for its left half, before item
 * `number`, which then leads to the right half (GinDataPageAddPostingItem).
 */
export function splitPostingItem(
  page: PageTarget,
  number: number,
  rightHalf: number,
  source: Uint8Array,
  at: number,
): void {
  const count = checkPostingItem(page, number);
  const itemAt = postingItemAt(page, number);
  const end = postingItemAt(page, count + 1);
  require(end + POSTING_ITEM_SIZE <= specialAt(page), "no room for a posting item");
  setTidBlock(page.view, itemAt, rightHalf);
  page.bytes.copyWithin(itemAt + POSTING_ITEM_SIZE, itemAt, end);
  copyBytes(page.bytes, itemAt, source, at, POSTING_ITEM_SIZE);
  setGinCount(page, count + 1);
  setGinDataSize(page, (count + 1) * POSTING_ITEM_SIZE);
}

/** Removes posting item `number` (GinPageDeletePostingItem). */
export function deletePostingItem(page: PageTarget, number: number): void {
  const count = checkPostingItem(page, number);
  const itemAt = postingItemAt(page, number);
  page.bytes.copyWithin(itemAt, itemAt + POSTING_ITEM_SIZE, postingItemAt(page, count + 1));
  setGinCount(page, count - 1);
  setGinDataSize(page, (count - 1) * POSTING_ITEM_SIZE);
}
