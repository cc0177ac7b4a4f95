/**
 * The safekeepers that a proposer talks to, under one membership after the other: who they are, how
 * far each conversation is, and what is on their disks. Pure.
 *
 * A peer is named by its index, which is never given to another one: who leaves keeps it, and who
 * comes back gets a new one. Without a membership (generation 0) the peers are those that were
 * configured; with one they are its members, old and new.
 */
import { assert } from "../../libs/utils/assert.ts";
import { INVALID_LSN, type Lsn } from "../../libs/utils/lsn.ts";
import {
  allMembers,
  type Member,
  type MembershipConfiguration,
} from "../../libs/safekeeper_protocol/membership.ts";
import type { VoteResponse } from "../../libs/safekeeper_protocol/messages.ts";
import { lastLogTerm, type Term } from "../../libs/safekeeper_protocol/term_history.ts";
import { Quorum } from "./quorum.ts";

type PeerPhase = "offline" | "greeting" | "greeted" | "voting" | "voted" | "streaming" | "left";

/** One of them. */
export interface Peer {
  readonly id: number;
  /** "left": not a member any more, for good. */
  phase: PeerPhase;
  term: Term;
  vote: VoteResponse | undefined;
  /** End of what was sent on this connection. Invariant: only rises while streaming. */
  sentLsn: Lsn;
  /** The commit LSN that this connection was last told. */
  sentCommitLsn: Lsn;
}

/** Whether its greeting was answered on the connection that it has. */
export function isAtLeastGreeted({ phase }: Peer): boolean {
  return phase !== "offline" && phase !== "greeting" && phase !== "left";
}

/** Whether it has a connection. */
export function isConnected({ phase }: Peer): boolean {
  return phase !== "offline" && phase !== "left";
}

/** Raft's order of logs: by the term of the last entry, then by length. */
export function isLogNewer(a: VoteResponse, b: VoteResponse): boolean {
  const termA = lastLogTerm(a.termHistory, a.flushLsn);
  const termB = lastLogTerm(b.termHistory, b.flushLsn);
  return termA > termB || (termA === termB && a.flushLsn > b.flushLsn);
}

function newPeer(id: number): Peer {
  return {
    id,
    phase: "offline",
    term: 0,
    vote: undefined,
    sentLsn: INVALID_LSN,
    sentCommitLsn: INVALID_LSN,
  };
}

/** See the head of the file. */
export class Peers {
  readonly all: Peer[];
  /** Durable end of each peer's log under this term; 0 while unknown or before the term's start. */
  flushed: Float64Array;
  #membership: MembershipConfiguration;
  #quorum: Quorum;

  constructor(ids: readonly number[], membership: MembershipConfiguration) {
    assert(new Set(ids).size === ids.length, "safekeeper ids are distinct");
    this.all = ids.map(newPeer);
    this.flushed = new Float64Array(ids.length);
    this.#membership = membership;
    this.#quorum = new Quorum(ids, membership);
  }

  get membership(): MembershipConfiguration {
    return this.#membership;
  }
  get quorum(): Quorum {
    return this.#quorum;
  }

  /** The lowest durable end of all that are members; Infinity without any. */
  get flushedEverywhere(): number {
    let lowest = Infinity;
    for (let i = 0; i < this.all.length; i++) {
      if (this.all[i]!.phase !== "left") lowest = Math.min(lowest, this.flushed[i]!);
    }
    return lowest;
  }

  /** Goes over to a newer membership: says who has come, at which index, and who has left. */
  follow(
    membership: MembershipConfiguration,
  ): { joined: { peer: number; member: Member }[]; left: number[] } {
    assert(membership.generation > this.#membership.generation, "generations only rise");
    const members = allMembers(membership);
    const left: number[] = [];
    this.all.forEach((p, peer) => {
      if (p.phase === "left" || members.some(({ id }) => id === p.id)) return;
      p.phase = "left";
      p.vote = undefined;
      left.push(peer);
    });
    const joined = members
      .filter(({ id }) => !this.all.some((p) => p.id === id && p.phase !== "left"))
      .map((member) => ({ peer: this.all.push(newPeer(member.id)) - 1, member }));
    // What was acknowledged before does not count: somebody else may have won a later term by a
    // majority of the old members, and who acknowledged be a majority of the new ones
    this.flushed = new Float64Array(this.all.length);
    this.#membership = membership;
    this.#quorum = new Quorum(this.all.map((p) => p.phase === "left" ? -1 : p.id), membership);
    return { joined, left };
  }
}
