/**
 * What must hold after every step of a schedule, whatever happens:
 *
 *   - a byte that any proposer ever called committed never changes, and is durable on a majority
 *   - one proposer wins a term, by votes of a majority, and a safekeeper votes once in it
 *   - a term starts at the same place in every history
 *   - an elected proposer's log holds every earlier commit, and starts at or past it
 *   - commit LSNs never go back; a safekeeper's never passes what is durable there, or committed
 *   - terms and commits on disk never fall
 *   - what is acknowledged is durable
 *
 * Logs are compared only where they changed, so that this costs little.
 */
import type { AcceptorMessage } from "../../libs/safekeeper_protocol/messages.ts";
import type { Term } from "../../libs/safekeeper_protocol/term_history.ts";
import { formatLsn, type Lsn, maxLsn } from "../../libs/utils/lsn.ts";
import type { TimelineState } from "../../safekeeper/timeline_state.ts";
import type { SimEndpoint } from "./endpoint.ts";
import { LOG_BYTES_MAX, LOG_START, type LogBytes, lsnAt } from "./model_wal.ts";
import type { SimNode } from "./node.ts";

/** One of the rules is broken. */
export class Violation extends Error {
  override readonly name = "Violation";
}

function must(condition: boolean, why: () => string): void {
  if (!condition) throw new Violation(why());
}

function voteKey(node: number, term: Term): number {
  return node * 4294967296 + term;
}

/** What was last seen of a safekeeper. */
interface Seen {
  state: TimelineState | undefined;
  incarnation: number;
  commitLsn: Lsn;
  /** Its durable log equals the committed one up to here. */
  agreed: number;
}

interface Winner {
  /** A host that adopts this Postgres goes on for it. */
  readonly postgres: number;
  readonly startLsn: Lsn;
  commitLsn: Lsn;
}

/** See the head of the file. */
export class Oracle {
  /** Bytes of the log that are committed. */
  committedBytes = 0;
  /** How often the committed log grew. */
  commits = 0;
  elections = 0;
  readonly #committed: LogBytes = new Uint8Array(LOG_BYTES_MAX);
  readonly #seen: Seen[] = [];
  readonly #termStarts = new Map<Term, Lsn>();
  /** Which Postgres won a term, where, and how far it has committed. */
  readonly #winners = new Map<Term, Winner>();
  /** Votes, as voteKey() names them, and in which life of the timeline there they were given. */
  readonly #votes = new Map<number, number>();
  /** How often a safekeeper has dropped the timeline. */
  readonly #lives: number[] = [];

  /** A safekeeper answers a proposer, or whoever changes the members. */
  answered(node: SimNode, message: AcceptorMessage | { kind: "log"; flushLsn: Lsn }): void {
    if (message.kind === "greeting") return;
    must(
      message.flushLsn <= node.disk.durableEnd,
      () => `safekeeper ${node.id} says that WAL is durable before it is`,
    );
    if (message.kind !== "vote" || !message.voteGiven) return;
    const vote = voteKey(node.id, message.term);
    const life = this.#lives[node.id] ?? 0;
    must(
      this.#votes.get(vote) !== life,
      () => `safekeeper ${node.id} voted twice in term ${message.term}`,
    );
    this.#votes.set(vote, life);
  }

  /** A safekeeper has removed the timeline: what it was there means nothing any more. */
  dropped(node: SimNode): void {
    this.#lives[node.id] = (this.#lives[node.id] ?? 0) + 1;
    delete this.#seen[node.id];
  }

