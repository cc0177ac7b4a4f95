/**
 * Pages of a GiST index (PostgreSQL 17, gist.h).
 *
 *   special space, 16 bytes: 0 NSN (high u32, low u32), 8 right link u32, 12 flags u16,
 *     14 page id u16
 *   a deleted page has instead of items, from byte 24: until which transaction it must not be
 *     reused u64
 *
 * The NSN (node sequence number) is the LSN of the page's last split. A scan that came from the
 * parent before that LSN must follow the right link, and so must every scan while the flag
 * "follow right" says that the parent does not know of the new right page yet.
 */
import { PAGE_SIZE } from "../../libs/postgres/constants.ts";
import { pageSpecial } from "../../libs/postgres/page.ts";
import { initPage } from "./page_items.ts";
import { fault } from "./redo_fault.ts";
import type { PageTarget } from "./types.ts";

const GIST_SPECIAL_SIZE = 16;
/** Block of the root page, which has no right link. */
export const GIST_ROOT = 0;
/** No such page (InvalidBlockNumber). */
export const NO_RIGHT_LINK = 0xffffffff;

/** Flags of the special space. */
export const GIST_LEAF = 0x01;
export const GIST_DELETED = 0x02;
export const GIST_TUPLES_DELETED = 0x04;
export const GIST_FOLLOW_RIGHT = 0x08;
export const GIST_HAS_GARBAGE = 0x10;

const GIST_PAGE_ID = 0xff81;

/** Position in the slab of the special space. Throws if the page has none of the right size. */
function specialAt(page: PageTarget): number {
  const special = pageSpecial(page.view, page.offset);
  if (special !== PAGE_SIZE - GIST_SPECIAL_SIZE) fault(`not a GiST page: special = ${special}`);
  return page.offset + special;
}

export function gistFlags(page: PageTarget): number {
  return page.view.getUint16(specialAt(page) + 12, true);
}

/** Sets the flags in `set` and clears those in `clear`. */
export function changeGistFlags(page: PageTarget, set: number, clear: number): void {
  page.view.setUint16(specialAt(page) + 12, (gistFlags(page) | set) & ~clear, true);
}

export function setNsn(page: PageTarget, high: number, low: number): void {
  const at = specialAt(page);
  page.view.setUint32(at, high, true);
  page.view.setUint32(at + 4, low, true);
}

/** Makes an empty GiST page (GISTInitBuffer). */
export function initGistPage(page: PageTarget, rightLink: number, flags: number): void {
  initPage(page, GIST_SPECIAL_SIZE);
  const at = specialAt(page);
  page.view.setUint32(at + 8, rightLink, true);
  page.view.setUint16(at + 12, flags, true);
  page.view.setUint16(at + 14, GIST_PAGE_ID, true);
}
