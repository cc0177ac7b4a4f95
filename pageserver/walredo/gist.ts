/**
 * Redo of the GiST resource manager (PostgreSQL 17, gistxlog.c; the records are those of 14 to 18).
 * Builds of a whole index are logged as page images, by the XLOG resource manager.
 *
 * A page that is split gets a right sibling first and a downlink to it in the parent later. The
 * record with the downlink names the left half too, which then loses its follow-right flag and
 * gets the record's end as NSN.
 *
 * A record touches several pages, each under its own reference id; every routine is asked for one
 * of them and must look at nothing else. Records (gistxlog.h), main data and references:
 *   page update  0 deletions u16, 2 insertions u16
 *                0 page (item numbers u16[deletions], then the new tuples), 1 left half of a split
 *   delete       0 conflict horizon u32, 4 count u16, 6 is catalog u8 (since 16), item numbers
 *                u16[count] at the end; 0 leaf page
 *   page split   0 right link before u32, 8 NSN before u64, 16 is leaf u8, 18 pages u16,
 *                20 mark follow-right u8
 *                0 left half of a split one level below, 1.. pages, the first is the one that was
 *                split (count i32, then the tuples)
 *   page delete  0 delete xid u64, 8 item of the downlink u16; 0 page, 1 parent
 *   page reuse, assign LSN: no references, nothing to do on any page
 */
import { PAGE_HEADER_SIZE, setPageLower } from "../../libs/postgres/page.ts";
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import { lsnHigh, lsnLow } from "../../libs/utils/lsn.ts";
import { tupleLength } from "./btree_page.ts";
import {
  changeGistFlags,
  GIST_DELETED,
  GIST_FOLLOW_RIGHT,
  GIST_HAS_GARBAGE,
  GIST_LEAF,
  GIST_ROOT,
  GIST_TUPLES_DELETED,
  gistFlags,
  initGistPage,
  NO_RIGHT_LINK,
  setNsn,
} from "./gist_page.ts";
import { deleteIndexItem, deleteIndexItems, overwriteIndexItem } from "./page_compact.ts";
import { addItem, copyBytes, itemCount, stampLsn } from "./page_items.ts";
import { fault, require } from "./redo_fault.ts";
import type { PageTarget } from "./types.ts";

/** Opcodes, in info & 0xf0. */
const GistInfo = {
  PAGE_UPDATE: 0x00,
  DELETE: 0x10,
  PAGE_REUSE: 0x20,
  PAGE_SPLIT: 0x30,
  PAGE_DELETE: 0x60,
  ASSIGN_LSN: 0x70,
} as const;

const OPCODE_MASK = 0xf0;
/** Least offset of a delete record's item numbers. */
const DELETE_HEADER_SIZE = 6;

/**
 * Applies a GiST record to the page that is its block reference `id` (none: -1, nothing to do).
 */
export function redoGist(page: PageTarget, cursor: RecordCursor, id: number): void {
  if (id < 0) return;
  if (id === leftHalfReference(cursor)) {
    linkLeftHalf(page, cursor);
  } else {
    changePage(page, cursor, id);
  }
  stampLsn(page, cursor.endLsn);
}

/**
 * What a record does to a page besides restoring its image, which was taken before that
 * (gistRedoClearFollowRight). PostgreSQL changes the left half of a split after it wrote the
 * record that links the right half.
 */
export function redoGistAfterImage(page: PageTarget, cursor: RecordCursor, id: number): void {
  if (id === leftHalfReference(cursor)) linkLeftHalf(page, cursor);
}

/** Reference to the left half of a split whose right half now has its downlink; -1: none. */
function leftHalfReference(cursor: RecordCursor): number {
  switch (cursor.info & OPCODE_MASK) {
    case GistInfo.PAGE_UPDATE:
      return 1;
    case GistInfo.PAGE_SPLIT:
      return 0;
    default:
      return -1;
  }
}

function linkLeftHalf(page: PageTarget, cursor: RecordCursor): void {
  setNsn(page, lsnHigh(cursor.endLsn), lsnLow(cursor.endLsn));
  changeGistFlags(page, 0, GIST_FOLLOW_RIGHT);
}

function changePage(page: PageTarget, cursor: RecordCursor, id: number): void {
  const opcode = cursor.info & OPCODE_MASK;
  switch (opcode) {
    case GistInfo.PAGE_UPDATE:
      require(id === 0, "page update has no such reference");
      return updatePage(page, cursor);
    case GistInfo.DELETE:
      require(id === 0, "delete has no such reference");
      return deleteDeadItems(page, cursor);
    case GistInfo.PAGE_SPLIT:
      return fillSplitPage(page, cursor, id);
    case GistInfo.PAGE_DELETE:
      require(id <= 1, "page deletion has no such reference");
      return id === 0 ? deletePage(page, cursor) : deleteDownlink(page, cursor);
    case GistInfo.PAGE_REUSE:
    case GistInfo.ASSIGN_LSN:
      return fault("this record has no pages");
    default:
      fault(`unknown opcode 0x${opcode.toString(16)}`);
  }
}

