/**
 * Majorities of a timeline's safekeepers.
 *
 * Without a membership configuration (generation 0) the configured safekeepers are the members. A
 * joint configuration, in force while members change, needs a majority of both lists, so that two
 * disjoint majorities never exist.
 */
import { assert } from "../../libs/utils/assert.ts";
import { INVALID_LSN, type Lsn } from "../../libs/utils/lsn.ts";
import { MEMBERS_MAX } from "../../libs/safekeeper_protocol/membership.ts";
import type { MembershipConfiguration } from "../../libs/safekeeper_protocol/membership.ts";

/** Decides majorities over peers, which are named by their index; the id of one that left is -1. */
export class Quorum {
  /** For each list of members: the peer's index, or -1 for a member that nobody connects to. */
  readonly #lists: readonly (readonly number[])[];
  readonly #sorted = new Float64Array(MEMBERS_MAX);

  constructor(peerIds: readonly number[], membership: MembershipConfiguration) {
    const lists = membership.generation === 0 || membership.members.length === 0 ? [peerIds] : [
      membership.members,
      ...(membership.newMembers === undefined ? [] : [membership.newMembers]),
    ]
      .map((members) => members.map((member) => member.id));
    for (const list of lists) {
      assert(list.length > 0 && list.length <= MEMBERS_MAX, "a quorum has 1 to 32 members");
    }
    this.#lists = lists.map((list) => list.map((id) => peerIds.indexOf(id)));
  }

  /** True if a majority of every list satisfies `has`. */
  reached(has: (peer: number) => boolean): boolean {
    return this.#lists.every((list) => {
      let count = 0;
      for (const peer of list) if (peer >= 0 && has(peer)) count++;
      return count >= majorityOf(list.length);
    });
  }

  /** The greatest LSN that a majority of every list has reached; allocates nothing. */
  lsnReached(lsns: Float64Array): Lsn {
    let reached = Infinity;
    for (const list of this.#lists) reached = Math.min(reached, this.#listReached(list, lsns));
    return reached as Lsn;
  }

  #listReached(list: readonly number[], lsns: Float64Array): number {
    const sorted = this.#sorted;
    for (let i = 0; i < list.length; i++) {
      const peer = list[i]!;
      const lsn = peer < 0 ? INVALID_LSN : lsns[peer]!;
      let at = i;
      while (at > 0 && sorted[at - 1]! < lsn) {
        sorted[at] = sorted[at - 1]!;
        at--;
      }
      sorted[at] = lsn;
    }
    return sorted[majorityOf(list.length) - 1]!;
  }
}

function majorityOf(members: number): number {
  return Math.floor(members / 2) + 1;
}
