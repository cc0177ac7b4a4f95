/**
 * Which records of a stretch of WAL somebody wants to see, as pg_waldump filters them: all given
 * conditions together, those about a block all on the same block reference.
 */
import type { RecordCursor } from "./record_cursor.ts";

/** Conditions; what is undefined is not asked for. */
export interface RecordFilter {
  readonly rmids?: ReadonlySet<number> | undefined;
  readonly relation?:
    | { readonly spc: number; readonly db: number; readonly rel: number }
    | undefined;
  readonly fork?: number | undefined;
  readonly block?: number | undefined;
  readonly xid?: number | undefined;
  /** Only records with a page image. */
  readonly fullPage?: boolean | undefined;
}

/** Whether the record meets the filter. */
export function matchesFilter(cursor: RecordCursor, filter: RecordFilter): boolean {
  if (filter.rmids !== undefined && !filter.rmids.has(cursor.rmid)) return false;
  if (filter.xid !== undefined && cursor.xid !== filter.xid) return false;
  const { relation, fork, block } = filter;
  const aboutBlocks = relation !== undefined || fork !== undefined || block !== undefined;
  if (aboutBlocks && !someBlock(cursor, (id) => matchesBlock(cursor, id, filter))) return false;
  return filter.fullPage !== true || someBlock(cursor, (id) => cursor.hasImage[id] === 1);
}

function someBlock(cursor: RecordCursor, test: (id: number) => boolean): boolean {
  for (let id = 0; id <= cursor.maxBlockId; id++) {
    if (cursor.blockPresent[id] === 1 && test(id)) return true;
  }
  return false;
}

function matchesBlock(cursor: RecordCursor, id: number, filter: RecordFilter): boolean {
  const { relation, fork, block } = filter;
  if (fork !== undefined && cursor.blockFork[id] !== fork) return false;
  if (block !== undefined && cursor.blockNumber[id] !== block) return false;
  return relation === undefined ||
    (cursor.blockRel[id] === relation.rel && cursor.blockDb[id] === relation.db &&
      cursor.blockSpc[id] === relation.spc);
}
