/**
 * Redo of the Hash resource manager (PostgreSQL 17, hash_xlog.c; the records are those of 14 to
 * 18). Moving tuples between pages of a bucket is in hash_squeeze.ts, splitting a bucket in
 * hash_split.ts; here are creation, insertion, new overflow pages and deletion.
 *
 * A record touches several pages, each under its own reference id; every routine is asked for one
 * of them, looks at nothing else, and says whether it changed the page. Records, main data
 * (hash_xlog.h) and references:
 *   init meta        0 tuples f64, 8 hash function u32, 12 fill factor u16; 0 metapage
 *   init bitmap      0 bitmap bytes u16; 0 bitmap page, 1 metapage
 *   insert           0 item number u16; 0 page (the tuple), 1 metapage
 *   add overflow     0 bitmap bytes u16, 2 page was found free u8
 *                    0 new page (bucket u32), 1 page before it, 2 bitmap page (bit u32),
 *                    3 new bitmap page, 4 metapage (first free u32)
 *   delete           0 clear the dead mark u8, 1 is the bucket's first page u8
 *                    0 first page of the bucket (only to be locked), 1 page (item numbers u16[])
 *   update meta      0 tuples f64; 0 metapage
 *   vacuum one page  0 conflict horizon u32, 4 count u16 (before 16: i32), 6 is catalog u8,
 *                    8 item numbers u16[]; 0 page, 1 metapage
 */
import type { PgVersion } from "../../libs/postgres/versions.ts";
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import {
  addBitmap,
  getMeta,
  hashFlags,
  HashMeta,
  initBitmapPage,
  initHashMetapage,
  initHashPage,
  LH_OVERFLOW_PAGE,
  LH_PAGE_HAS_DEAD_TUPLES,
  metaTuples,
  NO_BLOCK,
  overflowPages,
  setBitmapBit,
  setHashFlags,
  setMeta,
  setMetaTuples,
  setNextPage,
  setOverflowPages,
  setPreviousPage,
} from "./hash_page.ts";
import { clearSplitCleanup, completeSplit, splitBucket } from "./hash_split.ts";
import { moveTuples, squeezePage } from "./hash_squeeze.ts";
import { deleteIndexItems } from "./page_compact.ts";
import { addItem, stampLsn } from "./page_items.ts";
import { fault, require } from "./redo_fault.ts";
import type { PageTarget } from "./types.ts";

/** Opcodes, in info & 0xf0. */
const HashInfo = {
  INIT_META_PAGE: 0x00,
  INIT_BITMAP_PAGE: 0x10,
  INSERT: 0x20,
  ADD_OVFL_PAGE: 0x30,
  SPLIT_ALLOCATE_PAGE: 0x40,
  SPLIT_PAGE: 0x50,
  SPLIT_COMPLETE: 0x60,
  MOVE_PAGE_CONTENTS: 0x70,
  SQUEEZE_PAGE: 0x80,
  DELETE: 0x90,
  SPLIT_CLEANUP: 0xa0,
  UPDATE_META_PAGE: 0xb0,
  VACUUM_ONE_PAGE: 0xc0,
} as const;

const OPCODE_MASK = 0xf0;
/** Bytes of main data, by opcode >> 4. */
const MAIN_SIZES = [14, 2, 2, 3, 9, 0, 4, 3, 12, 2, 0, 8, 8];
/** Offset of the item numbers in a vacuum record. */
const VACUUM_ITEMS = 8;

/**
 * Applies a Hash record to the page that is its block reference `id` (none: -1, nothing to do).
 */
export function redoHash(
  page: PageTarget,
  cursor: RecordCursor,
  id: number,
  version: PgVersion,
): void {
  if (id < 0) return;
  const opcode = cursor.info & OPCODE_MASK;
  require(cursor.mainLength >= (MAIN_SIZES[opcode >> 4] ?? 0), "record is too short");
  if (changePage(page, cursor, id, opcode, version)) stampLsn(page, cursor.endLsn);
}

/** Does what the record says; false if that leaves the page as it was, its LSN included. */
function changePage(
  page: PageTarget,
  cursor: RecordCursor,
  id: number,
  opcode: number,
  version: PgVersion,
): boolean {
  switch (opcode) {
    case HashInfo.INIT_META_PAGE:
      return createMetapage(page, cursor, id);
    case HashInfo.INIT_BITMAP_PAGE:
      return createBitmap(page, cursor, id);
    case HashInfo.INSERT:
      return insertTuple(page, cursor, id);
    case HashInfo.ADD_OVFL_PAGE:
      return addOverflowPage(page, cursor, id);
    case HashInfo.SPLIT_ALLOCATE_PAGE:
      return splitBucket(page, cursor, id);
    case HashInfo.SPLIT_PAGE:
      return fault("a split page record without its image");
    case HashInfo.SPLIT_COMPLETE:
      return completeSplit(page, cursor, id);
    case HashInfo.MOVE_PAGE_CONTENTS:
      return moveTuples(page, cursor, id);
    case HashInfo.SQUEEZE_PAGE:
      return squeezePage(page, cursor, id, version);
    case HashInfo.DELETE:
      return deleteTuples(page, cursor, id);
    case HashInfo.SPLIT_CLEANUP:
      return clearSplitCleanup(page, id);
    case HashInfo.UPDATE_META_PAGE:
      require(id === 0, "metapage update has no such reference");
      setMetaTuples(page, cursor.view.getFloat64(cursor.mainOffset, true));
      return true;
    case HashInfo.VACUUM_ONE_PAGE:
      return vacuumPage(page, cursor, id);
    default:
      return fault("unknown opcode");
  }
}

