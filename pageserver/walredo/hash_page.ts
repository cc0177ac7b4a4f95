/**
 * Pages of a hash index (PostgreSQL 17, hash.h; the same in 14 to 18): the special space, bitmap
 * pages and the metapage.
 *
 *   special space, 16 bytes: 0 previous page u32 (of a bucket's first page: the number of the last
 *     bucket when it was made), 4 next page u32, 8 bucket u32, 12 flags u16, 14 page id u16
 *   bitmap page: one bit per overflow page from byte 24, set = in use
 *   metapage contents from byte 24: 0 magic u32, 4 version u32, 8 tuples f64, 16 fill factor u16,
 *     18 page room u16, 20 bitmap bytes u16, 22 bitmap shift u16, 24 last bucket u32,
 *     28 high mask u32, 32 low mask u32, 36 splitpoint u32, 40 first free overflow page u32,
 *     44 bitmap count u32, 48 hash function u32, 52 overflow pages by splitpoint u32[98],
 *     444 bitmap pages u32[1024]; 4544 bytes with padding
 */
import { PAGE_SIZE } from "../../libs/postgres/constants.ts";
import { PAGE_HEADER_SIZE, pageSpecial, setPageLower } from "../../libs/postgres/page.ts";
import { initPage } from "./page_items.ts";
import { fault, require } from "./redo_fault.ts";
import type { PageTarget } from "./types.ts";

const SPECIAL_SIZE = 16;
const HASH_PAGE_ID = 0xff80;
/** No such block, no such bucket. */
export const NO_BLOCK = 0xffffffff;

/** Flags of the special space: the type of page (none: unused), and hints. */
export const LH_OVERFLOW_PAGE = 0x01;
export const LH_BUCKET_PAGE = 0x02;
const LH_BITMAP_PAGE = 0x04;
const LH_META_PAGE = 0x08;
export const LH_PAGE_TYPE = 0x0f;
export const LH_BUCKET_NEEDS_SPLIT_CLEANUP = 0x40;
export const LH_PAGE_HAS_DEAD_TUPLES = 0x80;

const META_SIZE = 4544;
const HASH_MAGIC = 0x6440640;
const HASH_VERSION = 4;
const SPLITPOINTS_MAX = 98;
const BITMAPS_MAX = 1024;
const SPARES_AT = 52;
const BITMAPS_AT = 444;
/** Room between header and special space, and the largest power of two in it. */
const PAGE_ROOM = PAGE_SIZE - PAGE_HEADER_SIZE - SPECIAL_SIZE;
const BITMAP_BYTES = 4096;
/** log2 of the bits of a bitmap page. */
const BITMAP_SHIFT = 15;
/** More buckets are not made at once, however many tuples are expected. */
const INITIAL_BUCKETS_MAX = 0x40000000;
/** The first doublings happen in one step each, all later ones in four. */
const SINGLE_PHASE_GROUPS = 10;
const PHASE_BITS = 2;

/** The u32 fields of the metapage, as offsets from its contents. */
export const HashMeta = {
  MAX_BUCKET: 24,
  HIGH_MASK: 28,
  LOW_MASK: 32,
  SPLITPOINT: 36,
  FIRST_FREE: 40,
  BITMAP_COUNT: 44,
} as const;

/** Position in the slab of the special space. Throws if the page has none of the right size. */
function hashSpecialAt(page: PageTarget): number {
  const special = pageSpecial(page.view, page.offset);
  if (special !== PAGE_SIZE - SPECIAL_SIZE) fault(`not a hash page: special = ${special}`);
  return page.offset + special;
}

export function setPreviousPage(page: PageTarget, block: number): void {
  page.view.setUint32(hashSpecialAt(page), block, true);
}

export function setNextPage(page: PageTarget, block: number): void {
  page.view.setUint32(hashSpecialAt(page) + 4, block, true);
}

export function hashFlags(page: PageTarget): number {
  return page.view.getUint16(hashSpecialAt(page) + 12, true);
}

export function setHashFlags(page: PageTarget, flags: number): void {
  page.view.setUint16(hashSpecialAt(page) + 12, flags, true);
}

/** Makes an empty page without a next one (_hash_initbuf; flags 0: a freed overflow page). */
export function initHashPage(
  page: PageTarget,
  previous: number,
  bucket: number,
  flags: number,
): void {
  initPage(page, SPECIAL_SIZE);
  setPreviousPage(page, previous);
  setNextPage(page, NO_BLOCK);
  const at = hashSpecialAt(page);
  page.view.setUint32(at + 8, bucket, true);
  page.view.setUint16(at + 14, HASH_PAGE_ID, true);
  setHashFlags(page, flags);
}

/** Makes a bitmap page of `size` bytes on which every page is in use (_hash_initbitmapbuffer). */
export function initBitmapPage(page: PageTarget, size: number): void {
  require(size <= PAGE_ROOM, "overflow bitmap larger than a page");
  initHashPage(page, NO_BLOCK, NO_BLOCK, LH_BITMAP_PAGE);
  const at = page.offset + PAGE_HEADER_SIZE;
  page.bytes.fill(0xff, at, at + size);
  setPageLower(page.view, page.offset, PAGE_HEADER_SIZE + size);
}

/** Marks one overflow page as in use or free on a bitmap page. */
export function setBitmapBit(page: PageTarget, bit: number, used: boolean): void {
  require(bit < PAGE_ROOM * 8, "overflow page bit beyond its bitmap page");
  const at = page.offset + PAGE_HEADER_SIZE + (bit >>> 3);
  const mask = 1 << (bit & 7);
  if (used) page.bytes[at]! |= mask;
  else page.bytes[at]! &= ~mask;
}

