/**
 * Redo of generic WAL records, which extensions' index types write (bloom, among others):
 * PostgreSQL 17, generic_redo and applyPageRedo in generic_xlog.c.
 *
 * Each reference's block data is the difference between the page before and after, as fragments:
 * offset u16, length u16, and as many bytes to be put there. What lies between pd_lower and
 * pd_upper afterwards is in no fragment; it is zero.
 */
import { PAGE_SIZE } from "../../libs/postgres/constants.ts";
import { pageLower, pageUpper } from "../../libs/postgres/page.ts";
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import { copyBytes, stampLsn } from "./page_items.ts";
import { fault, require } from "./redo_fault.ts";
import type { PageTarget } from "./types.ts";

const FRAGMENT_HEADER_SIZE = 4;

/**
 * Applies a generic record to the page that is its block reference `id` (none: -1, nothing to do).
 */
export function redoGeneric(page: PageTarget, cursor: RecordCursor, id: number): void {
  if (id < 0) return;
  const { view } = cursor;
  let at = cursor.dataOffset[id]!;
  const end = at + cursor.dataLength[id]!;
  while (at < end) {
    require(at + FRAGMENT_HEADER_SIZE <= end, "page difference ends inside a fragment's header");
    const offset = view.getUint16(at, true);
    const length = view.getUint16(at + 2, true);
    at += FRAGMENT_HEADER_SIZE;
    require(at + length <= end, "page difference ends inside a fragment");
    require(offset + length <= PAGE_SIZE, "fragment beyond the end of the page");
    copyBytes(page.bytes, page.offset + offset, cursor.bytes, at, length);
    at += length;
  }
  const lower = pageLower(page.view, page.offset);
  const upper = pageUpper(page.view, page.offset);
  if (lower > upper || upper > PAGE_SIZE) {
    fault(`corrupted page pointers: lower = ${lower}, upper = ${upper}`);
  }
  page.bytes.fill(0, page.offset + lower, page.offset + upper);
  stampLsn(page, cursor.endLsn);
}
