/**
 * Line pointers and items of a PostgreSQL page, as storage/page/bufpage.c treats them.
 *
 *     0   pd_lsn, pd_checksum, pd_flags          24        pd_lower      pd_upper     pd_special
 *     +------------------------------------------+-----------+-------------+------------+---------+
 *     | header (24 bytes)                        | pointers> | free space  | <items     | special |
 *     +------------------------------------------+-----------+-------------+------------+---------+
 *
 * A line pointer is one little-endian 32-bit word: item offset (bits 0..14), state (15..16), item
 * length (17..31). Offset numbers count from 1. Items start at multiples of 8.
 *
 * Everything works in place on a slot of a slab, `page.offset` being the slot's start. Offsets
 * that come from the page or from a record are checked against the 8192 bytes of the slot before
 * they are used: a wrong one must fail, not write into the neighbouring slot.
 */
import { PAGE_SIZE } from "../../libs/postgres/constants.ts";
import {
  PAGE_HEADER_SIZE,
  pageFlags,
  pageLower,
  pagePruneXid,
  pageSpecial,
  pageUpper,
  setPageFlags,
  setPageLower,
  setPageLsn,
  setPagePruneXid,
  setPageSpecial,
  setPageUpper,
} from "../../libs/postgres/page.ts";
import { xidPrecedes } from "../../libs/postgres/xid.ts";
import { type Lsn, lsnHigh, lsnLow } from "../../libs/utils/lsn.ts";
import { fault, require } from "./redo_fault.ts";
import type { PageTarget } from "./types.ts";

/** Size of one line pointer. */
export const LINE_POINTER_SIZE = 4;
/** Most line pointers on a heap page (MaxHeapTuplesPerPage). */
export const HEAP_ITEMS_MAX = 291;
/** Most items on an index page (MaxIndexTuplesPerPage), rounded up. */
export const PAGE_ITEMS_MAX = 2042;

/** Line pointer states. */
export const LP_UNUSED = 0;
export const LP_NORMAL = 1;
export const LP_REDIRECT = 2;
export const LP_DEAD = 3;

/** Bits of pd_flags. */
export const PD_HAS_FREE_LINES = 1;
export const PD_ALL_VISIBLE = 4;

const PD_SIZE_VERSION = 18;
/** PageSetPageSizeAndVersion: 8192 | layout version 4. */
const SIZE_AND_VERSION = PAGE_SIZE | 4;

/** `length` rounded up to a multiple of 8 (MAXALIGN). */
export function maxAlign(length: number): number {
  return (length + 7) & ~7;
}

/** Item offset of a line pointer word; of a redirect: the offset number it leads to. */
export function pointerOffset(pointer: number): number {
  return pointer & 0x7fff;
}

/** State of a line pointer word. */
export function pointerState(pointer: number): number {
  return (pointer >>> 15) & 3;
}

/** Item length of a line pointer word, in bytes. */
export function pointerLength(pointer: number): number {
  return pointer >>> 17;
}

/** Builds a line pointer word. */
export function makePointer(offset: number, state: number, length: number): number {
  return ((length << 17) | (state << 15) | offset) >>> 0;
}

/** Sets or clears bits of pd_flags. */
export function setPageFlag(page: PageTarget, flag: number, on: boolean): void {
  const flags = pageFlags(page.view, page.offset);
  setPageFlags(page.view, page.offset, on ? flags | flag : flags & ~flag);
}

/**
 * Notes that transaction `xid` left something to prune: pd_prune_xid becomes the older of both
 * (PageSetPrunable). A hint, but redo keeps it as PostgreSQL does.
 */
export function setPagePrunable(page: PageTarget, xid: number): void {
  const current = pagePruneXid(page.view, page.offset);
  if (current === 0 || xidPrecedes(xid, current)) setPagePruneXid(page.view, page.offset, xid);
}

/** Notes that there is nothing to prune (PageClearPrunable). */
export function clearPagePrunable(page: PageTarget): void {
  setPagePruneXid(page.view, page.offset, 0);
}

/** Makes an empty page with `specialSize` bytes (a multiple of 8) of special space (PageInit). */
export function initPage(page: PageTarget, specialSize: number): void {
  const { view, offset } = page;
  page.bytes.fill(0, offset, offset + PAGE_SIZE);
  setPageLower(view, offset, PAGE_HEADER_SIZE);
  setPageUpper(view, offset, PAGE_SIZE - specialSize);
  setPageSpecial(view, offset, PAGE_SIZE - specialSize);
  view.setUint16(offset + PD_SIZE_VERSION, SIZE_AND_VERSION, true);
}

/** Throws unless 24 <= pd_lower <= pd_upper <= pd_special <= 8192. */
export function checkPageBounds(page: PageTarget): void {
  const lower = pageLower(page.view, page.offset);
  const upper = pageUpper(page.view, page.offset);
  const special = pageSpecial(page.view, page.offset);
  if (lower < PAGE_HEADER_SIZE || lower > upper || upper > special || special > PAGE_SIZE) {
    fault(`corrupted page pointers: lower = ${lower}, upper = ${upper}, special = ${special}`);
  }
}