/** log2 of `count`, rounded up. */
function ceilLog2(count: number): number {
  return 32 - Math.clz32(count - 1);
}

/** Number of the allocation step that makes the bucket before `buckets` (_hash_spareindex). */
function splitpointOf(buckets: number): number {
  const group = ceilLog2(buckets);
  if (group < SINGLE_PHASE_GROUPS) return group;
  const before = SINGLE_PHASE_GROUPS + ((group - SINGLE_PHASE_GROUPS) << PHASE_BITS);
  const phase = ((buckets - 1) >>> (group - (PHASE_BITS + 1))) & ((1 << PHASE_BITS) - 1);
  return before + phase;
}

/** Buckets there are after allocation step `splitpoint` (_hash_get_totalbuckets). */
function bucketsAfter(splitpoint: number): number {
  if (splitpoint < SINGLE_PHASE_GROUPS) return 2 ** splitpoint;
  const step = splitpoint - SINGLE_PHASE_GROUPS;
  const before = 2 ** (SINGLE_PHASE_GROUPS + (step >> PHASE_BITS) - 1);
  const phases = (step & ((1 << PHASE_BITS) - 1)) + 1;
  return before + (before >> PHASE_BITS) * phases;
}

/** Buckets of a new index that is to hold `tuples` (_hash_init_metabuffer). */
function initialBuckets(tuples: number, fillFactor: number): number {
  const wanted = tuples / fillFactor;
  if (wanted <= 2) return 2;
  if (wanted >= INITIAL_BUCKETS_MAX) return INITIAL_BUCKETS_MAX;
  return bucketsAfter(splitpointOf(Math.trunc(wanted)));
}

/** Makes the metapage of an index for about `tuples` tuples (_hash_init_metabuffer). */
export function initHashMetapage(
  page: PageTarget,
  tuples: number,
  hashFunction: number,
  fillFactor: number,
): void {
  require(fillFactor > 0 && tuples >= 0, "hash index without a fill factor or tuple count");
  initHashPage(page, NO_BLOCK, NO_BLOCK, LH_META_PAGE);
  const { view } = page;
  const at = page.offset + PAGE_HEADER_SIZE;
  const buckets = initialBuckets(tuples, fillFactor);
  const splitpoint = splitpointOf(buckets);
  view.setUint32(at, HASH_MAGIC, true);
  view.setUint32(at + 4, HASH_VERSION, true);
  view.setUint16(at + 16, fillFactor, true);
  view.setUint16(at + 18, PAGE_ROOM, true);
  view.setUint16(at + 20, BITMAP_BYTES, true);
  view.setUint16(at + 22, BITMAP_SHIFT, true);
  const highMask = 2 ** ceilLog2(buckets + 1) - 1;
  setMeta(page, HashMeta.MAX_BUCKET, buckets - 1);
  setMeta(page, HashMeta.HIGH_MASK, highMask);
  setMeta(page, HashMeta.LOW_MASK, highMask >>> 1);
  setMeta(page, HashMeta.SPLITPOINT, splitpoint);
  view.setUint32(at + 48, hashFunction, true);
  setOverflowPages(page, splitpoint, 1);
  setPageLower(view, page.offset, PAGE_HEADER_SIZE + META_SIZE);
}

/** Position in the slab of the metapage's contents. Throws if the page is not a metapage. */
function metaAt(page: PageTarget): number {
  const at = page.offset + PAGE_HEADER_SIZE;
  require(page.view.getUint32(at, true) === HASH_MAGIC, "not the metapage of a hash index");
  return at;
}

/** A field of the metapage, named by HashMeta. */
export function getMeta(page: PageTarget, field: number): number {
  return page.view.getUint32(metaAt(page) + field, true);
}

/** Sets a field of the metapage, named by HashMeta. */
export function setMeta(page: PageTarget, field: number, value: number): void {
  page.view.setUint32(metaAt(page) + field, value, true);
}

/** The metapage's count of tuples: an estimate, kept as a double. */
export function metaTuples(page: PageTarget): number {
  return page.view.getFloat64(metaAt(page) + 8, true);
}

export function setMetaTuples(page: PageTarget, tuples: number): void {
  page.view.setFloat64(metaAt(page) + 8, tuples, true);
}

/** Count of overflow pages that were made until allocation step `splitpoint`. */
export function overflowPages(page: PageTarget, splitpoint: number): number {
  require(splitpoint < SPLITPOINTS_MAX, "hash splitpoint beyond the last");
  return page.view.getUint32(metaAt(page) + SPARES_AT + 4 * splitpoint, true);
}

export function setOverflowPages(page: PageTarget, splitpoint: number, count: number): void {
  require(splitpoint < SPLITPOINTS_MAX, "hash splitpoint beyond the last");
  page.view.setUint32(metaAt(page) + SPARES_AT + 4 * splitpoint, count, true);
}

/** Appends a bitmap page to the metapage's list. */
export function addBitmap(page: PageTarget, block: number): void {
  const count = getMeta(page, HashMeta.BITMAP_COUNT);
  require(count < BITMAPS_MAX, "too many bitmap pages in a hash index");
  page.view.setUint32(metaAt(page) + BITMAPS_AT + 4 * count, block, true);
  setMeta(page, HashMeta.BITMAP_COUNT, count + 1);
}
