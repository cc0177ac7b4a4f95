/**
 * Redo on the pages of pg_xact: two bits for each transaction, 32768 transactions to a page, the
 * first of a byte in its low bits. 0 in progress, 1 committed, 2 aborted.
 *
 * COMMIT and ABORT name one transaction and its finished subtransactions, which may lie on several
 * pages; each page is asked about separately and takes its own (PostgreSQL 17,
 * TransactionIdCommitTree, TransactionIdAbortTree). The prepared variants carry the transaction's
 * id in the main data, because another session writes the record (libs/postgres/xact_record.ts).
 */
import { FIRST_NORMAL_XID, PAGE_SIZE, Rmgr, XactInfo } from "../../libs/postgres/constants.ts";
import {
  SlruKind,
  slruPageNumber,
  XIDS_PER_BYTE,
  XIDS_PER_PAGE,
  XidStatus,
} from "../../libs/postgres/slru.ts";
import type { PgVersion } from "../../libs/postgres/versions.ts";
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import { ClogInfo, readSlruPage } from "../../libs/postgres/wal/small_records.ts";
import { XACT_OPCODE_MASK, XactRecord } from "../../libs/postgres/xact_record.ts";
import type { PageTarget, RedoKey } from "./types.ts";

/** Reused for every record. */
const xact = new XactRecord();

/** Whether the record makes exactly this pg_xact page out of zeros. */
export function clogZeroes(cursor: RecordCursor, key: RedoKey, version: PgVersion): boolean {
  return key.slruKind === SlruKind.CLOG && (cursor.info & 0xf0) === ClogInfo.ZEROPAGE &&
    readSlruPage(cursor, version) === slruPageNumber(key.segno, key.block);
}

/** Applies a CLOG or Transaction record to a page of pg_xact. */
export function redoClog(
  page: PageTarget,
  cursor: RecordCursor,
  key: RedoKey,
  version: PgVersion,
): void {
  if (key.slruKind !== SlruKind.CLOG) return;
  if (cursor.rmid === Rmgr.CLOG) {
    if (!clogZeroes(cursor, key, version)) return;
    page.bytes.fill(0, page.offset, page.offset + PAGE_SIZE);
    return;
  }
  switch (cursor.info & XACT_OPCODE_MASK) {
    case XactInfo.COMMIT:
    case XactInfo.COMMIT_PREPARED:
      return setTree(page, key, cursor, version, XidStatus.COMMITTED);
    case XactInfo.ABORT:
    case XactInfo.ABORT_PREPARED:
      return setTree(page, key, cursor, version, XidStatus.ABORTED);
    default:
      return;
  }
}

function setTree(
  page: PageTarget,
  key: RedoKey,
  cursor: RecordCursor,
  version: PgVersion,
  status: number,
): void {
  const pageNumber = slruPageNumber(key.segno, key.block);
  xact.decode(cursor, version);
  for (let i = 0; i < xact.subxactCount; i++) {
    setStatus(page, pageNumber, xact.subxact(i), status);
  }
  setStatus(page, pageNumber, xact.xid, status);
}

function setStatus(page: PageTarget, pageNumber: number, xid: number, status: number): void {
  if (xid < FIRST_NORMAL_XID || Math.floor(xid / XIDS_PER_PAGE) !== pageNumber) return;
  const inPage = xid % XIDS_PER_PAGE;
  const at = page.offset + Math.floor(inPage / XIDS_PER_BYTE);
  const shift = (inPage % XIDS_PER_BYTE) * 2;
  page.bytes[at] = (page.bytes[at]! & ~(3 << shift)) | (status << shift);
}
