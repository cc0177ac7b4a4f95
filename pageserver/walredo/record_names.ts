/** The name of a record in messages and counts. */
import { recordName } from "../../libs/postgres/rmgr_names.ts";
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";

/** "Btree SPLIT_L", "Heap INSERT+INIT", "custom133 UNKNOWN (20)". */
export function describeRecord(cursor: RecordCursor): string {
  return recordName(cursor.version, cursor.rmid, cursor.info);
}
