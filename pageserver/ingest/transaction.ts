/**
 * Ingest of the Transaction resource manager (PostgreSQL 17, xact.c, xact_redo).
 *
 *   COMMIT, ABORT            status bits of the transaction and its subtransactions: it is
 *                            put to every page of pg_xact with one of them; dropped relations go,
 *                            with all their forks; a commit has a timestamp (commit_ts.ts), and
 *                            leaves a mark for a search by time (commit_marks.ts); a replicated
 *                            transaction advances its origin (replication_origins.ts)
 *   COMMIT_, ABORT_PREPARED  the same for the prepared transaction, whose state file goes too
 *   PREPARE                  the record's main data is the state file (on disk it has a CRC, too)
 */
import { FORK_INIT, FORK_MAIN, XactInfo } from "../../libs/postgres/constants.ts";
import { SlruKind, XIDS_PER_PAGE } from "../../libs/postgres/slru.ts";
import { XACT_OPCODE_MASK, XactRecord } from "../../libs/postgres/xact_record.ts";
import { twophaseKey } from "../repository/key.ts";
import { putCommitTimestamps } from "./commit_ts.ts";
import type { RecordSink } from "./record_sink.ts";
import { advanceOrigin } from "./replication_origins.ts";
import { putSlruPage } from "./slru.ts";

/** What the current record says; ingest of a record is synchronous, so one serves all timelines. */
const record = new XactRecord();

/** Applies the current Transaction record; the tracker must have seen it. */
export function ingestTransaction(sink: RecordSink): void {
  const { cursor, tracker } = sink;
  const opcode = cursor.info & XACT_OPCODE_MASK;
  if (opcode === XactInfo.PREPARE) {
    const state = cursor.bytes.subarray(cursor.mainOffset, cursor.mainOffset + cursor.mainLength);
    sink.putValue(twophaseKey(tracker.fullXid(cursor.xid)), state);
    if (cursor.origin === 0) return;
    record.decode(cursor, sink.version);
    advanceOrigin(sink, record);
    return;
  }
  const isPrepared = opcode === XactInfo.COMMIT_PREPARED || opcode === XactInfo.ABORT_PREPARED;
  if (!isPrepared && opcode !== XactInfo.COMMIT && opcode !== XactInfo.ABORT) return;
  record.decode(cursor, sink.version);
  for (let i = 0; i < record.relationCount; i++) {
    dropRelation(sink, record.relationSpc(i), record.relationDb(i), record.relationRel(i));
  }
  if (isPrepared) sink.putValue(twophaseKey(tracker.fullXid(record.xid)), null);
  advanceOrigin(sink, record);
  putStatus(sink);
  const isCommit = opcode === XactInfo.COMMIT || opcode === XactInfo.COMMIT_PREPARED;
  if (isCommit) {
    sink.commits.put(sink.lsn, record.time);
    putCommitTimestamps(sink, record);
  }
  if (sink.locks.any) releaseLocks(sink);
}

/** The end of a transaction releases its locks, and those of its subtransactions. */
function releaseLocks({ locks, tracker }: RecordSink): void {
  locks.release(tracker.fullXid(record.xid));
  for (let i = 0; i < record.subxactCount; i++) locks.release(tracker.fullXid(record.subxact(i)));
}

function dropRelation(sink: RecordSink, spc: number, db: number, rel: number): void {
  for (let fork = FORK_MAIN; fork <= FORK_INIT; fork++) {
    sink.drop(sink.interner.relation(spc, db, rel, fork));
  }
}

/** Puts the record once against every page of pg_xact with an id of the transaction's tree. */
function putStatus(sink: RecordSink): void {
  // A transaction without an id of its own can still drop relations; it has no status.
  const own = record.xid === 0 ? -1 : clogPage(record.xid);
  if (own >= 0) putSlruPage(sink, SlruKind.CLOG, own, false);
  let others: Set<number> | undefined;
  for (let i = 0; i < record.subxactCount; i++) {
    const page = clogPage(record.subxact(i));
    if (page === own || others?.has(page) === true) continue;
    others ??= new Set();
    others.add(page);
    putSlruPage(sink, SlruKind.CLOG, page, false);
  }
}

function clogPage(xid: number): number {
  return Math.floor(xid / XIDS_PER_PAGE);
}
