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
  LP_NORMAL,
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

/** Line pointers of the items that the next compactItems keeps, and where they are in the slab. */
const keptPointers = new Int32Array(PAGE_ITEMS_MAX);
const keptAt = new Uint32Array(PAGE_ITEMS_MAX);
/** Copy of the item space, for items that are not in order. */
const scratch = new Uint8Array(PAGE_SIZE);

/** Throws unless a line pointer's item is aligned and lies in [upper, special). */
function checkItem(pointer: number, upper: number, special: number): void {
  const offset = pointerOffset(pointer);
  const length = pointerLength(pointer);
  if (offset < upper || offset + length > special || (offset & 7) !== 0) {
    fault(`corrupted line pointer: offset = ${offset}, size = ${length}`);
  }
}

/**
 * Packs the first `count` kept items, of `totalLength` bytes, against the special space, in that
 * order, and sets pd_upper (compactify_tuples). Items that lie as they should stay; neighbours that
 * stay neighbours move in one copy.
 */
function compactItems(page: PageTarget, count: number, totalLength: number): void {
  const { view, offset: base } = page;
  const special = pageSpecial(view, base);
  const upperOld = pageUpper(view, base);
  if (totalLength > special - pageLower(view, base)) {
    fault(`items of ${totalLength} bytes do not fit`);
  }
  let upper = special;
  let i = 0;
  for (; i < count; i++) {
    const pointer = keptPointers[i]!;
    const next = upper - maxAlign(pointerLength(pointer));
    if (pointerOffset(pointer) !== next) break;
    upper = next;
  }
  if (i < count) moveItems(page, i, count, upper, upperOld);
  setPageUpper(view, base, special - totalLength);
}

/** Moves kept items [first, count) to below `upperFrom`, whole runs of neighbours at a time. */
function moveItems(
  page: PageTarget,
  first: number,
  count: number,
  upperFrom: number,
  upperOld: number,
): void {
  const { view, bytes, offset: base } = page;
  // Items in descending order only ever move up into space already vacated: no copy needed.
  const sorted = isDescending(first, count);
  if (!sorted) scratch.set(bytes.subarray(base + upperOld, base + upperFrom), upperOld);
  let upper = upperFrom;
  for (let i = first; i < count;) {
    const end = upper;
    const from = pointerOffset(keptPointers[i]!) + maxAlign(pointerLength(keptPointers[i]!));
    const delta = end - from;
    let lowest = from;
    require(from <= upperFrom, "items overlap");
    for (; i < count; i++) {
      const pointer = keptPointers[i]!;
      const length = maxAlign(pointerLength(pointer));
      if (pointerOffset(pointer) !== lowest - length) break;
      lowest -= length;
      // The offset is the low bits, and stays within them: what fits below fits above.
      view.setInt32(keptAt[i]!, pointer + delta, true);
    }
    upper = lowest + delta;
    if (delta === 0) continue;
    if (sorted) bytes.copyWithin(base + upper, base + lowest, base + from);
    else bytes.set(scratch.subarray(lowest, from), base + upper);
  }
}

/** Whether kept items [first, count) lie one below the other. */
function isDescending(first: number, count: number): boolean {
  let last = PAGE_SIZE;
  for (let i = first; i < count; i++) {
    const offset = pointerOffset(keptPointers[i]!);
    if (offset >= last) return false;
    last = offset;
  }
  return true;
}

/**
 * Frees the space of pruned heap tuples and, if `truncate`, of unused line pointers at the end
 * (PageRepairFragmentation; PostgreSQL 14 keeps all line pointers).
 */
