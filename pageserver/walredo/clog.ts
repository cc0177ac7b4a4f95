/**
 * Redo on the pages of pg_xact: two bits for each transaction, 32768 transactions to a page, the
 * first of a byte in its low bits. 0 in progress, 1 committed, 2 aborted.
 *
 * COMMIT and ABORT name one transaction and its finished subtransactions, which may lie on several
 * pages; each page is asked about separately and takes its own (PostgreSQL 17,
 * TransactionIdCommitTree, TransactionIdAbortTree). The prepared variants carry the transaction's
 * id in the main data, because another session writes the record.
 *
 * Main data of the four (xact.h): time u64, then if info & 0x80 the parts' flags u32, then the
 * parts:
 *   0x001 database u32, tablespace u32        0x100 count u32, dropped statistics each
 *   0x002 count u32, subtransaction u32 each   0x008 count u32, invalidation 16 bytes each
 *   0x004 count u32, relation 12 bytes each    0x010 prepared transaction u32
 */
import { FIRST_NORMAL_XID, PAGE_SIZE, Rmgr, XactInfo } from "../../libs/postgres/constants.ts";
import type { PgVersion } from "../../libs/postgres/versions.ts";
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import { readSlruPageNumber, SLRU_CLOG, slruPageNumber } from "./slru_page.ts";
import type { PageTarget, RedoKey } from "./types.ts";

const CLOG_ZERO_PAGE = 0x00;
const XACT_OPCODE_MASK = 0x70;
const XACT_HAS_INFO = 0x80;
const HAS_DATABASE = 0x01;
const HAS_SUBXACTS = 0x02;
const HAS_RELATIONS = 0x04;
const HAS_INVALIDATIONS = 0x08;
const HAS_TWO_PHASE = 0x10;
const HAS_STATISTICS = 0x100;
const RELATION_BYTES = 12;
const INVALIDATION_BYTES = 16;

const XIDS_PER_PAGE = 32768;
const XIDS_PER_BYTE = 4;
const COMMITTED = 1;
const ABORTED = 2;

/** Whether the record makes exactly this pg_xact page out of zeros. */
export function clogZeroes(cursor: RecordCursor, key: RedoKey): boolean {
  return key.slruKind === SLRU_CLOG && (cursor.info & 0xf0) === CLOG_ZERO_PAGE &&
    readSlruPageNumber(cursor) === slruPageNumber(key);
}

/** Applies a CLOG or Transaction record to a page of pg_xact. */
export function redoClog(
  page: PageTarget,
  cursor: RecordCursor,
  key: RedoKey,
  version: PgVersion,
): void {
  if (key.slruKind !== SLRU_CLOG) return;
  if (cursor.rmid === Rmgr.CLOG) {
    if (clogZeroes(cursor, key)) page.bytes.fill(0, page.offset, page.offset + PAGE_SIZE);
    return;
  }
  const pageNumber = slruPageNumber(key);
  switch (cursor.info & XACT_OPCODE_MASK) {
    case XactInfo.COMMIT:
      return setTree(page, pageNumber, cursor, version, COMMITTED, false);
    case XactInfo.COMMIT_PREPARED:
      return setTree(page, pageNumber, cursor, version, COMMITTED, true);
    case XactInfo.ABORT:
      return setTree(page, pageNumber, cursor, version, ABORTED, false);
    case XactInfo.ABORT_PREPARED:
      return setTree(page, pageNumber, cursor, version, ABORTED, true);
    default:
      return;
  }
}

function setTree(
  page: PageTarget,
  pageNumber: number,
  cursor: RecordCursor,
  version: PgVersion,
  status: number,
  prepared: boolean,
): void {
  const { view } = cursor;
  let at = cursor.mainOffset + 8;
  let parts = 0;
  if (cursor.info & XACT_HAS_INFO) {
    parts = view.getUint32(at, true);
    at += 4;
  }
  if (parts & HAS_DATABASE) at += 8;
  if (parts & HAS_SUBXACTS) {
    const count = view.getUint32(at, true);
    at += 4;
    for (let i = 0; i < count; i++, at += 4) {
      setStatus(page, pageNumber, view.getUint32(at, true), status);
    }
  }
  if (!prepared) return setStatus(page, pageNumber, cursor.xid, status);
  if (parts & HAS_RELATIONS) at += 4 + RELATION_BYTES * view.getUint32(at, true);
  if (parts & HAS_STATISTICS) at += 4 + version.statsItemBytes * view.getUint32(at, true);
  if (parts & HAS_INVALIDATIONS) at += 4 + INVALIDATION_BYTES * view.getUint32(at, true);
  if (parts & HAS_TWO_PHASE) setStatus(page, pageNumber, view.getUint32(at, true), status);
}

function setStatus(page: PageTarget, pageNumber: number, xid: number, status: number): void {
  if (xid < FIRST_NORMAL_XID || Math.floor(xid / XIDS_PER_PAGE) !== pageNumber) return;
  const inPage = xid % XIDS_PER_PAGE;
  const at = page.offset + Math.floor(inPage / XIDS_PER_BYTE);
  const shift = (inPage % XIDS_PER_BYTE) * 2;
  page.bytes[at] = (page.bytes[at]! & ~(3 << shift)) | (status << shift);
}
