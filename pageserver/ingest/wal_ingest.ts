/**
 * WAL in, page versions out: decodes a timeline's stream and puts every record where it belongs.
 *
 *   feed(bytes) -> records -> [ block references | what the resource manager implies | tracker ]
 *               -> timeline.advance() after each batch, which makes the batch visible
 *
 * Everything is kept and nothing committed is refused: a record of an unknown resource manager is
 * stored against its blocks, and reading such a page is where the error belongs. There is one
 * WalIngest per timeline and connection; it starts at last_record_lsn.
 *
 * A batch ends after RECORDS_PER_BATCH records or SLICE_MS of work, whichever is first, and after
 * SLICE_MS other work of the event loop gets a turn. The slice goes on from one feed to the next:
 * while WAL is there to be read, reading it does not give others a turn.
 */
import { CheckpointTracker, StateChange } from "../../libs/postgres/checkpoint_tracker.ts";
import { Rmgr, XlogInfo } from "../../libs/postgres/constants.ts";
import { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import { WalStreamDecoder } from "../../libs/postgres/wal/stream_decoder.ts";
import { Corrupt } from "../../libs/utils/errors.ts";
import { formatLsn, INVALID_LSN, type Lsn } from "../../libs/utils/lsn.ts";
import { ingestMetrics } from "../metrics.ts";
import type { PageReader } from "../page_service/page_reader.ts";
import { CHECKPOINT_KEY, NEXT_XID_KEY } from "../repository/key.ts";
import type { ObjectId } from "../repository/key_interner.ts";
import type { ServedTimeline } from "../served_timeline.ts";
import { ingestBlocks } from "./blocks.ts";
import { ingestClog } from "./clog.ts";
import { ingestCommitTs, ingestTrackCommitTimestamp } from "./commit_ts.ts";
import { ingestDatabase } from "./database.ts";
import { ingestLogicalMessage, ingestLogicalRewrite, isLogicalRewrite } from "./logical_message.ts";
import { ingestMultixact, isMultixactTruncate } from "./multixact.ts";
import { RecordSink } from "./record_sink.ts";
import { ingestRelationMap } from "./relation_map.ts";
import { ingestReplicationOrigin } from "./replication_origins.ts";
import { ingestStandby } from "./standby.ts";
import { ingestStorage } from "./storage.ts";
import { ingestTransaction } from "./transaction.ts";
import { ingestVisibilityMap } from "./visibility_map.ts";

const RECORDS_PER_BATCH = 100;
/** Longest stretch of work between two turns of the event loop. */
const SLICE_MS = 1;
/** Records between two looks at the clock. */
const RECORDS_PER_CLOCK = 8;

/** What ingest needs of its surroundings. */
export interface WalIngestOptions {
  readonly served: ServedTimeline;
  readonly reader: PageReader;
  /** Milliseconds, monotonic. */
  readonly now: () => number;
  /** Lets other work of the event loop run. */
  readonly pause: () => Promise<void>;
}

/** Ingest of one timeline's WAL from its last_record_lsn on. */
export class WalIngest {
  readonly #options: WalIngestOptions;
  readonly #decoder: WalStreamDecoder;
  readonly #cursor = new RecordCursor();
  readonly #sink: RecordSink;
  /** Records put since the last advance(), and start and end of the last of them. */
  #pendingRecords = 0;
  #pendingStart: Lsn = INVALID_LSN;
  #pendingEnd: Lsn = INVALID_LSN;
  /** What CHECKPOINT_KEY and NEXT_XID_KEY are of. */
  readonly #control: ObjectId;
  /** Once from here on: what is there may be of a version that knows no other next transaction id. */
  #hasPutState = false;
  /** What is left of the slice between two feeds, and when it ends, inside one. */
  #sliceLeftMs = SLICE_MS;
  #sliceEndMs = 0;

  constructor(options: WalIngestOptions) {
    const { served } = options;
    const { timeline } = served;
    this.#options = options;
    const { f1, f2, f3, f4, f5 } = NEXT_XID_KEY;
    this.#control = timeline.interner.intern(f1, f2, f3, f4, f5);
    this.#decoder = new WalStreamDecoder(
      timeline.lastRecordLsn,
      served.control.walSegmentSize,
      served.version,
    );
    this.#sink = new RecordSink(
      served,
      restoreTracker(served, timeline.lastRecordLsn),
      this.#cursor,
    );
  }

  /** End of the bytes that were fed. */
  get fedLsn(): Lsn {
    return this.#decoder.fedLsn;
  }

  /**
   * Ingests all whole records in `bytes`, which continue at fedLsn; on return they are visible. The
   * caller may reuse its buffer. After an error this object must not be used again: what was not
   * yet visible is dropped, and another one starts anew at last_record_lsn.
   */
  async feed(bytes: Uint8Array): Promise<void> {
    try {
      await this.#feed(bytes);
    } catch (thrown) {
      this.#options.served.timeline.rollback();
      this.#options.served.relations.forget();
      throw thrown;
    }
  }

  async #feed(bytes: Uint8Array): Promise<void> {
    const { served, now, pause } = this.#options;
    this.#decoder.feed(bytes);
    ingestMetrics.bytes.inc(bytes.length);
    await served.timeline.waitForRoom();
    this.#sliceEndMs = now() + this.#sliceLeftMs;
    while (this.#decoder.next(this.#cursor)) {
      if (readsDirectory(this.#cursor)) this.#commit();
      const waiting = this.#ingest();
      if (waiting !== undefined) await waiting;
      this.#pendingRecords++;
      this.#pendingStart = this.#cursor.lsn;
      this.#pendingEnd = this.#cursor.endLsn;
      if (this.#sliceIsOver()) await this.#endSlice();
    }
    this.#commit();
    this.#sliceLeftMs = this.#sliceEndMs - now();
    if (this.#sliceLeftMs > 0) return;
    await pause();
    this.#sliceLeftMs = SLICE_MS;
  }

  #sliceIsOver(): boolean {
    if (this.#pendingRecords >= RECORDS_PER_BATCH) this.#commit();
    return this.#pendingRecords % RECORDS_PER_CLOCK === 0 && this.#options.now() > this.#sliceEndMs;
  }

  async #endSlice(): Promise<void> {
    const { served, now, pause } = this.#options;
    this.#commit();
    await pause();
    await served.timeline.waitForRoom();
    this.#sliceEndMs = now() + SLICE_MS;
  }

  /** Makes the records since the last commit visible. */
  #commit(): void {
    if (this.#pendingRecords === 0) return;
    const { timeline, relations } = this.#options.served;
    ingestMetrics.records.inc(this.#pendingRecords);
    this.#pendingRecords = 0;
    timeline.advance(this.#pendingEnd, this.#pendingStart);
    relations.trim();
  }

  /** Puts the checkpoint state, or only the next transaction id if nothing else has changed. */
  #putState(change: StateChange): void {
    const { timeline, tracker, lsn } = this.#sink;
    if (change === StateChange.more || !this.#hasPutState) {
      this.#hasPutState = true;
      timeline.putValue(CHECKPOINT_KEY, lsn, tracker.serialise());
    }
    const nextXid = tracker.serialiseNextXid();
    timeline.putImage(this.#control, NEXT_XID_KEY.f6, lsn, nextXid, 0, nextXid.length);
  }

  /** Puts the record that the cursor describes. A promise for the rare ones that take long. */
  #ingest(): Promise<void> | undefined {
    const sink = this.#sink;
    sink.begin();
    const change = sink.tracker.apply(this.#cursor);
    if (change !== StateChange.nothing) this.#putState(change);
    if (this.#cursor.maxBlockId >= 0) ingestBlocks(sink);
    switch (this.#cursor.rmid) {
      case Rmgr.HEAP:
      case Rmgr.HEAP2:
        if (isLogicalRewrite(this.#cursor)) ingestLogicalRewrite(sink);
        else ingestVisibilityMap(sink);
        return undefined;
      case Rmgr.LOGICALMSG:
        ingestLogicalMessage(sink);
        return undefined;
      case Rmgr.XACT:
        ingestTransaction(sink);
        return undefined;
      case Rmgr.SMGR:
        ingestStorage(sink);
        return undefined;
      case Rmgr.STANDBY:
        ingestStandby(sink);
        return undefined;
      case Rmgr.CLOG:
        ingestClog(sink);
        return undefined;
      case Rmgr.COMMIT_TS:
        ingestCommitTs(sink);
        return undefined;
      case Rmgr.XLOG:
        if (isParameterChange(this.#cursor)) ingestTrackCommitTimestamp(sink);
        return undefined;
      case Rmgr.MULTIXACT:
        ingestMultixact(sink);
        return undefined;
      case Rmgr.REPLORIGIN:
        ingestReplicationOrigin(sink);
        return undefined;
      case Rmgr.RELMAP:
        ingestRelationMap(sink);
        return undefined;
      case Rmgr.DBASE:
        return ingestDatabase(sink, this.#options);
      default:
        return undefined;
    }
  }
}

/**
 * Whether ingest of the record reads what exists (a database's relations, an SLRU's segments): all
 * records before it must be visible then, and it must not have put anything yet.
 */
function readsDirectory(cursor: RecordCursor): boolean {
  return cursor.rmid === Rmgr.DBASE || cursor.rmid === Rmgr.CLOG ||
    cursor.rmid === Rmgr.COMMIT_TS || isParameterChange(cursor) || isMultixactTruncate(cursor) ||
    isLogicalRewrite(cursor);
}

function isParameterChange(cursor: RecordCursor): boolean {
  return cursor.rmid === Rmgr.XLOG && (cursor.info & 0xf0) === XlogInfo.PARAMETER_CHANGE;
}

/** The checkpoint state as of `lsn`. Throws Corrupt if the timeline has none. */
export function restoreTracker(served: ServedTimeline, lsn: Lsn): CheckpointTracker {
  const state = served.timeline.getValue(CHECKPOINT_KEY, lsn);
  if (state === undefined) {
    throw new Corrupt(
      `Cannot use timeline ${served.timeline.timelineId} at ${formatLsn(lsn)}: no checkpoint state`,
    );
  }
  const nextXid = served.timeline.getValue(NEXT_XID_KEY, lsn);
  return CheckpointTracker.restore(state, served.version, nextXid);
}
