/**
 * What a shutdown checkpoint at any position of the WAL would say, kept up to date record by
 * record.
 *
 * It follows what PostgreSQL's own redo does to the counters (xlog.c xlog_redo, varsup.c,
 * multixact.c), with the following choices:
 *  - nextXid is exact: it advances with each record's xid, and with all subtransactions, multixact
 *    members and running-transaction records that name a later one;
 *  - a shutdown checkpoint replaces all counters; prepared transactions survive it;
 *  - an online checkpoint only raises them, and says nothing about nextOid;
 *  - the commit timestamps that there are follow from the commits; both fields are 0 while
 *    track_commit_timestamp is off, as PostgreSQL has them (commit_ts.c);
 *  - oldestXid moves with the truncation of pg_xact, not only at the next checkpoint;
 *  - which transactions are running is not kept: it is what pg_xact calls neither committed nor
 *    aborted, from oldestRunning on. That moves with the primary's own snapshots, which it writes
 *    every 15 s, and a shutdown checkpoint ends everything but what is prepared.
 *
 * The state that is kept with each LSN is serialise(), and beside it serialiseNextXid(): most
 * transactions change nothing but the next transaction id, and 8 bytes are kept for them.
 */
import { assert } from "../utils/assert.ts";
import { ByteReader, ByteWriter } from "../utils/bytes.ts";
import { Corrupt } from "../utils/errors.ts";
import {
  type CheckPoint,
  CHECKPOINT_SIZE,
  decodeCheckPoint,
  writeCheckPoint,
} from "./checkpoint.ts";
import { FIRST_MULTIXACT, FIRST_NORMAL_XID, Rmgr, XactInfo, XlogInfo } from "./constants.ts";
import type { WalParameters } from "./control_file.ts";
import type { PgVersion } from "./versions.ts";
import type { RecordCursor } from "./wal/record_cursor.ts";
import {
  ClogInfo,
  mainU32,
  MultiXactInfo,
  readCheckPoint,
  readClogTruncate,
  readCommitTsTruncate,
  readMultiXactCreate,
  readMultiXactTruncate,
  readParameterChange,
  readRunningXacts,
  StandbyInfo,
} from "./wal/small_records.ts";
import { XACT_OPCODE_MASK, XactRecord } from "./xact_record.ts";
import { advancePast, circlePrecedes, fullXidBefore, xidPrecedes } from "./xid.ts";

const TWO_32 = 4294967296;
const STATE_VERSION = 3;
/** The next transaction id was nowhere else: the same bytes. */
const WHOLE_STATE_VERSION = 2;
/** Without oldestRunning. */
const OLDEST_STATE_VERSION = 1;

/** What of the state a record has changed. */
export const StateChange = { nothing: 0, nextXid: 1, more: 2 } as const;
export type StateChange = typeof StateChange[keyof typeof StateChange];

/** The state of a cluster at one LSN. */
export class CheckpointTracker {
  readonly version: PgVersion;
  #checkPoint: CheckPoint;
  #parameters: WalParameters;
  /** Full xids of the transactions that are prepared and not finished. */
  readonly #prepared: Set<number>;
  #oldestRunning: number;
  readonly #xact = new XactRecord();
  /** What serialise() fills. */
  readonly #writer = new ByteWriter("little");
  readonly #nextXidBytes = new Uint8Array(8);
  readonly #nextXidView = new DataView(this.#nextXidBytes.buffer);
  readonly #checkPointBytes = new Uint8Array(CHECKPOINT_SIZE);
  readonly #checkPointView = new DataView(this.#checkPointBytes.buffer);
  #change: StateChange = StateChange.nothing;

  /** Starts after a clean shutdown with this checkpoint; `preparedXids` are full xids. */
  constructor(
    version: PgVersion,
    checkPoint: CheckPoint,
    parameters: WalParameters,
    preparedXids: Iterable<number> = [],
  ) {
    this.version = version;
    this.#checkPoint = { ...checkPoint };
    this.#parameters = { ...parameters };
    if (!parameters.trackCommitTimestamp) this.#forgetCommitTs();
    this.#prepared = new Set(preparedXids);
    this.#oldestRunning = checkPoint.nextXid;
  }

  /** The counters. Read only: they change with the next apply(). */
  get checkPoint(): Readonly<CheckPoint> {
    return this.#checkPoint;
  }

  /** The settings that the WAL depends on. */
  get parameters(): Readonly<WalParameters> {
    return this.#parameters;
  }