/** gistRedoPageUpdateRecord. */
function updatePage(page: PageTarget, cursor: RecordCursor): void {
  const record = cursor.view;
  const deletions = record.getUint16(cursor.mainOffset, true);
  const insertions = record.getUint16(cursor.mainOffset + 2, true);
  const from = cursor.dataOffset[0]!;
  const end = from + cursor.dataLength[0]!;
  const tuples = from + 2 * deletions;
  require(tuples <= end, "item numbers beyond the end of their data");
  if (deletions === 1 && insertions === 1) {
    // One for one happens in place, as gistplacetopage does it: it decides where the tuple lies.
    const size = tupleLength(record, tuples);
    require(tuples + size === end, "a replaced tuple does not fill its data");
    overwriteIndexItem(page, record.getUint16(from, true), cursor.bytes, tuples, size);
    return;
  }
  if (deletions > 0) {
    deleteIndexItems(page, record, from, deletions);
    if (gistFlags(page) & GIST_LEAF) changeGistFlags(page, GIST_TUPLES_DELETED, 0);
  }
  const added = appendTuples(page, cursor, tuples, end);
  if (added !== insertions) fault(`${added} tuples, ${insertions} were announced`);
}

/** Adds the index tuples that lie end to end in a record as the last items; returns how many. */
function appendTuples(page: PageTarget, cursor: RecordCursor, from: number, end: number): number {
  let count = 0;
  let number = itemCount(page) + 1;
  for (let at = from; at < end; count++) {
    const size = tupleLength(cursor.view, at);
    require(at + size <= end, "an index tuple reaches beyond its data");
    addItem(page, number++, cursor.bytes, at, size);
    at += size;
  }
  return count;
}

/**
 * gistRedoDeleteRecord; the item numbers are what remains behind a header that grew in 16. That
 * function also sets "tuples deleted", which the server that wrote the record did not
 * (gistprunepage). Nobody reads the flag; here the page is as it was on the server.
 */
function deleteDeadItems(page: PageTarget, cursor: RecordCursor): void {
  const count = cursor.view.getUint16(cursor.mainOffset + 4, true);
  const listAt = cursor.mainLength - 2 * count;
  require(listAt >= DELETE_HEADER_SIZE, "item numbers beyond the end of their data");
  deleteIndexItems(page, cursor.view, cursor.mainOffset + listAt, count);
  changeGistFlags(page, 0, GIST_HAS_GARBAGE);
}

/** gistRedoPageSplitRecord, for one of the pages. */
function fillSplitPage(page: PageTarget, cursor: RecordCursor, id: number): void {
  const record = cursor.view;
  const main = cursor.mainOffset;
  const pages = record.getUint16(main + 18, true);
  require(id <= pages, "page split has no such reference");
  const isRoot = cursor.blockNumber[id] === GIST_ROOT;
  const isLast = id === pages;
  const leaf = record.getUint8(main + 16) !== 0 && !isRoot ? GIST_LEAF : 0;
  // A split root keeps no tuples of its own: its halves get their downlinks in this same record.
  const linked = isRoot || isLast || cursor.blockNumber[1] === GIST_ROOT ||
    record.getUint8(main + 20) === 0;
  require(isRoot || isLast || cursor.blockPresent[id + 1] !== 0, "a page of the split is missing");
  const rightLink = isRoot
    ? NO_RIGHT_LINK
    : isLast
    ? record.getUint32(main, true)
    : cursor.blockNumber[id + 1]!;
  initGistPage(page, rightLink, leaf | (linked ? 0 : GIST_FOLLOW_RIGHT));
  setNsn(page, record.getUint32(main + 12, true), record.getUint32(main + 8, true));
  const from = cursor.dataOffset[id]!;
  const end = from + cursor.dataLength[id]!;
  require(from + 4 <= end, "split page without a count");
  const announced = record.getUint32(from, true);
  const added = appendTuples(page, cursor, from + 4, end);
  if (added !== announced) fault(`${added} tuples, ${announced} were announced`);
}

/** GistPageSetDeleted. */
function deletePage(page: PageTarget, cursor: RecordCursor): void {
  changeGistFlags(page, GIST_DELETED, 0);
  copyBytes(page.bytes, page.offset + PAGE_HEADER_SIZE, cursor.bytes, cursor.mainOffset, 8);
  setPageLower(page.view, page.offset, PAGE_HEADER_SIZE + 8);
}

function deleteDownlink(page: PageTarget, cursor: RecordCursor): void {
  deleteIndexItem(page, cursor.view.getUint16(cursor.mainOffset + 8, true));
}
