/**
 * Redo of the Heap2 resource manager on heap pages (PostgreSQL 17, heapam.c): pruning and freezing
 * (heap_prune.ts; heap_cleanup.ts for 14 to 16), multi-insert (COPY), locking of an updated row
 * version, all-visible. NEW_CID and REWRITE are for logical decoding only.
 *
 * Main data:
 *   multi_insert  0 flags u8, 2 ntuples u16, 4 item numbers u16[ntuples] (absent with the init bit)
 *   lock_updated  0 xmax u32, 4 offnum u16, 6 infobits u8, 7 flags u8
 *   visible       0 conflict horizon u32, 4 flags u8
 */
import type { PgVersion } from "../../libs/postgres/versions.ts";
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import { redoCleanup } from "./heap_cleanup.ts";
import { redoPrune } from "./heap_prune.ts";
import {
  ALL_VISIBLE_CLEARED,
  Heap2Info,
  HEAP_INIT_PAGE,
  HEAP_OPCODE_MASK,
} from "./heap_records.ts";
import { insertTuple, replaceXmaxBits, setXmax, tupleAt } from "./heap_tuple.ts";
import {
  clearPagePrunable,
  initPage,
  PD_ALL_VISIBLE,
  setPageFlag,
  stampLsn,
} from "./page_items.ts";
import { require } from "./redo_fault.ts";
import type { PageTarget, RedoKey } from "./types.ts";

const INSERT_ALL_FROZEN_SET = 0x20;
const VISIBLE_HEAP_REF = 1;
/** Length of one tuple's header in a multi-insert: data length, infomask2, infomask, hoff. */
const MULTI_TUPLE_HEADER_SIZE = 7;

/**
 * Applies a Heap2 record to the heap page that is its block reference `id` (none: -1, nothing to
 * do).
 */
export function redoHeap2(
  page: PageTarget,
  cursor: RecordCursor,
  id: number,
  key: RedoKey,
  version: PgVersion,
): void {
  if (id < 0) return;
  switch (cursor.info & HEAP_OPCODE_MASK) {
    case Heap2Info.PRUNE_ON_ACCESS:
    case Heap2Info.PRUNE_VACUUM_SCAN:
    case Heap2Info.PRUNE_VACUUM_CLEANUP:
      return version.heapCleanup.oneFormat
        ? redoPrune(page, cursor, id)
        : redoCleanup(page, cursor, id, version);
    case Heap2Info.VISIBLE:
      if (id === VISIBLE_HEAP_REF) redoVisible(page);
      return;
    case Heap2Info.MULTI_INSERT:
      return redoMultiInsert(page, cursor, id, key);
    case Heap2Info.LOCK_UPDATED:
      return redoLockUpdated(page, cursor);
    default:
      return;
  }
}

/**
 * pd_lsn stays: PostgreSQL moves it only where hint bits are logged, that is with checksums.
 *
 * What all transactions see has nothing to prune. The server has found that out before it logged
 * this, and cleared its hint (heap_page_prune_and_freeze), which is not logged and which redo on a
 * standby leaves behind; then the first scan of the table would look for something to prune in each
 * page, change the hint, and write the page.
 */
function redoVisible(page: PageTarget): void {
  setPageFlag(page, PD_ALL_VISIBLE, true);
  clearPagePrunable(page);
}

function redoMultiInsert(page: PageTarget, cursor: RecordCursor, id: number, key: RedoKey): void {
  const record = cursor.view;
  const main = cursor.mainOffset;
  const flags = record.getUint8(main);
  const count = record.getUint16(main + 2, true);
  const anew = (cursor.info & HEAP_INIT_PAGE) !== 0;
  if (anew) initPage(page, 0);
  const start = cursor.dataOffset[id]!;
  const end = start + cursor.dataLength[id]!;
  let at = start;
  for (let i = 0; i < count; i++) {
    at += (at - start) & 1;
    require(at + MULTI_TUPLE_HEADER_SIZE <= end, "tuples end before their count is reached");
    const length = record.getUint16(at, true);
    const number = anew ? i + 1 : record.getUint16(main + 4 + 2 * i, true);
    insertTuple(page, number, length, cursor, at + 2, key.block);
    at += MULTI_TUPLE_HEADER_SIZE + length;
  }
  require(at === end, "tuples do not fill the block data");
  if (flags & ALL_VISIBLE_CLEARED) setPageFlag(page, PD_ALL_VISIBLE, false);
  if (flags & INSERT_ALL_FROZEN_SET) setPageFlag(page, PD_ALL_VISIBLE, true);
  stampLsn(page, cursor.endLsn);
}

function redoLockUpdated(page: PageTarget, cursor: RecordCursor): void {
  const main = cursor.mainOffset;
  const at = tupleAt(page, cursor.view.getUint16(main + 4, true));
  replaceXmaxBits(page.view, at, cursor.view.getUint8(main + 6));
  setXmax(page.view, at, cursor.view.getUint32(main, true));
  stampLsn(page, cursor.endLsn);
}
