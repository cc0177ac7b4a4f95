/** Asking several, of whom some are enough: whoever hangs is not waited for. */
import { TimedOut } from "./errors.ts";

/**
 * How each of `work` has ended. Once `enough` have succeeded, the others have `graceMs` more; what
 * has not ended by then counts as failed with TimedOut, and goes on unheard.
 */
export async function settleWithoutStragglers<T>(
  work: readonly Promise<T>[],
  enough: number,
  graceMs: number,
): Promise<PromiseSettledResult<T>[]> {
  const late = new TimedOut(`Cannot wait longer than ${graceMs} ms for the last answers`);
  const outcomes = work.map((): PromiseSettledResult<T> => ({ status: "rejected", reason: late }));
  const over = Promise.withResolvers<void>();
  let left = work.length;
  let succeeded = 0;
  const ended = (i: number, outcome: PromiseSettledResult<T>) => {
    outcomes[i] = outcome;
    if (outcome.status === "fulfilled") succeeded++;
    if (--left === 0) over.resolve();
    else if (outcome.status === "fulfilled" && succeeded === enough) {
      // Not a timer: the first one of a process, which may be a short command, costs it 7 ms
      AbortSignal.timeout(graceMs).addEventListener("abort", () => over.resolve());
    }
  };
  work.forEach((promise, i) => {
    promise.then(
      (value) => ended(i, { status: "fulfilled", value }),
      (reason) => ended(i, { status: "rejected", reason }),
    );
  });
  if (left > 0) await over.promise;
  return [...outcomes];
}