  /** Full xids of prepared transactions. */
  get preparedXids(): ReadonlySet<number> {
    return this.#prepared;
  }

  /**
   * No transaction with a full xid below is running, prepared ones excepted.
   * Invariant: oldestRunning <= nextXid.
   */
  get oldestRunning(): number {
    return this.#oldestRunning;
  }

  /** The full xid of an xid that a record up to here names. */
  fullXid(xid: number): number {
    return fullXidBefore(this.#checkPoint.nextXid, xid);
  }

  /** Follows one record. Returns what of the state is different now. */
  apply(cursor: RecordCursor): StateChange {
    this.#change = StateChange.nothing;
    if (cursor.xid !== 0) this.#advanceXid(cursor.xid);
    switch (cursor.rmid) {
      case Rmgr.XLOG:
        this.#applyXlog(cursor);
        break;
      case Rmgr.XACT:
        this.#applyXact(cursor);
        break;
      case Rmgr.CLOG:
        if ((cursor.info & 0xf0) === ClogInfo.TRUNCATE) this.#applyClogTruncate(cursor);
        break;
      case Rmgr.MULTIXACT:
        this.#applyMultiXact(cursor);
        break;
      case Rmgr.COMMIT_TS:
        if ((cursor.info & 0xf0) === ClogInfo.TRUNCATE) {
          this.#advanceOldestCommitTs(readCommitTsTruncate(cursor, this.version));
        }
        break;
      case Rmgr.STANDBY:
        if ((cursor.info & 0xf0) === StandbyInfo.RUNNING_XACTS) this.#applyRunningXacts(cursor);
        break;
    }
    return this.#change;
  }

  #advanceXid(xid: number): void {
    this.#raiseNextXid(advancePast(this.#checkPoint.nextXid, xid));
  }

  #raiseNextXid(next: number): void {
    if (next <= this.#checkPoint.nextXid) return;
    this.#checkPoint.nextXid = next;
    if (this.#change === StateChange.nothing) this.#change = StateChange.nextXid;
  }

  #applyXlog(cursor: RecordCursor): void {
    switch (cursor.info & 0xf0) {
      case XlogInfo.CHECKPOINT_SHUTDOWN:
        return this.#applyShutdown(readCheckPoint(cursor, this.version));
      case XlogInfo.CHECKPOINT_ONLINE:
        return this.#applyOnline(readCheckPoint(cursor, this.version));
      case XlogInfo.NEXTOID:
        return this.#set("nextOid", mainU32(cursor, 0));
      case XlogInfo.PARAMETER_CHANGE:
        this.#parameters = readParameterChange(cursor);
        this.#change = StateChange.more;
        this.#followTrackCommitTimestamp();
        return this.#set("walLevel", this.#parameters.walLevel);
      case XlogInfo.FPW_CHANGE:
        return this.#set("fullPageWrites", cursor.bytes[cursor.mainOffset] !== 0);
      case XlogInfo.END_OF_RECOVERY:
        this.#set("timelineId", mainU32(cursor, 8));
        return this.#set("previousTimelineId", mainU32(cursor, 12));
    }
  }

  #set<K extends keyof CheckPoint>(field: K, value: CheckPoint[K]): void {
    if (this.#checkPoint[field] === value) return;
    this.#checkPoint[field] = value;
    this.#change = StateChange.more;
  }

