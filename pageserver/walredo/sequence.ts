/**
 * Redo of the Sequence resource manager (PostgreSQL 17, seq_redo): the page is made anew with one
 * tuple. Main data: relation (tablespace, database, relfilenode: u32 each), then the whole tuple.
 * Special space: the magic number 0x1717, padded to 8 bytes.
 */
import { PAGE_SIZE } from "../../libs/postgres/constants.ts";
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import { addItem, initPage, stampLsn } from "./page_items.ts";
import { require } from "./redo_fault.ts";
import type { PageTarget } from "./types.ts";

const SEQUENCE_MAGIC = 0x1717;
const SPECIAL_SIZE = 8;
const RELATION_SIZE = 12;
/** The only opcode. */
const SEQ_LOG = 0x00;

/**
 * Applies a Sequence record to the page that is its block reference `id` (none: -1, nothing to
 * do).
 */
export function redoSequence(page: PageTarget, cursor: RecordCursor, id: number): void {
  if (id < 0) return;
  require((cursor.info & 0xf0) === SEQ_LOG, "unknown opcode");
  require(cursor.mainLength > RELATION_SIZE, "sequence record without a tuple");
  initPage(page, SPECIAL_SIZE);
  page.view.setUint32(page.offset + PAGE_SIZE - SPECIAL_SIZE, SEQUENCE_MAGIC, true);
  const from = cursor.mainOffset + RELATION_SIZE;
  addItem(page, 1, cursor.bytes, from, cursor.mainLength - RELATION_SIZE);
  stampLsn(page, cursor.endLsn);
}
