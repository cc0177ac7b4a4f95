/** The error that callers of redo see: which record could not be applied to which page, and why. */
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import { AssertionFailed } from "../../libs/utils/assert.ts";
import { messageOf } from "../../libs/utils/errors.ts";
import { formatRel } from "../../libs/postgres/relation.ts";
import { SLRU_DIRECTORIES } from "../../libs/postgres/slru.ts";
import { formatLsn } from "../../libs/utils/lsn.ts";
import { describeRecord } from "./record_names.ts";
import type { RedoKey } from "./types.ts";

/** A stored record cannot be applied to its page. Never retried: the same input fails again. */
export class RedoError extends Error {
  override readonly name = "RedoError";
}

/** The page's name, for people: "1663/5/16384_vm block 7" or "pg_xact segment 0 block 3". */
export function describeKey(key: RedoKey): string {
  if (key.kind === "slru") {
    return `${SLRU_DIRECTORIES[key.slruKind] ?? "slru"} segment ${key.segno} block ${key.block}`;
  }
  return `${formatRel(key)} block ${key.block}`;
}

/**
 * Wraps what a redo routine threw: RedoFault, Corrupt from an image, RangeError from an offset
 * beyond an array. A broken invariant of ours passes through.
 */
export function redoError(key: RedoKey, cursor: RecordCursor, thrown: unknown): Error {
  if (thrown instanceof AssertionFailed) return thrown;
  const record = `${describeRecord(cursor)} ending at ${formatLsn(cursor.endLsn)}`;
  return new RedoError(`Cannot redo ${record} on ${describeKey(key)}: ${messageOf(thrown)}`, {
    cause: thrown,
  });
}
