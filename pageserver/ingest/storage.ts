/**
 * Ingest of the Storage resource manager: creation and truncation of relation forks
 * (PostgreSQL 17, catalog/storage.c, smgr_redo).
 *
 *   CREATE   0x10: 0 tablespace u32, 4 database u32, 8 relfilenode u32, 12 fork u32
 *   TRUNCATE 0x20: 0 heap blocks that stay u32, 4 relation (3 x u32), 16 flags: 1 heap, 2 vm, 4 fsm
 *
 * Truncation changes sizes, and the last map pages that stay: those get the record, for redo to cut.
 */
import { FORK_FSM, FORK_MAIN, FORK_VM } from "../../libs/postgres/constants.ts";
import { ABSENT } from "../relations.ts";
import { fsmBlocksAfterTruncate, vmBlocksAfterTruncate } from "../walredo/smgr.ts";
import type { RecordSink } from "./record_sink.ts";

const CREATE = 0x10;
const TRUNCATE = 0x20;
const TRUNCATE_HEAP = 1;
const TRUNCATE_VM = 2;
const TRUNCATE_FSM = 4;
/** Heap blocks on one page of the free space map (SlotsPerFSMPage). */
const FSM_SLOTS = 4069;
/** Heap blocks on one page of the visibility map. */
const VM_SLOTS = 32672;

/** Applies the current Storage record to the directory of relations. */
export function ingestStorage(sink: RecordSink): void {
  const { cursor, interner } = sink;
  const { view, mainOffset: main } = cursor;
  const opcode = cursor.info & 0xf0;
  if (opcode === CREATE) {
    const [spc, db, rel, fork] = [0, 4, 8, 12].map((at) => view.getUint32(main + at, true));
    sink.create(interner.relation(spc!, db!, rel!, fork!));
  } else if (opcode === TRUNCATE) {
    truncate(sink);
  }
}

function truncate(sink: RecordSink): void {
  const { cursor, interner } = sink;
  const { view, mainOffset: main } = cursor;
  const heapBlocks = view.getUint32(main, true);
  const spc = view.getUint32(main + 4, true);
  const db = view.getUint32(main + 8, true);
  const rel = view.getUint32(main + 12, true);
  const flags = view.getUint32(main + 16, true);
  const heap = interner.relation(spc, db, rel, FORK_MAIN);
  sink.create(heap); // as smgr_redo does, for a relation that is dropped later in the WAL
  if ((flags & TRUNCATE_HEAP) !== 0 && sink.blocks(heap) > heapBlocks) {
    sink.setBlocks(heap, heapBlocks);
  }
  if ((flags & TRUNCATE_VM) !== 0) {
    const kept = vmBlocksAfterTruncate(heapBlocks);
    truncateMap(sink, interner.relation(spc, db, rel, FORK_VM), kept, heapBlocks % VM_SLOTS, false);
  }
  if ((flags & TRUNCATE_FSM) !== 0) {
    const kept = fsmBlocksAfterTruncate(heapBlocks);
    truncateMap(
      sink,
      interner.relation(spc, db, rel, FORK_FSM),
      kept,
      heapBlocks % FSM_SLOTS,
      true,
    );
  }
}

/** Cuts a map fork to `kept` blocks; the record goes to the last of them if it is cut in its middle. */
function truncateMap(
  sink: RecordSink,
  map: ReturnType<RecordSink["interner"]["relation"]>,
  kept: number,
  slotsOnLast: number,
  willInit: boolean,
): void {
  const blocks = sink.blocks(map);
  if (blocks === ABSENT) return;
  if (slotsOnLast > 0 && kept <= blocks) sink.put(map, kept - 1, willInit);
  if (kept < blocks) sink.setBlocks(map, kept);
}
