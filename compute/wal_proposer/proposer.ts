/**
 * The WAL proposer's decisions: elections, where each safekeeper's log is continued, and what is
 * committed. Plain state and plain functions: no sockets, clocks or randomness (the driver has
 * those, and a seeded simulator runs the same code).
 *
 * One start of Postgres is one election:
 *
 *   collecting --greetings of a quorum--> campaigning --votes of a quorum--> elected
 *        ^                                     |                                |
 *        +------- refused: somebody else ------+         a higher term: deposed-+
 *
 * The term is one more than the highest that a quorum has seen. The donor is the voter with the
 * highest (last log term, flush LSN); its flush LSN is where the new term, and Postgres, start.
 * Each safekeeper is told where its log and the donor's part, drops what lies beyond and gets the
 * rest. WAL is committed when a quorum has it on disk, and only positions at or past the term's own
 * start count: by then the term is in those safekeepers' histories, so no later election can lose
 * it.
 *
 * The members of the timeline may change meanwhile. Whoever changes them tells the proposer, or a
 * safekeeper does with its greeting; from then on a quorum is what the newer membership says, and
 * all greet and acknowledge again. A term that was won is kept: whoever may have won a later one
 * is known to every quorum of the newer membership, which then refuses ours (the rules for whoever
 * changes members are in libs/safekeeper_protocol/membership_change.ts).
 *
 * Cold answers come back as effects (`takeEffects`); the hot calls `nextAppend` and `appended`
 * allocate nothing.
 */
import { assert } from "../../libs/utils/assert.ts";
import { messageOf } from "../../libs/utils/errors.ts";
import { formatLsn, INVALID_LSN, type Lsn } from "../../libs/utils/lsn.ts";
import {
  type MembershipConfiguration,
  NO_MEMBERSHIP,
} from "../../libs/safekeeper_protocol/membership.ts";
import {
  type AcceptorGreeting,
  APPEND_WAL_BYTES_MAX,
  type ProposerElected,
  type VoteRequest,
  type VoteResponse,
} from "../../libs/safekeeper_protocol/messages.ts";
import {
  highestCommonPoint,
  type Term,
  type TermHistory,
} from "../../libs/safekeeper_protocol/term_history.ts";
import { impossibleEnd, impossibleTerm, impossibleVote } from "./claims.ts";
import type { AppendRange, Effect, WonTerm } from "./effects.ts";
import { isAtLeastGreeted, isConnected, isLogNewer, type Peer, Peers } from "./peers.ts";
import { Vanguard } from "./vanguard.ts";

/** Lost campaigns after which the proposer gives up: somebody else keeps winning. */
const CAMPAIGNS_MAX = 8;

/** See the head of the file. Peers are named by their index, at first that in `safekeeperIds`. */
export class Proposer {
  #state: "collecting" | "campaigning" | "elected" | "deposed" = "collecting";
  readonly #members: Peers;
  readonly #peers: readonly Peer[];
  #campaigns = 0;
  /** A campaign was lost; the driver calls `campaign` when the pause is over. */
  #pausing = false;
  #term: Term = 0;
  #startLsn: Lsn = INVALID_LSN;
  #history: TermHistory = [];
  #donor = -1;
  #endLsnMax = Infinity;
  #commitLsn: Lsn = INVALID_LSN;
  #truncateLsn: Lsn = INVALID_LSN;
  /** WAL from here on is needed by others than the safekeepers, whoever of these has it. */
  #keepFrom = Infinity;
  #effects: Effect[] = [];
  readonly #vanguard = new Vanguard();

  /** `safekeeperIds` are the members of `membership`, unless there is none. */
  constructor(safekeeperIds: readonly number[], membership = NO_MEMBERSHIP) {
    this.#members = new Peers(safekeeperIds, membership);
    this.#peers = this.#members.all;
  }

