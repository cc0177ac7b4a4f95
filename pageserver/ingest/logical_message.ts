/**
 * Ingest of what carries files that PostgreSQL keeps outside its WAL: logical messages of our own
 * prefix (libs/basebackup/carried_files.ts), and the records by which PostgreSQL itself makes the
 * mapping files of logical decoding safe (PostgreSQL 17, rewriteheap.c, heap_xlog_logical_rewrite).
 */
import {
  CARRIED_BYTES_MAX,
  CARRIED_PREFIX,
  carriedKind,
  slotName,
} from "../../libs/basebackup/carried_files.ts";
import { Rmgr } from "../../libs/postgres/constants.ts";
import { readSlotState } from "../../libs/postgres/replication_slot.ts";
import { readLogicalMessage } from "../../libs/postgres/wal/logical_message.ts";
import { HEAP2_REWRITE, readLogicalRewrite } from "../../libs/postgres/wal/logical_rewrite.ts";
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import { carriedFile, carriedFileKey, encodeCarriedFile } from "../carried_files.ts";
import type { RecordSink } from "./record_sink.ts";

/** Whether the record appends to a mapping file. */
export function isLogicalRewrite(cursor: RecordCursor): boolean {
  return cursor.rmid === Rmgr.HEAP2 && (cursor.info & 0x70) === HEAP2_REWRITE;
}

/** Applies the current LogicalMessage record. */
export function ingestLogicalMessage(sink: RecordSink): void {
  const message = readLogicalMessage(sink.cursor);
  if (message === undefined || message.transactional) return;
  const { prefix, content, database } = message;
  if (!prefix.startsWith(CARRIED_PREFIX)) return;
  const path = prefix.slice(CARRIED_PREFIX.length);
  const kind = carriedKind(path);
  if (kind === undefined || content.length > CARRIED_BYTES_MAX) return;
  if (kind === "statistics" && database !== 0) return;
  if (kind === "slot" && content.length > 0 && !isSlotState(path, content)) return;
  const value = content.length === 0 ? null : encodeCarriedFile(path, content);
  sink.putValue(carriedFileKey(path, kind), value);
}

/** A slot that PostgreSQL could not read would keep it from starting. */
function isSlotState(path: string, content: Uint8Array): boolean {
  return readSlotState(content)?.name === slotName(path);
}

/** Applies the current rewrite record; all that was ingested before it must be visible. */
export function ingestLogicalRewrite(sink: RecordSink): void {
  const { path, offset, mappings } = readLogicalRewrite(sink.cursor);
  const { timeline } = sink;
  const before = carriedFile(timeline, path, "mapping", timeline.lastRecordLsn);
  const content = new Uint8Array(offset + mappings.length);
  content.set((before ?? new Uint8Array(0)).subarray(0, offset));
  content.set(mappings, offset);
  sink.putValue(carriedFileKey(path, "mapping"), encodeCarriedFile(path, content));
}
