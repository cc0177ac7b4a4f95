/**
 * The CheckPoint structure (pg_control.h): 88 bytes, the main data of checkpoint records and a part
 * of pg_control.
 *
 *   0 redo u64 | 8 timeline u32 | 12 previous timeline u32 | 16 full_page_writes u8
 *   20 wal_level i32 | 24 nextXid u64 | 32 nextOid | 36 nextMulti | 40 nextMultiOffset
 *   44 oldestXid | 48 oldestXidDB | 52 oldestMulti | 56 oldestMultiDB | 64 time i64
 *   72 oldestCommitTsXid | 76 newestCommitTsXid | 80 oldestActiveXid
 *
 * Little endian; wal_level exists from 17 on.
 */
import { assert } from "../utils/assert.ts";
import { Corrupt } from "../utils/errors.ts";
import { type Lsn, lsnHigh, lsnLow } from "../utils/lsn.ts";
import type { PgVersion } from "./versions.ts";

/** Encoded size. */
export const CHECKPOINT_SIZE = 88;

const TWO_32 = 4294967296;

/** wal_level replica (xlog.h). */
const WAL_LEVEL_REPLICA = 1;

/** A decoded CheckPoint. All xids and oids are u32 except nextXid. */
export interface CheckPoint {
  /** Where recovery would start. */
  redo: Lsn;
  timelineId: number;
  previousTimelineId: number;
  fullPageWrites: boolean;
  /** minimal 0, replica 1, logical 2. Not stored before 17, where it decodes as replica. */
  walLevel: number;
  /** Next free xid with its epoch: epoch * 2^32 + xid. Invariant: a safe integer. */
  nextXid: number;
  nextOid: number;
  nextMulti: number;
  nextMultiOffset: number;
  oldestXid: number;
  oldestXidDb: number;
  oldestMulti: number;
  oldestMultiDb: number;
  /** Seconds since 1970. */
  time: number;
  oldestCommitTsXid: number;
  newestCommitTsXid: number;
  /** Oldest xid still running; 0 in a shutdown checkpoint. */
  oldestActiveXid: number;
}

function readSafeU64(view: DataView, at: number, what: string): number {
  const high = view.getUint32(at + 4, true);
  if (high > 0x1fffff) throw new Corrupt(`Cannot read a checkpoint: ${what} is beyond 2^53`);
  return high * TWO_32 + view.getUint32(at, true);
}

/** Decodes the 88 bytes at `offset`. Throws Corrupt if they are not all there, or absurd. */
export function decodeCheckPoint(
  bytes: Uint8Array,
  offset: number,
  version: PgVersion,
): CheckPoint {
  if (offset + CHECKPOINT_SIZE > bytes.length) {
    throw new Corrupt(`Cannot read a checkpoint: ${bytes.length - offset} bytes, not 88`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset + offset, CHECKPOINT_SIZE);
  const u32 = (at: number) => view.getUint32(at, true);
  return {
    redo: readSafeU64(view, 0, "redo") as Lsn,
    timelineId: u32(8),
    previousTimelineId: u32(12),
    fullPageWrites: view.getUint8(16) !== 0,
    walLevel: version.checkPointHasWalLevel ? view.getInt32(20, true) : WAL_LEVEL_REPLICA,
    nextXid: readSafeU64(view, 24, "nextXid"),
    nextOid: u32(32),
    nextMulti: u32(36),
    nextMultiOffset: u32(40),
    oldestXid: u32(44),
    oldestXidDb: u32(48),
    oldestMulti: u32(52),
    oldestMultiDb: u32(56),
    time: Number(view.getBigInt64(64, true)),
    oldestCommitTsXid: u32(72),
    newestCommitTsXid: u32(76),
    oldestActiveXid: u32(80),
  };
}

/** Encodes to 88 bytes; padding is zero. */
export function encodeCheckPoint(
  checkPoint: CheckPoint,
  version: PgVersion,
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(CHECKPOINT_SIZE);
  writeCheckPoint(checkPoint, version, new DataView(bytes.buffer));
  return bytes;
}

/** Encodes into the first 88 bytes of `view`, whose padding must be zero. */
export function writeCheckPoint(checkPoint: CheckPoint, version: PgVersion, view: DataView): void {
  assert(Number.isSafeInteger(checkPoint.nextXid), "nextXid is a safe integer");
  const u32 = (at: number, value: number) => view.setUint32(at, value, true);
  u32(0, lsnLow(checkPoint.redo));
  u32(4, lsnHigh(checkPoint.redo));
  u32(8, checkPoint.timelineId);
  u32(12, checkPoint.previousTimelineId);
  view.setUint8(16, checkPoint.fullPageWrites ? 1 : 0);
  if (version.checkPointHasWalLevel) view.setInt32(20, checkPoint.walLevel, true);
  u32(24, checkPoint.nextXid % TWO_32);
  u32(28, Math.floor(checkPoint.nextXid / TWO_32));
  u32(32, checkPoint.nextOid);
  u32(36, checkPoint.nextMulti);
  u32(40, checkPoint.nextMultiOffset);
  u32(44, checkPoint.oldestXid);
  u32(48, checkPoint.oldestXidDb);
  u32(52, checkPoint.oldestMulti);
  u32(56, checkPoint.oldestMultiDb);
  view.setBigInt64(64, BigInt(checkPoint.time), true);
  u32(72, checkPoint.oldestCommitTsXid);
  u32(76, checkPoint.newestCommitTsXid);
  u32(80, checkPoint.oldestActiveXid);
}
