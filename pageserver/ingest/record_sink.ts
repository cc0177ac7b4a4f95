/**
 * Where the ingest routines put what a record changes.
 *
 * A record's bytes are stored once, when the first page that it changes is put, and every further
 * page refers to the same blob. Reused for every record; begin() sets the current one.
 */
import { PAGE_SIZE } from "../../libs/postgres/constants.ts";
import type { CheckpointTracker } from "../../libs/postgres/checkpoint_tracker.ts";
import type { PgVersion } from "../../libs/postgres/versions.ts";
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import { ABSENT, type Relations } from "../relations.ts";
import type { Key } from "../repository/key.ts";
import type { KeyInterner, ObjectId } from "../repository/key_interner.ts";
import type { BlobRef, Timeline } from "../repository/timeline.ts";
import type { ServedTimeline } from "../served_timeline.ts";
import { CommitMarks } from "./commit_marks.ts";
import { HeldLocks } from "./held_locks.ts";
import { originProgressAt } from "./replication_origins.ts";

const ZERO_PAGE = new Uint8Array(PAGE_SIZE);

/** The current record and the timeline that takes it. */
export class RecordSink {
  readonly timeline: Timeline;
  readonly relations: Relations;
  readonly interner: KeyInterner;
  readonly version: PgVersion;
  readonly tracker: CheckpointTracker;
  readonly locks: HeldLocks;
  readonly commits: CommitMarks;
  /** The current record. */
  readonly cursor: RecordCursor;
  /** Progress of replication origins, all earlier records considered. */
  readonly origins: Map<number, bigint>;
  #blob: BlobRef | undefined;

  constructor(served: ServedTimeline, tracker: CheckpointTracker, cursor: RecordCursor) {
    this.timeline = served.timeline;
    this.relations = served.relations;
    this.interner = served.timeline.interner;
    this.version = served.version;
    this.tracker = tracker;
    this.locks = new HeldLocks(served.timeline, tracker.checkPoint.nextXid);
    this.commits = new CommitMarks(served.timeline);
    this.cursor = cursor;
    this.origins = new Map(originProgressAt(this.timeline, this.timeline.lastRecordLsn));
  }

  /** LSN of everything that the current record puts: its end, as in pd_lsn. */
  get lsn(): Lsn {
    return this.cursor.endLsn;
  }

  /** Call when the cursor describes another record. */
  begin(): void {
    this.#blob = undefined;
  }

  /** The record changes this page; `willInit` = it rebuilds the page from nothing. */
  put(object: ObjectId, block: number, willInit: boolean): void {
    const { cursor, timeline } = this;
    this.#blob ??= timeline.beginBlob(cursor.bytes, cursor.start, cursor.length);
    timeline.putRecord(object, block, cursor.endLsn, this.#blob, willInit);
  }

  /**
   * The page is all zeros, as PostgreSQL itself would have it. The current record may still be put
   * against it: of two versions with one LSN the later put is the newer.
   */
  putZeroPage(object: ObjectId, block: number): void {
    this.timeline.putImage(object, block, this.cursor.endLsn, ZERO_PAGE, 0, PAGE_SIZE);
  }

  /** A value of its own, or null for "gone". */
  putValue(key: Key, bytes: Uint8Array | null): void {
    this.timeline.putValue(key, this.cursor.endLsn, bytes);
  }

  /** Blocks of an object, or ABSENT, all earlier records considered. */
  blocks(object: ObjectId): number {
    return this.relations.latestBlocks(object);
  }

  /** Whether the object has this block. */
  hasBlock(object: ObjectId, block: number): boolean {
    return block < this.blocks(object);
  }

  /** Creates the object with no blocks if it does not exist. */
  create(object: ObjectId): void {
    if (this.blocks(object) === ABSENT) this.relations.setBlocks(object, 0, this.lsn);
  }

  /** Sets the size of an object. */
  setBlocks(object: ObjectId, blocks: number): void {
    this.relations.setBlocks(object, blocks, this.lsn);
  }

  /** The object is gone. */
  drop(object: ObjectId): void {
    this.relations.drop(object, this.lsn);
  }
}
