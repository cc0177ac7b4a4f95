/**
 * The rules for whoever changes the members of a timeline while others write it. Pure: the control
 * plane acts by it, and so does the simulator.
 *
 *   1. The joint configuration is in force once a majority of the old and of the new members have
 *      adopted it: from then on nobody commits, or wins a term, without both majorities.
 *   2. What the old ones may have committed without the new ones is at most the newest log among
 *      a majority of them, looked at behind their adoption. A majority of the new ones must have
 *      that, and know a term as high as any of those has seen, or it could be won twice.
 *   3. Then the new configuration replaces the joint one. It is in force once a majority of the new
 *      members have adopted it; whoever is none of them is not needed any more.
 *
 * Every answer may be lost and every step be done again, by another process, too.
 */
import type { Lsn } from "../utils/lsn.ts";
import type { Term } from "./term_history.ts";

/** Where a safekeeper stands, as it says behind the adoption of the joint configuration. */
export interface MemberLog {
  readonly term: Term;
  /** Term of the last durable record. */
  readonly lastLogTerm: Term;
  readonly flushLsn: Lsn;
}

/** True if `has` is true of more than half. */
export function isMajority(ids: readonly number[], has: (id: number) => boolean): boolean {
  return ids.filter(has).length * 2 > ids.length;
}

/** Raft's order of logs: by the term of the last entry, then by length. */
function isNewer(one: MemberLog, other: MemberLog): boolean {
  return one.lastLogTerm > other.lastLogTerm ||
    (one.lastLogTerm === other.lastLogTerm && one.flushLsn > other.flushLsn);
}

/** See the head of the file. Safekeepers are named by their ids. */
export class MembershipChange {
  readonly from: readonly number[];
  readonly to: readonly number[];
  readonly #joint = new Map<number, MemberLog>();
  readonly #final = new Set<number>();
  #goal: MemberLog | undefined;

  constructor(from: readonly number[], to: readonly number[]) {
    this.from = from;
    this.to = to;
  }

  /** A safekeeper has adopted the joint configuration, durably, and says where it stands since. */
  jointAdopted(id: number, log: MemberLog): void {
    this.#joint.set(id, log);
    const old = this.from.filter((other) => this.#joint.has(other));
    if (this.#goal !== undefined || !isMajority(this.from, (other) => old.includes(other))) return;
    const logs = old.map((other) => this.#joint.get(other)!);
    const newest = logs.reduce((a, b) => isNewer(a, b) ? a : b);
    this.#goal = { ...newest, term: Math.max(...logs.map(({ term }) => term)) };
  }

  /**
   * The log that a majority of the new members needs, and the term that it has to know; undefined
   * before enough old ones have spoken.
   */
  get goal(): MemberLog | undefined {
    return this.#goal;
  }

  /** Whether the joint configuration is in force. */
  get isJoint(): boolean {
    return isMajority(this.from, (id) => this.#joint.has(id)) &&
      isMajority(this.to, (id) => this.#joint.has(id));
  }

  /** Whether this one's term has to be raised to that of the goal. */
  lacksTerm(id: number): boolean {
    const log = this.#joint.get(id);
    return this.#goal !== undefined && log !== undefined && log.term < this.#goal.term;
  }

  /** Whether this one has all that the goal asks for. */
  isReady(id: number): boolean {
    const log = this.#joint.get(id);
    if (log === undefined || this.#goal === undefined) return false;
    return log.term >= this.#goal.term && !isNewer(this.#goal, log);
  }

  /** Whether the last step may begin. */
  get mayFinish(): boolean {
    return this.isJoint && isMajority(this.to, (id) => this.isReady(id));
  }

  /** A new member has adopted the final configuration. */
  finalAdopted(id: number): void {
    this.#final.add(id);
  }

  /** Whether the final configuration is in force. */
  get isFinal(): boolean {
    return isMajority(this.to, (id) => this.#final.has(id));
  }
}
