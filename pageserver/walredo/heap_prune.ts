/**
 * Redo of heap pruning and freezing (PostgreSQL 17 and later, heap_xlog_prune_freeze). Three
 * opcodes, one format. Main data: 0 reason u8, 1 flags u8, [conflict horizon u32, for standbys
 * only].
 *
 * Block data, each part present if its flag is set, in this order:
 *
 *   0x10 freeze plans: count u16, 2 bytes padding, 12 bytes each:
 *          0 xmax u32, 4 infomask2 u16, 6 infomask u16, 8 freeze flags u8, 10 tuples u16
 *   0x20 redirections: count u16, (from u16, to u16) each
 *   0x40 now dead:     count u16, item u16 each
 *   0x80 now unused:   count u16, item u16 each
 *   0x10 item numbers u16 of the tuples of all plans, one plan after the other
 */
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import { setCommandId, setInfomask, setInfomask2, setXmax, tupleAt } from "./heap_tuple.ts";
import { repairFragmentation, truncateLinePointers } from "./page_compact.ts";
import { itemCount, LP_DEAD, LP_REDIRECT, makePointer, pointerAt, stampLsn } from "./page_items.ts";
import { fault, require } from "./redo_fault.ts";
import type { PageTarget } from "./types.ts";

const HAS_CLEANUP_LOCK = 0x04;
const HAS_FREEZE_PLANS = 0x10;
const HAS_REDIRECTIONS = 0x20;
const HAS_DEAD_ITEMS = 0x40;
const HAS_UNUSED_ITEMS = 0x80;
/** Bytes of a freeze plan, shared by several tuples or, in 14 and 15, for a single one. */
export const FREEZE_PLAN_SIZE = 12;
const FREEZE_XVAC = 0x02;
const INVALID_XVAC = 0x04;
/** FrozenTransactionId. */
const FROZEN_XID = 2;
const DEAD_POINTER = makePointer(0, LP_DEAD, 0);

/** Applies a prune record to its heap page, block reference `id`. */
export function redoPrune(page: PageTarget, cursor: RecordCursor, id: number): void {
  const record = cursor.view;
  const flags = record.getUint8(cursor.mainOffset + 1);
  const start = cursor.dataOffset[id]!;
  const end = start + cursor.dataLength[id]!;
  let at = start;
  let plans = 0;
  if (flags & HAS_FREEZE_PLANS) {
    plans = record.getUint16(at, true);
    at += 4 + plans * FREEZE_PLAN_SIZE;
  }
  let changed = 0;
  if (flags & HAS_REDIRECTIONS) {
    const count = record.getUint16(at, true);
    redirectItems(page, record, at + 2, count);
    at += 2 + 4 * count;
    changed += count;
  }
  if (flags & HAS_DEAD_ITEMS) {
    const count = record.getUint16(at, true);
    killItems(page, record, at + 2, count);
    at += 2 + 2 * count;
    changed += count;
  }
  if (flags & HAS_UNUSED_ITEMS) {
    const count = record.getUint16(at, true);
    freeItems(page, record, at + 2, count);
    at += 2 + 2 * count;
    changed += count;
  }
  // Without the cleanup lock (vacuum's second pass) nobody may move tuples, and nothing has to.
  if (changed > 0) {
    if (flags & HAS_CLEANUP_LOCK) repairFragmentation(page, true);
    else truncateLinePointers(page);
  }
  at = freezeTuples(page, record, start + 4, plans, at);
  require(at === end, "prune record has data left over");
  stampLsn(page, cursor.endLsn);
}

/** Makes `count` pairs of item numbers at `at` redirections, from the first to the second. */
export function redirectItems(page: PageTarget, record: DataView, at: number, count: number): void {
  const items = itemCount(page);
  const { view } = page;
  for (let i = 0; i < count; i++) {
    const from = record.getUint16(at + 4 * i, true);
    const to = record.getUint16(at + 4 * i + 2, true);
    if (from < 1 || from > items) fault(`item ${from} of a page with ${items} items`);
    view.setUint32(pointerAt(page, from), makePointer(to, LP_REDIRECT, 0), true);
  }
}

/** Marks the `count` items whose numbers are at `at` as dead. */
export function killItems(page: PageTarget, record: DataView, at: number, count: number): void {
  setPointers(page, record, at, count, DEAD_POINTER);
}

/** Marks the `count` items whose numbers are at `at` as unused. */
export function freeItems(page: PageTarget, record: DataView, at: number, count: number): void {
  setPointers(page, record, at, count, 0);
}

function setPointers(
  page: PageTarget,
  record: DataView,
  at: number,
  count: number,
  pointer: number,
): void {
  const items = itemCount(page);
  const { view } = page;
  for (let i = 0; i < count; i++) {
    const number = record.getUint16(at + 2 * i, true);
    if (number < 1 || number > items) fault(`item ${number} of a page with ${items} items`);
    view.setUint32(pointerAt(page, number), pointer, true);
  }
}

/**
 * Executes `plans` freeze plans at `planAt` on the items listed from `itemsAt`; returns the list's
 * end.
 */
export function freezeTuples(
  page: PageTarget,
  record: DataView,
  planAt: number,
  plans: number,
  itemsAt: number,
): number {
  let at = itemsAt;
  for (let plan = 0; plan < plans; plan++, planAt += FREEZE_PLAN_SIZE) {
    const tuples = record.getUint16(planAt + 10, true);
    for (let i = 0; i < tuples; i++, at += 2) {
      freezeTuple(page, record, planAt, planAt + 4, record.getUint16(at, true));
    }
  }
  return at;
}

/**
 * Freezes one tuple as a plan says: its xmax at `xmaxAt`; infomask2, infomask and flags at
 * `masksAt`.
 */
export function freezeTuple(
  page: PageTarget,
  record: DataView,
  xmaxAt: number,
  masksAt: number,
  number: number,
): void {
  const { view } = page;
  const tuple = tupleAt(page, number);
  const freezeFlags = record.getUint8(masksAt + 4);
  setXmax(view, tuple, record.getUint32(xmaxAt, true));
  if (freezeFlags & FREEZE_XVAC) setCommandId(view, tuple, FROZEN_XID);
  if (freezeFlags & INVALID_XVAC) setCommandId(view, tuple, 0);
  setInfomask(view, tuple, record.getUint16(masksAt + 2, true));
  setInfomask2(view, tuple, record.getUint16(masksAt, true));
}
