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
import { PAGE_SIZE, RECORD_HEADER_SIZE, Rmgr, WAL_TIMELINE_ID, XlogInfo } from "../constants.ts";
import type { PgVersion } from "../versions.ts";
import { type WalIdentity, writePageHeader } from "./page_header.ts";
import { buildRecord, WalWriter } from "./record_builder.ts";
import {
  advanceOverHeaders,
  pageHeaderSize,
  segmentName,
  segmentNumber,
  segmentStart,
  skipPageHeader,
} from "./segment.ts";

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

/** Bytes at an offset of a file. */
interface FilePiece {
  offset: number;
  bytes: Uint8Array;
}

/** One WAL segment file as the few pieces, in order, that are not zeros. */
interface SparseSegment {
  segmentName: string;
  pieces: FilePiece[];
}

function headerPiece(identity: WalIdentity, pageStart: Lsn): FilePiece {
  const bytes = new Uint8Array(pageHeaderSize(pageStart, identity.segmentSize));
  writePageHeader(new DataView(bytes.buffer), 0, identity, pageStart, 0);
  return { offset: pageStart % identity.segmentSize, bytes };
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
  return splitBySegment(args, writer, x);
}

function splitBySegment(args: StartWalArgs, writer: WalWriter, x: Lsn): SparseSegment[] {
  const { segmentSize } = args;
  const segments: SparseSegment[] = [];
  const bytes = writer.bytes();
  for (let done = 0; done < bytes.length;) {
    const at = (x + done) as Lsn;
    const segment = segmentNumber(at, segmentSize);
    const offset = at % segmentSize;
    const count = Math.min(bytes.length - done, segmentSize - offset);
    const pieces: FilePiece[] = [{ offset, bytes: bytes.slice(done, done + count) }];
    if (offset % PAGE_SIZE !== 0) pieces.unshift(headerPiece(args, (at - at % PAGE_SIZE) as Lsn));
    if (offset >= PAGE_SIZE) pieces.unshift(headerPiece(args, segmentStart(segment, segmentSize)));
    segments.push({ segmentName: segmentName(WAL_TIMELINE_ID, segment, segmentSize), pieces });
    done += count;
  }
  return segments;
}
