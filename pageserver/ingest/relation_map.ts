/**
 * Ingest of the RelMap resource manager: a new pg_filenode.map (PostgreSQL 17, relmap_redo).
 *
 *   UPDATE 0x00: 0 database u32, 4 tablespace u32, 8 length i32, 12 the file's bytes
 */
import { GLOBAL_TABLESPACE } from "../../libs/postgres/constants.ts";
import { readRelMapUpdate } from "../../libs/postgres/wal/file_records.ts";
import { encodeDatabase } from "../relations.ts";
import { databaseKey, relmapKey } from "../repository/key.ts";
import type { RecordSink } from "./record_sink.ts";

const UPDATE = 0x00;

/** Stores the map; a database directory is known to have one from here on. */
export function ingestRelationMap(sink: RecordSink): void {
  const { cursor } = sink;
  if ((cursor.info & 0xf0) !== UPDATE) return;
  const { db, spc, dataAt, dataLength } = readRelMapUpdate(cursor);
  sink.putValue(relmapKey(spc, db), cursor.bytes.subarray(dataAt, dataAt + dataLength));
  if (spc !== GLOBAL_TABLESPACE) sink.putValue(databaseKey(spc, db), encodeDatabase(true));
}
