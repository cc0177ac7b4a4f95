/**
 * Ingest of the MultiXact resource manager (PostgreSQL 17.11, multixact_redo, RecordNewMultiXact).
 *
 * CREATE_ID writes its id's offset, the next id's offset, and its members, each possibly on pages
 * of their own. Old minor releases make the page of the next id only after this record: then the
 * record itself makes it, and the ZERO_OFFSETS_PAGE that follows must not wipe it. Newer ones that
 * start after an old one make the page of their first id without logging that (TrimMultiXact), so
 * a page that is not there reads as zeros, as in PostgreSQL's own recovery.
 */
import { FIRST_MULTIXACT, Rmgr } from "../../libs/postgres/constants.ts";
import {
  MEMBERS_PER_PAGE,
  OFFSETS_PER_PAGE,
  SLRU_SEGMENT_PAGES,
  SlruKind,
} from "../../libs/postgres/slru.ts";
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import {
  MultiXactInfo,
  readMultiXactCreate,
  readMultiXactTruncate,
  readSlruPage,
} from "../../libs/postgres/wal/small_records.ts";
import type { RecordSink } from "./record_sink.ts";
import {
  createSlruPage,
  dropSlruSegment,
  extendSlru,
  hasSlruPage,
  putSlruPage,
  truncateSlru,
} from "./slru.ts";

const U32_MAX = 0xffffffff;

/** Whether the record truncates: then it scans the segments, and all before it must be visible. */
export function isMultixactTruncate(cursor: RecordCursor): boolean {
  return cursor.rmid === Rmgr.MULTIXACT && (cursor.info & 0xf0) === MultiXactInfo.TRUNCATE_ID;
}

/** Applies the current MultiXact record. */
export function ingestMultixact(sink: RecordSink): void {
  switch (sink.cursor.info & 0xf0) {
    case MultiXactInfo.ZERO_OFFSETS_PAGE:
      return zeroOffsetsPage(sink);
    case MultiXactInfo.ZERO_MEMBERS_PAGE:
      return zeroPage(sink, SlruKind.MEMBERS, readSlruPage(sink.cursor, sink.version));
    case MultiXactInfo.CREATE_ID:
      return create(sink);
    case MultiXactInfo.TRUNCATE_ID:
      return truncate(sink);
  }
}

function zeroPage(sink: RecordSink, kind: number, page: number): void {
  extendSlru(sink, kind, page);
  putSlruPage(sink, kind, page, true);
}

/**
 * If the page exists and the next id is already on it, an earlier CREATE_ID made it and has written
 * there: it stays as it is.
 */
function zeroOffsetsPage(sink: RecordSink): void {
  const page = readSlruPage(sink.cursor, sink.version);
  const nextPage = offsetsPage(sink.tracker.checkPoint.nextMulti);
  if (nextPage === page && hasSlruPage(sink, SlruKind.OFFSETS, page)) return;
  zeroPage(sink, SlruKind.OFFSETS, page);
}

function create(sink: RecordSink): void {
  const { multi, firstMember, count } = readMultiXactCreate(sink.cursor);
  const next = multi === U32_MAX ? FIRST_MULTIXACT : multi + 1;
  const page = offsetsPage(multi);
  const nextPage = offsetsPage(next);
  putPage(sink, SlruKind.OFFSETS, page);
  if (nextPage !== page) putPage(sink, SlruKind.OFFSETS, nextPage);
  let done = -1;
  for (let i = 0; i < count; i++) {
    const memberPage = Math.floor(((firstMember + i) >>> 0) / MEMBERS_PER_PAGE);
    if (memberPage !== done) putPage(sink, SlruKind.MEMBERS, memberPage);
    done = memberPage;
  }
}

/** Puts the current record against a page, which is made if it is not there. */
function putPage(sink: RecordSink, kind: number, page: number): void {
  if (!hasSlruPage(sink, kind, page)) createSlruPage(sink, kind, page);
  putSlruPage(sink, kind, page, false);
}

/** Member segments go one by one (their numbers wrap around); offset segments as in the clog. */
function truncate(sink: RecordSink): void {
  const { oldestMulti, startMember, endMember } = readMultiXactTruncate(sink.cursor);
  const endSegment = memberSegment(endMember);
  for (let segment = memberSegment(startMember); segment !== endSegment;) {
    dropSlruSegment(sink, SlruKind.MEMBERS, segment);
    segment = segment === memberSegment(U32_MAX) ? 0 : segment + 1;
  }
  // One id back, as PerformOffsetsTruncation does: the end's own page may not exist yet.
  const previous = oldestMulti <= FIRST_MULTIXACT ? U32_MAX : oldestMulti - 1;
  const newestPage = offsetsPage(sink.tracker.checkPoint.nextMulti);
  truncateSlru(sink, SlruKind.OFFSETS, offsetsPage(previous), newestPage);
}

function offsetsPage(id: number): number {
  return Math.floor(id / OFFSETS_PER_PAGE);
}

function memberSegment(member: number): number {
  return Math.floor(member / MEMBERS_PER_PAGE / SLRU_SEGMENT_PAGES);
}
