/**
 * Moving items together after some were removed: the part of storage/page/bufpage.c that heap
 * pruning and index deletion share (PageRepairFragmentation, PageTruncateLinePointerArray,
 * PageIndexTupleDelete and its variant without compaction, PageIndexMultiDelete,
 * PageIndexTupleOverwrite).
 *
 * Compaction puts items back in line pointer order, the first one highest. Which bytes remain in
 * the free space afterwards differs from PostgreSQL's; nothing reads them and every comparison
 * masks them.
 */
import { PAGE_SIZE } from "../../libs/postgres/constants.ts";
import {
  PAGE_HEADER_SIZE,
  pageLower,
  pageSpecial,
  pageUpper,
  setPageLower,
  setPageUpper,
} from "../../libs/postgres/page.ts";
import {
  checkPageBounds,
  copyBytes,
  getPointer,
  itemCount,
  LINE_POINTER_SIZE,
  LP_UNUSED,
  makePointer,
  maxAlign,
  PAGE_ITEMS_MAX,
  PD_HAS_FREE_LINES,
  pointerAt,
  pointerLength,
  pointerOffset,
  pointerState,
  setPageFlag,
} from "./page_items.ts";
import { fault, require } from "./redo_fault.ts";
import type { PageTarget } from "./types.ts";

/** Numbers of the items to be moved by the next compactItems; filled by its callers. */
const movedNumbers = new Uint16Array(PAGE_ITEMS_MAX);
/** Copy of the item space, for items that are not in order. */
const scratch = new Uint8Array(PAGE_SIZE);

/** Notes item `number` with line pointer `pointer` to be kept. */
function keepItem(page: PageTarget, slot: number, number: number, pointer: number): void {
  const offset = pointerOffset(pointer);
  const length = pointerLength(pointer);
  if (
    offset < pageUpper(page.view, page.offset) ||
    offset + length > pageSpecial(page.view, page.offset) || (offset & 7) !== 0
  ) {
    fault(`corrupted line pointer: offset = ${offset}, size = ${length}`);
  }
  require(slot < PAGE_ITEMS_MAX, "too many items on the page");
  movedNumbers[slot] = number;
}

/**
 * Packs the first `count` of movedNumbers against the special space, in that order, and sets
 * pd_upper.
 */
function compactItems(page: PageTarget, count: number, totalLength: number): void {
  const { view, bytes, offset: base } = page;
  const special = pageSpecial(page.view, page.offset);
  if (totalLength > special - pageLower(page.view, page.offset)) {
    fault(`items of ${totalLength} bytes do not fit`);
  }
  let sorted = true;
  let last = special;
  for (let i = 0; i < count && sorted; i++) {
    const offset = pointerOffset(view.getUint32(pointerAt(page, movedNumbers[i]!), true));
    sorted = offset < last;
    last = offset;
  }
  const upperOld = pageUpper(page.view, page.offset);
  // Items in descending order only ever move up into space already vacated: no copy needed.
  const source = sorted ? bytes : scratch;
  if (!sorted) copyBytes(scratch, upperOld, bytes, base + upperOld, special - upperOld);
  const sourceBase = sorted ? base : 0;
  let upper = special;
  for (let i = 0; i < count; i++) {
    const at = pointerAt(page, movedNumbers[i]!);
    const pointer = view.getUint32(at, true);
    const offset = pointerOffset(pointer);
    const length = maxAlign(pointerLength(pointer));
    upper -= length;
    if (offset === upper) continue;
    copyBytes(bytes, base + upper, source, sourceBase + offset, length);
    view.setUint32(at, makePointer(upper, pointerState(pointer), pointerLength(pointer)), true);
  }
  setPageUpper(page.view, page.offset, upper);
}

/**
 * Frees the space of pruned heap tuples and, if `truncate`, of unused line pointers at the end
 * (PageRepairFragmentation; PostgreSQL 14 keeps all line pointers).
 */
export function repairFragmentation(page: PageTarget, truncate: boolean): void {
  checkPageBounds(page);
  const { view } = page;
  const count = itemCount(page);
  let kept = 0;
  let total = 0;
  let unused = 0;
  let lastUsed = 0;
  for (let number = 1; number <= count; number++) {
    const at = pointerAt(page, number);
    const pointer = view.getUint32(at, true);
    if (pointerState(pointer) === LP_UNUSED) {
      view.setUint32(at, 0, true);
      unused++;
      continue;
    }
    if (pointerLength(pointer) !== 0) {
      keepItem(page, kept++, number, pointer);
      total += maxAlign(pointerLength(pointer));
    }
    lastUsed = number;
  }
  compactItems(page, kept, total);
  if (truncate && lastUsed !== count) {
    unused -= count - lastUsed;
    setPageLower(
      page.view,
      page.offset,
      pageLower(page.view, page.offset) - (count - lastUsed) * LINE_POINTER_SIZE,
    );
  }
  setPageFlag(page, PD_HAS_FREE_LINES, unused > 0);
}

/**
 * Drops unused line pointers at the end, but never the first one (PageTruncateLinePointerArray).
 */
