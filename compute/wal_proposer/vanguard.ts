/**
 * Which safekeepers get WAL at once: no more than a quorum, since that is what a commit waits for.
 * For the others it may be gathered, so that many commits cost them one message and one sync. Pure.
 *
 * Nothing is promised here: who is in the vanguard need not answer, and everybody gets everything
 * soon (gathering.ts). So a wrong choice costs a commit a few milliseconds, and it is mended by the
 * first commit that shows it: when another one has on disk what somebody in the vanguard has not,
 * these two change places.
 */
import type { Lsn } from "../../libs/utils/lsn.ts";
import type { Quorum } from "./quorum.ts";

/** See the head of the file. Peers are named as in peers.ts. */
export class Vanguard {
  /** A quorum; or nobody, and then WAL is gathered for nobody. */
  #chosen: readonly number[] = [];

  /** True if a quorum of others gets WAL at once. */
  spares(peer: number): boolean {
    return this.#chosen.length > 0 && !this.#chosen.includes(peer);
  }

  /**
   * Chooses among `streaming`, those who take WAL: whoever has what is committed goes before who
   * has not, and whoever was chosen before who was not.
   */
  choose(
    quorum: Quorum,
    streaming: readonly number[],
    flushed: Float64Array,
    commitLsn: Lsn,
  ): void {
    const rank = (peer: number) =>
      (flushed[peer]! < commitLsn ? 2 : 0) + (this.#chosen.includes(peer) ? 0 : 1);
    const order = streaming.toSorted((a, b) => rank(a) - rank(b) || a - b);
    const chosen: number[] = [];
    const isEnough = () => quorum.reached((peer) => chosen.includes(peer));
    for (const peer of order) {
      if (isEnough()) break;
      chosen.push(peer);
    }
    this.#chosen = isEnough() ? chosen : [];
  }

  /** True if somebody else was faster to get `commitLsn` onto the disk. Allocates nothing. */
  isOutrun(flushed: Float64Array, commitLsn: Lsn): boolean {
    let lacking = false;
    let spared = false;
    for (let peer = 0; peer < flushed.length; peer++) {
      if (this.spares(peer)) spared ||= flushed[peer]! >= commitLsn;
      else lacking ||= flushed[peer]! < commitLsn;
    }
    return lacking && spared;
  }
}
