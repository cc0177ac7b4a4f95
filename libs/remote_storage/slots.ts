/** A number of places, and a line in front of them. */

/** Whoever takes a slot gives it back; the longest waiting one is next. */
export class Slots {
  #free: number;
  readonly #line: Set<() => void> = new Set();

  constructor(count: number) {
    this.#free = count;
  }

  /** Resolves when there is a place. Throws the signal's reason if it is aborted before. */
  take(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#free > 0) {
      this.#free--;
      return Promise.resolve();
    }
    return new Promise((resolve, reject) => {
      const leave = () => {
        this.#line.delete(enter);
        reject(signal.reason);
      };
      const enter = () => {
        this.#line.delete(enter);
        signal.removeEventListener("abort", leave);
        resolve();
      };
      this.#line.add(enter);
      signal.addEventListener("abort", leave, { once: true });
    });
  }

  /** Gives a place back. */
  give(): void {
    for (const enter of this.#line) return enter();
    this.#free++;
  }
}
