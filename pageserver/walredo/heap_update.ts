/**
 * Redo of heap updates (heap_xlog_update). Reference 0 is the page of the new tuple, reference 1
 * the page of the old one, absent when they are the same. Higher references are visibility map
 * pages.
 *
 * Block data of reference 0: [prefix length u16] [suffix length u16] infomask2 u16, infomask u16,
 * hoff u8, null bitmap and padding, then the new tuple's columns without the prefix and suffix that
 * it shares with the old tuple. Sharing happens only within one page, so the old tuple is at hand.
 */
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import { ALL_VISIBLE_CLEARED, HEAP_INIT_PAGE, NEW_ALL_VISIBLE_CLEARED } from "./heap_records.ts";
import {
  clearHotUpdated,
  headerLength,
  LOGGED_HEADER_SIZE,
  newTuple,
  replaceXmaxBits,
  resetCommandId,
  setCtid,
  setHotUpdated,
  setXmax,
  TUPLE_HEADER_SIZE,
  tupleAt,
} from "./heap_tuple.ts";
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
import { require } from "./redo_fault.ts";
import type { PageTarget } from "./types.ts";

const NEW_PAGE_REF = 0;
const OLD_PAGE_REF = 1;
/** Flags of the update record (XLH_UPDATE_*). */
const UPDATE_PREFIX_FROM_OLD = 0x20;
const UPDATE_SUFFIX_FROM_OLD = 0x40;

/** Applies an update to the page that is its reference `id`: old tuple, new tuple, or both. */
export function redoHeapUpdate(
  page: PageTarget,
  cursor: RecordCursor,
  id: number,
  hot: boolean,
): void {
  if (id > OLD_PAGE_REF) return;
  const samePage = cursor.blockPresent[OLD_PAGE_REF] === 0;
  if (id === OLD_PAGE_REF || samePage) markOldTuple(page, cursor, hot);
  if (id === NEW_PAGE_REF) {
    if (!samePage && cursor.info & HEAP_INIT_PAGE) initPage(page, 0);
    addNewTuple(page, cursor, samePage);
  }
  stampLsn(page, cursor.endLsn);
}

function markOldTuple(page: PageTarget, cursor: RecordCursor, hot: boolean): void {
  const main = cursor.mainOffset;
  const record = cursor.view;
  const at = tupleAt(page, record.getUint16(main + 4, true));
  const { view } = page;
  replaceXmaxBits(view, at, record.getUint8(main + 6));
  if (hot) setHotUpdated(view, at);
  else clearHotUpdated(view, at);
  setXmax(view, at, record.getUint32(main, true));
  resetCommandId(view, at);
  setCtid(view, at, cursor.blockNumber[NEW_PAGE_REF]!, record.getUint16(main + 12, true));
  setPagePrunable(page, cursor.xid);
  if (record.getUint8(main + 7) & ALL_VISIBLE_CLEARED) {
    setPageFlag(page, PD_ALL_VISIBLE, false);
  }
}

function addNewTuple(page: PageTarget, cursor: RecordCursor, samePage: boolean): void {
  const main = cursor.mainOffset;
  const record = cursor.view;
  const flags = record.getUint8(main + 7);
  let from = cursor.dataOffset[NEW_PAGE_REF]!;
  const end = from + cursor.dataLength[NEW_PAGE_REF]!;
  let prefix = 0;
  let suffix = 0;
  if (flags & UPDATE_PREFIX_FROM_OLD) {
    prefix = record.getUint16(from, true);
    from += 2;
  }
  if (flags & UPDATE_SUFFIX_FROM_OLD) {
    suffix = record.getUint16(from, true);
    from += 2;
  }
  require(samePage || prefix + suffix === 0, "update takes data from a tuple on another page");
  const headerAt = from;
  from += LOGGED_HEADER_SIZE;
  const logged = end - from;
  const number = record.getUint16(main + 12, true);
  const at = newTuple(
    page,
    number,
    prefix + logged + suffix,
    cursor,
    headerAt,
    cursor.blockNumber[NEW_PAGE_REF]!,
  );
  setXmax(page.view, at, record.getUint32(main + 8, true));
  if (prefix + suffix === 0) {
    copyBytes(page.bytes, at + TUPLE_HEADER_SIZE, cursor.bytes, from, logged);
  } else {
    const oldNumber = record.getUint16(main + 4, true);
    fillFromOld(page, at, oldNumber, cursor.bytes, from, logged, prefix, suffix);
  }
  if (flags & NEW_ALL_VISIBLE_CLEARED) setPageFlag(page, PD_ALL_VISIBLE, false);
}

/**
 * Assembles the new tuple at `at`: bitmap from the record, prefix, the record's columns, suffix.
 */
function fillFromOld(
  page: PageTarget,
  at: number,
  oldNumber: number,
  record: Uint8Array,
  from: number,
  logged: number,
  prefix: number,
  suffix: number,
): void {
  const { bytes, view } = page;
  const old = tupleAt(page, oldNumber);
  const oldLength = pointerLength(getPointer(page, oldNumber));
  const oldHeader = headerLength(view, old);
  require(
    oldHeader + prefix <= oldLength && suffix <= oldLength,
    "shared part beyond the old tuple",
  );
  // Without a shared prefix all logged bytes are contiguous: as if the bitmap were empty.
  const bitmap = prefix > 0 ? headerLength(view, at) - TUPLE_HEADER_SIZE : 0;
  require(bitmap >= 0 && bitmap <= logged, "tuple header longer than the logged data");
  const own = logged - bitmap;
  const to = at + TUPLE_HEADER_SIZE + bitmap;
  copyBytes(bytes, to - bitmap, record, from, bitmap);
  if (prefix + own + suffix === oldLength - oldHeader) {
    // As long as the old tuple: one copy of all of it is cheaper than one of each part.
    copyBytes(bytes, to, bytes, old + oldHeader, oldLength - oldHeader);
  } else {
    copyBytes(bytes, to, bytes, old + oldHeader, prefix);
    copyBytes(bytes, to + prefix + own, bytes, old + oldLength - suffix, suffix);
  }
  copyBytes(bytes, to + prefix, record, from + bitmap, own);
}
