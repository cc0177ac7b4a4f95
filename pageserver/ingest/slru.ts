/**
 * SLRUs (pg_xact, pg_multixact/members, pg_multixact/offsets) as ingest sees them: segments of 32
 * pages, whose sizes are kept like those of relations.
 */
import { circlePrecedes } from "../../libs/postgres/xid.ts";
import type { ObjectId } from "../repository/key_interner.ts";
import type { RecordSink } from "./record_sink.ts";

/** Pages in a segment file (SLRU_PAGES_PER_SEGMENT). */
export const SLRU_PAGES_PER_SEGMENT = 32;

/** The segment that contains page number `page`. */
function segmentObject(sink: RecordSink, kind: number, page: number): ObjectId {
  return sink.interner.slru(kind, Math.floor(page / SLRU_PAGES_PER_SEGMENT));
}

/** Whether the page exists. */
export function hasSlruPage(sink: RecordSink, kind: number, page: number): boolean {
  return sink.hasBlock(segmentObject(sink, kind, page), page % SLRU_PAGES_PER_SEGMENT);
}

/** Puts the current record against a page. */
export function putSlruPage(sink: RecordSink, kind: number, page: number, willInit: boolean): void {
  sink.put(segmentObject(sink, kind, page), page % SLRU_PAGES_PER_SEGMENT, willInit);
}

/**
 * Makes the segment contain the page. Pages before it in the segment that were never made are zero
 * pages, as holes in PostgreSQL's file are.
 */
export function extendSlru(sink: RecordSink, kind: number, page: number): void {
  const segment = segmentObject(sink, kind, page);
  const block = page % SLRU_PAGES_PER_SEGMENT;
  if (sink.hasBlock(segment, block)) return;
  for (let gap = Math.max(sink.blocks(segment), 0); gap < block; gap++) {
    sink.putZeroPage(segment, gap);
  }
  sink.setBlocks(segment, block + 1);
}

/** Drops a segment. */
export function dropSlruSegment(sink: RecordSink, kind: number, segment: number): void {
  sink.drop(sink.interner.slru(kind, segment));
}

/**
 * Drops all segments wholly before page `cutoff` on the circle of ids, unless the newest page itself
 * would be (PostgreSQL 17, slru.c, SimpleLruTruncate: "apparent wraparound").
 *
 * `idsPerPage` and `firstId` are those of the SLRU: page p is older than page q if both its first and
 * its last id precede q's (CLOGPagePrecedes, MultiXactOffsetPagePrecedes).
 */
export function truncateSlru(
  sink: RecordSink,
  kind: number,
  segments: readonly { readonly segment: number }[],
  cutoff: number,
  newestPage: number,
  idsPerPage: number,
  firstId: number,
): void {
  const firstOf = (page: number) => (page * idsPerPage + firstId + 1) >>> 0;
  const isBefore = (a: number, b: number) =>
    circlePrecedes(firstOf(a), firstOf(b)) &&
    circlePrecedes(firstOf(a), (firstOf(b) + idsPerPage - 1) >>> 0);
  if (isBefore(newestPage, cutoff)) return;
  for (const { segment } of segments) {
    const first = segment * SLRU_PAGES_PER_SEGMENT;
    const last = first + SLRU_PAGES_PER_SEGMENT - 1;
    if (isBefore(first, cutoff) && isBefore(last, cutoff)) dropSlruSegment(sink, kind, segment);
  }
}