  /** A proposer has won. */
  elected(endpoint: SimEndpoint): void {
    const { term, startLsn } = endpoint.proposer;
    this.elections++;
    const { generation, members, newMembers } = endpoint.proposer.membership;
    const lists = generation === 0
      ? [endpoint.ids]
      : [members, ...(newMembers === undefined ? [] : [newMembers])]
        .map((list) => list.map((member) => member.id));
    for (const list of lists) {
      const votes = list.filter((id) => this.#votes.has(voteKey(id, term))).length;
      must(votes * 2 > list.length, () => `term ${term} was won with ${votes} votes`);
    }
    must(!this.#winners.has(term), () => `two proposers won term ${term}`);
    this.#winners.set(term, { postgres: endpoint.postgres, startLsn, commitLsn: LOG_START });
    // It may learn of its victory late: commits of later terms are not its business
    let earlier: Lsn = LOG_START;
    for (const [other, { commitLsn }] of this.#winners) {
      if (other < term) earlier = maxLsn(earlier, commitLsn);
    }
    must(
      startLsn >= earlier,
      () => `term ${term} starts at ${formatLsn(startLsn)}, below the commit ${formatLsn(earlier)}`,
    );
    this.#compare(endpoint.log, 0, earlier - LOG_START, `the log of the winner of term ${term}`);
  }

  #compare(log: LogBytes, from: number, to: number, what: string): void {
    for (let i = from; i < to; i++) {
      if (log[i] !== this.#committed[i]) {
        throw new Violation(`${what} differs at ${formatLsn(lsnAt(i))} from what was committed`);
      }
    }
  }

  /** A proposer calls its log committed up to `lsn`; it has done so up to `before`. */
  claimed(endpoint: SimEndpoint, before: Lsn, lsn: Lsn): void {
    const { term } = endpoint.proposer;
    const who = `the proposer of term ${term}`;
    must(lsn > before, () => `${who} moved its commit back`);
    const winner = this.#winners.get(term);
    must(
      winner?.postgres === endpoint.postgres,
      () => `${who} commits in a term that another one won`,
    );
    winner!.commitLsn = maxLsn(winner!.commitLsn, lsn);
    for (const [later, { startLsn }] of this.#winners) {
      must(
        later <= term || startLsn >= lsn,
        () => `${who} commits ${formatLsn(lsn)} behind the start of term ${later}`,
      );
    }
    const from = Math.max(0, before - LOG_START);
    const to = lsn - LOG_START;
    this.#compare(endpoint.log, from, Math.min(to, this.committedBytes), `the log of ${who}`);
    if (to <= this.committedBytes) return;
    this.#committed.set(endpoint.log.subarray(this.committedBytes, to), this.committedBytes);
    this.committedBytes = to;
    this.commits++;
  }

  /** Looks at everything that a step may have changed. `members` are whom a majority is of. */
  check(nodes: readonly SimNode[], members: readonly number[]): void {
    let holders = 0;
    for (const node of nodes) {
      const seen = this.#seen[node.id] ??= {
        state: undefined,
        incarnation: 0,
        commitLsn: LOG_START,
        agreed: 0,
      };
      if (this.#holdsCommitted(node, seen) && members.includes(node.id)) holders++;
      if (node.disk.control !== seen.state) this.#checkState(node, seen);
      this.#checkPositions(node, seen);
    }
    if (holders * 2 <= members.length) {
      throw new Violation(
        `what is committed up to ${formatLsn(lsnAt(this.committedBytes))} is durable on ` +
          `${holders} of ${members.length} safekeepers`,
      );
    }
  }

  #holdsCommitted(node: SimNode, seen: Seen): boolean {
    const { disk } = node;
    seen.agreed = Math.min(seen.agreed, disk.changedFrom);
    disk.changedFrom = Infinity;
    const { durable } = disk;
    while (
      seen.agreed < this.committedBytes && durable[seen.agreed] === this.#committed[seen.agreed]
    ) {
      seen.agreed++;
    }
    return seen.agreed >= this.committedBytes;
  }

  #checkState(node: SimNode, seen: Seen): void {
    const { control } = node.disk;
    if (control === undefined) return;
    const before = seen.state ?? control;
    seen.state = control;
    must(control.term >= before.term, () => `the term of safekeeper ${node.id} fell`);
    must(control.commitLsn >= before.commitLsn, () => `the commit of safekeeper ${node.id} fell`);
    if (control.termHistory === before.termHistory && before !== control) return;
    for (const { term, lsn } of control.termHistory) {
      const start = this.#termStarts.get(term);
      must(start === undefined || start === lsn, () => `term ${term} starts at two places`);
      this.#termStarts.set(term, lsn);
    }
  }

  #checkPositions(node: SimNode, seen: Seen): void {
    const { acceptor, disk } = node;
    if (acceptor === undefined) return;
    const { commitLsn, flushLsn } = acceptor;
    const who = `safekeeper ${node.id}`;
    if (seen.incarnation !== node.incarnation) {
      seen.incarnation = node.incarnation;
      seen.commitLsn = disk.control!.commitLsn;
    }
    must(flushLsn <= disk.durableEnd, () => `${who} calls durable what is not synced`);
    must(commitLsn >= seen.commitLsn, () => `${who} moved its commit back`);
    seen.commitLsn = commitLsn;
    const commit = commitLsn - LOG_START;
    must(commitLsn <= flushLsn, () => `${who} commits what is not durable`);
    must(commit <= this.committedBytes, () => `${who} commits what nobody committed`);
    must(commit <= seen.agreed, () => `the log of ${who} differs from what was committed`);
  }
}
