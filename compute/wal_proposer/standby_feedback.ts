/**
 * What the replicas behind all safekeepers still read (hot_standby_feedback), for the primary: the
 * lowest xmin that any safekeeper reports. Each reports the lowest of its own replicas with every
 * answer to an append. One that is not connected reports nothing: its replicas get no WAL either,
 * and turn to another one.
 */

/** Full transaction ids; 0 = none. */
export class StandbyFeedback {
  /** By the safekeeper's number; those beyond the end have reported nothing. */
  readonly #xmins: number[] = [];
  readonly #catalogXmins: number[] = [];
  /** Lowest over all safekeepers. */
  xmin = 0;
  catalogXmin = 0;

  /** A safekeeper reports. True if what holds for all changes. */
  note(peer: number, xmin: number, catalogXmin: number): boolean {
    while (this.#xmins.length <= peer) {
      this.#xmins.push(0);
      this.#catalogXmins.push(0);
    }
    if (this.#xmins[peer] === xmin && this.#catalogXmins[peer] === catalogXmin) return false;
    this.#xmins[peer] = xmin;
    this.#catalogXmins[peer] = catalogXmin;
    const before = [this.xmin, this.catalogXmin];
    this.xmin = lowestValid(this.#xmins);
    this.catalogXmin = lowestValid(this.#catalogXmins);
    return before[0] !== this.xmin || before[1] !== this.catalogXmin;
  }
}

function lowestValid(xids: readonly number[]): number {
  return xids.reduce(lowestXid, 0);
}

/** The lower of two full transaction ids, of which either may be none. */
export function lowestXid(a: number, b: number): number {
  return a === 0 ? b : b === 0 ? a : Math.min(a, b);
}
