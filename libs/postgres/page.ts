/**
 * The header of a data page (PageHeaderData, bufpage.h), read and written in place in a slab.
 *
 *   0 pd_lsn (u32 high, u32 low) | 8 pd_checksum u16 | 10 pd_flags u16 | 12 pd_lower u16
 *   14 pd_upper u16 | 16 pd_special u16 | 18 size and layout version u16 | 20 pd_prune_xid u32
 *
 * `offset` is where the page starts in the view. LSNs go in and out as 32-bit halves on hot paths,
 * because that costs no division. SLRU pages have no header and must not be passed here.
 */
import { type Lsn, lsnFromHalves } from "../utils/lsn.ts";

/** Bytes before the line pointers. */
export const PAGE_HEADER_SIZE = 24;

/** The LSN of the last record that changed the page. */
export function pageLsn(view: DataView, offset: number): Lsn {
  return lsnFromHalves(view.getUint32(offset, true), view.getUint32(offset + 4, true));
}

/** Sets pd_lsn from the halves of an LSN. */
export function setPageLsn(view: DataView, offset: number, high: number, low: number): void {
  view.setUint32(offset, high, true);
  view.setUint32(offset + 4, low, true);
}

/** Sets pd_checksum; what belongs there is in page_checksum.ts. */
export function setPageChecksumField(view: DataView, offset: number, checksum: number): void {
  view.setUint16(offset + 8, checksum, true);
}

/** pd_flags: PD_HAS_FREE_LINES 1, PD_PAGE_FULL 2, PD_ALL_VISIBLE 4. */
export function pageFlags(view: DataView, offset: number): number {
  return view.getUint16(offset + 10, true);
}

export function setPageFlags(view: DataView, offset: number, flags: number): void {
  view.setUint16(offset + 10, flags, true);
}

/** End of the line pointers, relative to the page. */
export function pageLower(view: DataView, offset: number): number {
  return view.getUint16(offset + 12, true);
}

export function setPageLower(view: DataView, offset: number, lower: number): void {
  view.setUint16(offset + 12, lower, true);
}

/** Start of the tuples, relative to the page. 0 on a page that was never initialised. */
export function pageUpper(view: DataView, offset: number): number {
  return view.getUint16(offset + 14, true);
}

export function setPageUpper(view: DataView, offset: number, upper: number): void {
  view.setUint16(offset + 14, upper, true);
}

/** Start of the special space, relative to the page. */
export function pageSpecial(view: DataView, offset: number): number {
  return view.getUint16(offset + 16, true);
}

export function setPageSpecial(view: DataView, offset: number, special: number): void {
  view.setUint16(offset + 16, special, true);
}

/** Oldest prunable xid, a hint; 0 = none. */
export function pagePruneXid(view: DataView, offset: number): number {
  return view.getUint32(offset + 20, true);
}

export function setPagePruneXid(view: DataView, offset: number, xid: number): void {
  view.setUint32(offset + 20, xid, true);
}

/** Whether the page was never initialised (PageIsNew: pd_upper is 0). */
export function isNewPage(view: DataView, offset: number): boolean {
  return pageUpper(view, offset) === 0;
}
