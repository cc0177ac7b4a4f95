/**
 * Redo of an SP-GiST pick-split (PostgreSQL 17, spgxlog.c, spgRedoPickSplit): the leaves of a chain
 * that has outgrown its page become several chains under a new inner tuple.
 *
 * Main data: 0 the root is split u8, 2 deletions u16, 4 insertions u16, 6 empty the source u8,
 * 7 new destination u8, 8 item of the inner tuple u16, 10 new inner page u8, 11 nulls u8, 12 the
 * parent is on the inner page u8, 14 item of the parent u16, 16 node u16, 20 xid for redirections
 * u32, 24 index is being built u8, 28 item numbers to delete u16[deletions], to insert
 * u16[insertions], on which page u8[insertions] (0 source, 1 destination), inner tuple, leaf tuples
 * References: 0 source (none if the root is split), 1 destination (if there is one), 2 inner page,
 * 3 parent (if elsewhere)
 */
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import { fault } from "./redo_fault.ts";
import {
  endOfNumbers,
  initSpgistPage,
  innerSize,
  killTuples,
  leafSize,
  PLACEHOLDER,
  placeTuple,
  setDownlink,
} from "./spgist_page.ts";
import type { PageTarget } from "./types.ts";

const DELETE_LIST = 28;
/** References; the first two are also the page numbers of leaves. */
const SOURCE = 0;
const DESTINATION = 1;
const INNER = 2;
const PARENT = 3;

/** Applies the record to the page that is its reference `id`. */
export function pickSplit(page: PageTarget, cursor: RecordCursor, id: number): void {
  const record = cursor.view;
  const main = cursor.mainOffset;
  const nulls = record.getUint8(main + 11) !== 0;
  const insertList = endOfNumbers(cursor, main + DELETE_LIST, record.getUint16(main + 2, true));
  const pages = endOfNumbers(cursor, insertList, record.getUint16(main + 4, true));
  const innerTuple = pages + record.getUint16(main + 4, true);
  switch (id) {
    case SOURCE:
      if (record.getUint8(main + 6) !== 0) initSpgistPage(page, true, nulls);
      else removeLeaves(page, cursor);
      return placeLeaves(page, cursor, id, insertList, pages, innerTuple);
    case DESTINATION:
      if (record.getUint8(main + 7) !== 0) initSpgistPage(page, true, nulls);
      return placeLeaves(page, cursor, id, insertList, pages, innerTuple);
    case INNER: {
      if (record.getUint8(main + 10) !== 0) initSpgistPage(page, false, nulls);
      const size = innerSize(cursor, innerTuple);
      placeTuple(page, record.getUint16(main + 8, true), cursor.bytes, innerTuple, size);
      if (record.getUint8(main + 12) !== 0) linkInnerTuple(page, cursor);
      return;
    }
    case PARENT:
      return linkInnerTuple(page, cursor);
    default:
      fault(`pick-split has no reference ${id}`);
  }
}

/** Scans that are under way to the source page's leaves go on at the inner tuple. */
function removeLeaves(page: PageTarget, cursor: RecordCursor): void {
  const record = cursor.view;
  const main = cursor.mainOffset;
  const redirection = record.getUint8(main + 24) !== 0 ? undefined : {
    block: cursor.blockNumber[INNER]!,
    item: record.getUint16(main + 8, true),
    xid: record.getUint32(main + 20, true),
  };
  const count = record.getUint16(main + 2, true);
  killTuples(page, cursor, main + DELETE_LIST, count, PLACEHOLDER, redirection);
}

/** Adds those leaf tuples that belong to page `which`. */
function placeLeaves(
  page: PageTarget,
  cursor: RecordCursor,
  which: number,
  insertList: number,
  pages: number,
  innerTuple: number,
): void {
  const record = cursor.view;
  let at = innerTuple + innerSize(cursor, innerTuple);
  for (let i = 0; pages + i < innerTuple; i++) {
    const size = leafSize(cursor, at);
    // Any number but 0 means the destination.
    if ((record.getUint8(pages + i) !== 0 ? DESTINATION : SOURCE) === which) {
      placeTuple(page, record.getUint16(insertList + 2 * i, true), cursor.bytes, at, size);
    }
    at += size;
  }
}

function linkInnerTuple(page: PageTarget, cursor: RecordCursor): void {
  const record = cursor.view;
  const main = cursor.mainOffset;
  setDownlink(
    page,
    record.getUint16(main + 14, true),
    record.getUint16(main + 16, true),
    cursor.blockNumber[INNER]!,
    record.getUint16(main + 8, true),
  );
}
