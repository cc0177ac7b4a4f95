/**
 * Redo of the Heap resource manager on heap pages (PostgreSQL 17, heapam.c, heap_xlog_*): insert,
 * delete, update, hot update, confirm, lock, inplace. TRUNCATE is for logical decoding only.
 *
 * What these records do to the visibility map is in visibility_map.ts: another page, another call.
 *
 * Main data (heapam_xlog.h), little endian, no padding except where offsets show it:
 *   insert  0 offnum u16, 2 flags u8
 *   delete  0 xmax u32, 4 offnum u16, 6 infobits u8, 7 flags u8
 *   update  0 old_xmax u32, 4 old_offnum u16, 6 old_infobits u8, 7 flags u8, 8 new_xmax u32,
 *           12 new_offnum u16
 *   lock    0 xmax u32, 4 offnum u16, 6 infobits u8, 7 flags u8 (lock_updated of Heap2 the same)
 *   confirm, inplace  0 offnum u16
 */
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import { ALL_VISIBLE_CLEARED, HEAP_INIT_PAGE, HEAP_OPCODE_MASK, HeapInfo } from "./heap_records.ts";
import {
  clearHotUpdated,
  headerLength,
  infomask,
  insertTuple,
  isOnlyLocked,
  LOGGED_HEADER_SIZE,
  replaceXmaxBits,
  resetCommandId,
  setCtid,
  setXmax,
  setXmin,
  tupleAt,
} from "./heap_tuple.ts";
import { redoHeapUpdate } from "./heap_update.ts";
import {
  copyBytes,
  getPointer,
  initPage,
  PD_ALL_VISIBLE,
  pointerLength,
  setPageFlag,
  setPagePrunable,
  stampLsn,
} from "./page_items.ts";
import { fault } from "./redo_fault.ts";
import type { PageTarget, RedoKey } from "./types.ts";

const DELETE_IS_SUPER = 0x08;
const DELETE_IS_PARTITION_MOVE = 0x10;
/** The t_ctid of a tuple that moved to another partition (ItemPointerSetMovedPartitions). */
const MOVED_BLOCK = 0xffffffff;
const MOVED_ITEM = 0xfffd;

/**
 * Applies a Heap record to the heap page that is its block reference `id` (none: -1, nothing to
 * do).
 */
export function redoHeap(page: PageTarget, cursor: RecordCursor, id: number, key: RedoKey): void {
  if (id < 0) return;
  switch (cursor.info & HEAP_OPCODE_MASK) {
    case HeapInfo.INSERT:
      return redoInsert(page, cursor, id, key);
    case HeapInfo.DELETE:
      return redoDelete(page, cursor, key);
    case HeapInfo.UPDATE:
      return redoHeapUpdate(page, cursor, id, false);
    case HeapInfo.HOT_UPDATE:
      return redoHeapUpdate(page, cursor, id, true);
    case HeapInfo.TRUNCATE:
      return;
    case HeapInfo.CONFIRM:
      return redoConfirm(page, cursor, key);
    case HeapInfo.LOCK:
      return redoLock(page, cursor, key);
    default:
      return redoInplace(page, cursor, id);
  }
}

function redoInsert(page: PageTarget, cursor: RecordCursor, id: number, key: RedoKey): void {
  const number = cursor.view.getUint16(cursor.mainOffset, true);
  const flags = cursor.view.getUint8(cursor.mainOffset + 2);
  if (cursor.info & HEAP_INIT_PAGE) initPage(page, 0);
  const dataLength = cursor.dataLength[id]! - LOGGED_HEADER_SIZE;
  insertTuple(page, number, dataLength, cursor, cursor.dataOffset[id]!, key.block);
  if (flags & ALL_VISIBLE_CLEARED) setPageFlag(page, PD_ALL_VISIBLE, false);
  stampLsn(page, cursor.endLsn);
}

function redoDelete(page: PageTarget, cursor: RecordCursor, key: RedoKey): void {
  const main = cursor.mainOffset;
  const number = cursor.view.getUint16(main + 4, true);
  const flags = cursor.view.getUint8(main + 7);
  const at = tupleAt(page, number);
  const { view } = page;
  replaceXmaxBits(view, at, cursor.view.getUint8(main + 6));
  clearHotUpdated(view, at);
  // A "super" delete takes back a speculative insertion: the tuple never existed.
  if (flags & DELETE_IS_SUPER) setXmin(view, at, 0);
  else setXmax(view, at, cursor.view.getUint32(main, true));
  resetCommandId(view, at);
  setPagePrunable(page, cursor.xid);
  if (flags & ALL_VISIBLE_CLEARED) setPageFlag(page, PD_ALL_VISIBLE, false);
  if (flags & DELETE_IS_PARTITION_MOVE) setCtid(view, at, MOVED_BLOCK, MOVED_ITEM);
  else setCtid(view, at, key.block, number);
  stampLsn(page, cursor.endLsn);
}

function redoConfirm(page: PageTarget, cursor: RecordCursor, key: RedoKey): void {
  const number = cursor.view.getUint16(cursor.mainOffset, true);
  setCtid(page.view, tupleAt(page, number), key.block, number);
  stampLsn(page, cursor.endLsn);
}

function redoLock(page: PageTarget, cursor: RecordCursor, key: RedoKey): void {
  const main = cursor.mainOffset;
  const number = cursor.view.getUint16(main + 4, true);
  const at = tupleAt(page, number);
  const { view } = page;
  replaceXmaxBits(view, at, cursor.view.getUint8(main + 6));
  if (isOnlyLocked(infomask(view, at))) {
    clearHotUpdated(view, at);
    setCtid(view, at, key.block, number);
  }
  setXmax(view, at, cursor.view.getUint32(main, true));
  resetCommandId(view, at);
  stampLsn(page, cursor.endLsn);
}

function redoInplace(page: PageTarget, cursor: RecordCursor, id: number): void {
  const number = cursor.view.getUint16(cursor.mainOffset, true);
  const at = tupleAt(page, number);
  const header = headerLength(page.view, at);
  const length = pointerLength(getPointer(page, number)) - header;
  if (length !== cursor.dataLength[id]!) {
    fault(`in-place update of ${cursor.dataLength[id]} bytes in a tuple with ${length}`);
  }
  copyBytes(page.bytes, at + header, cursor.bytes, cursor.dataOffset[id]!, length);
  stampLsn(page, cursor.endLsn);
}
