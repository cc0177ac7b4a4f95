/**
 * Which safekeeper a replica streams from. Pure.
 *
 * It stays with the one it has. It goes over to another when that one has ended, or has not
 * answered for SILENT_MS (it hangs or is cut off), or when what it knows to be committed has stayed
 * behind what another knew for LAG_MS (it is cut off from the primary, or has to catch up first).
 */
import { INVALID_LSN, type Lsn } from "../libs/utils/lsn.ts";

/** A safekeeper that has said nothing for so long is not one to stream from. */
export const SILENT_MS = 2000;
/** How long one may need to get to where the best one was. */
const LAG_MS = 3000;

/** See the head of the file. Times are of one clock that only goes forward. */
export class SourceChoice {
  readonly #heardMs: number[];
  readonly #commitLsns: Lsn[];
  #current = 0;
  #sinceMs: number;
  /** Where the best one was at `#markMs`: the current one has to get there. */
  #mark: Lsn = INVALID_LSN;
  #markMs: number;

  /** Of `count` safekeepers, the first is the current one at `nowMs`. */
  constructor(count: number, nowMs: number) {
    this.#heardMs = new Array(count).fill(-Infinity);
    this.#commitLsns = new Array(count).fill(INVALID_LSN);
    this.#sinceMs = nowMs;
    this.#markMs = nowMs;
  }

  /** The index of the one to stream from. */
  get current(): number {
    return this.#current;
  }

  /** One has answered. */
  heard(index: number, commitLsn: Lsn, nowMs: number): void {
    this.#heardMs[index] = nowMs;
    this.#commitLsns[index] = commitLsn;
  }

  /** One has refused or hung up: the replica has noticed that, too, and is on another one now. */
  lost(index: number): void {
    this.#heardMs[index] = -Infinity;
    if (index === this.#current) this.#sinceMs = -Infinity;
  }

  /** Looks again; true if `current` is another one now. */
  look(nowMs: number): boolean {
    const best = this.#best(nowMs);
    if (best < 0 || this.#isGood(best, nowMs)) return false;
    this.#current = best;
    this.#sinceMs = nowMs;
    this.#mark = INVALID_LSN;
    this.#markMs = nowMs;
    return true;
  }

  #isGood(best: number, nowMs: number): boolean {
    if (best === this.#current) return true;
    if (!this.#answers(this.#current, nowMs)) return nowMs - this.#sinceMs < SILENT_MS;
    if (this.#commitLsns[this.#current]! < this.#mark) return nowMs - this.#markMs < LAG_MS;
    this.#mark = this.#commitLsns[best]!;
    this.#markMs = nowMs;
    return true;
  }

  #answers(index: number, nowMs: number): boolean {
    return nowMs - this.#heardMs[index]! < SILENT_MS;
  }

  /** The one that answers and knows most to be committed; the current one, if it does as well. */
  #best(nowMs: number): number {
    let best = this.#answers(this.#current, nowMs) ? this.#current : -1;
    for (let index = 0; index < this.#heardMs.length; index++) {
      if (!this.#answers(index, nowMs)) continue;
      if (best < 0 || this.#commitLsns[index]! > this.#commitLsns[best]!) best = index;
    }
    return best;
  }
}
