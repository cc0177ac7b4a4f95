/**
 * The acceptor: a safekeeper's part in agreeing on one timeline's WAL. A pure state machine.
 *
 * It is Raft seen from a follower that never leads. Proposers ask for votes, one wins a term and is
 * elected by a quorum, tells where this log and its own part (`elected`), and appends. Entry terms
 * are kept as a term history (libs/safekeeper_protocol/term_history.ts).
 *
 * `handle` turns a message into effects that the driver carries out in order, each durable before
 * the next begins, and reports back through the completions (`persisted`, `written`, `truncated`,
 * `flushed`). State changes only in completions: an effect that fails leaves the acceptor as it
 * was, and the effects behind it, replies above all, do not happen. Rules that may never break:
 *
 *   - the term and the vote are durable before the vote is answered
 *   - WAL is durable before it is acknowledged, and only whole records are
 *   - committed WAL is never truncated
 *   - a message of another generation is refused, generations only rise; WAL of an older term is
 *     never taken
 *   - WAL is taken only after `elected` of the same term made this log a prefix of the proposer's
 *
 * Driver: timeline_core.ts. The simulator in tests/simulation runs the same code.
 */
import type {
  AcceptorGreeting,
  AcceptorMessage,
  AppendRequest,
  AppendResponse,
  HotStandbyFeedback,
  ProposerElected,
  ProposerGreeting,
  ProposerMessage,
  VoteRequest,
} from "../libs/safekeeper_protocol/messages.ts";
import {
  hasSameMembers,
  isMember,
  type MembershipConfiguration,
} from "../libs/safekeeper_protocol/membership.ts";
import {
  formatTermHistory,
  highestCommonPoint,
  lastLogTerm,
  type Term,
  termHistoryUpTo,
} from "../libs/safekeeper_protocol/term_history.ts";
import { assert } from "../libs/utils/assert.ts";
import { BadRequest, Conflict, Corrupt } from "../libs/utils/errors.ts";
import { formatLsn, INVALID_LSN, type Lsn, maxLsn, minLsn } from "../libs/utils/lsn.ts";
import { pgMajorOf, type TimelineState } from "./timeline_state.ts";

/** What the driver has to do, in order. */
export type Effect =
  /** Replace the control file durably, then call persisted(). */
  | { readonly kind: "persist"; readonly state: TimelineState }
  /** Write WAL (not yet durable), then call written(). */
  | { readonly kind: "write"; readonly lsn: Lsn; readonly bytes: Uint8Array }
  /** Cut the WAL durably at an LSN, zeros behind it, then call truncated(). */
  | { readonly kind: "truncate"; readonly lsn: Lsn }
  /** Make all written WAL durable now, then call flushed(). */
  | { readonly kind: "flush" }
  /** Send to the proposer that the message came from. */
  | { readonly kind: "reply"; readonly message: AcceptorMessage }
  /** Send appendResponse() to that proposer once what is written so far is durable. */
  | { readonly kind: "acknowledge" };

/** The state machine of one timeline. */
export class Acceptor {
  readonly #nodeId: number;
  /** What the control file holds. */
  #state: TimelineState;
  /** End of the WAL written, perhaps in the middle of a record. */
  #writeLsn: Lsn;
  /** End of the last whole record written. Invariant: flushLsn <= recordLsn <= writeLsn. */
  #recordLsn: Lsn;
  /** End of the last whole record that is durable. Invariant: commitLsn <= flushLsn. */
  #flushLsn: Lsn;
  /** Invariant: state.commitLsn <= commitLsn; never falls. */
  #commitLsn: Lsn;
  #peerHorizonLsn: Lsn;
  #remoteConsistentLsn: Lsn;
  #backupLsn: Lsn;
  /**
   * Highest commit LSN told by a proposer that we followed, perhaps beyond our WAL. It outlives
   * that proposer: every later one has the same WAL up to there, and we hold a prefix of theirs.
   */
  #proposerCommitLsn: Lsn = INVALID_LSN;

