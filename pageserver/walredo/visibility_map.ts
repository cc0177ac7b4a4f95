/**
 * What WAL records do to a visibility map page (fork 2): two bits for each heap block, 1
 * all-visible and 2 all-frozen, after a 24-byte page header; 32672 heap blocks to a map page.
 *
 * Bits are set by Heap2 VISIBLE, whose reference 0 is the map page. They are cleared by changes of
 * the heap page, in two formats, told apart record by record:
 *
 *   until 17.10, and whenever the bits were clear already: no reference; the record's flags say
 *     that the heap page's own all-visible flag was cleared, the map page follows from the block
 *   from 17.11 (and the minor releases of that day): the map page is a block reference, 1 for
 *     insert, multi-insert, delete and lock, 2 (new) and 3 (old) for update; one page may cover
 *     both heap blocks
 *
 * PostgreSQL 17.11, heapam.c: heap_xlog_vm_clear, heap_xlog_update, heap_xlog_visible. Truncation
 * is in smgr.ts.
 */
import { FORK_VM, PAGE_SIZE, Rmgr } from "../../libs/postgres/constants.ts";
import { isNewPage, PAGE_HEADER_SIZE } from "../../libs/postgres/page.ts";
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import {
  ALL_VISIBLE_CLEARED,
  Heap2Info,
  HEAP_OPCODE_MASK,
  HeapInfo,
  LOCK_ALL_FROZEN_CLEARED,
  NEW_ALL_VISIBLE_CLEARED,
} from "./heap_records.ts";
import { initPage, stampLsn } from "./page_items.ts";
import type { PageTarget, RedoKey } from "./types.ts";

const HEAP_BLOCKS_PER_BYTE = 4;
/** Bytes of bits on a map page. */
export const VM_MAP_BYTES = PAGE_SIZE - PAGE_HEADER_SIZE;
/** Heap blocks that one map page covers. */
const HEAP_BLOCKS_PER_VM_PAGE = VM_MAP_BYTES * HEAP_BLOCKS_PER_BYTE;

const ALL_FROZEN = 2;
const VALID_BITS = 3;

/** The map page that covers `heapBlock`. */
export function vmBlockOf(heapBlock: number): number {
  return Math.floor(heapBlock / HEAP_BLOCKS_PER_VM_PAGE);
}

/** Byte of the map within its page, for `heapBlock`. */
export function vmByteOf(heapBlock: number): number {
  return Math.floor((heapBlock % HEAP_BLOCKS_PER_VM_PAGE) / HEAP_BLOCKS_PER_BYTE);
}

/** Lowest bit within that byte. */
export function vmShiftOf(heapBlock: number): number {
  return (heapBlock % HEAP_BLOCKS_PER_BYTE) * 2;
}

/**
 * Applies a Heap or Heap2 record to the visibility map page `key`; no effect if it says nothing
 * about it.
 */
export function redoVisibilityMap(page: PageTarget, cursor: RecordCursor, key: RedoKey): void {
  const opcode = cursor.info & HEAP_OPCODE_MASK;
  const main = cursor.mainOffset;
  if (cursor.rmid === Rmgr.HEAP2) {
    if (opcode === Heap2Info.VISIBLE) setBits(page, cursor);
    else if (opcode === Heap2Info.MULTI_INSERT) {
      if (cursor.view.getUint8(main) & ALL_VISIBLE_CLEARED) clearOne(page, cursor, key, VALID_BITS);
    } else if (opcode === Heap2Info.LOCK_UPDATED) {
      clearForLock(page, cursor, key);
    }
    return;
  }
  switch (opcode) {
    case HeapInfo.INSERT:
      if (cursor.view.getUint8(main + 2) & ALL_VISIBLE_CLEARED) {
        clearOne(page, cursor, key, VALID_BITS);
      }
      return;
    case HeapInfo.DELETE:
      if (cursor.view.getUint8(main + 7) & ALL_VISIBLE_CLEARED) {
        clearOne(page, cursor, key, VALID_BITS);
      }
      return;
    case HeapInfo.LOCK:
      return clearForLock(page, cursor, key);
    case HeapInfo.UPDATE:
    case HeapInfo.HOT_UPDATE:
      return clearForUpdate(page, cursor, key);
    default:
      return;
  }
}

