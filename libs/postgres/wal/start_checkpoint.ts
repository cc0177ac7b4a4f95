/**
 * A clean shutdown, synthesized at any end of record, so that stock PostgreSQL starts there without
 * recovery and goes on writing WAL that continues the history before it.
 *
 * X is the end of the last record (8-aligned), PREV that record's start. START is X, or behind
 * the page header if X is on a page boundary. At START goes one checkpoint record of 114 bytes
 * whose checkpoint's redo is START itself. The segment file is otherwise zeros: before X nothing
 * is read but the headers of the segment's first page and of X's page. The record may run over a
 * page or into the next segment.
 */
import { assert } from "../../utils/assert.ts";
import { alignLsn, type Lsn } from "../../utils/lsn.ts";
import { type CheckPoint, CHECKPOINT_SIZE, encodeCheckPoint } from "../checkpoint.ts";
import { RECORD_HEADER_SIZE, Rmgr, WAL_TIMELINE_ID, XlogInfo } from "../constants.ts";
import type { PgVersion } from "../versions.ts";
import { buildRecord, WalWriter } from "./record_builder.ts";
import { advanceOverHeaders, skipPageHeader } from "./segment.ts";
import { type SparseSegment, splitIntoSegments } from "./sparse_segment.ts";

/** Bytes of the checkpoint record: header, data header, CheckPoint. */
const CHECKPOINT_RECORD_SIZE = RECORD_HEADER_SIZE + 2 + CHECKPOINT_SIZE;

/** START of X: where the synthetic checkpoint record begins. */
export function startLsnAfter(x: Lsn, segmentSize: number): Lsn {
  return skipPageHeader(x, segmentSize);
}

/** End (8-aligned) of a shutdown checkpoint record that begins at `start`. */
export function endOfCheckpointRecord(start: Lsn, segmentSize: number): Lsn {
  return alignLsn(advanceOverHeaders(start, CHECKPOINT_RECORD_SIZE, segmentSize));
}

/** End of the record that a PostgreSQL which is started at `x` begins with. */
export function startRecordEnd(x: Lsn, segmentSize: number): Lsn {
  return endOfCheckpointRecord(startLsnAfter(x, segmentSize), segmentSize);
}

/** What is to be started. */
interface StartWalArgs {
  /** End of the last whole record of the history. */
  x: Lsn;
  /** Start of that record. */
  prev: Lsn;
  /** The tracked state at X; redo, timeline and oldestActiveXid are set here. */
  checkPoint: CheckPoint;
  systemId: bigint;
  version: PgVersion;
  segmentSize: number;
}

/**
 * The segment file(s) with which PostgreSQL starts at X: one, or two if the record crosses into the
 * next. The caller makes each file `segmentSize` bytes long; what no piece covers is zero.
 */
export function synthesizeStartWal(args: StartWalArgs): SparseSegment[] {
  const { x, segmentSize } = args;
  assert(x % 8 === 0, "a position to start from is a multiple of 8");
  const start = startLsnAfter(x, segmentSize);
  const checkPoint: CheckPoint = {
    ...args.checkPoint,
    redo: start,
    timelineId: WAL_TIMELINE_ID,
    previousTimelineId: WAL_TIMELINE_ID,
    oldestActiveXid: 0,
  };
  const writer = new WalWriter(x, args);
  writer.append(buildRecord({
    rmid: Rmgr.XLOG,
    info: XlogInfo.CHECKPOINT_SHUTDOWN,
    previous: args.prev,
    main: encodeCheckPoint(checkPoint, args.version),
  }));
  assert(writer.end === endOfCheckpointRecord(start, segmentSize), "the record ends as computed");
  return splitIntoSegments(args, x, writer.bytes());
}
