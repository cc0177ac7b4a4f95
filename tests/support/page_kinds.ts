/**
 * What kind of page a page is, judged by its special space, and what two copies of it may differ in
 * besides that which PostgreSQL's own checks mask (walredo/masking.ts).
 */
import { PAGE_SIZE, Rmgr } from "../../libs/postgres/constants.ts";
import type { PageTarget } from "../../pageserver/walredo/types.ts";

/** A sorted GiST build of 14 to 16 writes its pages under this LSN, and logs them afterwards. */
export const GIST_BUILD_LSN = 1;

const PAGE_ID_BRIN_FIRST = 0xf091;
const PAGE_ID_BRIN_LAST = 0xf093;
const PAGE_ID_HASH = 0xff80;
const PAGE_ID_GIST = 0xff81;
const PAGE_ID_SPGIST = 0xff82;
const PAGE_ID_BLOOM = 0xff83;
/**
 * GIN has flags where others have their page id. It has no hints, so that only free space may
 * differ, but for a page deleted from the pending list, of which the server keeps the contents.
 */
const GIN_FLAGS_LIMIT = 0x100;
/** First word of the special space of a sequence (sequence.c, SEQ_MAGIC). */
const SEQUENCE_MAGIC = 0x1717;

const GIST_FOLLOW_RIGHT = 8;
/** Bytes of the SP-GiST metapage behind its magic number, up to pd_lower. */
const SPGIST_CACHE_START = 28;
const SPGIST_CACHE_END = 92;

/** Which mask function a page needs; undefined: none that we have. */
export function resourceManagerOf(page: PageTarget): number | undefined {
  const special = page.view.getUint16(page.offset + 16, true);
  if (special === PAGE_SIZE) return Rmgr.HEAP;
  // Most index types and bloom say in the last two bytes what they are; btree keeps below that.
  const pageId = page.view.getUint16(page.offset + PAGE_SIZE - 2, true);
  if (special === PAGE_SIZE - 16) {
    if (pageId === PAGE_ID_GIST) return Rmgr.GIST;
    return pageId < PAGE_ID_HASH ? Rmgr.BTREE : pageId === PAGE_ID_HASH ? Rmgr.HASH : undefined;
  }
  if (special !== PAGE_SIZE - 8) return undefined;
  if (page.view.getUint32(page.offset + special, true) === SEQUENCE_MAGIC) return Rmgr.SEQ;
  if (pageId === PAGE_ID_BLOOM) return Rmgr.GENERIC;
  if (pageId === PAGE_ID_SPGIST) return Rmgr.SPGIST;
  if (pageId < GIN_FLAGS_LIMIT) return (pageId & 5) === 4 ? Rmgr.GIN : Rmgr.GENERIC;
  return pageId >= PAGE_ID_BRIN_FIRST && pageId <= PAGE_ID_BRIN_LAST ? Rmgr.BRIN : undefined;
}

/** Whether a page is of a bloom index. */
export function isBloomPage(page: Uint8Array): boolean {
  return (page[PAGE_SIZE - 2]! | page[PAGE_SIZE - 1]! << 8) === PAGE_ID_BLOOM;
}

/** What gist_mask hides because the server changes it after writing the record: NSN and a flag. */
export function gistSplitState({ view, offset }: PageTarget): string {
  const at = offset + PAGE_SIZE - 16;
  return `${view.getBigUint64(at)} ${view.getUint16(at + 12, true) & GIST_FOLLOW_RIGHT}`;
}

/** The list of pages with space of an SP-GiST metapage is never logged. */
export function clearSpgistCache({ bytes, offset }: PageTarget): void {
  bytes.fill(0, offset + SPGIST_CACHE_START, offset + SPGIST_CACHE_END);
}
