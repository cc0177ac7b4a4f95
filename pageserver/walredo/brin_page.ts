/**
 * Pages of a BRIN index (PostgreSQL 17, brin_page.h, brin_pageops.c, brin_revmap.c).
 *
 *   special space, 8 bytes: 4 flags u16, 6 type of page u16
 *   metapage contents from byte 24: magic, version, blocks per range, last revmap page (u32 each)
 *   revmap page from byte 24: 1360 entries of 6 bytes, the tid (block high, block low, item: u16
 *     each) of the tuple that summarises a range of heap blocks; pd_lower stays at 24
 *   regular page: tuples as items
 */
import { PAGE_SIZE } from "../../libs/postgres/constants.ts";
import { PAGE_HEADER_SIZE, pageSpecial, setPageLower } from "../../libs/postgres/page.ts";
import { initPage } from "./page_items.ts";
import { fault, require } from "./redo_fault.ts";
import type { PageTarget } from "./types.ts";

const SPECIAL_SIZE = 8;
const FLAGS_IN_SPECIAL = 4;
const TYPE_IN_SPECIAL = 6;

/** Types of page. */
export const BRIN_META_PAGE = 0xf091;
export const BRIN_REVMAP_PAGE = 0xf092;
export const BRIN_REGULAR_PAGE = 0xf093;

/** The only flag: the page is being emptied. Never logged. */
const EVACUATE_PAGE = 1;

const BRIN_MAGIC = 0xa8109cfa;
const META_SIZE = 16;
const TID_SIZE = 6;
const REVMAP_ITEMS = Math.floor((PAGE_SIZE - PAGE_HEADER_SIZE - SPECIAL_SIZE) / TID_SIZE);
const NO_BLOCK_HALF = 0xffff;

/** Position in the slab of the special space. Throws if the page has none of the right size. */
function brinSpecialAt(page: PageTarget): number {
  const special = pageSpecial(page.view, page.offset);
  if (special !== PAGE_SIZE - SPECIAL_SIZE) fault(`not a BRIN page: special = ${special}`);
  return page.offset + special;
}

/** Which type of page this is. */
export function brinPageType(page: PageTarget): number {
  return page.view.getUint16(brinSpecialAt(page) + TYPE_IN_SPECIAL, true);
}

/** Takes away the flag that is never logged. */
export function clearEvacuation(page: PageTarget): void {
  const at = brinSpecialAt(page) + FLAGS_IN_SPECIAL;
  page.view.setUint16(at, page.view.getUint16(at, true) & ~EVACUATE_PAGE, true);
}

/** Makes an empty page of that type (brin_page_init). */
export function initBrinPage(page: PageTarget, type: number): void {
  initPage(page, SPECIAL_SIZE);
  page.view.setUint16(brinSpecialAt(page) + TYPE_IN_SPECIAL, type, true);
}

/** Makes the metapage of an index that has no revmap yet (brin_metapage_init). */
export function initBrinMetapage(page: PageTarget, blocksPerRange: number, version: number): void {
  initBrinPage(page, BRIN_META_PAGE);
  const at = page.offset + PAGE_HEADER_SIZE;
  page.view.setUint32(at, BRIN_MAGIC, true);
  page.view.setUint32(at + 4, version, true);
  page.view.setUint32(at + 8, blocksPerRange, true);
  setPageLower(page.view, page.offset, PAGE_HEADER_SIZE + META_SIZE);
}

/** Notes on the metapage which revmap page is the last one. */
export function setLastRevmapPage(page: PageTarget, block: number): void {
  require(brinPageType(page) === BRIN_META_PAGE, "not the metapage of a BRIN index");
  page.view.setUint32(page.offset + PAGE_HEADER_SIZE + 12, block, true);
  // Metapages made before version 11 have another pd_lower, which would hide their contents.
  setPageLower(page.view, page.offset, PAGE_HEADER_SIZE + META_SIZE);
}

/**
 * Sets the revmap entry of the range with `heapBlock` to item `number` of `block`; `number` 0: the
 * range has no summary (brinSetHeapBlockItemptr).
 */
export function setRangeItem(
  page: PageTarget,
  blocksPerRange: number,
  heapBlock: number,
  block: number,
  number: number,
): void {
  require(brinPageType(page) === BRIN_REVMAP_PAGE, "not a revmap page of a BRIN index");
  require(blocksPerRange > 0, "no blocks per range");
  const item = Math.floor(heapBlock / blocksPerRange) % REVMAP_ITEMS;
  const at = page.offset + PAGE_HEADER_SIZE + TID_SIZE * item;
  page.view.setUint16(at, number === 0 ? NO_BLOCK_HALF : block >>> 16, true);
  page.view.setUint16(at + 2, number === 0 ? NO_BLOCK_HALF : block & 0xffff, true);
  page.view.setUint16(at + 4, number, true);
}
