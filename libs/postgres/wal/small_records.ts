/**
 * Main data of the small records that change a cluster's counters, one function each. All fields
 * are little endian; offsets count from the start of the main data.
 */
import { Corrupt } from "../../utils/errors.ts";
import { formatLsn } from "../../utils/lsn.ts";
import { type CheckPoint, CHECKPOINT_SIZE, decodeCheckPoint } from "../checkpoint.ts";
import type { WalParameters } from "../control_file.ts";
import type { PgVersion } from "../versions.ts";
import type { RecordCursor } from "./record_cursor.ts";

/** Opcodes of the CLOG resource manager (clog.h); COMMIT_TS has the same two. */
export const ClogInfo = { ZEROPAGE: 0x00, TRUNCATE: 0x10 } as const;

/** Opcodes of the MultiXact resource manager (multixact.h). */
export const MultiXactInfo = {
  ZERO_OFFSETS_PAGE: 0x00,
  ZERO_MEMBERS_PAGE: 0x10,
  CREATE_ID: 0x20,
  TRUNCATE_ID: 0x30,
} as const;

/** Opcodes of the Standby resource manager (standbydefs.h). */
export const StandbyInfo = { LOCK: 0x00, RUNNING_XACTS: 0x10, INVALIDATIONS: 0x20 } as const;

/** Start of the main data, of which there must be at least `count` bytes. */
function need(cursor: RecordCursor, count: number): number {
  if (cursor.mainLength < count) {
    throw new Corrupt(
      `Cannot read the WAL record at ${formatLsn(cursor.lsn)} (resource manager ${cursor.rmid}, ` +
        `info ${cursor.info.toString(16)}): ${cursor.mainLength} bytes of data, not ${count}`,
    );
  }
  return cursor.mainOffset;
}

/** The u32 at `offset` of the main data. */
export function mainU32(cursor: RecordCursor, offset: number): number {
  return cursor.view.getUint32(need(cursor, offset + 4) + offset, true);
}

/** XLOG CHECKPOINT_SHUTDOWN and CHECKPOINT_ONLINE. */
export function readCheckPoint(cursor: RecordCursor, version: PgVersion): CheckPoint {
  return decodeCheckPoint(cursor.bytes, need(cursor, CHECKPOINT_SIZE), version);
}

/**
 * XLOG PARAMETER_CHANGE: 0 max_connections, 4 worker processes, 8 wal senders, 12 prepared, 16
 * locks, 20 wal_level, 24 wal_log_hints u8, 25 track_commit_timestamp u8.
 */
export function readParameterChange(cursor: RecordCursor): WalParameters {
  const at = need(cursor, 26);
  const u32 = (offset: number) => cursor.view.getUint32(at + offset, true);
  return {
    maxConnections: u32(0),
    maxWorkerProcesses: u32(4),
    maxWalSenders: u32(8),
    maxPreparedTransactions: u32(12),
    maxLocksPerTransaction: u32(16),
    walLevel: u32(20),
    walLogHints: cursor.bytes[at + 24] !== 0,
    trackCommitTimestamp: cursor.bytes[at + 25] !== 0,
  };
}

/**
 * The page number that is all the data of CLOG, COMMIT_TS and MultiXact "zero page" records, and
 * that begins a CLOG TRUNCATE: u32, from 17 on u64.
 */
export function readSlruPage(cursor: RecordCursor, version: PgVersion): number {
  const low = mainU32(cursor, 0);
  return version.slruPageNumberBytes === 8 ? mainU32(cursor, 4) * 4294967296 + low : low;
}

/** CLOG TRUNCATE: 0 page number (the version's width), then oldest xid u32 and its database u32. */
export function readClogTruncate(
  cursor: RecordCursor,
  version: PgVersion,
): { oldestXid: number; oldestXidDb: number } {
  const at = version.slruPageNumberBytes;
  return { oldestXid: mainU32(cursor, at), oldestXidDb: mainU32(cursor, at + 4) };
}

/** COMMIT_TS TRUNCATE: 0 page number (the version's width), then the oldest xid u32. */
export function readCommitTsTruncate(cursor: RecordCursor, version: PgVersion): number {
  return mainU32(cursor, version.slruPageNumberBytes);
}

/** MultiXact CREATE_ID: 0 id, 4 first member, 8 count, 12 members of xid u32 and status u32 each. */
export interface MultiXactCreate {
  readonly multi: number;
  readonly firstMember: number;
  readonly count: number;
  /** Absolute offset of the members in the cursor's bytes, 8 bytes each. */
  readonly membersAt: number;
}

export function readMultiXactCreate(cursor: RecordCursor): MultiXactCreate {
  const count = mainU32(cursor, 8);
  const at = need(cursor, 12 + 8 * count);
  return {
    multi: cursor.view.getUint32(at, true),
    firstMember: cursor.view.getUint32(at + 4, true),
    count,
    membersAt: at + 12,
  };
}

/** MultiXact TRUNCATE_ID: 0 database, 4 first and 8 end of ids, 12 first and 16 end of members. */
interface MultiXactTruncate {
  readonly oldestMulti: number;
  readonly oldestMultiDb: number;
  /** Members from here to endMember (exclusive, on the circle) are gone. */
  readonly startMember: number;
  readonly endMember: number;
}

export function readMultiXactTruncate(cursor: RecordCursor): MultiXactTruncate {
  return {
    oldestMultiDb: mainU32(cursor, 0),
    oldestMulti: mainU32(cursor, 8),
    startMember: mainU32(cursor, 12),
    endMember: mainU32(cursor, 16),
  };
}

/**
 * Standby RUNNING_XACTS: 0 count, 4 subxact count, 8 overflowed u8, 12 nextXid, 16 oldest running,
 * 20 latest completed, 24 the xids, transactions before subtransactions.
 */
interface RunningXacts {
  readonly count: number;
  readonly overflowed: boolean;
  /** 32 bits. */
  readonly nextXid: number;
  readonly oldestRunningXid: number;
  /** Absolute offset of the xids in the cursor's bytes. */
  readonly xidsAt: number;
}

export function readRunningXacts(cursor: RecordCursor): RunningXacts {
  const count = mainU32(cursor, 0) + mainU32(cursor, 4);
  const at = need(cursor, 24 + 4 * count);
  return {
    count,
    overflowed: cursor.bytes[at + 8] !== 0,
    nextXid: cursor.view.getUint32(at + 12, true),
    oldestRunningXid: cursor.view.getUint32(at + 16, true),
    xidsAt: at + 24,
  };
}
