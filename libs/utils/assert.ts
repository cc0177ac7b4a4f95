/** Assertions about our own logic: on in production, never used for operating errors. */

/** A broken invariant: a fault in this program, not in its input. */
export class AssertionFailed extends Error {
  override readonly name = "AssertionFailed";
}

/** Throws AssertionFailed with `why` unless `condition` holds. */
export function assert(condition: boolean, why: string): asserts condition {
  if (!condition) throw new AssertionFailed(why);
}
