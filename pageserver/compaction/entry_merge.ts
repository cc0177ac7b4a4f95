/**
 * The entries of several layers as one row: by key, and of one key as the layers are given, which
 * is oldest first; so each key's entries come by LSN, those of one LSN in order of arrival.
 */
import { compareKeys } from "../repository/key.ts";
import type { LayerCursor } from "../repository/layer_cursor.ts";

/** The merge of cursors: a heap of their numbers, the least at the top. */
export class EntryMerge {
  readonly #cursors: readonly LayerCursor[];
  readonly #heap: number[] = [];

  /** Moves all cursors, which are before their first entry. */
  constructor(cursors: readonly LayerCursor[]) {
    this.#cursors = cursors;
    cursors.forEach((cursor, number) => {
      if (cursor.next()) this.#heap.push(number);
    });
    for (let at = this.#heap.length >> 1; at-- > 0;) this.#sink(at);
  }

  /** The number of the cursor that is at the next entry; -1 at the end. */
  get source(): number {
    return this.#heap[0] ?? -1;
  }

  /** Goes to the next entry; not at the end. */
  advance(): void {
    const heap = this.#heap;
    if (!this.#cursors[heap[0]!]!.next()) {
      const last = heap.pop()!;
      if (heap.length === 0) return;
      heap[0] = last;
    }
    this.#sink(0);
  }

  #comesBefore(a: number, b: number): boolean {
    const order = compareKeys(this.#cursors[a]!.key, this.#cursors[b]!.key);
    return order < 0 || order === 0 && a < b;
  }

  #sink(start: number): void {
    const heap = this.#heap;
    const number = heap[start]!;
    let at = start;
    for (;;) {
      let below = 2 * at + 1;
      if (below >= heap.length) break;
      if (below + 1 < heap.length && this.#comesBefore(heap[below + 1]!, heap[below]!)) below++;
      if (!this.#comesBefore(heap[below]!, number)) break;
      heap[at] = heap[below]!;
      at = below;
    }
    heap[at] = number;
  }
}
