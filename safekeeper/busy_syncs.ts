/**
 * How many timelines of this process are being written just now. A sync in place lets all of them
 * wait, one after the other, where syncs in threads go on side by side.
 */

/** A timeline is busy for so long after a sync. */
const BUSY_MS = 20;

/** The timelines that synced lately. */
export class BusySyncs<Timeline> {
  /** The last one: that of the next sync, too, as a rule. */
  #newest: Timeline | undefined;
  #newestMs = 0;
  /** The others, oldest first. */
  readonly #others = new Map<Timeline, number>();

  /** Notes a sync at `nowMs`, never before the last one's; returns how many are busy, at least 1. */
  note(timeline: Timeline, nowMs: number): number {
    if (timeline !== this.#newest) {
      if (this.#newest !== undefined) this.#others.set(this.#newest, this.#newestMs);
      this.#others.delete(timeline);
      this.#newest = timeline;
    }
    this.#newestMs = nowMs;
    if (this.#others.size > 0) this.#dropRested(nowMs);
    return 1 + this.#others.size;
  }

  #dropRested(nowMs: number): void {
    for (const [other, atMs] of this.#others) {
      if (nowMs - atMs <= BUSY_MS) return;
      this.#others.delete(other);
    }
  }
}
