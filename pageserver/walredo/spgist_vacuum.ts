/**
 * Redo of what vacuum does to an SP-GiST index (PostgreSQL 17, spgxlog.c); each record has one
 * page, reference 0. Main data:
 *   vacuum leaf      0 dead u16, 2 placeholders u16, 4 moves u16, 6 chain links u16, 8 state,
 *                    16 item numbers u16: to become dead, to become placeholders, to move from, to
 *                    move to, whose links change, new links
 *   vacuum root      0 count u16, 4 state, 12 item numbers u16; the root while it is a leaf page
 *   vacuum redirect  0 count u16, 2 first placeholder to remove u16, 4 conflict horizon u32,
 *                    8 is catalog u8 (since 16), item numbers u16[count] at the end
 */
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import { deleteIndexItems } from "./page_compact.ts";
import { getPointer, itemCount, PAGE_ITEMS_MAX, setPointer } from "./page_items.ts";
import { require } from "./redo_fault.ts";
import {
  countPlaceholders,
  countRedirections,
  DEAD,
  endOfNumbers,
  killTuples,
  PLACEHOLDER,
  retireRedirection,
  setNextLeaf,
} from "./spgist_page.ts";
import type { PageTarget } from "./types.ts";

const LEAF_LISTS = 16;
const ROOT_LIST = 12;
/** Least offset of the item numbers of a vacuum redirect record. */
const REDIRECT_HEADER_SIZE = 8;

/**
 * Leaves go; a chain whose head has gone gets its next living leaf moved to the head's number
 * (spgRedoVacuumLeaf).
 */
export function vacuumLeaf(page: PageTarget, cursor: RecordCursor, id: number): void {
  require(id === 0, "vacuum has no such reference");
  const record = cursor.view;
  const main = cursor.mainOffset;
  const dead = record.getUint16(main, true);
  const placeholders = record.getUint16(main + 2, true);
  const moves = record.getUint16(main + 4, true);
  const links = record.getUint16(main + 6, true);
  const deadList = main + LEAF_LISTS;
  const placeholderList = endOfNumbers(cursor, deadList, dead);
  const sources = endOfNumbers(cursor, placeholderList, placeholders);
  const targets = endOfNumbers(cursor, sources, moves);
  const chainItems = endOfNumbers(cursor, targets, moves);
  const chainLinks = endOfNumbers(cursor, chainItems, links);
  endOfNumbers(cursor, chainLinks, links);

  killTuples(page, cursor, deadList, dead, DEAD);
  killTuples(page, cursor, placeholderList, placeholders, PLACEHOLDER);
  // The tuples stay where they lie and only their line pointers trade places. What then is at the
  // source is a tuple that has become a placeholder above, to be replaced by another one.
  for (let i = 0; i < moves; i++) {
    const source = record.getUint16(sources + 2 * i, true);
    const target = record.getUint16(targets + 2 * i, true);
    const moved = getPointer(page, source);
    setPointer(page, source, getPointer(page, target));
    setPointer(page, target, moved);
  }
  killTuples(page, cursor, sources, moves, PLACEHOLDER);
  for (let i = 0; i < links; i++) {
    const number = record.getUint16(chainItems + 2 * i, true);
    setNextLeaf(page, number, record.getUint16(chainLinks + 2 * i, true));
  }
}

/** Nothing links to the leaves of a root page: they go without a trace (spgRedoVacuumRoot). */
export function vacuumRoot(page: PageTarget, cursor: RecordCursor, id: number): void {
  require(id === 0, "vacuum has no such reference");
  const count = cursor.view.getUint16(cursor.mainOffset, true);
  const list = cursor.mainOffset + ROOT_LIST;
  endOfNumbers(cursor, list, count);
  deleteIndexItems(page, cursor.view, list, count);
}

/** Numbers of the placeholders at the end of the page, for deleteIndexItems. */
const removedList = new DataView(new ArrayBuffer(2 * PAGE_ITEMS_MAX));

/**
 * Redirections that nobody needs become placeholders; placeholders at the end of the page go
 * (spgRedoVacuumRedirect). The item numbers are what remains behind a header that grew in 16.
 */
export function vacuumRedirections(page: PageTarget, cursor: RecordCursor, id: number): void {
  require(id === 0, "vacuum has no such reference");
  const record = cursor.view;
  const count = record.getUint16(cursor.mainOffset, true);
  const first = record.getUint16(cursor.mainOffset + 2, true);
  const listAt = cursor.mainLength - 2 * count;
  require(listAt >= REDIRECT_HEADER_SIZE, "item numbers beyond the record");
  for (let i = 0; i < count; i++) {
    retireRedirection(page, record.getUint16(cursor.mainOffset + listAt + 2 * i, true));
  }
  countRedirections(page, -count);
  countPlaceholders(page, count);
  if (first === 0) return;
  const removed = itemCount(page) - first + 1;
  require(removed >= 0 && removed <= PAGE_ITEMS_MAX, "placeholders to be removed are not there");
  for (let i = 0; i < removed; i++) removedList.setUint16(2 * i, first + i, true);
  countPlaceholders(page, -removed);
  deleteIndexItems(page, removedList, 0, removed);
}
