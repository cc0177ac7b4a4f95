/**
 * Work that nobody waits for, in pauses: of at least some milliseconds, and where the work takes
 * long (a slow file system) so much longer that it takes a fifth of a processor.
 */

/** Pauses are as many times as long as the work before them, if that is more. */
const PAUSES_TO_WORK = 4;

/** See the head of the file. */
export class SpareTime {
  readonly #pauseMs: number;
  #resumedMs = performance.now();

  /** The work begins now, and pauses at least `pauseMs` each time. */
  constructor(pauseMs: number) {
    this.#pauseMs = pauseMs;
  }

  /** A pause, for the work since the last one. */
  async pause(): Promise<void> {
    const workMs = performance.now() - this.#resumedMs;
    const ms = Math.max(this.#pauseMs, PAUSES_TO_WORK * workMs);
    await new Promise((resolve) => setTimeout(resolve, ms));
    this.#resumedMs = performance.now();
  }
}
