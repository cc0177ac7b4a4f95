/**
 * Ingest of the MultiXact resource manager (PostgreSQL 17.11, multixact_redo, RecordNewMultiXact).
 *
 *   ZERO_OFF_PAGE 0x00, ZERO_MEM_PAGE 0x10: page number (u32; u64 from 17 on)
 *   CREATE_ID     0x20: 0 id u32, 4 first member u32, 8 count u32, then the members, 8 bytes each
 *   TRUNCATE_ID   0x30: 0 database u32, 4 start and 8 end of ids, 12 start and 16 end of members: u32
 *
 * CREATE_ID writes its id's offset, the next id's offset, and its members, each possibly on pages of
 * their own. Old minor releases make the page of the next id only after this record: then the record
 * itself makes it, and the ZERO_OFF_PAGE that follows must not wipe it.
 */
import { Rmgr } from "../../libs/postgres/constants.ts";
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import {
  mainU32,
  MultiXactInfo,
  readMultiXactCreate,
} from "../../libs/postgres/wal/small_records.ts";
import { readSlruPageNumber, SLRU_MEMBERS, SLRU_OFFSETS } from "../walredo/slru_page.ts";
import type { RecordSink } from "./record_sink.ts";
import {
  dropSlruSegment,
  extendSlru,
  hasSlruPage,
  putSlruPage,
  SLRU_PAGES_PER_SEGMENT,
  truncateSlru,
} from "./slru.ts";

const OFFSETS_PER_PAGE = 2048;
const MEMBERS_PER_PAGE = 1636;
const FIRST_MULTIXACT = 1;
const U32_MAX = 0xffffffff;
/** The last segment before member numbers wrap around. */
const MEMBER_SEGMENT_MAX = memberSegment(U32_MAX);

/** Whether the record truncates: then it scans the segments, and all before it must be visible. */
export function isMultixactTruncate(cursor: RecordCursor): boolean {
  return cursor.rmid === Rmgr.MULTIXACT && (cursor.info & 0xf0) === MultiXactInfo.TRUNCATE_ID;
}

/** Applies the current MultiXact record. */
export function ingestMultixact(sink: RecordSink): void {
  const opcode = sink.cursor.info & 0xf0;
  if (opcode === MultiXactInfo.ZERO_OFFSETS_PAGE) {
    zeroOffsetsPage(sink);
  } else if (opcode === MultiXactInfo.ZERO_MEMBERS_PAGE) {
    zeroPage(sink, SLRU_MEMBERS, readSlruPageNumber(sink.cursor));
  } else if (opcode === MultiXactInfo.CREATE_ID) {
    create(sink);
  } else if (opcode === MultiXactInfo.TRUNCATE_ID) {
    truncate(sink);
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
  const page = readSlruPageNumber(sink.cursor);
  const nextPage = offsetsPage(sink.tracker.checkPoint.nextMulti);
  if (nextPage === page && hasSlruPage(sink, SLRU_OFFSETS, page)) return;
  zeroPage(sink, SLRU_OFFSETS, page);
}

function create(sink: RecordSink): void {
  const { multi: id, firstMember, count } = readMultiXactCreate(sink.cursor);
  const next = id === U32_MAX ? FIRST_MULTIXACT : id + 1;
  const page = offsetsPage(id);
  const nextPage = offsetsPage(next);
  putSlruPage(sink, SLRU_OFFSETS, page, false);
  if (nextPage !== page) {
    if (!hasSlruPage(sink, SLRU_OFFSETS, nextPage)) {
      extendSlru(sink, SLRU_OFFSETS, nextPage);
      sink.putZeroPage(
        sink.interner.slru(SLRU_OFFSETS, Math.floor(nextPage / SLRU_PAGES_PER_SEGMENT)),
        nextPage % SLRU_PAGES_PER_SEGMENT,
      );
    }
    putSlruPage(sink, SLRU_OFFSETS, nextPage, false);
  }
  let done = -1;
  for (let i = 0; i < count; i++) {
    const memberPage = Math.floor(((firstMember + i) >>> 0) / MEMBERS_PER_PAGE);
    if (memberPage !== done) putSlruPage(sink, SLRU_MEMBERS, memberPage, false);
    done = memberPage;
  }
}

function truncate(sink: RecordSink): void {
  const endId = mainU32(sink.cursor, 8);
  const startMember = mainU32(sink.cursor, 12);
  const endMember = mainU32(sink.cursor, 16);
  const endSegment = memberSegment(endMember);
  for (let segment = memberSegment(startMember); segment !== endSegment;) {
    dropSlruSegment(sink, SLRU_MEMBERS, segment);
    segment = segment === MEMBER_SEGMENT_MAX ? 0 : segment + 1;
  }
  // One id back, as PerformOffsetsTruncation does: the end's own page may not exist yet.
  const previous = endId <= FIRST_MULTIXACT ? U32_MAX : endId - 1;
  truncateSlru(
    sink,
    SLRU_OFFSETS,
    sink.relations.slruSegments(SLRU_OFFSETS, sink.timeline.lastRecordLsn),
    offsetsPage(previous),
    offsetsPage(sink.tracker.checkPoint.nextMulti),
    OFFSETS_PER_PAGE,
    FIRST_MULTIXACT,
  );
}

function offsetsPage(id: number): number {
  return Math.floor(id / OFFSETS_PER_PAGE);
}

function memberSegment(member: number): number {
  return Math.floor(member / MEMBERS_PER_PAGE / SLRU_PAGES_PER_SEGMENT);
}
