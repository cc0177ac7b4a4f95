/**
 * Ingest of the Storage resource manager: creation and truncation of relation forks
 * (PostgreSQL 17, catalog/storage.c, smgr_redo).
 *
 * Truncation changes sizes, and the last map pages that stay: those get the record, for redo to
 * cut.
 */
import { FORK_FSM, FORK_MAIN, FORK_VM } from "../../libs/postgres/constants.ts";
import {
  readSmgrCreate,
  readSmgrTruncate,
  SmgrInfo,
  SmgrTruncateFlag,
} from "../../libs/postgres/wal/file_records.ts";
import { ABSENT } from "../relations.ts";
import type { ObjectId } from "../repository/key_interner.ts";
import { FSM_SLOTS, fsmBlocksAfterTruncate, vmBlocksAfterTruncate } from "../walredo/smgr.ts";
import { vmBlockOf } from "../walredo/visibility_map.ts";
import type { RecordSink } from "./record_sink.ts";

/** Applies the current Storage record to the directory of relations. */
export function ingestStorage(sink: RecordSink): void {
  const opcode = sink.cursor.info & 0xf0;
  if (opcode === SmgrInfo.CREATE) {
    const { spc, db, rel, fork } = readSmgrCreate(sink.cursor);
    sink.create(sink.interner.relation(spc, db, rel, fork));
  } else if (opcode === SmgrInfo.TRUNCATE) {
    truncate(sink);
  }
}

function truncate(sink: RecordSink): void {
  const { interner } = sink;
  const { spc, db, rel, blocks, flags } = readSmgrTruncate(sink.cursor);
  const heap = interner.relation(spc, db, rel, FORK_MAIN);
  sink.create(heap); // as smgr_redo does, for a relation that is dropped later in the WAL
  if ((flags & SmgrTruncateFlag.HEAP) !== 0 && sink.blocks(heap) > blocks) {
    sink.setBlocks(heap, blocks);
  }
  if ((flags & SmgrTruncateFlag.VM) !== 0) {
    const map = interner.relation(spc, db, rel, FORK_VM);
    const kept = vmBlocksAfterTruncate(blocks);
    truncateMap(sink, map, kept, kept > vmBlockOf(blocks), false);
  }
  if ((flags & SmgrTruncateFlag.FSM) !== 0) {
    const map = interner.relation(spc, db, rel, FORK_FSM);
    truncateMap(sink, map, fsmBlocksAfterTruncate(blocks), blocks % FSM_SLOTS > 0, true);
  }
}

/** Cuts a map fork to `kept` blocks; the record goes to the last one if that is itself cut. */
function truncateMap(
  sink: RecordSink,
  map: ObjectId,
  kept: number,
  isLastCut: boolean,
  willInit: boolean,
): void {
  const blocks = sink.blocks(map);
  if (blocks === ABSENT) return;
  if (isLastCut && kept <= blocks) sink.put(map, kept - 1, willInit);
  if (kept < blocks) sink.setBlocks(map, kept);
}
