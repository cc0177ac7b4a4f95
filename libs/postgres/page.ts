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
import { PAGE_SIZE } from "./constants.ts";

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

export function pageChecksumField(view: DataView, offset: number): number {
  return view.getUint16(offset + 8, true);
}

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

const LANES = 32;
const LANE_PRIME = 16777619;

/** Starting values of the 32 lanes (checksumBaseOffsets, storage/checksum_impl.h). */
const LANE_BASES = Uint32Array.of(
  0x5b1f36e9,
  0xb8525960,
  0x02ab50aa,
  0x1de66d2a,
  0x79ff467a,
  0x9bb9f8a3,
  0x217e7cd2,
  0x83e13d2c,
  0xf8d4474f,
  0xe39eb970,
  0x42c6ae16,
  0x993216fa,
  0x7b093b5d,
  0x98daff3c,
  0xf718902a,
  0x0b1c9cdb,
  0xe58f764b,
  0x187636bc,
  0x5d7b3bb1,
  0xe73de7de,
  0x92bec979,
  0xcca6c0b2,
  0x304a0979,
  0x85aa43d4,
  0x783125bb,
  0x6ca8eaa2,
  0xe407eac6,
  0x4b5cfc3e,
  0x9fbf8c76,
  0x15ca20be,
  0xf2ca9fd3,
  0x959bd756,
);

const lanes = new Uint32Array(LANES);

/**
 * The checksum that belongs in pd_checksum of this page at `blockNumber` (counted over the whole
 * fork): 32 interleaved FNV-1a variants over the page with the field itself taken as zero, folded
 * to 1..65535 (pg_checksum_page).
 */
export function pageChecksum(view: DataView, offset: number, blockNumber: number): number {
  lanes.set(LANE_BASES);
  for (let at = 0; at < PAGE_SIZE; at += 4 * LANES) {
    for (let lane = 0; lane < LANES; lane++) {
      let word = view.getUint32(offset + at + 4 * lane, true);
      if (at === 0 && lane === 2) word &= 0xffff0000;
      const mixed = lanes[lane]! ^ word;
      lanes[lane] = Math.imul(mixed, LANE_PRIME) ^ (mixed >>> 17);
    }
  }
  let folded = 0;
  for (let round = 0; round < 2; round++) {
    for (let lane = 0; lane < LANES; lane++) {
      const mixed = lanes[lane]!;
      lanes[lane] = Math.imul(mixed, LANE_PRIME) ^ (mixed >>> 17);
    }
  }
  for (let lane = 0; lane < LANES; lane++) folded ^= lanes[lane]!;
  return ((folded ^ blockNumber) >>> 0) % 65535 + 1;
}
