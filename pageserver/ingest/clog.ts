/**
 * Ingest of the CLOG resource manager: pages of pg_xact come and go (PostgreSQL 17, clog_redo).
 *
 *   ZEROPAGE 0x00: page number (u32; u64 from 17 on)
 *   TRUNCATE 0x10: page number likewise, oldest xid u32, its database u32
 *
 * Which transactions committed is in records of the Transaction resource manager: transaction.ts.
 */
import { SlruKind, XIDS_PER_PAGE } from "../../libs/postgres/slru.ts";
import { ClogInfo, readSlruPage } from "../../libs/postgres/wal/small_records.ts";
import type { RecordSink } from "./record_sink.ts";
import { extendSlru, putSlruPage, truncateSlru } from "./slru.ts";

const TWO_32 = 4294967296;

/** Applies the current CLOG record; all that was ingested before it must be visible. */
export function ingestClog(sink: RecordSink): void {
  const opcode = sink.cursor.info & 0xf0;
  const page = readSlruPage(sink.cursor, sink.version);
  if (opcode === ClogInfo.ZEROPAGE) {
    extendSlru(sink, SlruKind.CLOG, page);
    putSlruPage(sink, SlruKind.CLOG, page, true);
  } else if (opcode === ClogInfo.TRUNCATE) {
    const nextXid = sink.tracker.checkPoint.nextXid % TWO_32;
    truncateSlru(sink, SlruKind.CLOG, page, Math.floor(nextXid / XIDS_PER_PAGE));
  }
}
