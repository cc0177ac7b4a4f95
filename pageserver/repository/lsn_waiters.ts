/** Those who wait for a timeline to reach an LSN. At most WAITERS_MAX; each has a time limit. */
import { messageOf, TimedOut, Unavailable } from "../../libs/utils/errors.ts";
import { formatLsn, type Lsn } from "../../libs/utils/lsn.ts";

const WAITERS_MAX = 10_000;

interface Waiter {
  readonly lsn: Lsn;
  readonly settle: (failure?: Error) => void;
}

/** The waiters of one timeline. */
export class LsnWaiters {
  readonly #name: string;
  #waiters: Waiter[] = [];
  /** The least LSN waited for; nothing to do below it. */
  #least = Infinity;

  /** `name` is the timeline's, for messages. */
  constructor(name: string) {
    this.#name = name;
  }

  /** How many wait now. */
  get count(): number {
    return this.#waiters.length;
  }

  /**
   * Waits until reached() is called with `lsn` or more. `current` gives the LSN for the message.
   * Throws TimedOut naming both, Unavailable if too many wait or fail() was called, or the signal's
   * reason.
   */
  wait(lsn: Lsn, current: () => Lsn, timeoutMs: number, signal?: AbortSignal): Promise<void> {
    if (this.#waiters.length >= WAITERS_MAX) {
      throw new Unavailable(`Cannot wait for ${this.#name}: ${WAITERS_MAX} others wait already`);
    }
    signal?.throwIfAborted();
    return new Promise((resolve, reject) => {
      const settle = (failure?: Error) => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", aborted);
        this.#waiters = this.#waiters.filter((other) => other !== waiter);
        if (failure === undefined) resolve();
        else reject(failure);
      };
      const aborted = () => settle(new Unavailable(messageOf(signal!.reason)));
      const waiter: Waiter = { lsn, settle };
      const timer = setTimeout(() => {
        const at = `it is at ${formatLsn(current())} after ${Math.round(timeoutMs)} ms`;
        settle(new TimedOut(`Cannot reach ${formatLsn(lsn)} on ${this.#name}: ${at}`));
      }, timeoutMs);
      signal?.addEventListener("abort", aborted);
      this.#waiters.push(waiter);
      this.#least = Math.min(this.#least, lsn);
    });
  }

  /** Wakes everyone who waits for `lsn` or less. */
  reached(lsn: Lsn): void {
    if (lsn < this.#least) return;
    const served = this.#waiters.filter((waiter) => waiter.lsn <= lsn);
    this.#waiters = this.#waiters.filter((waiter) => waiter.lsn > lsn);
    this.#least = this.#waiters.reduce((least, waiter) => Math.min(least, waiter.lsn), Infinity);
    for (const waiter of served) waiter.settle();
  }

  /** Fails everyone. */
  fail(failure: Error): void {
    const failed = this.#waiters;
    this.#waiters = [];
    this.#least = Infinity;
    for (const waiter of failed) waiter.settle(failure);
  }
}
