/**
 * The WAL with which stock PostgreSQL begins as a hot standby at any end of record P, ready at once
 * and with the right idea of what is visible: a few synthetic records that end exactly at P.
 *
 *   A     CHECKPOINT_ONLINE   redo = A; what pg_control names as the last checkpoint
 *         STANDBY_LOCK        the AccessExclusive locks held at P, if there are any
 *         RUNNING_XACTS       every transaction and subtransaction in progress at P
 *   PREV  NOOP                as long as the real record that ends at P, so that the record behind
 *         (or SWITCH)         it, the first one that is streamed, finds the previous one where its
 *                             link says
 *
 * The transactions are all listed themselves, subtransactions as well, and the list is never said
 * to be incomplete: the standby need not know which belong together, and serves queries at once
 * (PostgreSQL 17, procarray.c, ProcArrayApplyRecoveryInfo). It has room for a limited number.
 *
 * A record that ends with its segment, far behind its start, is a WAL switch or as good as one: the
 * synthetic one is a switch then, instead of megabytes of nothing.
 */
import { assert } from "../../utils/assert.ts";
import { ByteWriter } from "../../utils/bytes.ts";
import { type Lsn, toLsn } from "../../utils/lsn.ts";
import { type CheckPoint, encodeCheckPoint } from "../checkpoint.ts";
import {
  FIRST_NORMAL_XID,
  PAGE_SIZE,
  RECORD_HEADER_SIZE,
  Rmgr,
  WAL_TIMELINE_ID,
  XlogInfo,
} from "../constants.ts";
import type { WalIdentity } from "./page_header.ts";
import { buildRecord, WalWriter } from "./record_builder.ts";
import {
  pageHeaderSize,
  recordBytesBetween,
  retreatOverHeaders,
  segmentNumber,
  segmentStart,
  skipPageHeader,
} from "./segment.ts";
import { StandbyInfo } from "./small_records.ts";

const TWO_32 = 4294967296;
/** Data of up to this length has a length of one byte (xlogrecord.h, XLR_BLOCK_ID_DATA_SHORT). */
const SHORT_DATA_MAX = 255;
const SHORT_DATA_HEADER = 2;
const LONG_DATA_HEADER = 5;

/** An AccessExclusive lock of a transaction that is in progress. */
export interface StandbyLock {
  readonly xid: number;
  /** 0 for a shared relation. */
  readonly db: number;
  /** Oid of the relation. */
  readonly rel: number;
}

/** What is in progress at P. */
export interface RunningTransactions {
  /** Full xids, ascending, of transactions and subtransactions, prepared ones included. */
  readonly xids: readonly number[];
  readonly locks: readonly StandbyLock[];
}

/** Where to begin, and with what. */
interface StandbyStartArgs extends WalIdentity {
  /** P: the end of a record. */
  readonly lsn: Lsn;
  /** Start of the record that ends there. */
  readonly prev: Lsn;
  /** The tracked state at P. */
  readonly checkPoint: Readonly<CheckPoint>;
  readonly running: RunningTransactions;
}

/** The synthesized WAL. */
interface StandbyStartWal {
  /** A: where `wal` begins. */
  readonly start: Lsn;
  /** Where it ends for PostgreSQL: P, or the page boundary right before it. */
  readonly end: Lsn;
  readonly wal: Uint8Array<ArrayBuffer>;
  /** The checkpoint at A. */
  readonly checkPoint: CheckPoint;
}

/** The start of the shortest record that ends at `lsn`, where the real one's is not known. */
export function shortestRecordBefore(lsn: Lsn, segmentSize: number): Lsn {
  return retreatOverHeaders(lsn, RECORD_HEADER_SIZE, segmentSize);
}

/** Bytes of a record with that much main data, padding included. */
function paddedRecordBytes(mainBytes: number): number {
  const header = mainBytes > SHORT_DATA_MAX ? LONG_DATA_HEADER : SHORT_DATA_HEADER;
  return Math.ceil((RECORD_HEADER_SIZE + header + mainBytes) / 8) * 8;
}

/** Main data that makes a record exactly `bytes` long, a multiple of 8. */
function fillingData(bytes: number): Uint8Array {
  const count = bytes - RECORD_HEADER_SIZE;
  if (count === 0) return new Uint8Array(0);
  const isShort = count - SHORT_DATA_HEADER <= SHORT_DATA_MAX;
  return new Uint8Array(count - (isShort ? SHORT_DATA_HEADER : LONG_DATA_HEADER));
}