export function truncateLinePointers(page: PageTarget): void {
  const count = itemCount(page);
  let keep = count;
  while (keep > 1 && pointerState(getPointer(page, keep)) === LP_UNUSED) keep--;
  let hasUnused = false;
  for (let number = keep; number >= 1 && !hasUnused; number--) {
    hasUnused = pointerState(getPointer(page, number)) === LP_UNUSED;
  }
  setPageLower(
    page.view,
    page.offset,
    pageLower(page.view, page.offset) - (count - keep) * LINE_POINTER_SIZE,
  );
  setPageFlag(page, PD_HAS_FREE_LINES, hasUnused);
}

/**
 * Shifts the items below `limit` (an offset) up by `delta` bytes, and their line pointers with
 * them.
 */
function shiftItems(page: PageTarget, limit: number, delta: number): void {
  const { view, offset: base } = page;
  const upper = pageUpper(page.view, page.offset);
  page.bytes.copyWithin(base + upper + delta, base + upper, base + limit);
  setPageUpper(page.view, page.offset, upper + delta);
  const count = itemCount(page);
  for (let number = 1; number <= count; number++) {
    const at = pointerAt(page, number);
    const pointer = view.getUint32(at, true);
    const length = pointerLength(pointer);
    const offset = pointerOffset(pointer);
    if (length === 0 || offset > limit) continue;
    view.setUint32(at, makePointer(offset + delta, pointerState(pointer), length), true);
  }
}

/** Line pointer of an index item, checked to lie in the item space. */
function indexPointer(page: PageTarget, number: number): number {
  const pointer = getPointer(page, number);
  keepItem(page, 0, number, pointer);
  return pointer;
}

/** Removes one index item and its line pointer (PageIndexTupleDelete). */
export function deleteIndexItem(page: PageTarget, number: number): void {
  checkPageBounds(page);
  const pointer = indexPointer(page, number);
  const at = pointerAt(page, number);
  page.bytes.copyWithin(
    at,
    at + LINE_POINTER_SIZE,
    page.offset + pageLower(page.view, page.offset),
  );
  setPageLower(page.view, page.offset, pageLower(page.view, page.offset) - LINE_POINTER_SIZE);
  shiftItems(page, pointerOffset(pointer), maxAlign(pointerLength(pointer)));
}

/**
 * Removes one index item; the numbers of the others stay, so its line pointer becomes unused, or
 * goes if it is the last one (PageIndexTupleDeleteNoCompact).
 */
export function freeIndexItem(page: PageTarget, number: number): void {
  checkPageBounds(page);
  const pointer = indexPointer(page, number);
  if (number < itemCount(page)) {
    page.view.setUint32(pointerAt(page, number), 0, true);
  } else {
    setPageLower(page.view, page.offset, pageLower(page.view, page.offset) - LINE_POINTER_SIZE);
  }
  shiftItems(page, pointerOffset(pointer), maxAlign(pointerLength(pointer)));
}

/**
 * Removes `count` index items whose numbers, ascending u16, start at `listView[listAt]`
 * (PageIndexMultiDelete). One or two are removed singly, as PostgreSQL does: it decides the order
 * in which the remaining items lie.
 */
export function deleteIndexItems(
  page: PageTarget,
  listView: DataView,
  listAt: number,
  count: number,
): void {
  if (count <= 2) {
    for (let i = count - 1; i >= 0; i--) {
      deleteIndexItem(page, listView.getUint16(listAt + 2 * i, true));
    }
    return;
  }
  checkPageBounds(page);
  const { view } = page;
  const itemsBefore = itemCount(page);
  let kept = 0;
  let deleted = 0;
  let total = 0;
  for (let number = 1; number <= itemsBefore; number++) {
    const pointer = view.getUint32(pointerAt(page, number), true);
    if (deleted < count && listView.getUint16(listAt + 2 * deleted, true) === number) {
      deleted++;
      continue;
    }
    keepItem(page, kept, kept + 1, pointer);
    total += maxAlign(pointerLength(pointer));
    kept++;
    view.setUint32(pointerAt(page, kept), pointer, true);
  }
  require(deleted === count, "index item numbers to delete are out of order");
  setPageLower(page.view, page.offset, PAGE_HEADER_SIZE + kept * LINE_POINTER_SIZE);
  compactItems(page, kept, total);
}

/**
 * Replaces an index item in its place, moving those below when the size differs
 * (PageIndexTupleOverwrite).
 */
export function overwriteIndexItem(
  page: PageTarget,
  number: number,
  source: Uint8Array,
  sourceAt: number,
  size: number,
): void {
  checkPageBounds(page);
  const pointer = indexPointer(page, number);
  const offset = pointerOffset(pointer);
  const sizeOld = maxAlign(pointerLength(pointer));
  const sizeNew = maxAlign(size);
  const room = sizeOld + pageUpper(page.view, page.offset) - pageLower(page.view, page.offset);
  if (sizeNew > room) fault(`no room to replace an item with one of ${size} bytes`);
  const delta = sizeOld - sizeNew;
  if (delta !== 0) shiftItems(page, offset, delta);
  const moved = makePointer(offset + delta, pointerState(pointer), size);
  page.view.setUint32(pointerAt(page, number), moved, true);
  copyBytes(page.bytes, page.offset + offset + delta, source, sourceAt, size);
}
