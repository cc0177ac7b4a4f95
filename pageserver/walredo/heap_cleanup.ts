/**
 * Redo of heap pruning, vacuum's second pass and freezing as PostgreSQL 14, 15 and 16 log them
 * (heap_xlog_prune, heap_xlog_vacuum, heap_xlog_freeze_page); 17 has one record for the three,
 * heap_prune.ts.
 *
 *   PRUNE        main 0 conflict horizon u32, 4 redirected u16, 6 dead u16, [8 catalog u8 in 16]
 *                block (from u16, to u16) each redirected, item u16 each dead, the rest unused
 *   VACUUM       main 0 unused u16; block item u16 each
 *   FREEZE_PAGE  main 0 conflict horizon u32, 4 count u16, [6 catalog u8 in 16]
 *                block in 14 and 15, 12 bytes for each tuple: 0 xmax u32, 4 item u16,
 *                        6 infomask2 u16, 8 infomask u16, 10 freeze flags u8
 *                block in 16: freeze plans and then the items of all of them, as in 17
 */
import type { PgVersion } from "../../libs/postgres/versions.ts";
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import {
  freeItems,
  FREEZE_PLAN_SIZE,
  freezeTuple,
  freezeTuples,
  killItems,
  redirectItems,
} from "./heap_prune.ts";
import { Heap2Info, HEAP_OPCODE_MASK } from "./heap_records.ts";
import { repairFragmentation, truncateLinePointers } from "./page_compact.ts";
import { stampLsn } from "./page_items.ts";
import { require } from "./redo_fault.ts";
import type { PageTarget } from "./types.ts";

/** Applies PRUNE, VACUUM or FREEZE_PAGE to its heap page, block reference `id`. */
export function redoCleanup(
  page: PageTarget,
  cursor: RecordCursor,
  id: number,
  version: PgVersion,
): void {
  const start = cursor.dataOffset[id]!;
  const end = start + cursor.dataLength[id]!;
  switch (cursor.info & HEAP_OPCODE_MASK) {
    case Heap2Info.PRUNE:
      prune(page, cursor, start, end);
      repairFragmentation(page, version.heapCleanup.pruneTruncates);
      break;
    case Heap2Info.VACUUM: {
      const count = cursor.view.getUint16(cursor.mainOffset, true);
      require(start + 2 * count === end, "vacuum record with another number of items");
      freeItems(page, cursor.view, start, count);
      truncateLinePointers(page);
      break;
    }
    default:
      freeze(page, cursor, start, end, version.heapCleanup.sharedFreezePlans);
  }
  stampLsn(page, cursor.endLsn);
}

function prune(page: PageTarget, cursor: RecordCursor, start: number, end: number): void {
  const record = cursor.view;
  const redirected = record.getUint16(cursor.mainOffset + 4, true);
  const dead = record.getUint16(cursor.mainOffset + 6, true);
  const deadAt = start + 4 * redirected;
  const unusedAt = deadAt + 2 * dead;
  require(unusedAt <= end, "prune record with too few items");
  redirectItems(page, record, start, redirected);
  killItems(page, record, deadAt, dead);
  freeItems(page, record, unusedAt, (end - unusedAt) >> 1);
}

function freeze(
  page: PageTarget,
  cursor: RecordCursor,
  start: number,
  end: number,
  shared: boolean,
): void {
  const record = cursor.view;
  const count = record.getUint16(cursor.mainOffset + 4, true);
  let at = start + count * FREEZE_PLAN_SIZE;
  if (shared) {
    at = freezeTuples(page, record, start, count, at);
  } else {
    for (let plan = start; plan < at; plan += FREEZE_PLAN_SIZE) {
      freezeTuple(page, record, plan, plan + 6, record.getUint16(plan + 4, true));
    }
  }
  require(at === end, "freeze record has data left over");
}
