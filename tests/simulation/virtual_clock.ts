/** Virtual time: what is due next happens next, at once; equal times in the order of scheduling. */

interface Due {
  readonly at: number;
  readonly order: number;
  readonly run: () => void;
}

function isBefore(a: Due, b: Due): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}

/** A binary heap of what is to happen. Times are milliseconds since the schedule's start. */
export class VirtualClock {
  nowMs = 0;
  readonly #heap: Due[] = [];
  #order = 0;

  /** Calls `run` after `delayMs`. */
  after(delayMs: number, run: () => void): void {
    this.at(this.nowMs + delayMs, run);
  }

  /** Calls `run` at `atMs`, which is not in the past. */
  at(atMs: number, run: () => void): void {
    const heap = this.#heap;
    const due = { at: atMs, order: this.#order++, run };
    let hole = heap.length;
    heap.push(due);
    while (hole > 0) {
      const parent = (hole - 1) >> 1;
      if (!isBefore(due, heap[parent]!)) break;
      heap[hole] = heap[parent]!;
      hole = parent;
    }
    heap[hole] = due;
  }

  /** Runs the next event if it is due before `untilMs`; false if there is none. */
  step(untilMs: number): boolean {
    const heap = this.#heap;
    const first = heap[0];
    if (first === undefined || first.at >= untilMs) return false;
    const last = heap.pop()!;
    if (heap.length > 0) this.#sink(last);
    this.nowMs = first.at;
    first.run();
    return true;
  }

  #sink(due: Due): void {
    const heap = this.#heap;
    let hole = 0;
    for (;;) {
      let child = 2 * hole + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++;
      if (!isBefore(heap[child]!, due)) break;
      heap[hole] = heap[child]!;
      hole = child;
    }
    heap[hole] = due;
  }
}
