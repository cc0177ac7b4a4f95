/**
 * Redo on the pages of pg_commit_ts: 10 bytes for each transaction, when it committed and which
 * replication origin it came from (PostgreSQL 17, commit_ts.c, TransactionTreeSetCommitTsData).
 *
 *   time i64 | origin u16
 *
 * A commit record names one transaction and its subtransactions, all of which get the same entry. A
 * transaction that was replicated carries the time of its own server.
 */
import { PAGE_SIZE, Rmgr, XactInfo } from "../../libs/postgres/constants.ts";
import {
  COMMIT_TS_BYTES,
  COMMIT_TS_PER_PAGE,
  SlruKind,
  slruPageNumber,
} from "../../libs/postgres/slru.ts";
import type { PgVersion } from "../../libs/postgres/versions.ts";
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import { ClogInfo, readSlruPage } from "../../libs/postgres/wal/small_records.ts";
import { XACT_OPCODE_MASK, XactRecord } from "../../libs/postgres/xact_record.ts";
import type { PageTarget, RedoKey } from "./types.ts";

/** Reused for every record. */
const xact = new XactRecord();

/** Whether the record makes exactly this pg_commit_ts page out of zeros. */
export function commitTsZeroes(cursor: RecordCursor, key: RedoKey, version: PgVersion): boolean {
  return key.slruKind === SlruKind.COMMIT_TS && (cursor.info & 0xf0) === ClogInfo.ZEROPAGE &&
    readSlruPage(cursor, version) === slruPageNumber(key.segno, key.block);
}

/** Applies a CommitTs or Transaction record to a page of pg_commit_ts. */
export function redoCommitTs(
  page: PageTarget,
  cursor: RecordCursor,
  key: RedoKey,
  version: PgVersion,
): void {
  if (cursor.rmid === Rmgr.COMMIT_TS) {
    if (!commitTsZeroes(cursor, key, version)) return;
    page.bytes.fill(0, page.offset, page.offset + PAGE_SIZE);
    return;
  }
  const opcode = cursor.info & XACT_OPCODE_MASK;
  if (opcode !== XactInfo.COMMIT && opcode !== XactInfo.COMMIT_PREPARED) return;
  const pageNumber = slruPageNumber(key.segno, key.block);
  xact.decode(cursor, version);
  setEntry(page, pageNumber, xact.xid, cursor);
  for (let i = 0; i < xact.subxactCount; i++) setEntry(page, pageNumber, xact.subxact(i), cursor);
}

function setEntry(page: PageTarget, pageNumber: number, xid: number, cursor: RecordCursor): void {
  if (Math.floor(xid / COMMIT_TS_PER_PAGE) !== pageNumber) return;
  const at = page.offset + COMMIT_TS_BYTES * (xid % COMMIT_TS_PER_PAGE);
  const time = xact.commitTimeAt;
  page.view.setUint32(at, cursor.view.getUint32(time, true), true);
  page.view.setUint32(at + 4, cursor.view.getUint32(time + 4, true), true);
  page.view.setUint16(at + 8, cursor.origin, true);
}
