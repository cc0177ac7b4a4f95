/**
 * A small seeded simulation of consensus: three acceptors, any number of proposers that campaign,
 * reconnect, stream and go stale, crashes at every effect that lose what was not synced. After each
 * step: one vote a term, terms never fall, and every committed byte is durable on a majority and in
 * every log that claims it. A failure prints its seed.
 */
import assert from "node:assert/strict";
import type {
  AcceptorMessage,
  AppendResponse,
  VoteResponse,
} from "../libs/safekeeper_protocol/messages.ts";
import {
  highestCommonPoint,
  lastLogTerm,
  type TermHistory,
} from "../libs/safekeeper_protocol/term_history.ts";
import { Conflict } from "../libs/utils/errors.ts";
import type { Lsn } from "../libs/utils/lsn.ts";
import type { Acceptor } from "./acceptor.ts";
import {
  CommittedLog,
  grown,
  LOG_START,
  ModelAcceptor,
  randomRecords,
  seededRandom,
  simulate,
  someTimelineState,
} from "./acceptor_fixture.ts";

const ACCEPTORS = 3;
const SEEDS = 300;
const STEPS = 250;

class Crash extends Error {
  constructor(readonly node: Node) {
    super("crash");
  }
}

/** An acceptor that may crash before each of its effects. */
class Node extends ModelAcceptor {
  readonly votes = new Set<number>();

  send(message: Parameters<Acceptor["handle"]>[0]): AcceptorMessage[] {
    const replies: AcceptorMessage[] = [];
    for (const effect of this.acceptor.handle(message)) {
      if (this.random() < 0.01) throw new Crash(this);
      const reply = this.perform(effect);
      if (reply !== undefined) replies.push(reply);
    }
    return replies;
  }
}

interface Link {
  epoch: number;
  nextLsn: Lsn;
}

interface Proposer {
  readonly term: number;
  readonly start: Lsn;
  readonly history: TermHistory;
  log: Uint8Array;
  commit: Lsn;
  readonly links: (Link | undefined)[];
  readonly acked: Lsn[];
}

class Simulation {
  readonly random: () => number;
  readonly nodes: Node[];
  proposers: Proposer[] = [];
  readonly committed = new CommittedLog();
  commits = 0;

  constructor(seed: number) {
    this.random = seededRandom(seed);
    const state = someTimelineState();
    this.nodes = Array.from({ length: ACCEPTORS }, (_, i) => new Node(i, state, this.random));
  }

  pick<T>(items: readonly T[]): T | undefined {
    return items[Math.floor(this.random() * items.length)];
  }

  step(): void {
    const roll = this.random();
    const node = this.pick(this.nodes)!;
    // Mostly the newest; a stale one must not do harm.
    const proposer = this.random() < 0.8 ? this.proposers.at(-1) : this.pick(this.proposers);
    try {
      if (roll < 0.01 || proposer === undefined) this.campaign();
      else if (roll < 0.03) node.restart();
      else if (roll < 0.2) node.flush();
      else if (roll < 0.3) this.connect(proposer, node);
      else if (roll < 0.33) this.intrude(proposer, node);
      else if (roll < 0.45) this.generate(proposer);
      else if (roll < 0.75) this.stream(proposer, node);
      else this.learn(proposer, node);
    } catch (thrown) {
      if (thrown instanceof Conflict && !thrown.message.includes("truncate")) {
        delete proposer?.links[node.id]; // refused: a real connection ends here
      } else if (thrown instanceof Crash) {
        thrown.node.restart();
      } else throw thrown;
    }
    this.check();
  }

  vote(node: Node, term: number): VoteResponse {
    const reply = node.send({ kind: "vote", generation: 0, term })[0] as VoteResponse;
    if (reply.voteGiven) {
      assert.ok(!node.votes.has(term), `acceptor ${node.id} voted twice in term ${term}`);
      node.votes.add(term);
    }
    return reply;
  }

  campaign(): void {
    const asked = this.nodes.filter(() => this.random() < 0.8);
    const term = Math.max(0, ...asked.map((node) => node.acceptor.state.term)) + 1;
    const votes = asked.map((node) => [node, this.vote(node, term)] as const)
      .filter(([, vote]) => vote.voteGiven);
    if (votes.length * 2 <= ACCEPTORS) return;
    const rank = (vote: VoteResponse) => lastLogTerm(vote.termHistory, vote.flushLsn);
    const [donor, vote] = votes.reduce((a, b) =>
      rank(b[1]) > rank(a[1]) || (rank(b[1]) === rank(a[1]) && b[1].flushLsn > a[1].flushLsn)
        ? b
        : a
    );
    assert.ok(this.proposers.every((p) => p.term !== term), `two winners of term ${term}`);
    this.proposers = [...this.proposers.slice(-2), {
      term,
      start: vote.flushLsn,
      history: [...vote.termHistory, { term, lsn: vote.flushLsn }],
      log: donor.log.slice(0, vote.flushLsn - LOG_START),
      commit: LOG_START,
      links: [],
      acked: [],
    }];
  }

