/**
 * Redo of deduplication (PostgreSQL 17, btree_xlog_dedup): runs of tuples with equal keys become
 * posting lists. Main data: intervals u16. Block data: for each interval its first item's number
 * u16 and its count of items u16. Everything outside the intervals is copied as it is.
 */
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import {
  BTP_HAS_GARBAGE,
  btreeFlags,
  firstDataItem,
  indexTupleAt,
  setBtreeFlags,
  tupleLength,
} from "./btree_page.ts";
import { formedTuple, formPosting, TID_SIZE, tidCount, TIDS_MAX, tidsAt } from "./btree_posting.ts";
import { finishScratchPage, startScratchPage } from "./btree_split.ts";
import {
  addItem,
  copyBytes,
  getPointer,
  itemCount,
  pointerLength,
  stampLsn,
} from "./page_items.ts";
import { fault, require } from "./redo_fault.ts";
import type { PageTarget } from "./types.ts";

/** The heap tids of the interval being merged. */
const tids = new Uint8Array(TIDS_MAX * TID_SIZE);

/** Applies a deduplication record to its only page. */
export function redoDedup(page: PageTarget, cursor: RecordCursor): void {
  const record = cursor.view;
  const intervals = record.getUint16(cursor.mainOffset, true);
  const intervalsAt = cursor.dataOffset[0]!;
  require(cursor.dataLength[0]! >= 4 * intervals, "fewer intervals than announced");
  const count = itemCount(page);
  const first = firstDataItem(page);
  const result = startScratchPage(page);
  if (first === 2) {
    addItem(result, 1, page.bytes, indexTupleAt(page, 1), pointerLength(getPointer(page, 1)));
  }
  let interval = 0;
  let number = first;
  while (number <= count) {
    const at = indexTupleAt(page, number);
    const next = itemCount(result) + 1;
    const intervalAt = intervalsAt + 4 * interval;
    if (interval < intervals && record.getUint16(intervalAt, true) === number) {
      const items = record.getUint16(intervalAt + 2, true);
      const size = mergeItems(page, number, items);
      addItem(result, next, formedTuple, 0, size);
      interval++;
      number += items;
    } else {
      addItem(result, next, page.bytes, at, tupleLength(page.view, at));
      number++;
    }
  }
  require(interval === intervals, "deduplication intervals do not match the page");
  setBtreeFlags(result, btreeFlags(result) & ~BTP_HAS_GARBAGE);
  finishScratchPage(page);
  stampLsn(page, cursor.endLsn);
}

/**
 * Makes one tuple of `items` items from `number` on; returns its length, the bytes are in
 * formedTuple.
 */
function mergeItems(page: PageTarget, number: number, items: number): number {
  if (items < 2 || number + items - 1 > itemCount(page)) {
    fault(`deduplication of ${items} items from ${number} on`);
  }
  let total = 0;
  for (let i = 0; i < items; i++) {
    const at = indexTupleAt(page, number + i);
    const count = tidCount(page.view, at);
    copyBytes(tids, total * TID_SIZE, page.bytes, tidsAt(page.view, at), count * TID_SIZE);
    total += count;
  }
  return formPosting(page.bytes, page.view, indexTupleAt(page, number), tids, 0, total);
}
