/**
 * Ingest of replication origins' progress (PostgreSQL 17, origin.c, replorigin_advance).
 *
 *   SET         the origin's position, which goes back only when it is told to
 *   DROP        the origin is gone
 *   commits, aborts and prepared transactions of a replicated transaction carry the position of
 *               its end on its own server
 *
 * A branch does not inherit progress: it is another subscriber, to which nothing was sent yet.
 */
import {
  ORIGIN_MAX,
  OriginInfo,
  type OriginProgress,
  readOriginDrop,
  readOriginSet,
} from "../../libs/postgres/replication_origin.ts";
import type { XactRecord } from "../../libs/postgres/xact_record.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import { replicationOriginId, replicationOriginKey } from "../repository/key.ts";
import type { Timeline } from "../repository/timeline.ts";
import type { RecordSink } from "./record_sink.ts";

/** The progress of each origin of a timeline as of `lsn`. */
export function originProgressAt(timeline: Timeline, lsn: Lsn): OriginProgress {
  const progress = new Map<number, bigint>();
  const [from, to] = [replicationOriginKey(0), replicationOriginKey(ORIGIN_MAX + 1)];
  timeline.scan(from, to, lsn, (key, value) => {
    const view = new DataView(value.buffer, value.byteOffset, value.length);
    progress.set(replicationOriginId(key), view.getBigUint64(0, true));
  });
  return progress;
}

/** The stored form of a position. */
export function encodePosition(position: bigint): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, position, true);
  return bytes;
}

/** Applies the current ReplicationOrigin record. */
export function ingestReplicationOrigin(sink: RecordSink): void {
  const opcode = sink.cursor.info & 0xf0;
  if (opcode === OriginInfo.SET) {
    const { origin, position, goesBack } = readOriginSet(sink.cursor);
    advance(sink, origin, position, goesBack);
  } else if (opcode === OriginInfo.DROP) {
    const origin = readOriginDrop(sink.cursor);
    if (sink.origins.delete(origin)) sink.putValue(replicationOriginKey(origin), null);
  }
}

/** The current record ends or prepares a transaction; if it was replicated, its origin advances. */
export function advanceOrigin(sink: RecordSink, record: XactRecord): void {
  if (sink.cursor.origin === 0 || record.originLsn === 0n) return;
  advance(sink, sink.cursor.origin, record.originLsn, false);
}

function advance(sink: RecordSink, origin: number, position: bigint, goesBack: boolean): void {
  if (origin === 0 || origin > ORIGIN_MAX) return;
  const known = sink.origins.get(origin);
  if (known !== undefined && known >= position && !goesBack) return;
  sink.origins.set(origin, position);
  sink.putValue(replicationOriginKey(origin), encodePosition(position));
}
