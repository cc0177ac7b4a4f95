/**
 * Ingest of block references: what any record, of any resource manager, says about pages.
 *
 * Every referenced block gets the record. A reference beyond the known end of a relation extends
 * it, and one to an unknown relation creates it. PostgreSQL extends files block by block with
 * zeros, and logs only the pages that it fills, so blocks between the old end and a new one that
 * were never written are zero pages there; they become explicit zero-page images here.
 */
import { BKPBLOCK_WILL_INIT, FORK_FSM, FORK_VM } from "../../libs/postgres/constants.ts";
import type { ObjectId } from "../repository/key_interner.ts";
import type { RecordSink } from "./record_sink.ts";

/** Puts the current record against each block that it references. */
export function ingestBlocks(sink: RecordSink): void {
  const { cursor, interner } = sink;
  for (let id = 0; id <= cursor.maxBlockId; id++) {
    if (cursor.blockPresent[id] === 0) continue;
    const object = interner.relation(
      cursor.blockSpc[id]!,
      cursor.blockDb[id]!,
      cursor.blockRel[id]!,
      cursor.blockFork[id]!,
    );
    const block = cursor.blockNumber[id]!;
    const willInit = cursor.applyImage[id] === 1 ||
      (cursor.blockFlags[id]! & BKPBLOCK_WILL_INIT) !== 0;
    if (block >= sink.blocks(object)) extend(sink, object, block, id, willInit);
    sink.put(object, block, willInit);
  }
}

/** Grows `object` to contain `block`, which the current record references by `id`. */
function extend(
  sink: RecordSink,
  object: ObjectId,
  block: number,
  id: number,
  willInit: boolean,
): void {
  const { cursor } = sink;
  for (let gap = Math.max(sink.blocks(object), 0); gap < block; gap++) {
    const referenced = cursor.findBlock(
      cursor.blockSpc[id]!,
      cursor.blockDb[id]!,
      cursor.blockRel[id]!,
      cursor.blockFork[id]!,
      gap,
    );
    if (referenced < 0) sink.putZeroPage(object, gap);
  }
  // The maps are extended without WAL, and redo reads a map page that is not there as zeros
  // (RBM_ZERO_ON_ERROR in heap_xlog_visible). Any other page must have been made by a record.
  const fork = cursor.blockFork[id]!;
  if (!willInit && (fork === FORK_VM || fork === FORK_FSM)) sink.putZeroPage(object, block);
  sink.setBlocks(object, block + 1);
}
