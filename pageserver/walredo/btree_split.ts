/**
 * Redo of a btree page split (PostgreSQL 17, btree_xlog_split).
 *
 * Main data: 0 level u32, 4 first item that went right u16, 6 new item's number u16, 8 posting list
 * offset u16 (0: no posting list was split). References: 0 original page = left half, 1 right half,
 * 2 the page right of it (its left link changes), 3 the child whose split this completes.
 *
 * Block data 0: [new item, if it went left or a posting list was split], then the left half's new
 * high key. Block data 1: all items of the right half.
 *
 * The left half is built in a scratch page, adding items in order, because their physical order is
 * part of the page.
 */
import { PAGE_SIZE } from "../../libs/postgres/constants.ts";
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import {
  BTP_INCOMPLETE_SPLIT,
  BTP_LEAF,
  BTREE_SPECIAL_SIZE,
  clearIncompleteSplit,
  firstDataItem,
  indexTupleAt,
  initBtreePage,
  NO_PAGE,
  restoreItems,
  setBtreeFlags,
  setCycleId,
  setLeftSibling,
  setRightSibling,
  specialAt,
  tupleLength,
} from "./btree_page.ts";
import { swapPosting } from "./btree_posting.ts";
import {
  addItem,
  copyBytes,
  getPointer,
  initPage,
  itemCount,
  maxAlign,
  pointerLength,
  stampLsn,
} from "./page_items.ts";
import { fault, require } from "./redo_fault.ts";
import type { PageTarget } from "./types.ts";

const RIGHT_REF = 1;
const NEXT_REF = 2;

const scratchBytes = new Uint8Array(PAGE_SIZE);
const scratch: PageTarget = {
  bytes: scratchBytes,
  view: new DataView(scratchBytes.buffer),
  offset: 0,
};
/** A changeable copy of the new item. */
const newItem = new Uint8Array(PAGE_SIZE);

/** Starts a scratch page with the special space of `page` (PageGetTempPageCopySpecial). */
export function startScratchPage(page: PageTarget): PageTarget {
  const special = specialAt(page);
  initPage(scratch, BTREE_SPECIAL_SIZE);
  copyBytes(scratchBytes, PAGE_SIZE - BTREE_SPECIAL_SIZE, page.bytes, special, BTREE_SPECIAL_SIZE);
  return scratch;
}

/** Replaces `page` by the scratch page (PageRestoreTempPage). */
export function finishScratchPage(page: PageTarget): void {
  copyBytes(page.bytes, page.offset, scratchBytes, 0, PAGE_SIZE);
}

/**
 * Applies a split to the page that is its reference `id`. `newOnLeft`: which of the two opcodes.
 */
export function redoSplit(
  page: PageTarget,
  cursor: RecordCursor,
  id: number,
  newOnLeft: boolean,
): void {
  const level = cursor.view.getUint32(cursor.mainOffset, true);
  const leafFlag = level === 0 ? BTP_LEAF : 0;
  if (id === RIGHT_REF) {
    const next = cursor.blockPresent[NEXT_REF] ? cursor.blockNumber[NEXT_REF]! : NO_PAGE;
    initBtreePage(page, cursor.blockNumber[0]!, next, level, leafFlag);
    restoreItems(page, cursor, cursor.dataOffset[id]!, cursor.dataLength[id]!);
    stampLsn(page, cursor.endLsn);
  } else if (id === 0) {
    buildLeftHalf(page, cursor, newOnLeft);
    setBtreeFlags(page, BTP_INCOMPLETE_SPLIT | leafFlag);
    setRightSibling(page, cursor.blockNumber[RIGHT_REF]!);
    setCycleId(page, 0);
    stampLsn(page, cursor.endLsn);
  } else if (id === NEXT_REF) {
    setLeftSibling(page, cursor.blockNumber[RIGHT_REF]!);
    stampLsn(page, cursor.endLsn);
  } else {
    clearIncompleteSplit(page, cursor);
  }
}

function buildLeftHalf(page: PageTarget, cursor: RecordCursor, newOnLeft: boolean): void {
  const record = cursor.view;
  const main = cursor.mainOffset;
  const firstRight = record.getUint16(main + 4, true);
  const newNumber = record.getUint16(main + 6, true);
  const postingOffset = record.getUint16(main + 8, true);
  let from = cursor.dataOffset[0]!;
  const end = from + cursor.dataLength[0]!;
  let newSize = 0;
  if (newOnLeft || postingOffset !== 0) {
    newSize = maxAlign(tupleLength(record, from));
    copyBytes(newItem, 0, cursor.bytes, from, newSize);
    from += newSize;
  }
  const highKeySize = maxAlign(tupleLength(record, from));
  if (from + highKeySize !== end) fault(`split data with ${end - from} bytes for the high key`);
  require(firstRight <= itemCount(page) + 1, "split point beyond the last item");
  if (postingOffset !== 0) {
    // The old list is not needed any more: split it where it is, and copy it like every other item.
    const postingAt = indexTupleAt(page, newNumber - 1);
    swapPosting(page.bytes, page.view, postingAt, postingOffset, newItem, 0);
  }
  const left = startScratchPage(page);
  let to = 1;
  addItem(left, to++, cursor.bytes, from, highKeySize);
  let number = firstDataItem(page);
  for (; number < firstRight; number++) {
    if (newOnLeft && number === newNumber) addItem(left, to++, newItem, 0, newSize);
    const at = indexTupleAt(page, number);
    addItem(left, to++, page.bytes, at, pointerLength(getPointer(page, number)));
  }
  if (newOnLeft && number === newNumber) addItem(left, to, newItem, 0, newSize);
  finishScratchPage(page);
}
