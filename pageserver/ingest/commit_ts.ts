/**
 * Ingest of commit timestamps, pg_commit_ts: who committed when, kept while the cluster has
 * track_commit_timestamp on (PostgreSQL 17, access/transam/commit_ts.c).
 *
 *   COMMIT_TS ZEROPAGE 0x00   page number (u32; u64 from 17 on)
 *   COMMIT_TS TRUNCATE 0x10   page number likewise, oldest xid u32
 *   commit records            go to every page with an id of the transaction's tree
 *   PARAMETER_CHANGE          turned on, the page of the next id is there; turned off, all pages go
 *
 * Which ids can be asked for is in the checkpoint tracker.
 */
import { COMMIT_TS_PER_PAGE, SlruKind } from "../../libs/postgres/slru.ts";
import { ClogInfo, readSlruPage } from "../../libs/postgres/wal/small_records.ts";
import type { XactRecord } from "../../libs/postgres/xact_record.ts";
import type { RecordSink } from "./record_sink.ts";
import {
  createSlruPage,
  dropSlruSegment,
  extendSlru,
  hasSlruPage,
  putSlruPage,
  truncateSlru,
} from "./slru.ts";

const KIND = SlruKind.COMMIT_TS;
const TWO_32 = 4294967296;

/** Applies the current COMMIT_TS record; all that was ingested before it must be visible. */
export function ingestCommitTs(sink: RecordSink): void {
  const opcode = sink.cursor.info & 0xf0;
  const page = readSlruPage(sink.cursor, sink.version);
  if (opcode === ClogInfo.ZEROPAGE) {
    extendSlru(sink, KIND, page);
    putSlruPage(sink, KIND, page, true);
  } else if (opcode === ClogInfo.TRUNCATE) {
    truncateSlru(sink, KIND, page, page);
  }
}

/** The current record changed the settings; all that was ingested before it must be visible. */
export function ingestTrackCommitTimestamp(sink: RecordSink): void {
  const { tracker, relations, timeline } = sink;
  if (tracker.parameters.trackCommitTimestamp) {
    makePage(sink, pageOf(tracker.checkPoint.nextXid % TWO_32));
    return;
  }
  for (const { segment } of relations.slruSegments(KIND, timeline.lastRecordLsn)) {
    dropSlruSegment(sink, KIND, segment);
  }
}

/** Puts the current commit record against the pages with its transaction's ids. */
export function putCommitTimestamps(sink: RecordSink, record: XactRecord): void {
  if (record.xid === 0 || !sink.tracker.parameters.trackCommitTimestamp) return;
  const done = pageOf(record.xid);
  putPage(sink, done);
  let others: Set<number> | undefined;
  for (let i = 0; i < record.subxactCount; i++) {
    const page = pageOf(record.subxact(i));
    if (page === done || others?.has(page) === true) continue;
    others ??= new Set();
    others.add(page);
    putPage(sink, page);
  }
}

function putPage(sink: RecordSink, page: number): void {
  makePage(sink, page);
  putSlruPage(sink, KIND, page, false);
}

function makePage(sink: RecordSink, page: number): void {
  if (!hasSlruPage(sink, KIND, page)) createSlruPage(sink, KIND, page);
}

function pageOf(xid: number): number {
  return Math.floor(xid / COMMIT_TS_PER_PAGE);
}
