/**
 * How a safekeeper catches up from its peers while nobody writes: which of them it may copy from,
 * and what the proposer of that one's term would say to it. Pure.
 *
 * A peer whose last log term is its term holds a part of the log of that term's proposer, and that
 * proposer's history. So its messages can be said again in its name: follow this history from where
 * the logs part, then the WAL. The acceptor treats them as any others: it takes nothing of a term
 * below its own, and loses nothing that is committed.
 */
import type { MembershipConfiguration } from "../libs/safekeeper_protocol/membership.ts";
import type {
  AppendRequest,
  ProposerElected,
  ProposerGreeting,
} from "../libs/safekeeper_protocol/messages.ts";
import {
  highestCommonPoint,
  type Term,
  type TermHistory,
  termHistoryUpTo,
} from "../libs/safekeeper_protocol/term_history.ts";
import { INVALID_LSN, type Lsn } from "../libs/utils/lsn.ts";
import type { TimelineState } from "./timeline_state.ts";

/** Where a safekeeper's log of one timeline stands. */
export interface LogPosition {
  readonly term: Term;
  /** Term of the last durable record. */
  readonly lastLogTerm: Term;
  readonly flushLsn: Lsn;
}

/** Raft's order of logs: by the term of the last entry, then by length. */
export function isAhead(one: LogPosition, other: LogPosition): boolean {
  return one.lastLogTerm > other.lastLogTerm ||
    (one.lastLogTerm === other.lastLogTerm && one.flushLsn > other.flushLsn);
}

/** The peer to copy from; undefined if none is ahead, or none may be copied from. */
export function chooseDonor<P extends LogPosition>(
  mine: LogPosition,
  peers: Iterable<P>,
): P | undefined {
  let donor: P | undefined;
  for (const peer of peers) {
    const isUsable = peer.term === peer.lastLogTerm && peer.term >= mine.term;
    if (isUsable && isAhead(peer, donor ?? mine)) donor = peer;
  }
  return donor;
}

/** Chooses donors one after the other: one that failed waits until the others have had their turn. */
export class DonorChoice {
  readonly #failed = new Set<number>();

  /** The next one to copy from. */
  next<P extends LogPosition & { readonly safekeeperId: number }>(
    mine: LogPosition,
    peers: readonly P[],
  ): P | undefined {
    const fresh = chooseDonor(mine, peers.filter((peer) => !this.#failed.has(peer.safekeeperId)));
    if (fresh !== undefined || this.#failed.size === 0) return fresh;
    this.#failed.clear();
    return chooseDonor(mine, peers);
  }

  /** Nothing could be copied from this one. */
  failed(safekeeperId: number): void {
    this.#failed.add(safekeeperId);
  }
}

/** What a donor says of itself. */
export interface DonorStatus extends LogPosition {
  readonly membership: MembershipConfiguration;
  readonly termHistory: TermHistory;
  readonly commitLsn: Lsn;
  readonly pgVersionNum: number;
  readonly systemId: bigint;
}

/** The greeting in the name of the donor's proposer: it carries a newer membership. */
export function donorGreeting(mine: TimelineState, donor: DonorStatus): ProposerGreeting {
  const { tenantId, timelineId, walSegmentSize } = mine;
  const { membership, pgVersionNum, systemId } = donor;
  return {
    kind: "greeting",
    tenantId,
    timelineId,
    membership,
    pgVersionNum,
    systemId,
    walSegmentSize,
  };
}

/** The election of the donor's term, for a log that ends at `flushLsn`. Throws Corrupt. */
export function donorElection(
  mine: TimelineState,
  flushLsn: Lsn,
  donor: DonorStatus,
): ProposerElected {
  const { term, termHistory, membership } = donor;
  const common = highestCommonPoint(
    termHistory,
    termHistoryUpTo(mine.termHistory, flushLsn),
    flushLsn,
  );
  return {
    kind: "elected",
    generation: membership.generation,
    term,
    startStreamingAt: common?.lsn ?? termHistory[0]!.lsn,
    termHistory,
  };
}

/** WAL that the donor has sent, as an append of its term. */
export function donorAppend(donor: DonorStatus, beginLsn: Lsn, wal: Uint8Array): AppendRequest {
  return {
    kind: "append",
    generation: donor.membership.generation,
    term: donor.term,
    beginLsn,
    endLsn: (beginLsn + wal.length) as Lsn,
    commitLsn: donor.commitLsn,
    truncateLsn: INVALID_LSN,
    wal,
  };
}
