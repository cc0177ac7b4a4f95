/**
 * Ingest of the Standby resource manager (PostgreSQL 17, standby.c, standby_redo).
 *
 *   LOCK   u32 count, then {xid u32, database u32, relation u32} each: AccessExclusive locks, which
 *          a standby has to hold until the transactions end; those of a transaction are written
 *          when it takes them, and again with each snapshot of what is running
 *
 * RUNNING_XACTS is for the tracker (libs/postgres/checkpoint_tracker.ts), INVALIDATIONS for caches.
 */
import { mainU32, StandbyInfo } from "../../libs/postgres/wal/small_records.ts";
import { standbyLockKey } from "../repository/key.ts";
import type { RecordSink } from "./record_sink.ts";

/** Applies the current Standby record. */
export function ingestStandby(sink: RecordSink): void {
  const { cursor, tracker, locks } = sink;
  if ((cursor.info & 0xf0) !== StandbyInfo.LOCK) return;
  locks.prune((xid) => xid >= tracker.oldestRunning || tracker.preparedXids.has(xid));
  const count = mainU32(cursor, 0);
  for (let i = 0; i < count; i++) {
    const at = 4 + 12 * i;
    const xid = tracker.fullXid(mainU32(cursor, at));
    const changed = locks.add(xid, mainU32(cursor, at + 4), mainU32(cursor, at + 8));
    if (changed !== undefined) sink.putValue(standbyLockKey(xid, changed.part), changed.bytes);
  }
}
