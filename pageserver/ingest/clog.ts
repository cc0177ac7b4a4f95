/**
 * Ingest of the CLOG resource manager: pages of pg_xact come and go (PostgreSQL 17, clog_redo).
 *
 *   ZEROPAGE 0x00: page number (u32; u64 from 17 on)
 *   TRUNCATE 0x10: page number likewise, oldest xid u32, its database u32
 *
 * Which transactions committed is in records of the Transaction resource manager: transaction.ts.
 */
import { FIRST_NORMAL_XID } from "../../libs/postgres/constants.ts";
import { ClogInfo } from "../../libs/postgres/wal/small_records.ts";
import { readSlruPageNumber, SLRU_CLOG } from "../walredo/slru_page.ts";
import type { RecordSink } from "./record_sink.ts";
import { extendSlru, putSlruPage, truncateSlru } from "./slru.ts";

/** Two bits a transaction. */
export const XIDS_PER_CLOG_PAGE = 32768;

/** Applies the current CLOG record; all that was ingested before it must be visible. */
export function ingestClog(sink: RecordSink): void {
  const { cursor } = sink;
  const opcode = cursor.info & 0xf0;
  const page = readSlruPageNumber(cursor);
  if (opcode === ClogInfo.ZEROPAGE) {
    extendSlru(sink, SLRU_CLOG, page);
    putSlruPage(sink, SLRU_CLOG, page, true);
  } else if (opcode === ClogInfo.TRUNCATE) {
    const nextXid = sink.tracker.checkPoint.nextXid % 0x100000000;
    truncateSlru(
      sink,
      SLRU_CLOG,
      sink.relations.slruSegments(SLRU_CLOG, sink.timeline.lastRecordLsn),
      page,
      Math.floor(nextXid / XIDS_PER_CLOG_PAGE),
      XIDS_PER_CLOG_PAGE,
      FIRST_NORMAL_XID,
    );
  }
}
