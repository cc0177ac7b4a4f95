/**
 * Ingest of visibility map changes that heap records imply by flags alone.
 *
 * A heap record that changes an all-visible page also clears that page's bits in the visibility
 * map. From 17.11 on (and the minor releases of that day) such records register the map page as a
 * block reference, which ingestBlocks has then put. Older WAL says it only by a flag, and the flag
 * without a reference is still legal in newer WAL (PostgreSQL 17.11, heapam.c, heap_xlog_vm_clear).
 * In that case the record is put against the map page here, if there is one: a missing map page has
 * no bits.
 *
 * Flags, main data offsets (heapam_xlog.h): insert u8 at 2, multi-insert u8 at 0, delete, update,
 * lock and lock-updated u8 at 7; bit 0 = the (old) page's bits were cleared, bit 1 = the new
 * page's.
 */
import { FORK_MAIN, FORK_VM, Rmgr } from "../../libs/postgres/constants.ts";
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import { Heap2Info, HEAP_OPCODE_MASK, HeapInfo } from "../walredo/heap_records.ts";
import { vmBlockOf } from "../walredo/visibility_map.ts";
import type { RecordSink } from "./record_sink.ts";

const CLEARED = 0x01;
const NEW_CLEARED = 0x02;
/** Block references of an update: the new page, and the old page if it is another one. */
const NEW_PAGE_ID = 0;
const OLD_PAGE_ID = 1;

/** Puts the current Heap or Heap2 record against the map pages whose bits it clears by flag. */
export function ingestVisibilityMap(sink: RecordSink): void {
  const { cursor } = sink;
  const opcode = cursor.info & HEAP_OPCODE_MASK;
  const isUpdate = opcode === HeapInfo.UPDATE || opcode === HeapInfo.HOT_UPDATE;
  if (cursor.rmid === Rmgr.HEAP && isUpdate) {
    ingestUpdate(sink);
    return;
  }
  const flagsAt = clearFlagsOffset(cursor.rmid, opcode);
  if (flagsAt < 0 || cursor.mainLength <= flagsAt) return;
  if ((cursor.bytes[cursor.mainOffset + flagsAt]! & CLEARED) !== 0) clear(sink, NEW_PAGE_ID, -1);
}

/** Where the record has its flags byte, or -1 if it clears nothing. */
function clearFlagsOffset(rmid: number, opcode: number): number {
  if (rmid === Rmgr.HEAP) {
    if (opcode === HeapInfo.INSERT) return 2;
    return opcode === HeapInfo.DELETE || opcode === HeapInfo.LOCK ? 7 : -1;
  }
  if (opcode === Heap2Info.MULTI_INSERT) return 0;
  return opcode === Heap2Info.LOCK_UPDATED ? 7 : -1;
}

function ingestUpdate(sink: RecordSink): void {
  const { cursor } = sink;
  if (cursor.mainLength < 8) return;
  const flags = cursor.bytes[cursor.mainOffset + 7]!;
  const oldId = isHeapPage(cursor, OLD_PAGE_ID) ? OLD_PAGE_ID : NEW_PAGE_ID;
  let done = -1;
  if ((flags & CLEARED) !== 0) done = clear(sink, oldId, -1);
  if ((flags & NEW_CLEARED) !== 0) clear(sink, NEW_PAGE_ID, done);
}

function isHeapPage(cursor: RecordCursor, id: number): boolean {
  return cursor.blockPresent[id] === 1 && cursor.blockFork[id] === FORK_MAIN;
}

/**
 * Puts the record against the map page of heap block reference `heapId`, unless the record
 * references that map page itself, or it is page `done`. Returns the map page's number.
 */
function clear(sink: RecordSink, heapId: number, done: number): number {
  const { cursor } = sink;
  if (!isHeapPage(cursor, heapId)) return -1;
  const spc = cursor.blockSpc[heapId]!;
  const db = cursor.blockDb[heapId]!;
  const rel = cursor.blockRel[heapId]!;
  const mapBlock = vmBlockOf(cursor.blockNumber[heapId]!);
  if (mapBlock === done || cursor.findBlock(spc, db, rel, FORK_VM, mapBlock) >= 0) return mapBlock;
  const map = sink.interner.relation(spc, db, rel, FORK_VM);
  if (sink.hasBlock(map, mapBlock)) sink.put(map, mapBlock, false);
  return mapBlock;
}