function createMetapage(page: PageTarget, cursor: RecordCursor, id: number): boolean {
  require(id === 0, "metapage creation has no such reference");
  const { view, mainOffset: main } = cursor;
  const hashFunction = view.getUint32(main + 8, true);
  const fillFactor = view.getUint16(main + 12, true);
  initHashMetapage(page, view.getFloat64(main, true), hashFunction, fillFactor);
  return true;
}

function createBitmap(page: PageTarget, cursor: RecordCursor, id: number): boolean {
  require(id <= 1, "bitmap creation has no such reference");
  if (id === 0) {
    initBitmapPage(page, cursor.view.getUint16(cursor.mainOffset, true));
  } else {
    // The buckets are blocks 1 to their number; the first bitmap page follows them.
    addBitmap(page, getMeta(page, HashMeta.MAX_BUCKET) + 2);
  }
  return true;
}

function insertTuple(page: PageTarget, cursor: RecordCursor, id: number): boolean {
  require(id <= 1, "insertion has no such reference");
  if (id === 0) {
    const number = cursor.view.getUint16(cursor.mainOffset, true);
    addItem(page, number, cursor.bytes, cursor.dataOffset[0]!, cursor.dataLength[0]!);
  } else {
    setMetaTuples(page, metaTuples(page) + 1);
  }
  return true;
}

/** The u32 that is the block data of reference `id`. */
function blockWord(cursor: RecordCursor, id: number): number {
  require(cursor.dataLength[id]! >= 4, "block data is too short");
  return cursor.view.getUint32(cursor.dataOffset[id]!, true);
}

function addOverflowPage(page: PageTarget, cursor: RecordCursor, id: number): boolean {
  switch (id) {
    case 0:
      initHashPage(page, NO_BLOCK, blockWord(cursor, id), LH_OVERFLOW_PAGE);
      setPreviousPage(page, cursor.blockNumber[1]!);
      return true;
    case 1:
      setNextPage(page, cursor.blockNumber[0]!);
      return true;
    case 2:
      setBitmapBit(page, blockWord(cursor, id), true);
      return true;
    case 3:
      initBitmapPage(page, cursor.view.getUint16(cursor.mainOffset, true));
      return true;
    case 4:
      countOverflowPage(page, cursor);
      return true;
    default:
      return fault(`overflow page addition has no reference ${id}`);
  }
}

/** The metapage's part of adding an overflow page, and perhaps a bitmap page with it. */
function countOverflowPage(page: PageTarget, cursor: RecordCursor): void {
  setMeta(page, HashMeta.FIRST_FREE, blockWord(cursor, 4));
  const reused = cursor.view.getUint8(cursor.mainOffset + 2) !== 0;
  if (reused) return;
  let added = 1;
  if (cursor.blockPresent[3] !== 0) {
    addBitmap(page, cursor.blockNumber[3]!);
    added++;
  }
  const splitpoint = getMeta(page, HashMeta.SPLITPOINT);
  setOverflowPages(page, splitpoint, overflowPages(page, splitpoint) + added);
}

function clearDeadMark(page: PageTarget): void {
  setHashFlags(page, hashFlags(page) & ~LH_PAGE_HAS_DEAD_TUPLES);
}

function deleteTuples(page: PageTarget, cursor: RecordCursor, id: number): boolean {
  require(id <= 1, "deletion has no such reference");
  if (id === 0) return false;
  deleteIndexItems(page, cursor.view, cursor.dataOffset[1]!, cursor.dataLength[1]! >> 1);
  if (cursor.view.getUint8(cursor.mainOffset) !== 0) clearDeadMark(page);
  return true;
}

function vacuumPage(page: PageTarget, cursor: RecordCursor, id: number): boolean {
  require(id <= 1, "page vacuum has no such reference");
  const { view, mainOffset: main } = cursor;
  // Never more than a page holds, so the low half is the whole count in the versions with 32 bits.
  const count = view.getUint16(main + 4, true);
  require(cursor.mainLength >= VACUUM_ITEMS + 2 * count, "vacuum record ends too early");
  if (id === 0) {
    deleteIndexItems(page, view, main + VACUUM_ITEMS, count);
    clearDeadMark(page);
  } else {
    setMetaTuples(page, metaTuples(page) - count);
  }
  return true;
}
