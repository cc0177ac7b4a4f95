/**
 * What goes wrong inside a redo routine, before anybody knows which record and page it was about.
 *
 * Redo routines throw RedoFault with a bare reason ("line pointer 7 is not in use"); applyRecord
 * catches it, and the RangeErrors of typed arrays, and adds the names. So the routines need no
 * context and carry none.
 */

/** A record cannot be applied to a page, for the reason in the message. */
export class RedoFault extends Error {
  override readonly name = "RedoFault";
}

/** Throws RedoFault. An expression of type never, so it can end a branch. */
export function fault(why: string): never {
  throw new RedoFault(why);
}

/**
 * Throws RedoFault with `why` unless `condition` holds. `why` must be a literal: it is not built
 * when all is well.
 */
export function require(condition: boolean, why: string): asserts condition {
  if (!condition) throw new RedoFault(why);
}