  /** The handshake of a (re)connection of an elected proposer. */
  connect(proposer: Proposer, node: Node): void {
    delete proposer.links[node.id];
    const vote = this.vote(node, proposer.term);
    if (vote.term > proposer.term) return;
    const common = highestCommonPoint(proposer.history, vote.termHistory, vote.flushLsn);
    const startStreamingAt = common?.lsn ?? proposer.history[0]!.lsn;
    node.send({
      kind: "elected",
      generation: 0,
      term: proposer.term,
      startStreamingAt,
      termHistory: proposer.history,
    });
    proposer.links[node.id] = { epoch: node.epoch, nextLsn: startStreamingAt };
    proposer.acked[node.id] = startStreamingAt;
  }

  generate(proposer: Proposer): void {
    proposer.log = grown(proposer.log, randomRecords(this.random));
  }

  /** A confused proposer streams without a handshake, often from the right position. */
  intrude(proposer: Proposer, node: Node): void {
    const { writeLsn, flushLsn } = node.acceptor;
    const nextLsn = this.random() < 0.7 ? writeLsn : flushLsn;
    if (nextLsn > LOG_START + proposer.log.length) return;
    const link = proposer.links[node.id];
    proposer.links[node.id] = { epoch: node.epoch, nextLsn };
    try {
      this.stream(proposer, node);
    } finally {
      if (link === undefined) delete proposer.links[node.id];
      else proposer.links[node.id] = link;
    }
  }

  stream(proposer: Proposer, node: Node): void {
    const link = proposer.links[node.id];
    if (link === undefined || link.epoch !== node.epoch) return;
    const at = link.nextLsn - LOG_START;
    const wal = proposer.log.subarray(at, at + 1 + Math.floor(this.random() * 30));
    const end = (link.nextLsn + wal.length) as Lsn;
    node.send({
      kind: "append",
      generation: 0,
      term: proposer.term,
      beginLsn: link.nextLsn,
      endLsn: end,
      commitLsn: proposer.commit,
      truncateLsn: LOG_START,
      wal,
    });
    link.nextLsn = end;
  }

  /** The proposer gets an acknowledgement and moves its commit LSN. */
  learn(proposer: Proposer, node: Node): void {
    const link = proposer.links[node.id];
    if (link === undefined || link.epoch !== node.epoch) return;
    const response: AppendResponse = node.acceptor.appendResponse({
      time: 0,
      xmin: 0,
      catalogXmin: 0,
    });
    if (response.term !== proposer.term) return;
    proposer.acked[node.id] = response.flushLsn;
    const flushed = this.nodes.map((n) => proposer.acked[n.id] ?? 0)
      .filter((lsn) => lsn >= proposer.start).sort((a, b) => b - a);
    const quorum = flushed[Math.floor(ACCEPTORS / 2)];
    if (quorum === undefined || quorum <= proposer.commit) return;
    proposer.commit = quorum as Lsn;
    this.committed.claim(proposer.log, proposer.commit);
    this.commits++;
  }

  check(): void {
    const { bytes } = this.committed;
    for (const node of this.nodes) {
      const { commitLsn, flushLsn, writeLsn } = node.acceptor;
      assert.ok(commitLsn <= flushLsn && flushLsn <= writeLsn);
      assert.ok(flushLsn - LOG_START <= node.durableBytes, "acknowledged what is not durable");
      const length = commitLsn - LOG_START;
      assert.ok(length <= bytes.length, "an acceptor claims too much as committed");
      assert.deepEqual(node.log.subarray(0, length), bytes.subarray(0, length));
    }
    this.committed.check(this.nodes);
  }
}

Deno.test("acceptors lose no committed byte over random elections, crashes and stale proposers", () => {
  const runs = simulate(SEEDS, STEPS, (seed) => new Simulation(seed));
  const commits = runs.reduce((sum, run) => sum + run.commits, 0);
  assert.ok(commits > SEEDS, `the schedules are too harsh to commit anything (${commits})`);
});
