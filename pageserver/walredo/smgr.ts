/**
 * What SMGR TRUNCATE does to pages that stay: the last page of the visibility map loses the bits
 * of the heap blocks that go, the last page of the free space map is emptied (PostgreSQL 17,
 * smgr_redo, visibilitymap_prepare_truncate, FreeSpaceMapPrepareTruncateRel). The sizes that
 * follow are here too, for ingest.
 *
 * Main data: 0 heap blocks that stay u32, 4 relation (tablespace, database, relfilenode: u32 each),
 * 16 flags u32: 1 heap, 2 visibility map, 4 free space map.
 *
 * PostgreSQL empties only a part of the free space map page. The map is a hint that stock WAL does
 * not carry, and an all-zero page is a valid one that says "no room known here".
 */
import { FORK_FSM, FORK_VM, PAGE_SIZE } from "../../libs/postgres/constants.ts";
import { isNewPage, PAGE_HEADER_SIZE } from "../../libs/postgres/page.ts";
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import type { PageTarget, RedoKey } from "./types.ts";
import { VM_MAP_BYTES, vmBlockOf, vmByteOf, vmShiftOf } from "./visibility_map.ts";

const SMGR_TRUNCATE = 0x20;
const TRUNCATE_VM = 2;
const TRUNCATE_FSM = 4;
/** Heap blocks on one leaf page of the free space map (SlotsPerFSMPage), and levels of its tree. */
const FSM_SLOTS = 4069;
const FSM_LEVELS = 3;

/** Blocks of the visibility map that stay when the heap keeps `heapBlocks`. */
export function vmBlocksAfterTruncate(heapBlocks: number): number {
  const cut = vmByteOf(heapBlocks) !== 0 || vmShiftOf(heapBlocks) !== 0;
  return vmBlockOf(heapBlocks) + (cut ? 1 : 0);
}

/** Blocks of the free space map that stay when the heap keeps `heapBlocks`. */
export function fsmBlocksAfterTruncate(heapBlocks: number): number {
  const leaf = Math.floor(heapBlocks / FSM_SLOTS);
  return fsmLeafBlock(leaf) + (heapBlocks % FSM_SLOTS > 0 ? 1 : 0);
}

/**
 * Block of leaf page number `leaf`: before it come all leaves and inner pages of the tree so far.
 */
function fsmLeafBlock(leaf: number): number {
  let pages = 0;
  for (let level = 0, count = leaf; level < FSM_LEVELS; level++) {
    pages += count + 1;
    count = Math.floor(count / FSM_SLOTS);
  }
  return pages - 1;
}

/** Whether the record empties exactly this free space map page. */
export function truncateEmpties(cursor: RecordCursor, key: RedoKey): boolean {
  if (!isTruncateOf(cursor, key) || key.fork !== FORK_FSM) return false;
  if ((cursor.view.getUint32(cursor.mainOffset + 16, true) & TRUNCATE_FSM) === 0) return false;
  const heapBlocks = cursor.view.getUint32(cursor.mainOffset, true);
  return heapBlocks % FSM_SLOTS > 0 && key.block === fsmBlocksAfterTruncate(heapBlocks) - 1;
}

function isTruncateOf(cursor: RecordCursor, key: RedoKey): boolean {
  const { view, mainOffset: main } = cursor;
  return (cursor.info & 0xf0) === SMGR_TRUNCATE &&
    view.getUint32(main + 4, true) === key.spc && view.getUint32(main + 8, true) === key.db &&
    view.getUint32(main + 12, true) === key.rel;
}

/** Applies an SMGR record to a page of a relation; only TRUNCATE has an effect, on two forks. */
export function redoSmgr(page: PageTarget, cursor: RecordCursor, key: RedoKey): void {
  if (truncateEmpties(cursor, key)) {
    page.bytes.fill(0, page.offset, page.offset + PAGE_SIZE);
    return;
  }
  if (!isTruncateOf(cursor, key) || key.fork !== FORK_VM) return;
  if ((cursor.view.getUint32(cursor.mainOffset + 16, true) & TRUNCATE_VM) === 0) return;
  const heapBlocks = cursor.view.getUint32(cursor.mainOffset, true);
  const isLast = key.block === vmBlockOf(heapBlocks) &&
    vmBlocksAfterTruncate(heapBlocks) > key.block;
  if (!isLast || isNewPage(page.view, page.offset)) return;
  const map = page.offset + PAGE_HEADER_SIZE;
  const byte = vmByteOf(heapBlocks);
  page.bytes.fill(0, map + byte + 1, map + VM_MAP_BYTES);
  page.bytes[map + byte] = page.bytes[map + byte]! & ((1 << vmShiftOf(heapBlocks)) - 1);
}