  #applyShutdown(checkPoint: CheckPoint): void {
    const { oldestCommitTsXid, newestCommitTsXid } = this.#checkPoint;
    this.#checkPoint = { ...checkPoint, oldestCommitTsXid, newestCommitTsXid };
    this.#advanceOldestCommitTs(checkPoint.oldestCommitTsXid);
    this.#oldestRunning = checkPoint.nextXid;
    this.#change = StateChange.more;
  }

  #applyOnline(checkPoint: CheckPoint): void {
    this.#raiseNextXid(checkPoint.nextXid);
    this.#advanceMultiXact(checkPoint.nextMulti, checkPoint.nextMultiOffset);
    if (circlePrecedes(this.#checkPoint.oldestMulti, checkPoint.oldestMulti)) {
      this.#set("oldestMulti", checkPoint.oldestMulti);
      this.#set("oldestMultiDb", checkPoint.oldestMultiDb);
    }
    this.#advanceOldestXid(checkPoint.oldestXid, checkPoint.oldestXidDb);
    this.#advanceOldestCommitTs(checkPoint.oldestCommitTsXid);
    this.#set("redo", checkPoint.redo);
    this.#set("time", checkPoint.time);
    this.#set("fullPageWrites", checkPoint.fullPageWrites);
    if (this.version.checkPointHasWalLevel) this.#set("walLevel", checkPoint.walLevel);
    this.#set("oldestActiveXid", checkPoint.oldestActiveXid);
  }

  #advanceOldestXid(oldestXid: number, oldestXidDb: number): void {
    if (!xidPrecedes(this.#checkPoint.oldestXid, oldestXid)) return;
    this.#set("oldestXid", oldestXid);
    this.#set("oldestXidDb", oldestXidDb);
  }

  #forgetCommitTs(): void {
    this.#set("oldestCommitTsXid", 0);
    this.#set("newestCommitTsXid", 0);
  }

  /** Timestamps begin with the next transaction, or end (ActivateCommitTs, DeactivateCommitTs). */
  #followTrackCommitTimestamp(): void {
    if (!this.#parameters.trackCommitTimestamp) return this.#forgetCommitTs();
    if (this.#checkPoint.oldestCommitTsXid !== 0) return;
    const next = this.#checkPoint.nextXid % TWO_32;
    this.#set("oldestCommitTsXid", next);
    this.#set("newestCommitTsXid", next);
  }

  #advanceOldestCommitTs(oldest: number): void {
    const known = this.#checkPoint.oldestCommitTsXid;
    if (known !== 0 && xidPrecedes(known, oldest)) this.#set("oldestCommitTsXid", oldest);
  }

  /** A commit gave all its ids their timestamp (TransactionTreeSetCommitTsData). */
  #advanceNewestCommitTs(record: XactRecord): void {
    if (record.xid === 0 || !this.#parameters.trackCommitTimestamp) return;
    const count = record.subxactCount;
    const newest = count > 0 ? record.subxact(count - 1) : record.xid;
    if (this.#checkPoint.oldestCommitTsXid === 0) this.#set("oldestCommitTsXid", record.xid);
    if (!xidPrecedes(this.#checkPoint.newestCommitTsXid, newest)) return;
    this.#set("newestCommitTsXid", newest);
  }

  #advanceMultiXact(nextMulti: number, nextOffset: number): void {
    if (circlePrecedes(this.#checkPoint.nextMulti, nextMulti)) this.#set("nextMulti", nextMulti);
    if (circlePrecedes(this.#checkPoint.nextMultiOffset, nextOffset)) {
      this.#set("nextMultiOffset", nextOffset);
    }
  }

  #applyClogTruncate(cursor: RecordCursor): void {
    const { oldestXid, oldestXidDb } = readClogTruncate(cursor, this.version);
    this.#advanceOldestXid(oldestXid, oldestXidDb);
  }

  #applyMultiXact(cursor: RecordCursor): void {
    const opcode = cursor.info & 0xf0;
    if (opcode === MultiXactInfo.CREATE_ID) {
      const { multi, firstMember, count, membersAt } = readMultiXactCreate(cursor);
      const next = (multi + 1) % TWO_32;
      this.#advanceMultiXact(Math.max(next, FIRST_MULTIXACT), (firstMember + count) % TWO_32);
      for (let i = 0; i < count; i++) {
        this.#advanceXid(cursor.view.getUint32(membersAt + 8 * i, true));
      }
    } else if (opcode === MultiXactInfo.TRUNCATE_ID) {
      const { oldestMulti, oldestMultiDb } = readMultiXactTruncate(cursor);
      this.#set("oldestMulti", oldestMulti);
      this.#set("oldestMultiDb", oldestMultiDb);
    }
  }

  #applyXact(cursor: RecordCursor): void {
    const opcode = cursor.info & XACT_OPCODE_MASK;
    if (opcode === XactInfo.ASSIGNMENT) {
      const count = mainU32(cursor, 4);
      for (let i = 0; i < count; i++) this.#advanceXid(mainU32(cursor, 8 + 4 * i));
      return;
    }
    if (opcode === XactInfo.INVALIDATIONS) return;
    const record = this.#xact;
    record.decode(cursor, this.version);
    this.#advanceXid(record.xid);
    for (let i = 0; i < record.subxactCount; i++) this.#advanceXid(record.subxact(i));
    if (opcode === XactInfo.COMMIT || opcode === XactInfo.COMMIT_PREPARED) {
      this.#advanceNewestCommitTs(record);
    }
    if (opcode === XactInfo.PREPARE) {
      this.#prepared.add(this.fullXid(record.xid));
      this.#change = StateChange.more;
    } else if (opcode === XactInfo.COMMIT_PREPARED || opcode === XactInfo.ABORT_PREPARED) {
      if (this.#prepared.delete(this.fullXid(record.xid))) this.#change = StateChange.more;
    }
  }

  #applyRunningXacts(cursor: RecordCursor): void {
    const { nextXid, oldestRunningXid } = readRunningXacts(cursor);
    this.#advanceXid(nextXid === FIRST_NORMAL_XID ? TWO_32 - 1 : nextXid - 1);
    const oldest = this.fullXid(oldestRunningXid);
    if (oldest <= this.#oldestRunning) return;
    this.#oldestRunning = oldest;
    this.#change = StateChange.more;
  }

  /**
   * The state at this LSN, about 120 bytes, little endian:
   *   version u8 | CheckPoint 88 | wal_level u32 | five limits u32 | flags u8
   *   | oldestRunning u64 (from version 2 on) | count u32
   *   | full xid u64 of each prepared transaction
   *
   * Valid until the next call.
   */
  serialise(): Uint8Array<ArrayBuffer> {
    const parameters = this.#parameters;
    const { walLogHints, trackCommitTimestamp } = parameters;
    writeCheckPoint(this.#checkPoint, this.version, this.#checkPointView);
    const writer = this.#writer.reset();
    writer.u8(STATE_VERSION).raw(this.#checkPointBytes).u32(parameters.walLevel);
    writer.u32(parameters.maxConnections).u32(parameters.maxWorkerProcesses);
    writer.u32(parameters.maxWalSenders).u32(parameters.maxPreparedTransactions);
    writer.u32(parameters.maxLocksPerTransaction);
    writer.u8((walLogHints ? 1 : 0) | (trackCommitTimestamp ? 2 : 0));
    writer.u64(BigInt(this.#oldestRunning));
    writer.u32(this.#prepared.size);
    if (this.#prepared.size === 0) return writer.bytes();
    for (const full of [...this.#prepared].sort((a, b) => a - b)) writer.u64(BigInt(full));
    return writer.bytes();
  }

  /**
   * The next full xid at this LSN, u64. Valid until the next call: ingest stores it for every
   * transaction, so nothing is made anew.
   */
  serialiseNextXid(): Uint8Array<ArrayBuffer> {
    this.#nextXidView.setBigUint64(0, BigInt(this.#checkPoint.nextXid), true);
    return this.#nextXidBytes;
  }

  /**
   * The tracker at the LSN for which `bytes` were serialised, or at a later one of which `nextXid`
   * is, where nothing else has changed between. Throws Corrupt.
   */
  static restore(
    bytes: Uint8Array,
    version: PgVersion,
    nextXid?: Uint8Array,
  ): CheckpointTracker {
    const reader = new ByteReader(bytes, "little", "checkpoint state");
    const stateVersion = reader.u8();
    if (stateVersion < OLDEST_STATE_VERSION || stateVersion > STATE_VERSION) {
      throw new Corrupt(`Cannot read checkpoint state: its version is ${stateVersion}`);
    }
    const checkPoint = decodeCheckPoint(reader.raw(CHECKPOINT_SIZE), 0, version);
    if (nextXid !== undefined) {
      checkPoint.nextXid = Number(new ByteReader(nextXid, "little", "next transaction id").u64());
    }
    const parameters: WalParameters = {
      walLevel: reader.u32(),
      maxConnections: reader.u32(),
      maxWorkerProcesses: reader.u32(),
      maxWalSenders: reader.u32(),
      maxPreparedTransactions: reader.u32(),
      maxLocksPerTransaction: reader.u32(),
      walLogHints: false,
      trackCommitTimestamp: false,
    };
    const flags = reader.u8();
    parameters.walLogHints = (flags & 1) !== 0;
    parameters.trackCommitTimestamp = (flags & 2) !== 0;
    // Too low is harmless: transactions that a crash has ended are then taken for running ones
    const oldestRunning = stateVersion < WHOLE_STATE_VERSION
      ? fullXidBefore(checkPoint.nextXid, checkPoint.oldestXid)
      : Number(reader.u64());
    const prepared = Array.from({ length: reader.u32() }, () => Number(reader.u64()));
    reader.end();
    const tracker = new CheckpointTracker(version, checkPoint, parameters, prepared);
    tracker.#oldestRunning = oldestRunning;
    assert(oldestRunning <= checkPoint.nextXid, "no xid runs that was not given out");
    assert(prepared.every((full) => full < checkPoint.nextXid), "prepared xids are below nextXid");
    return tracker;
  }
}
