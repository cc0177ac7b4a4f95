/**
 * Redo of item deletion in btree leaf pages, by vacuum and by insertion (PostgreSQL 17,
 * btree_xlog_vacuum, btree_xlog_delete, btree_xlog_updates).
 *
 * Block data: item numbers to delete u16[deleted], item numbers to update u16[updated], then for
 * each update: count u16 and as many u16 indexes into the posting list of the tids that go. The
 * two counts are at 0 and 2 of a vacuum record's main data, at 4 and 6 of a delete record's.
 */
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import { BTP_HAS_GARBAGE, btreeFlags, indexTupleAt, setBtreeFlags } from "./btree_page.ts";
import {
  formedTuple,
  formPosting,
  isPosting,
  TID_SIZE,
  tidCount,
  TIDS_MAX,
  tidsAt,
} from "./btree_posting.ts";
import { deleteIndexItems, overwriteIndexItem } from "./page_compact.ts";
import { copyBytes, maxAlign, stampLsn } from "./page_items.ts";
import { require } from "./redo_fault.ts";
import type { PageTarget } from "./types.ts";

/** The heap tids that an updated posting list keeps. */
const kept = new Uint8Array(TIDS_MAX * TID_SIZE);

/** Applies a vacuum or delete record, whose counts are at `countsAt`, to its only page. */
export function redoDeleteItems(page: PageTarget, cursor: RecordCursor, countsAt: number): void {
  const record = cursor.view;
  const deleted = record.getUint16(countsAt, true);
  const updated = record.getUint16(countsAt + 2, true);
  const from = cursor.dataOffset[0]!;
  const end = from + cursor.dataLength[0]!;
  const numbersAt = from + 2 * deleted;
  let at = numbersAt + 2 * updated;
  for (let i = 0; i < updated; i++) {
    require(at + 2 <= end, "posting list updates end too early");
    const gone = record.getUint16(at, true);
    updatePosting(page, record.getUint16(numbersAt + 2 * i, true), record, at + 2, gone);
    at += 2 + 2 * gone;
  }
  if (deleted > 0) deleteIndexItems(page, record, from, deleted);
  setBtreeFlags(page, btreeFlags(page) & ~BTP_HAS_GARBAGE);
  stampLsn(page, cursor.endLsn);
}

/**
 * Takes `gone` tids, whose ascending indexes are at `goneAt`, out of the posting list of item
 * `number`.
 */
function updatePosting(
  page: PageTarget,
  number: number,
  record: DataView,
  goneAt: number,
  gone: number,
): void {
  const { bytes, view } = page;
  const at = indexTupleAt(page, number);
  require(isPosting(view, at), "posting list update of a tuple without one");
  const count = tidCount(view, at);
  const tids = tidsAt(view, at);
  let remaining = 0;
  let next = 0;
  for (let i = 0; i < count; i++) {
    if (next < gone && record.getUint16(goneAt + 2 * next, true) === i) {
      next++;
      continue;
    }
    copyBytes(kept, remaining * TID_SIZE, bytes, tids + i * TID_SIZE, TID_SIZE);
    remaining++;
  }
  require(next === gone, "posting list indexes to delete are out of order");
  const size = formPosting(bytes, view, at, kept, 0, remaining);
  overwriteIndexItem(page, number, formedTuple, 0, maxAlign(size));
}