export function repairFragmentation(page: PageTarget, truncate: boolean): void {
  checkPageBounds(page);
  const { view, offset: base } = page;
  const lower = pageLower(view, base);
  const upper = pageUpper(view, base);
  const special = pageSpecial(view, base);
  const end = base + PAGE_HEADER_SIZE + itemCount(page) * LINE_POINTER_SIZE;
  let kept = 0; // never more than PAGE_ITEMS_MAX: so many line pointers fit on a page
  let total = 0;
  let unused = 0;
  let endUsed = base + PAGE_HEADER_SIZE;
  let bad = 0;
  // Which items are used is as good as random, and a mispredicted branch costs more than this loop's
  // arithmetic: "used" and "stored" are masks, all ones or zero.
  for (let at = endUsed; at < end; at += LINE_POINTER_SIZE) {
    const pointer = view.getInt32(at, true);
    const length = pointerLength(pointer);
    const offset = pointerOffset(pointer);
    const used = -pointerState(pointer) >> 31;
    const stored = used & (-length >> 31);
    view.setInt32(at, pointer & used, true);
    keptPointers[kept] = pointer;
    keptAt[kept] = at;
    kept -= stored;
    total += stored & maxAlign(length);
    bad |= stored & ((offset & 7) | (offset - upper) >> 31 | (special - offset - length) >> 31);
    unused += 1 + used;
    endUsed += used & (at + LINE_POINTER_SIZE - endUsed);
  }
  if (bad !== 0) { for (let i = 0; i < kept; i++) checkItem(keptPointers[i]!, upper, special); }
  compactItems(page, kept, total);
  if (truncate && endUsed !== end) {
    unused -= (end - endUsed) / LINE_POINTER_SIZE;
    setPageLower(view, base, lower - (end - endUsed));
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
  const upper = pageUpper(view, base);
  if (limit > upper) page.bytes.copyWithin(base + upper + delta, base + upper, base + limit);
  setPageUpper(view, base, upper + delta);
  const end = base + PAGE_HEADER_SIZE + itemCount(page) * LINE_POINTER_SIZE;
  for (let at = base + PAGE_HEADER_SIZE; at < end; at += LINE_POINTER_SIZE) {
    const pointer = view.getInt32(at, true);
    // All ones if the item has storage below the limit: a branch would be mispredicted half the time.
    const below = ((pointerOffset(pointer) - limit - 1) & -pointerLength(pointer)) >> 31;
    view.setInt32(at, pointer + (delta & below), true); // the offset is the low bits
  }
}

/** Line pointer of an index item, checked to lie in the item space. */
function indexPointer(page: PageTarget, number: number): number {
  const pointer = getPointer(page, number);
  checkItem(pointer, pageUpper(page.view, page.offset), pageSpecial(page.view, page.offset));
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
  const { view, offset: base } = page;
  const upper = pageUpper(view, base);
  const special = pageSpecial(view, base);
  const itemsBefore = itemCount(page);
  const first = base + PAGE_HEADER_SIZE;
  let kept = 0;
  let deleted = 0;
  let total = 0;
  let nextDeleted = listView.getUint16(listAt, true);
  for (let number = 1; number <= itemsBefore; number++) {
    if (number === nextDeleted) {
      deleted++;
      nextDeleted = deleted < count ? listView.getUint16(listAt + 2 * deleted, true) : 0;
      continue;
    }
    const pointer = view.getInt32(first + (number - 1) * LINE_POINTER_SIZE, true);
    checkItem(pointer, upper, special);
    const at = first + kept * LINE_POINTER_SIZE;
    keptPointers[kept] = pointer;
    keptAt[kept++] = at;
    total += maxAlign(pointerLength(pointer));
    view.setInt32(at, pointer, true);
  }
  require(deleted === count, "index item numbers to delete are out of order");
  setPageLower(view, base, PAGE_HEADER_SIZE + kept * LINE_POINTER_SIZE);
  compactItems(page, kept, total);
}

/**
 * Removes one index item and adds another under its number: deleteIndexItem and addItem in one,
 * with the same outcome.
 */
export function replaceIndexItem(
  page: PageTarget,
  number: number,
  source: Uint8Array,
  sourceAt: number,
  size: number,
): void {
  checkPageBounds(page);
  const { view, offset: base } = page;
  const pointer = indexPointer(page, number);
  const sizeOld = maxAlign(pointerLength(pointer));
  const upper = pageUpper(view, base) + sizeOld - maxAlign(size);
  if (upper < pageLower(view, base)) fault(`no room for an item of ${size} bytes`);
  shiftItems(page, pointerOffset(pointer), sizeOld);
  setPageUpper(view, base, upper);
  view.setUint32(pointerAt(page, number), makePointer(upper, LP_NORMAL, size), true);
  copyBytes(page.bytes, base + upper, source, sourceAt, size);
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
