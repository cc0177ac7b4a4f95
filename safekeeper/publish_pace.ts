/**
 * How often a timeline is published while its commit LSN moves. The first time at once; then in
 * rounds, some times a second, as long as it goes on moving. Whoever hears of it connects after the
 * first of these. If no pageserver has come after several, it has the WAL from somewhere else, or
 * is not there; then the regular publishing is enough, until the timeline has rested for a round or
 * a pageserver was here.
 */

/** Rounds in a row in which a timeline that moves is published. */
const ROUNDS_MAX = 4;

interface Recent {
  /** Since it was published, or since the last round. */
  hasChanged: boolean;
  /** In which it was published. */
  rounds: number;
}

/** See the head of the file. */
export class PublishPace<Timeline> {
  readonly #recent = new Map<Timeline, Recent>();

  /** Whether there is nothing to do in the next round. */
  get isResting(): boolean {
    return this.#recent.size === 0;
  }

  /** A timeline has changed; whether it is to be published at once. */
  changed(timeline: Timeline): boolean {
    const recent = this.#recent.get(timeline);
    if (recent === undefined) this.#recent.set(timeline, { hasChanged: false, rounds: 0 });
    else recent.hasChanged = true;
    return recent === undefined;
  }

  /** Those that are to be published in this round. */
  *round(): Iterable<Timeline> {
    for (const [timeline, recent] of this.#recent) {
      if (!recent.hasChanged) {
        this.#recent.delete(timeline);
        continue;
      }
      recent.hasChanged = false;
      if (recent.rounds === ROUNDS_MAX) continue;
      recent.rounds++;
      yield timeline;
    }
  }
}
