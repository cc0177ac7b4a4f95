/**
 * What SMGR TRUNCATE does to pages that stay: the last page of the visibility map loses the bits
 * of the heap blocks that go, the last page of the free space map is emptied (PostgreSQL 17,
 * smgr_redo, visibilitymap_prepare_truncate, FreeSpaceMapPrepareTruncateRel). The sizes that
 * follow are here too, for ingest.
 *
 * PostgreSQL empties only a part of the free space map page. The map is a hint that stock WAL does
 * not carry, and an all-zero page is a valid one that says "no room known here".
 */
import { FORK_FSM, FORK_VM, PAGE_SIZE } from "../../libs/postgres/constants.ts";
import { isNewPage, PAGE_HEADER_SIZE } from "../../libs/postgres/page.ts";
import {
  readSmgrTruncate,
  SmgrInfo,
  SmgrTruncateFlag,
} from "../../libs/postgres/wal/file_records.ts";
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import type { PageTarget, RedoKey } from "./types.ts";
import { VM_MAP_BYTES, vmBlockOf, vmByteOf, vmShiftOf } from "./visibility_map.ts";

/** Heap blocks on one leaf page of the free space map (SlotsPerFSMPage), and levels of its tree. */
export const FSM_SLOTS = 4069;
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
  if (key.fork !== FORK_FSM) return false;
  const heapBlocks = blocksLeft(cursor, key, SmgrTruncateFlag.FSM);
  return heapBlocks % FSM_SLOTS > 0 && key.block === fsmBlocksAfterTruncate(heapBlocks) - 1;
}

/** Heap blocks that stay if the record cuts this fork of the key's relation; -1 if it does not. */
function blocksLeft(cursor: RecordCursor, key: RedoKey, flag: number): number {
  if ((cursor.info & 0xf0) !== SmgrInfo.TRUNCATE) return -1;
  const { spc, db, rel, blocks, flags } = readSmgrTruncate(cursor);
  const isOurs = spc === key.spc && db === key.db && rel === key.rel;
  return isOurs && (flags & flag) !== 0 ? blocks : -1;
}

/** Applies an SMGR record to a page of a relation; only TRUNCATE has an effect, on two forks. */
export function redoSmgr(page: PageTarget, cursor: RecordCursor, key: RedoKey): void {
  if (truncateEmpties(cursor, key)) {
    page.bytes.fill(0, page.offset, page.offset + PAGE_SIZE);
    return;
  }
  if (key.fork !== FORK_VM) return;
  const heapBlocks = blocksLeft(cursor, key, SmgrTruncateFlag.VM);
  if (heapBlocks < 0) return;
  const isLast = key.block === vmBlockOf(heapBlocks) &&
    vmBlocksAfterTruncate(heapBlocks) > key.block;
  if (!isLast || isNewPage(page.view, page.offset)) return;
  const map = page.offset + PAGE_HEADER_SIZE;
  const byte = vmByteOf(heapBlocks);
  page.bytes.fill(0, map + byte + 1, map + VM_MAP_BYTES);
  page.bytes[map + byte] = page.bytes[map + byte]! & ((1 << vmShiftOf(heapBlocks)) - 1);
}