  /**
   * @param flushLsn end of the last whole record of the durable WAL on disk
   * @throws Corrupt if WAL that was committed is missing
   */
  constructor(nodeId: number, state: TimelineState, flushLsn: Lsn) {
    if (flushLsn < state.commitLsn) {
      throw new Corrupt(
        `Cannot open timeline ${state.timelineId}: its WAL ends at ${formatLsn(flushLsn)}, ` +
          `but it is committed up to ${formatLsn(state.commitLsn)}`,
      );
    }
    this.#nodeId = nodeId;
    this.#state = state;
    this.#writeLsn = this.#recordLsn = this.#flushLsn = flushLsn;
    this.#commitLsn = state.commitLsn;
    this.#peerHorizonLsn = state.peerHorizonLsn;
    this.#remoteConsistentLsn = state.remoteConsistentLsn;
    this.#backupLsn = state.backupLsn;
  }

  /** What is durable in the control file. */
  get state(): TimelineState {
    return this.#state;
  }
  /** Highest term voted for or told of. */
  get term(): Term {
    return this.#state.term;
  }
  get writeLsn(): Lsn {
    return this.#writeLsn;
  }
  get flushLsn(): Lsn {
    return this.#flushLsn;
  }
  get commitLsn(): Lsn {
    return this.#commitLsn;
  }
  get peerHorizonLsn(): Lsn {
    return this.#peerHorizonLsn;
  }
  get remoteConsistentLsn(): Lsn {
    return this.#remoteConsistentLsn;
  }
  get backupLsn(): Lsn {
    return this.#backupLsn;
  }
  /** Term of the last durable record. */
  get lastLogTerm(): Term {
    return lastLogTerm(this.#state.termHistory, this.#flushLsn);
  }

  /** Whether this log follows the proposer of `term`: it was elected here and nobody came after. */
  follows(term: Term): boolean {
    return this.#state.term === term && this.#lastHistoryTerm() === term;
  }

  /**
   * Where WAL ends that may be served now: to everybody what is committed, to a proposer that
   * recovers, or to a peer, everything durable of this log, as long as it is that of the term.
   * Throws Conflict when that term is over, or its log not yet here.
   */
  servableEnd(term: Term | undefined): Lsn {
    if (term === undefined) return this.#commitLsn;
    if (this.follows(term)) return this.#flushLsn;
    throw new Conflict(
      `Cannot stream the WAL of term ${term}: the term is ${this.#state.term}, the log is of ` +
        `${this.#lastHistoryTerm()}`,
    );
  }

  /** Handles a proposer's message. Throws Conflict, BadRequest or Corrupt to refuse it. */
  handle(message: ProposerMessage): Effect[] {
    switch (message.kind) {
      case "append":
        return this.#append(message);
      case "greeting":
        return this.#greeting(message);
      case "vote":
        return this.#vote(message);
      case "elected":
        return this.#elected(message);
    }
  }

  #greeting(message: ProposerGreeting): Effect[] {
    const state = this.#state;
    if (message.tenantId !== state.tenantId || message.timelineId !== state.timelineId) {
      throw new BadRequest(
        `Cannot greet timeline ${state.tenantId}/${state.timelineId}: the proposer writes ` +
          `${message.tenantId}/${message.timelineId}`,
      );
    }
    if (pgMajorOf(message.pgVersionNum) !== pgMajorOf(state.pgVersionNum)) {
      throw new Conflict(
        `Cannot take WAL of PostgreSQL ${message.pgVersionNum}: timeline ${state.timelineId} ` +
          `is of ${state.pgVersionNum}`,
      );
    }
    if (message.walSegmentSize !== state.walSegmentSize) {
      throw new Conflict(
        `Cannot take WAL in segments of ${message.walSegmentSize} bytes: timeline ` +
          `${state.timelineId} has segments of ${state.walSegmentSize}`,
      );
    }
    if (state.systemId !== 0n && message.systemId !== 0n && state.systemId !== message.systemId) {
      throw new Conflict(
        `Cannot take WAL of system ${message.systemId}: timeline ${state.timelineId} ` +
          `belongs to ${state.systemId}`,
      );
    }
    return this.#adopt(message);
  }

