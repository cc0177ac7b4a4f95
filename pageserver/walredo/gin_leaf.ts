/**
 * Leaf pages of a GIN posting tree, and the record part that changes them: both insertion and
 * vacuum log what they did to the page's compressed lists, its "segments" (PostgreSQL 17,
 * gindatapage.c, computeLeafRecompressWALData; ginxlog.c, ginRedoRecompress; same in 14 to 18).
 *
 *   0 count of actions u16, then each: 0 segment number u8, 1 kind u8, and by kind
 *     DELETE     nothing
 *     INSERT     a list that goes before that segment
 *     REPLACE    a list that takes the segment's place
 *     ADD_ITEMS  count u16, then so many tids of 6 bytes to be merged into the segment
 *
 * Segments count as they were before the record, and actions come in their order; so the new page
 * is put together from a copy of the old lists while walking over them once.
 *
 * A page that pg_upgrade brought from 9.3 or older has plain tids instead of lists, their count in
 * the special space, and no useful pd_lower; it is converted to one list first.
 */
import { PAGE_SIZE } from "../../libs/postgres/constants.ts";
import { TID_SIZE } from "./btree_posting.ts";
import {
  GIN_COMPRESSED,
  GIN_DATA_START,
  GIN_SPECIAL_SIZE,
  ginCount,
  ginDataSize,
  ginFlags,
  setGinCount,
  setGinDataSize,
  setGinFlags,
} from "./gin_page.ts";
import {
  decodeList,
  encodeList,
  LIST_HEADER_SIZE,
  LIST_TIDS_MAX,
  listSize,
  mergeTids,
  readTids,
} from "./gin_posting_list.ts";
import { copyBytes } from "./page_items.ts";
import { fault, require } from "./redo_fault.ts";
import type { PageTarget } from "./types.ts";

/** Kinds of actions (GIN_SEGMENT_*). */
const DELETE = 1;
const INSERT = 2;
const REPLACE = 3;
const ADD_ITEMS = 4;

/** The page's lists as they were, and how far the walk over them is. */
const old = new Uint8Array(PAGE_SIZE);
const oldView = new DataView(old.buffer);
const encoded = new Uint8Array(PAGE_SIZE);
const oldTids = new Float64Array(LIST_TIDS_MAX);
const addedTids = new Float64Array(LIST_TIDS_MAX);
const mergedTids = new Float64Array(2 * LIST_TIDS_MAX);

/** Size of the list at `at`, checked to end before `end`. */
function checkedListSize(view: DataView, at: number, end: number): number {
  require(at + LIST_HEADER_SIZE <= end, "there is no posting list");
  const size = listSize(view, at);
  require(at + size <= end, "posting list reaches beyond its end");
  return size;
}

function convertOldLeaf(page: PageTarget): void {
  const count = ginCount(page);
  const room = PAGE_SIZE - GIN_SPECIAL_SIZE - GIN_DATA_START;
  require(count * TID_SIZE <= room, "too many tids for a page");
  readTids(page.view, page.offset + GIN_DATA_START, count, oldTids);
  const size = count > 0 ? encodeList(oldTids, count, encoded) : 0;
  setGinDataSize(page, size);
  copyBytes(page.bytes, page.offset + GIN_DATA_START, encoded, 0, size);
  setGinFlags(page, ginFlags(page) | GIN_COMPRESSED);
  setGinCount(page, 0);
}

/** Merges `count` tids at `record[at]` into the old list at `oldAt`; leaves it in `encoded`. */
function addTids(record: DataView, at: number, count: number, oldAt: number): number {
  readTids(record, at, count, addedTids);
  const before = decodeList(oldView, oldAt, oldTids);
  const merged = mergeTids(addedTids, count, oldTids, before, mergedTids);
  return encodeList(mergedTids, merged, encoded);
}

/** Writes a list, or several, at `target`; returns where it ends. */
function place(
  page: PageTarget,
  target: number,
  source: Uint8Array,
  at: number,
  size: number,
): number {
  const end = target + size;
  require(
    end <= page.offset + PAGE_SIZE - GIN_SPECIAL_SIZE,
    "posting lists do not fit on the page",
  );
  copyBytes(page.bytes, target, source, at, size);
  return end;
}

/**
 * Applies the actions at `from` in a record's bytes, which end at `end`, to a leaf page. Throws
 * before it would write beyond the page's data area.
 */
export function recompressLeaf(
  page: PageTarget,
  record: Uint8Array,
  recordView: DataView,
  from: number,
  end: number,
): void {
  if ((ginFlags(page) & GIN_COMPRESSED) === 0) convertOldLeaf(page);
  const oldEnd = ginDataSize(page);
  const start = page.offset + GIN_DATA_START;
  copyBytes(old, 0, page.bytes, start, oldEnd);
  let target = start;
  let oldAt = 0;
  let segment = 0;
  let at = from + 2;
  for (let left = readCount(recordView, from, end); left > 0; left--) {
    require(at + 2 <= end, "actions end too early");
    const wanted = record[at]!;
    const kind = record[at + 1]!;
    at += 2;
    require(wanted >= segment, "actions are out of order");
    for (; segment < wanted; segment++) {
      const size = checkedListSize(oldView, oldAt, oldEnd);
      target = place(page, target, old, oldAt, size);
      oldAt += size;
    }
    const oldSize = kind === INSERT ? 0 : checkedListSize(oldView, oldAt, oldEnd);
    if (kind === INSERT || kind === REPLACE) {
      const size = checkedListSize(recordView, at, end);
      target = place(page, target, record, at, size);
      at += size;
    } else if (kind === ADD_ITEMS) {
      const count = readCount(recordView, at, end);
      const tidsAt = at + 2;
      at = tidsAt + count * TID_SIZE;
      require(at <= end, "tids end too early");
      target = place(page, target, encoded, 0, addTids(recordView, tidsAt, count, oldAt));
    } else if (kind !== DELETE) {
      fault(`unknown action ${kind} on a posting list`);
    }
    if (kind !== INSERT) segment++;
    oldAt += oldSize;
  }
  target = place(page, target, old, oldAt, oldEnd - oldAt);
  setGinDataSize(page, target - start);
}

function readCount(view: DataView, at: number, end: number): number {
  require(at + 2 <= end, "there is no count");
  return view.getUint16(at, true);
}
