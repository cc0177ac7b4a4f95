/**
 * When safekeepers are told that the commit LSN rose. Appends carry it, so under load nobody has to
 * be told; whoever gets none for a moment is told without WAL.
 */

/** Whoever got nothing for so long is told. */
const QUIET_MS = 2;
/** While WAL goes to them all the time, that is looked at less often. */
const BUSY_MS = 10;

/** See the head of the file. */
export class CommitNotice {
  readonly #tell: (nowMs: number, quietMs: number) => boolean;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #stopped = false;

  /**
   * `tell` tells everybody who has to be told and got nothing for `quietMs` before `nowMs`, and
   * says whether anybody else has to be told.
   */
  constructor(tell: (nowMs: number, quietMs: number) => boolean) {
    this.#tell = tell;
  }

  /** The commit LSN rose. */
  commitRose(): void {
    this.#lookIn(QUIET_MS);
  }

  #lookIn(ms: number): void {
    if (this.#timer !== undefined || this.#stopped) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      if (this.#tell(performance.now(), QUIET_MS)) this.#lookIn(BUSY_MS);
    }, ms);
  }

  /** No more. */
  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }
}
