/**
 * Redo of squeezing a bucket of a hash index: tuples move from its last pages to its first ones,
 * and overflow pages that became empty are freed (PostgreSQL 17, hash_xlog_move_page_contents,
 * hash_xlog_squeeze_page).
 *
 * Main data and references; reference 0 of both is the bucket's first page, only to be locked:
 *   move     0 tuples u16, 2 reference 1 is the bucket's first page u8
 *            1 page written (tuples), 2 page read (item numbers to delete u16[])
 *   squeeze  0 previous page u32, 4 next page u32 (of the freed one), 8 tuples u16,
 *            10 reference 1 is the bucket's first page u8, 11 reference 1 is the previous page u8
 *            1 page written (tuples), 2 freed page, 3 previous page, 4 next page,
 *            5 bitmap page (bit u32), 6 metapage (first free u32)
 * Tuples as block data: item numbers u16[tuples], then the tuples, each a multiple of 8 long.
 */
import type { PgVersion } from "../../libs/postgres/versions.ts";
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import { tupleLength } from "./btree_page.ts";
import {
  HashMeta,
  initHashPage,
  NO_BLOCK,
  setBitmapBit,
  setMeta,
  setNextPage,
  setPreviousPage,
} from "./hash_page.ts";
import { deleteIndexItems } from "./page_compact.ts";
import { addItem, maxAlign } from "./page_items.ts";
import { fault, require } from "./redo_fault.ts";
import type { PageTarget } from "./types.ts";

/** From this major version on a written page to which nothing happened keeps its LSN. */
const MAJOR_WITHOUT_IDLE_STAMPS = 17;

/** Adds the `count` tuples that are the block data of reference 1. */
function addTuples(page: PageTarget, cursor: RecordCursor, count: number): void {
  if (count === 0) return;
  const { view } = cursor;
  const from = cursor.dataOffset[1]!;
  const end = from + cursor.dataLength[1]!;
  let at = from + 2 * count;
  let added = 0;
  while (at < end) {
    require(added < count, "more tuples than item numbers for them");
    const size = maxAlign(tupleLength(view, at));
    require(at + size <= end, "moved tuples end too early");
    addItem(page, view.getUint16(from + 2 * added, true), cursor.bytes, at, size);
    at += size;
    added++;
  }
  require(added === count, "fewer tuples than item numbers for them");
}

/** One page of a move record; says whether it changed. */
export function moveTuples(page: PageTarget, cursor: RecordCursor, id: number): boolean {
  if (id === 0) return false;
  require(id <= 2, "page move has no such reference");
  if (id === 1) {
    addTuples(page, cursor, cursor.view.getUint16(cursor.mainOffset, true));
  } else {
    deleteIndexItems(page, cursor.view, cursor.dataOffset[2]!, cursor.dataLength[2]! >> 1);
  }
  return true;
}

/** One page of a squeeze record; says whether it changed. */
export function squeezePage(
  page: PageTarget,
  cursor: RecordCursor,
  id: number,
  version: PgVersion,
): boolean {
  const { view, mainOffset: main } = cursor;
  switch (id) {
    case 0:
      return false;
    case 1: {
      const count = view.getUint16(main + 8, true);
      const isPrevious = view.getUint8(main + 11) !== 0;
      addTuples(page, cursor, count);
      if (isPrevious) setNextPage(page, view.getUint32(main + 4, true));
      return count > 0 || isPrevious || version.major < MAJOR_WITHOUT_IDLE_STAMPS;
    }
    case 2:
      initHashPage(page, NO_BLOCK, NO_BLOCK, 0);
      return true;
    case 3:
      setNextPage(page, view.getUint32(main + 4, true));
      return true;
    case 4:
      setPreviousPage(page, view.getUint32(main, true));
      return true;
    case 5:
    case 6: {
      require(cursor.dataLength[id]! >= 4, "block data is too short");
      const word = view.getUint32(cursor.dataOffset[id]!, true);
      if (id === 5) setBitmapBit(page, word, false);
      else setMeta(page, HashMeta.FIRST_FREE, word);
      return true;
    }
    default:
      return fault(`squeeze has no reference ${id}`);
  }
}
