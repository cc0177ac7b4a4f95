/**
 * WAL that waits for more, for safekeepers that no commit waits for (vanguard.ts): of many commits
 * one message is made every GATHER_MS, which that safekeeper writes and syncs once.
 *
 * Where no WAL went for as long it goes at once, so few commits reach all safekeepers at the same
 * time. When one in the vanguard hangs, a commit waits GATHER_MS for one that is not in it.
 */

/** Longest wait. */
export const GATHER_MS = 5;
/** More than that does not wait. */
export const GATHER_BYTES = 64 * 1024;

/** See the head of the file. */
export class Gathering {
  /** When WAL went to each peer last. */
  readonly #sentMs: number[] = [];
  readonly #over: () => void;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** `over` is called when somebody may have waited long enough. */
  constructor(over: () => void) {
    this.#over = over;
  }

  /** True if WAL for `peer`, `bytes` of it, is to wait at `nowMs`; else it has to go now. */
  waits(peer: number, bytes: number, nowMs: number): boolean {
    while (this.#sentMs.length <= peer) this.#sentMs.push(-Infinity);
    const restMs = this.#sentMs[peer]! + GATHER_MS - nowMs;
    if (restMs <= 0 || bytes >= GATHER_BYTES) {
      this.#sentMs[peer] = nowMs;
      return false;
    }
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#over();
    }, restMs);
    return true;
  }

  /** Nobody is called any more. */
  stop(): void {
    clearTimeout(this.#timer);
  }
}