  /** Learns system id and a newer membership, then greets back. */
  #adopt(message: ProposerGreeting): Effect[] {
    const state = this.#state;
    const newer = this.#isNewer(message.membership);
    const membership = newer ? message.membership : state.membership;
    const systemId = state.systemId === 0n ? message.systemId : state.systemId;
    const greeting: AcceptorGreeting = {
      kind: "greeting",
      nodeId: this.#nodeId,
      membership,
      term: state.term,
    };
    const reply: Effect = { kind: "reply", message: greeting };
    if (!newer && systemId === state.systemId) return [reply];
    return [this.#persist({ membership, systemId, pgVersionNum: message.pgVersionNum }), reply];
  }

  /** Whether to go over to a membership. Throws Conflict for one that is not ours to adopt. */
  #isNewer(membership: MembershipConfiguration): boolean {
    if (membership.generation <= this.#state.membership.generation) return false;
    if (isMember(membership, this.#nodeId)) return true;
    throw new Conflict(
      `Cannot join membership generation ${membership.generation} of timeline ` +
        `${this.#state.timelineId}: safekeeper ${this.#nodeId} is not a member`,
    );
  }

  /**
   * Goes over to a membership, unless a newer one is in force here. Behind it no WAL counts that
   * was not durable: whoever changes the members goes by where the log ends then, and what was
   * taken of a proposer that has not heard of the change could still be acknowledged to it. Throws
   * Conflict for one that leaves us out, or is another one of the same generation.
   */
  switchMembership(membership: MembershipConfiguration): Effect[] {
    const mine = this.#state.membership;
    if (membership.generation === mine.generation && !hasSameMembers(membership, mine)) {
      throw new Conflict(
        `Cannot change the members of timeline ${this.#state.timelineId}: generation ` +
          `${mine.generation} has others`,
      );
    }
    const newer = this.#isNewer(membership);
    const pending = this.#flushPending();
    return newer ? [...pending, this.#persist({ membership })] : pending;
  }

  #vote(message: VoteRequest): Effect[] {
    this.#checkGeneration(message.generation, "a vote request");
    const effects: Effect[] = [];
    // The candidate compares logs by what is durable: nothing may be pending behind the answer.
    effects.push(...this.#flushPending());
    const flushLsn = this.#recordLsn;
    const voteGiven = this.#state.term < message.term;
    const term = voteGiven ? message.term : this.#state.term;
    if (voteGiven) effects.push(this.#persist({ term }));
    effects.push({
      kind: "reply",
      message: {
        kind: "vote",
        generation: this.#state.membership.generation,
        term,
        voteGiven,
        flushLsn,
        truncateLsn: this.#peerHorizonLsn,
        termHistory: termHistoryUpTo(this.#state.termHistory, flushLsn),
      },
    });
    return effects;
  }

  #elected(message: ProposerElected): Effect[] {
    this.#checkGeneration(message.generation, "an election");
    if (message.term < this.#state.term) return [];
    const entry = message.termHistory.at(-1);
    if (entry?.term !== message.term) {
      throw new BadRequest(
        `Cannot follow the proposer of term ${message.term}: its history is ` +
          formatTermHistory(message.termHistory),
      );
    }
    const start = this.#streamingStart(message);
    if (start !== message.startStreamingAt) {
      throw new Conflict(
        `Cannot follow the proposer of term ${message.term} from ` +
          `${formatLsn(message.startStreamingAt)}: the logs part at ${formatLsn(start)}`,
      );
    }
    // A proposer that lost committed WAL: refusing it is all that stands between it and the data.
    if (start < this.#commitLsn) {
      throw new Conflict(
        `Cannot truncate timeline ${this.#state.timelineId} to ${formatLsn(start)}: it is ` +
          `committed up to ${formatLsn(this.#commitLsn)}`,
      );
    }
    const effects: Effect[] = [];
    if (this.#state.term < message.term) effects.push(this.#persist({ term: message.term }));
    effects.push({ kind: "truncate", lsn: start });
    effects.push(this.#persist({ term: message.term, termHistory: message.termHistory }));
    return effects;
  }

  /** Where this log and the proposer's part. Throws Corrupt if they have nothing in common. */
  #streamingStart(message: ProposerElected): Lsn {
    const mine = termHistoryUpTo(this.#state.termHistory, this.#flushLsn);
    const common = highestCommonPoint(message.termHistory, mine, this.#flushLsn);
    if (common !== undefined) return common.lsn;
    const first = message.termHistory[0]!.lsn;
    if (first === this.#state.timelineStartLsn) return first;
    throw new Conflict(
      `Cannot follow the proposer of term ${message.term}: its WAL ` +
        `${formatTermHistory(message.termHistory)} does not begin where timeline ` +
        `${this.#state.timelineId} does (${formatLsn(this.#state.timelineStartLsn)})`,
    );
  }

  #append(message: AppendRequest): Effect[] {
    this.#checkGeneration(message.generation, "WAL");
    if (message.term < this.#state.term) {
      return [{ kind: "reply", message: this.#staleTermResponse() }];
    }
    if (!this.follows(message.term)) {
      throw new Conflict(
        `Cannot take WAL of term ${message.term} before its proposer is elected here: the term ` +
          `is ${this.#state.term}`,
      );
    }
    if (message.wal.length > 0 && message.beginLsn !== this.#writeLsn) {
      throw new Conflict(
        `Cannot take WAL that starts at ${formatLsn(message.beginLsn)}: it ends here at ` +
          formatLsn(this.#writeLsn),
      );
    }
    this.#peerHorizonLsn = maxLsn(this.#peerHorizonLsn, message.truncateLsn);
    const effects: Effect[] = [];
    if (message.wal.length > 0) {
      effects.push({ kind: "write", lsn: message.beginLsn, bytes: message.wal });
    }
    this.#proposerCommitLsn = maxLsn(this.#proposerCommitLsn, message.commitLsn);
    this.#advanceCommit();
    // From here on this term has committed something of its own: a restart should know, so that
    // finding the end of the WAL starts behind the election.
    const termStart = this.#state.termHistory.at(-1)!.lsn;
    if (this.#commitLsn >= termStart && this.#state.commitLsn < termStart) {
      effects.push(this.#persist({}));
    }
    effects.push({ kind: "acknowledge" });
    return effects;
  }

  #staleTermResponse(): AppendResponse {
    return {
      kind: "append",
      generation: this.#state.membership.generation,
      term: this.#state.term,
      flushLsn: INVALID_LSN,
      commitLsn: INVALID_LSN,
      hotStandby: { time: 0, xmin: 0, catalogXmin: 0 },
    };
  }

  /** What acknowledges all WAL that is durable now. */
  appendResponse(hotStandby: HotStandbyFeedback): AppendResponse {
    return {
      kind: "append",
      generation: this.#state.membership.generation,
      term: this.#state.term,
      flushLsn: this.#flushLsn,
      commitLsn: this.#commitLsn,
      hotStandby,
    };
  }

  /**
   * Raises the term without an election, so that the proposer of a lower one is shut out. Throws
   * BadRequest behind the last term that there is.
   */
  bumpTerm(term: Term | undefined): Effect[] {
    const raised = term ?? this.#state.term + 1;
    if (!Number.isSafeInteger(raised)) {
      throw new BadRequest(`Cannot raise the term: current value is ${this.#state.term}`);
    }
    return raised > this.#state.term ? [this.#persist({ term: raised })] : [];
  }

  /**
   * A peer whose last record is of `lastLogTerm` knows that WAL up to `lsn` is committed. If ours
   * is of the same term, both logs are parts of one, and it is so here too, as far as ours goes.
   */
  peerCommitted(lastLogTerm: Term, lsn: Lsn): void {
    if (lastLogTerm !== this.lastLogTerm) return;
    this.#proposerCommitLsn = maxLsn(this.#proposerCommitLsn, lsn);
    this.#advanceCommit();
  }

  /** Remembers what a pageserver has durably. Never falls. */
  remoteConsistent(lsn: Lsn): void {
    this.#remoteConsistentLsn = maxLsn(this.#remoteConsistentLsn, lsn);
  }

  /** Remembers that all whole segments before `lsn` are in remote storage. Never falls. */
  backedUp(lsn: Lsn): void {
    this.#backupLsn = maxLsn(this.#backupLsn, lsn);
  }

  /** The effect that makes what is known of the WAL in remote storage durable. */
  amendBackup(changes: Partial<Pick<TimelineState, "partialBackup" | "offloadedLsn">>): Effect {
    return this.#persist(changes);
  }

  /**
   * The effect that brings the control file up to date with what is only in memory; undefined if it
   * is.
   */
  checkpoint(): Effect | undefined {
    const s = this.#state;
    const current = s.commitLsn === this.#commitLsn && s.peerHorizonLsn === this.#peerHorizonLsn &&
      s.remoteConsistentLsn === this.#remoteConsistentLsn && s.backupLsn === this.#backupLsn;
    return current ? undefined : this.#persist({});
  }

  /** Completion of "persist". */
  persisted(state: TimelineState): void {
    assert(state.term >= this.#state.term, "the term never falls");
    assert(state.commitLsn >= this.#state.commitLsn, "the commit LSN never falls");
    this.#state = state;
  }

  /** Completion of "write": the WAL ends at writeLsn, its last whole record at recordLsn. */
  written(writeLsn: Lsn, recordLsn: Lsn): void {
    assert(writeLsn >= this.#writeLsn, "writing extends the WAL");
    assert(recordLsn >= this.#recordLsn && recordLsn <= writeLsn, "records end where WAL is");
    this.#writeLsn = writeLsn;
    this.#recordLsn = recordLsn;
  }

  /** Completion of a flush, asked for or not: whole records up to `lsn` are durable. */
  flushed(lsn: Lsn): void {
    assert(lsn <= this.#recordLsn, "only what was written is flushed");
    this.#flushLsn = maxLsn(this.#flushLsn, lsn);
    this.#advanceCommit();
  }

  /** Completion of "truncate": the WAL ends at `lsn`, durably. */
  truncated(lsn: Lsn): void {
    assert(lsn >= this.#commitLsn, "committed WAL is never truncated");
    assert(lsn <= this.#flushLsn, "truncation never extends the WAL");
    this.#writeLsn = this.#recordLsn = this.#flushLsn = lsn;
  }

  #advanceCommit(): void {
    this.#commitLsn = maxLsn(this.#commitLsn, minLsn(this.#proposerCommitLsn, this.#flushLsn));
  }

  #flushPending(): Effect[] {
    return this.#recordLsn > this.#flushLsn ? [{ kind: "flush" }] : [];
  }

  #lastHistoryTerm(): Term {
    return this.#state.termHistory.at(-1)?.term ?? 0;
  }

  #checkGeneration(generation: number, what: string): void {
    const mine = this.#state.membership.generation;
    if (generation === mine) return;
    throw new Conflict(
      `Cannot take ${what} of membership generation ${generation}: timeline ` +
        `${this.#state.timelineId} is in generation ${mine}`,
    );
  }

  #persist(changes: Partial<TimelineState>): Effect {
    const state = {
      ...this.#state,
      commitLsn: this.#commitLsn,
      peerHorizonLsn: this.#peerHorizonLsn,
      remoteConsistentLsn: this.#remoteConsistentLsn,
      backupLsn: this.#backupLsn,
      ...changes,
    };
    return { kind: "persist", state };
  }
}
