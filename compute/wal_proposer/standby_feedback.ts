/**
 * What the replicas behind all safekeepers still read (hot_standby_feedback), for the primary: the
 * lowest xmin that any safekeeper reports. Each reports the lowest of its own replicas with every
 * answer to an append. One that is not connected reports nothing: its replicas get no WAL either,
 * and turn to another one.
 */

/** Full transaction ids; 0 = none. */
export class StandbyFeedback {
  readonly #xmins: Float64Array;
  readonly #catalogXmins: Float64Array;
  /** Lowest over all safekeepers. */
  xmin = 0;
  catalogXmin = 0;

  constructor(safekeepers: number) {
    this.#xmins = new Float64Array(safekeepers);
    this.#catalogXmins = new Float64Array(safekeepers);
  }

  /** A safekeeper reports. True if what holds for all changes. */
  note(peer: number, xmin: number, catalogXmin: number): boolean {
    if (this.#xmins[peer] === xmin && this.#catalogXmins[peer] === catalogXmin) return false;
    this.#xmins[peer] = xmin;
    this.#catalogXmins[peer] = catalogXmin;
    const before = [this.xmin, this.catalogXmin];
    this.xmin = lowestValid(this.#xmins);
    this.catalogXmin = lowestValid(this.#catalogXmins);
    return before[0] !== this.xmin || before[1] !== this.catalogXmin;
  }
}

function lowestValid(xids: Float64Array): number {
  return xids.reduce(lowestXid, 0);
}

/** The lower of two full transaction ids, of which either may be none. */
export function lowestXid(a: number, b: number): number {
  return a === 0 ? b : b === 0 ? a : Math.min(a, b);
}