function runningXactsData(xids: readonly number[], nextXid: number, oldest: number): Uint8Array {
  const next = nextXid % TWO_32;
  const writer = new ByteWriter("little", 24 + 4 * xids.length);
  writer.u32(xids.length).u32(0).u32(0).u32(next).u32(oldest % TWO_32);
  writer.u32(next === FIRST_NORMAL_XID ? TWO_32 - 1 : next - 1);
  for (const xid of xids) writer.u32(xid % TWO_32);
  return writer.bytes();
}

function locksData(locks: readonly StandbyLock[]): Uint8Array {
  const writer = new ByteWriter("little", 4 + 12 * locks.length);
  writer.u32(locks.length);
  for (const { xid, db, rel } of locks) writer.u32(xid % TWO_32).u32(db).u32(rel);
  return writer.bytes();
}

/** Whether `lsn` is where a segment's first record goes, and `prev` in the segment before. */
function endsSegment(prev: Lsn, lsn: Lsn, segmentSize: number): boolean {
  const inSegment = lsn % segmentSize;
  return (inSegment === 0 || inSegment === pageHeaderSize(lsn - inSegment, segmentSize)) &&
    segmentNumber(prev, segmentSize) === segmentNumber(lsn, segmentSize) - 1;
}

/** The records, laid out. */
export function synthesizeStandbyWal(args: StandbyStartArgs): StandbyStartWal {
  const { lsn, prev, running, version, segmentSize } = args;
  const { nextXid } = args.checkPoint;
  assert(lsn % 8 === 0 && prev < lsn, "a standby begins at the end of a record");
  const oldest = running.xids[0] ?? nextXid;
  const parts = [
    ...(running.locks.length === 0
      ? []
      : [{ info: StandbyInfo.LOCK as number, main: locksData(running.locks) }]),
    { info: StandbyInfo.RUNNING_XACTS, main: runningXactsData(running.xids, nextXid, oldest) },
  ];
  const checkPointBytes = paddedRecordBytes(encodeCheckPoint(args.checkPoint, version).length);
  const total = parts.reduce((sum, { main }) => sum + paddedRecordBytes(main.length), 0);
  const start = retreatOverHeaders(prev, checkPointBytes + total, segmentSize);
  const checkPoint: CheckPoint = {
    ...args.checkPoint,
    redo: start,
    timelineId: WAL_TIMELINE_ID,
    previousTimelineId: WAL_TIMELINE_ID,
    oldestActiveXid: oldest % TWO_32,
  };
  const writer = new WalWriter(start, args);
  let previous = writer.append(buildRecord({
    rmid: Rmgr.XLOG,
    info: XlogInfo.CHECKPOINT_ONLINE,
    previous: shortestRecordBefore(start, segmentSize),
    main: encodeCheckPoint(checkPoint, version),
  }));
  assert(previous === start, "the checkpoint is where pg_control says");
  for (const { info, main } of parts) {
    previous = writer.append(buildRecord({ rmid: Rmgr.STANDBY, info, previous, main }));
  }
  assert(writer.nextRecordLsn === skipPageHeader(prev, segmentSize), "the last one begins at PREV");
  if (endsSegment(prev, lsn, segmentSize)) {
    const rmid = Rmgr.XLOG;
    writer.append(buildRecord({ rmid, info: XlogInfo.SWITCH, previous }));
    const end = segmentStart(segmentNumber(lsn, segmentSize), segmentSize);
    assert(writer.end <= end, "a switch fits into its segment");
    return { start, end, wal: writer.bytes(), checkPoint };
  }
  const main = fillingData(recordBytesBetween(prev, lsn, segmentSize));
  writer.append(buildRecord({ rmid: Rmgr.XLOG, info: XlogInfo.NOOP, previous, main }));
  const { end } = writer;
  const inPage = lsn % PAGE_SIZE;
  const isBehindHeader = inPage === pageHeaderSize(lsn - inPage, segmentSize);
  assert(end === (isBehindHeader ? lsn - inPage : lsn), "the last record ends where P is");
  return { start, end: toLsn(end), wal: writer.bytes(), checkPoint };
}