/**
 * Count of line pointers (PageGetMaxOffsetNumber); 0 for a page that was never initialised. Throws
 * if they would reach beyond the page.
 */
export function itemCount(page: PageTarget): number {
  const lower = pageLower(page.view, page.offset);
  if (lower > PAGE_SIZE) fault(`corrupted page pointers: lower = ${lower}`);
  return lower <= PAGE_HEADER_SIZE ? 0 : (lower - PAGE_HEADER_SIZE) >> 2;
}

/** Position in the slab of the line pointer of item `number` (not checked). */
export function pointerAt(page: PageTarget, number: number): number {
  return page.offset + PAGE_HEADER_SIZE + (number - 1) * LINE_POINTER_SIZE;
}

/** Line pointer word of item `number`. Throws unless 1 <= number <= itemCount. */
export function getPointer(page: PageTarget, number: number): number {
  if (number < 1 || number > itemCount(page)) {
    fault(`item ${number} of a page with ${itemCount(page)} items`);
  }
  return page.view.getUint32(pointerAt(page, number), true);
}

/** Overwrites the line pointer of item `number`. Throws unless 1 <= number <= itemCount. */
export function setPointer(page: PageTarget, number: number, pointer: number): void {
  getPointer(page, number);
  page.view.setUint32(pointerAt(page, number), pointer, true);
}

/**
 * Position in the slab of the data that `pointer` leads to. Throws unless it lies between the line
 * pointers and the special space and holds at least `lengthMin` bytes.
 */
export function itemPosition(page: PageTarget, pointer: number, lengthMin: number): number {
  const offset = pointerOffset(pointer);
  const length = pointerLength(pointer);
  const end = offset + length;
  const special = pageSpecial(page.view, page.offset);
  if (length < lengthMin || offset < PAGE_HEADER_SIZE || end > special || end > PAGE_SIZE) {
    fault(`corrupted line pointer: offset = ${offset}, size = ${length}`);
  }
  return page.offset + offset;
}

/**
 * Makes room for an item of `size` bytes and points line pointer `number` at it; the caller writes
 * the bytes. Returns the item's position in the slab (PageAddItemExtended without the copy).
 *
 * With `overwrite` (heap) the line pointer must be unused or the next one; without it (indexes)
 * later line pointers move up by one. Throws when it does not fit.
 */
export function reserveItem(
  page: PageTarget,
  number: number,
  size: number,
  overwrite: boolean,
): number {
  checkPageBounds(page);
  const limit = itemCount(page) + 1;
  if (number < 1 || number > limit) fault(`item ${number} beyond the next free one, ${limit}`);
  const at = pointerAt(page, number);
  let lower = pageLower(page.view, page.offset);
  if (number < limit && overwrite) {
    const old = page.view.getUint32(at, true);
    require(pointerState(old) === LP_UNUSED && pointerLength(old) === 0, "item is in use already");
  } else {
    lower += LINE_POINTER_SIZE;
  }
  const upper = pageUpper(page.view, page.offset) - maxAlign(size);
  if (lower > upper) fault(`no room for an item of ${size} bytes`);
  if (number < limit && !overwrite) {
    page.bytes.copyWithin(at + LINE_POINTER_SIZE, at, pointerAt(page, limit));
  }
  page.view.setUint32(at, makePointer(upper, LP_NORMAL, size), true);
  setPageLower(page.view, page.offset, lower);
  setPageUpper(page.view, page.offset, upper);
  return page.offset + upper;
}

/**
 * Copies up to this many bytes byte by byte; above, `set` is faster although it makes an object.
 */
const COPY_LOOP_BYTES_MAX = 32;

/** Copies between two arrays, or within one as memmove does. */
export function copyBytes(
  target: Uint8Array,
  targetAt: number,
  source: Uint8Array,
  sourceAt: number,
  length: number,
): void {
  if (sourceAt + length > source.length || targetAt + length > target.length || length < 0) {
    fault(`copy of ${length} bytes beyond the end of its buffer`);
  }
  if (target === source) {
    target.copyWithin(targetAt, sourceAt, sourceAt + length);
  } else if (length <= COPY_LOOP_BYTES_MAX) {
    for (let i = 0; i < length; i++) target[targetAt + i] = source[sourceAt + i]!;
  } else {
    target.set(source.subarray(sourceAt, sourceAt + length), targetAt);
  }
}

/** reserveItem and copy in one: adds `size` bytes found at `source[sourceAt]` as item `number`. */
export function addItem(
  page: PageTarget,
  number: number,
  source: Uint8Array,
  sourceAt: number,
  size: number,
): void {
  const at = reserveItem(page, number, size, false);
  copyBytes(page.bytes, at, source, sourceAt, size);
}

/** Sets pd_lsn to the end of the record that was just applied. */
export function stampLsn(page: PageTarget, lsn: Lsn): void {
  setPageLsn(page.view, page.offset, lsnHigh(lsn), lsnLow(lsn));
}