/** Locking a row keeps its page all-visible, but no longer all-frozen. */
function clearForLock(page: PageTarget, cursor: RecordCursor, key: RedoKey): void {
  if (cursor.view.getUint8(cursor.mainOffset + 7) & LOCK_ALL_FROZEN_CLEARED) {
    clearOne(page, cursor, key, ALL_FROZEN);
  }
}

/** A record about one heap block, reference 0, and perhaps its map page as reference 1. */
function clearOne(page: PageTarget, cursor: RecordCursor, key: RedoKey, bits: number): void {
  const registered = isMapReference(cursor, 1);
  if (registered && cursor.blockNumber[1] !== key.block) return;
  clearBits(page, cursor, key, cursor.blockNumber[0]!, bits, registered);
}

/** Map pages for the new (2) and the old (3) heap block; 2 stands for both if it covers both. */
function clearForUpdate(page: PageTarget, cursor: RecordCursor, key: RedoKey): void {
  const flags = cursor.view.getUint8(cursor.mainOffset + 7);
  const newBlock = cursor.blockNumber[0]!;
  const oldBlock = cursor.blockPresent[1] ? cursor.blockNumber[1]! : newBlock;
  const hasNew = isMapReference(cursor, 2);
  const hasOld = isMapReference(cursor, 3);
  const registered = hasNew || hasOld;
  const isNew = hasNew && cursor.blockNumber[2] === key.block;
  const isOld = hasOld && cursor.blockNumber[3] === key.block;
  if (flags & ALL_VISIBLE_CLEARED && (isNew || isOld || !registered)) {
    clearBits(page, cursor, key, oldBlock, VALID_BITS, registered);
  }
  if (flags & NEW_ALL_VISIBLE_CLEARED && (isNew || !registered)) {
    clearBits(page, cursor, key, newBlock, VALID_BITS, registered);
  }
}

function isMapReference(cursor: RecordCursor, id: number): boolean {
  return cursor.blockPresent[id] !== 0 && cursor.blockFork[id] === FORK_VM;
}

/**
 * Clears bits of `heapBlock` if `key` is its map page. pd_lsn moves only for a registered page
 * that changed.
 */
function clearBits(
  page: PageTarget,
  cursor: RecordCursor,
  key: RedoKey,
  heapBlock: number,
  bits: number,
  registered: boolean,
): void {
  if (vmBlockOf(heapBlock) !== key.block) return;
  const at = page.offset + PAGE_HEADER_SIZE + vmByteOf(heapBlock);
  const mask = bits << vmShiftOf(heapBlock);
  const before = page.bytes[at]!;
  if ((before & mask) === 0) return;
  page.bytes[at] = before & ~mask;
  if (registered) stampLsn(page, cursor.endLsn);
}

/** Heap2 VISIBLE: reference 0 is this page, reference 1 the heap page. Bits are only ever added. */
function setBits(page: PageTarget, cursor: RecordCursor): void {
  if (isNewPage(page.view, page.offset)) initPage(page, 0);
  const heapBlock = cursor.blockNumber[1]!;
  // The flags byte carries more than the bits of the map (4: a catalog table).
  const bits = cursor.view.getUint8(cursor.mainOffset + 4) & VALID_BITS;
  const at = page.offset + PAGE_HEADER_SIZE + vmByteOf(heapBlock);
  const shift = vmShiftOf(heapBlock);
  if (((page.bytes[at]! >> shift) & VALID_BITS) === bits) return;
  page.bytes[at] = page.bytes[at]! | (bits << shift);
  stampLsn(page, cursor.endLsn);
}
