/**
 * SLRUs (pg_xact, pg_multixact, pg_commit_ts) as ingest sees them: segments of 32 pages, whose
 * sizes are kept like those of relations.
 */
import {
  SLRU_SEGMENT_PAGES,
  slruPagePrecedes,
  slruSegmentIsBefore,
} from "../../libs/postgres/slru.ts";
import type { ObjectId } from "../repository/key_interner.ts";
import type { RecordSink } from "./record_sink.ts";

/** The segment that contains page number `page`. */
function segmentObject(sink: RecordSink, kind: number, page: number): ObjectId {
  return sink.interner.slru(kind, Math.floor(page / SLRU_SEGMENT_PAGES));
}

/** Whether the page exists. */
export function hasSlruPage(sink: RecordSink, kind: number, page: number): boolean {
  return sink.hasBlock(segmentObject(sink, kind, page), page % SLRU_SEGMENT_PAGES);
}

/** Puts the current record against a page. */
export function putSlruPage(sink: RecordSink, kind: number, page: number, willInit: boolean): void {
  sink.put(segmentObject(sink, kind, page), page % SLRU_SEGMENT_PAGES, willInit);
}

/** Makes the page zero, and everything before it in its segment that was never made. */
export function createSlruPage(sink: RecordSink, kind: number, page: number): void {
  extendSlru(sink, kind, page);
  sink.putZeroPage(segmentObject(sink, kind, page), page % SLRU_SEGMENT_PAGES);
}

/**
 * Makes the segment contain the page. Pages before it in the segment that were never made are zero
 * pages, as holes in PostgreSQL's file are.
 */
export function extendSlru(sink: RecordSink, kind: number, page: number): void {
  const segment = segmentObject(sink, kind, page);
  const block = page % SLRU_SEGMENT_PAGES;
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
 * Drops all segments wholly before page `cutoff` on the circle of ids, unless the newest page
 * itself would be (PostgreSQL 17, slru.c, SimpleLruTruncate: "apparent wraparound"). What was
 * ingested before must be visible.
 */
export function truncateSlru(
  sink: RecordSink,
  kind: number,
  cutoff: number,
  newestPage: number,
): void {
  if (slruPagePrecedes(kind, newestPage, cutoff)) return;
  const { relations, timeline } = sink;
  for (const { segment } of relations.slruSegments(kind, timeline.lastRecordLsn)) {
    if (slruSegmentIsBefore(kind, segment, cutoff)) dropSlruSegment(sink, kind, segment);
  }
}
