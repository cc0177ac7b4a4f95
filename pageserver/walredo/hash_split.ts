/**
 * Redo of a bucket split in a hash index (PostgreSQL 17, hash_xlog_split_allocate_page,
 * hash_xlog_split_complete, hash_xlog_split_cleanup). The pages of the new bucket come as images.
 *
 * Main data and references:
 *   allocate  0 new bucket u32, 4 flags of the old bucket u16, 6 flags of the new one u16, 8 what
 *             the metapage's data holds u8: 1 masks, 2 splitpoint
 *             0 old bucket, 1 new bucket, 2 metapage (low mask u32, high mask u32 / splitpoint u32,
 *             its overflow pages u32)
 *   complete  0 flags of the old bucket u16, 2 flags of the new one u16; 0 old bucket, 1 new bucket
 *   cleanup   nothing; 0 old bucket
 */
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import {
  hashFlags,
  HashMeta,
  initHashPage,
  LH_BUCKET_NEEDS_SPLIT_CLEANUP,
  setHashFlags,
  setMeta,
  setOverflowPages,
  setPreviousPage,
} from "./hash_page.ts";
import { require } from "./redo_fault.ts";
import type { PageTarget } from "./types.ts";

const META_MASKS = 1;
const META_SPLITPOINT = 2;

/** One page of an allocation record; always a change. */
export function splitBucket(page: PageTarget, cursor: RecordCursor, id: number): boolean {
  require(id <= 2, "split allocation has no such reference");
  const { view, mainOffset: main } = cursor;
  const newBucket = view.getUint32(main, true);
  if (id === 0) {
    setHashFlags(page, view.getUint16(main + 4, true));
    setPreviousPage(page, newBucket);
  } else if (id === 1) {
    initHashPage(page, newBucket, newBucket, view.getUint16(main + 6, true));
  } else {
    setMeta(page, HashMeta.MAX_BUCKET, newBucket);
    updateTable(page, cursor, view.getUint8(main + 8));
  }
  return true;
}

/** What the metapage has to know when the table was doubled, or pages for buckets were made. */
function updateTable(page: PageTarget, cursor: RecordCursor, contents: number): void {
  const { view } = cursor;
  let at = cursor.dataOffset[2]!;
  const words = ((contents & META_MASKS) !== 0 ? 2 : 0) +
    ((contents & META_SPLITPOINT) !== 0 ? 2 : 0);
  require(cursor.dataLength[2]! >= 4 * words, "metapage data is too short");
  if (contents & META_MASKS) {
    setMeta(page, HashMeta.LOW_MASK, view.getUint32(at, true));
    setMeta(page, HashMeta.HIGH_MASK, view.getUint32(at + 4, true));
    at += 8;
  }
  if (contents & META_SPLITPOINT) {
    const splitpoint = view.getUint32(at, true);
    setOverflowPages(page, splitpoint, view.getUint32(at + 4, true));
    setMeta(page, HashMeta.SPLITPOINT, splitpoint);
  }
}

/** One of the two buckets of a completion record; always a change. */
export function completeSplit(page: PageTarget, cursor: RecordCursor, id: number): boolean {
  require(id <= 1, "split completion has no such reference");
  setHashFlags(page, cursor.view.getUint16(cursor.mainOffset + 2 * id, true));
  return true;
}

/** The tuples that the split moved away are gone from the old bucket; always a change. */
export function clearSplitCleanup(page: PageTarget, id: number): boolean {
  require(id === 0, "split cleanup has no such reference");
  setHashFlags(page, hashFlags(page) & ~LH_BUCKET_NEEDS_SPLIT_CLEANUP);
  return true;
}