  get #quorum(): Peers["quorum"] {
    return this.#members.quorum;
  }

  /**
   * Goes on with a term that this same Postgres streamed under. Nothing needs to be asked first: if
   * somebody else won meanwhile, no quorum will acknowledge this term, and the first answer with a
   * higher term deposes it.
   */
  static resume(
    safekeeperIds: readonly number[],
    won: WonTerm,
    membership = NO_MEMBERSHIP,
  ): Proposer {
    const proposer = new Proposer(safekeeperIds, membership);
    proposer.#state = "elected";
    proposer.#term = won.term;
    proposer.#startLsn = won.startLsn;
    proposer.#history = won.history;
    proposer.#endLsnMax = won.endLsnMax;
    return proposer;
  }

  get state(): "collecting" | "campaigning" | "elected" | "deposed" {
    return this.#state;
  }
  get term(): Term {
    return this.#term;
  }
  /** Where the term starts: the end of the donor's log. */
  get startLsn(): Lsn {
    return this.#startLsn;
  }
  /** The donor's history and this term's own entry. */
  get history(): TermHistory {
    return this.#history;
  }
  get membership(): MembershipConfiguration {
    return this.#members.membership;
  }
  /** On the disks of a quorum, under this term. Invariant: 0 or >= startLsn; only rises. */
  get commitLsn(): Lsn {
    return this.#commitLsn;
  }
  /** On the disks of all safekeepers: nobody will ask a peer for WAL below. */
  get truncateLsn(): Lsn {
    return this.#truncateLsn;
  }

  /** What happened since the last call; the driver does these in order. */
  takeEffects(): Effect[] {
    if (this.#effects.length === 0) return NO_EFFECTS;
    const taken = this.#effects;
    this.#effects = [];
    return taken;
  }

  /** A connection was opened and our greeting (with `membership`) sent. */
  connected(peer: number): void {
    const p = this.#peers[peer]!;
    assert(p.phase === "offline", "a peer has one connection");
    p.phase = "greeting";
  }

  /** The connection is gone. What the safekeeper acknowledged stays acknowledged. */
  disconnected(peer: number): void {
    const p = this.#peers[peer]!;
    if (p.phase !== "left") p.phase = "offline";
    p.vote = undefined;
    this.#chooseVanguard();
  }

  /** The safekeeper answered the greeting. */
  greeted(peer: number, greeting: AcceptorGreeting): void {
    const p = this.#peers[peer]!;
    if (p.phase === "left") return;
    if (p.phase !== "greeting") return this.#drop(peer, "it greeted twice");
    if (greeting.nodeId !== p.id) {
      return this.#drop(peer, `safekeeper ${greeting.nodeId} answers in place of ${p.id}`);
    }
    if (!this.#adoptMembership(peer, greeting.membership)) return;
    p.phase = "greeted";
    p.term = greeting.term;
    if (this.#state === "collecting") {
      if (!this.#pausing) this.campaign();
      return;
    }
    if (this.#state === "deposed" || this.#isDropped(peer, impossibleTerm(p.term, this.#term))) {
      return;
    }
    if (this.#state === "elected" && greeting.term > this.#term) {
      return this.#deposedBy(p, greeting.term);
    }
    this.#askForVote(peer);
  }

  /** True if the connection may go on. A newer configuration is adopted. */
  #adoptMembership(peer: number, theirs: MembershipConfiguration): boolean {
    const ours = this.membership;
    if (theirs.generation < ours.generation) {
      this.#drop(peer, `it stays at membership generation ${theirs.generation}`);
      return false;
    }
    if (theirs.generation > ours.generation) this.#follow(theirs, peer);
    return this.#peers[peer]!.phase !== "left";
  }

  /** Goes over to another membership if it is newer. A term that was won is kept. */
  reconfigure(membership: MembershipConfiguration): void {
    if (membership.generation > this.membership.generation) this.#follow(membership, -1);
  }

  /** `teacher` has adopted the membership already; the others greet again to hear of it. */
  #follow(membership: MembershipConfiguration, teacher: number): void {
    if (this.#state === "deposed") return;
    const { joined, left } = this.#members.follow(membership);
    for (const peer of left) this.#effects.push({ kind: "leave", peer });
    this.#peers.forEach((p, peer) => {
      if (peer === teacher || !isConnected(p)) return;
      this.disconnected(peer);
      this.#effects.push({ kind: "again", peer });
    });
    for (const { peer, member } of joined) this.#effects.push({ kind: "join", peer, member });
    if (this.#state === "campaigning") this.#state = "collecting"; // the votes are gone
    this.#chooseVanguard();
    this.#effects.push({ kind: "membership", membership });
  }

  /** Starts a campaign as soon as a quorum has greeted; the driver repeats a lost one. */
  campaign(): void {
    if (this.#state !== "collecting") return;
    this.#pausing = false;
    const hasGreeted = (i: number) => isAtLeastGreeted(this.#peers[i]!);
    if (!this.#quorum.reached(hasGreeted)) return;
    const lowest = Math.min(...this.#peers.filter(isAtLeastGreeted).map((p) => p.term));
    this.#peers.forEach((p, i) => {
      if (hasGreeted(i)) this.#isDropped(i, impossibleTerm(p.term, lowest));
    });
    if (!this.#quorum.reached(hasGreeted)) return;
    this.#campaigns++;
    this.#state = "campaigning";
    for (const p of this.#peers) {
      if (isAtLeastGreeted(p)) this.#term = Math.max(this.#term, p.term);
    }
    this.#term++;
    this.#peers.forEach((p, peer) => {
      if (isAtLeastGreeted(p)) this.#askForVote(peer);
    });
  }

  #askForVote(peer: number): void {
    const p = this.#peers[peer]!;
    p.phase = "voting";
    p.vote = undefined;
    const { generation } = this.membership;
    this.#send(peer, { kind: "vote", generation, term: this.#term });
  }

  /** The safekeeper voted, or refused to. */
  voted(peer: number, vote: VoteResponse): void {
    const p = this.#peers[peer]!;
    if (this.#state === "deposed" || p.phase === "left") return;
    if (this.#isDropped(peer, impossibleTerm(vote.term, this.#term) ?? impossibleVote(vote))) {
      return;
    }
    p.term = Math.max(p.term, vote.term);
    if (vote.term > this.#term) {
      if (this.#state === "elected") {
        return this.#deposedBy(p, vote.term);
      }
      if (this.#state === "campaigning") this.#loseCampaign(p.id, vote.term);
      return;
    }
    if (p.phase !== "voting" || vote.term < this.#term) return; // answer to an earlier campaign
    if (this.#state === "elected") {
      // A refusal at our own term: it voted for us before the connection broke
      p.vote = vote;
      return this.#elect(peer);
    }
    if (this.#state !== "campaigning") return;
    if (!vote.voteGiven) return this.#loseCampaign(p.id, vote.term);
    p.vote = vote;
    p.phase = "voted";
    if (this.#quorum.reached((i) => this.#peers[i]!.vote !== undefined)) this.#win();
  }

  #loseCampaign(byId: number, term: Term): void {
    this.#state = "collecting";
    this.#pausing = true;
    this.#term = Math.max(this.#term, term);
    if (this.#campaigns >= CAMPAIGNS_MAX) {
      return this.#depose(`safekeeper ${byId} refused its vote at term ${term}, again and again`);
    }
    this.#effects.push({ kind: "retry", campaigns: this.#campaigns });
  }

  #win(): void {
    const voters = this.#peers.map((_, i) => i).filter((i) => this.#peers[i]!.vote !== undefined);
    let donor = voters[0]!;
    for (const i of voters) if (isLogNewer(this.#voteOf(i), this.#voteOf(donor))) donor = i;
    const best = this.#voteOf(donor);
    if (best.flushLsn === INVALID_LSN) {
      return this.#depose("no safekeeper knows where this timeline's WAL starts");
    }
    this.#state = "elected";
    this.#donor = donor;
    this.#startLsn = best.flushLsn;
    this.#endLsnMax = best.flushLsn;
    this.#history = [...best.termHistory, { term: this.#term, lsn: this.#startLsn }];
    for (const i of voters) {
      const { truncateLsn, flushLsn } = this.#voteOf(i);
      this.#truncateLsn = Math.max(this.#truncateLsn, Math.min(truncateLsn, flushLsn)) as Lsn;
    }
    this.#effects.push({ kind: "elected" });
    for (const i of voters) this.#elect(i);
  }

  #voteOf(peer: number): VoteResponse {
    const { vote } = this.#peers[peer]!;
    assert(vote !== undefined, "the peer has voted");
    return vote;
  }

  /** Tells a voter that we won, and from where its log is continued. */
  #elect(peer: number): void {
    const p = this.#peers[peer]!;
    const vote = this.#voteOf(peer);
    if (vote.flushLsn < this.#members.flushed[peer]!) {
      const had = formatLsn(this.#members.flushed[peer]! as Lsn);
      return this.#drop(peer, `it acknowledged ${had} and now ends at ${formatLsn(vote.flushLsn)}`);
    }
    let startStreamingAt: Lsn;
    try {
      const common = highestCommonPoint(this.#history, vote.termHistory, vote.flushLsn);
      startStreamingAt = common?.lsn ?? this.#history[0]!.lsn;
      if (common?.term === this.#term && common.lsn > this.#endLsnMax) {
        return this.#depose(`safekeeper ${p.id} has WAL that this Postgres did not write`);
      }
    } catch (thrown) {
      return this.#drop(peer, messageOf(thrown));
    }
    p.phase = "streaming";
    p.sentLsn = startStreamingAt;
    p.sentCommitLsn = INVALID_LSN;
    this.#chooseVanguard();
    this.#send(peer, {
      kind: "elected",
      generation: this.membership.generation,
      term: this.#term,
      startStreamingAt,
      termHistory: this.#history,
    });
  }

  /** True once the safekeeper takes appends. */
  isStreaming(peer: number): boolean {
    return this.#state === "elected" && this.#peers[peer]!.phase === "streaming";
  }

  /** True if WAL for this safekeeper may be gathered: a quorum of others is to get it at once. */
  mayWait(peer: number): boolean {
    return this.#vanguard.spares(peer);
  }

  #chooseVanguard(): void {
    const streaming = this.#peers.map((_, i) => i).filter((i) => this.isStreaming(i));
    this.#vanguard.choose(this.#quorum, streaming, this.#members.flushed, this.#commitLsn);
  }

  /** End of what was sent to a streaming safekeeper. */
  sentLsn(peer: number): Lsn {
    return this.#peers[peer]!.sentLsn;
  }

  /** The durable end that a safekeeper acknowledged under this term; 0 if none. */
  flushedLsn(peer: number): Lsn {
    return this.#members.flushed[peer]! as Lsn;
  }

  /** The voter with the newest log; -1 before the election, and after `resume`. */
  get donor(): number {
    return this.#donor;
  }

  /**
   * True if a quorum follows, but none of them has said that it has the WAL before this term's
   * start. If that lasts, only the donor had it, and it is away. Another election does without it.
   */
  get isStranded(): boolean {
    if (this.#state !== "elected" || this.#commitLsn !== INVALID_LSN) return false;
    if (!this.#quorum.reached((i) => this.isStreaming(i))) return false;
    return !this.#peers.some((_, i) =>
      this.isStreaming(i) && this.#members.flushed[i]! >= this.#startLsn
    );
  }

  /** Ends a term that cannot commit anything. */
  giveUp(why: string): void {
    assert(this.isStranded, "only a term without a commit is given up");
    this.#depose(why);
  }

  /** True if the safekeeper has not been told the current commit LSN. */
  owesCommit(peer: number): boolean {
    return this.isStreaming(peer) && this.#peers[peer]!.sentCommitLsn < this.#commitLsn;
  }

  /**
   * The next append for a streaming safekeeper out of WAL that is available up to `end`: at most
   * 128 KiB. False if it has everything.
   */
  nextAppend(peer: number, end: Lsn, range: AppendRange): boolean {
    if (!this.isStreaming(peer)) return false;
    const p = this.#peers[peer]!;
    if (p.sentLsn >= end) return false;
    this.#fill(p, Math.min(end, p.sentLsn + APPEND_WAL_BYTES_MAX) as Lsn, range);
    return true;
  }

  /** An append without WAL: keeps the connection alive and tells the commit LSN. */
  heartbeat(peer: number, range: AppendRange): boolean {
    if (!this.isStreaming(peer)) return false;
    const p = this.#peers[peer]!;
    this.#fill(p, p.sentLsn, range);
    return true;
  }

  #fill(p: Peer, end: Lsn, range: AppendRange): void {
    range.begin = p.sentLsn;
    range.end = end;
    range.commit = this.#commitLsn;
    range.truncate = this.#truncateLsn;
    p.sentLsn = end;
    p.sentCommitLsn = this.#commitLsn;
    this.#endLsnMax = Math.max(this.#endLsnMax, end); // our own, written since resume()
  }

  /** The safekeeper answered an append. True if the commit LSN rose. */
  appended(peer: number, term: Term, flushLsn: Lsn): boolean {
    const p = this.#peers[peer]!;
    if (term > this.#term && this.#state === "elected" && p.phase !== "left") {
      if (!this.#isDropped(peer, impossibleTerm(term, this.#term))) this.#deposedBy(p, term);
      return false;
    }
    if (term !== this.#term || !this.isStreaming(peer)) return false;
    if (flushLsn > p.sentLsn) {
      // Of its own log, before it was told of our election, it may say so: not our WAL
      const known = Math.max(this.#endLsnMax, p.vote?.flushLsn ?? INVALID_LSN);
      this.#isDropped(peer, impossibleEnd(flushLsn, known));
      return false;
    }
    if (flushLsn < this.#startLsn || flushLsn <= this.#members.flushed[peer]!) return false;
    this.#members.flushed[peer] = flushLsn;
    const reached = this.#quorum.lsnReached(this.#members.flushed);
    const rises = reached > this.#commitLsn;
    if (rises) {
      assert(reached >= this.#startLsn, "only positions of this term are committed");
      this.#commitLsn = reached;
      if (this.#vanguard.isOutrun(this.#members.flushed, reached)) this.#chooseVanguard();
    }
    this.#raiseTruncateLsn();
    return rises;
  }

  /** No safekeeper is told from now on that WAL at or past `lsn` (Infinity: any) can go. */
  keepWalFrom(lsn: number): void {
    this.#keepFrom = lsn;
    this.#raiseTruncateLsn();
  }

  #raiseTruncateLsn(): void {
    const everywhere = Math.min(
      this.#commitLsn,
      this.#keepFrom,
      this.#members.flushedEverywhere,
    );
    if (everywhere > this.#truncateLsn) this.#truncateLsn = everywhere as Lsn;
  }

  #send(peer: number, message: VoteRequest | ProposerElected): void {
    this.#effects.push({ kind: "send", peer, message });
  }

  /** Drops a safekeeper that says what cannot be: `why` not; undefined if it can. */
  #isDropped(peer: number, why: string | undefined): boolean {
    if (why !== undefined) this.#drop(peer, `${why}: it cannot be believed`);
    return why !== undefined;
  }

  #drop(peer: number, why: string): void {
    this.disconnected(peer);
    this.#effects.push({ kind: "drop", peer, why });
  }

  #deposedBy(p: Peer, term: Term): void {
    this.#depose(
      `somebody else writes this timeline now: safekeeper ${p.id} has seen term ${term}`,
    );
  }

  #depose(why: string): void {
    this.#state = "deposed";
    this.#effects.push({ kind: "deposed", why });
  }
}

const NO_EFFECTS: Effect[] = [];
