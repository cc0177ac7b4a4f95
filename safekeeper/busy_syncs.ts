/**
 * How many timelines of this process are being written just now. A sync in place lets all of them
 * wait, one after the other, where syncs in threads go on side by side.
 */

/** A timeline is busy for so long after a sync. */
const BUSY_MS = 20;

/** The timelines that synced lately, oldest first. */
export class BusySyncs<Timeline> {
  readonly #last = new Map<Timeline, number>();

  /** Notes a sync at `nowMs`, never before the last one's; returns how many are busy, at least 1. */
  note(timeline: Timeline, nowMs: number): number {
    this.#last.delete(timeline);
    this.#last.set(timeline, nowMs);
    for (const [other, atMs] of this.#last) {
      if (nowMs - atMs <= BUSY_MS) break;
      this.#last.delete(other);
    }
    return this.#last.size;
  }
}
