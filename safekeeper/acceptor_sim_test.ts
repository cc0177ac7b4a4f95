/**
 * A small seeded simulation of consensus: three acceptors on model disks, any number of proposers
 * that campaign, reconnect, stream and go stale, crashes at every effect that lose what was not
 * synced. After each step: one vote a term, terms never fall, and every committed byte is durable
 * on a majority and in every log that claims it. A failure prints its seed.
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
import { newTenantId, newTimelineId } from "../libs/utils/id.ts";
import type { Lsn } from "../libs/utils/lsn.ts";
import { Acceptor } from "./acceptor.ts";
import { decodeTimelineState, encodeTimelineState } from "./control_file.ts";
import { newTimelineState, type TimelineState } from "./timeline_state.ts";

const START = 0x1000028 as Lsn;
const RECORD_BYTES = 8;
const ACCEPTORS = 3;
const SEEDS = 300;
const STEPS = 250;

function randomOf(seed: number): () => number {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** End of the last whole record in a log of `bytes` bytes. */
function recordEnd(bytes: number): Lsn {
  return (START + bytes - bytes % RECORD_BYTES) as Lsn;
}

class Crash extends Error {
  constructor(readonly node: Node) {
    super("crash");
  }
}

/** One acceptor with its disk: what is durable, what is only in the page cache. */
class Node {
  acceptor!: Acceptor;
  control: Uint8Array;
  log = new Uint8Array(0);
  durableBytes = 0;
  epoch = 0;
  readonly votes = new Set<number>();
  #termSeen = 0;

  constructor(readonly id: number, state: TimelineState, readonly random: () => number) {
    this.control = encodeTimelineState(state);
    this.restart();
  }

  /** Comes back with what was durable and a random part of what was not. */
  restart(): void {
    const kept = this.durableBytes +
      Math.floor(this.random() * (this.log.length - this.durableBytes + 1));
    const end = recordEnd(kept);
    this.log = this.log.slice(0, end - START);
    this.durableBytes = this.log.length; // opening the storage syncs what it found
    this.acceptor = new Acceptor(this.id, decodeTimelineState(this.control, "model"), end);
    assert.ok(this.acceptor.state.term >= this.#termSeen, "a durable term fell");
    this.epoch++;
  }

  /** Runs a message's effects; may crash before each of them. */
  send(message: Parameters<Acceptor["handle"]>[0], crashes: boolean): AcceptorMessage[] {
    const replies: AcceptorMessage[] = [];
    for (const effect of this.acceptor.handle(message)) {
      if (crashes && this.random() < 0.01) throw new Crash(this);
      switch (effect.kind) {
        case "persist":
          this.control = encodeTimelineState(effect.state);
          this.#termSeen = effect.state.term;
          this.acceptor.persisted(effect.state);
          break;
        case "truncate":
          this.log = this.log.slice(0, effect.lsn - START);
          this.durableBytes = this.log.length;
          this.acceptor.truncated(effect.lsn);
          break;
        case "write": {
          assert.equal(effect.lsn, START + this.log.length);
          const grown = new Uint8Array(this.log.length + effect.bytes.length);
          grown.set(this.log);
          grown.set(effect.bytes, this.log.length);
          this.log = grown;
          this.acceptor.written((START + grown.length) as Lsn, recordEnd(grown.length));
          break;
        }
        case "flush":
          this.flush();
          break;
        case "reply":
          replies.push(effect.message);
          break;
        case "acknowledge":
          break; // the simulation asks for responses after its own flushes
      }
    }
    return replies;
  }

  flush(): void {
    this.durableBytes = this.log.length;
    this.acceptor.flushed(recordEnd(this.log.length));
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
  committed = new Uint8Array(0);
  commits = 0;

  constructor(seed: number) {
    this.random = randomOf(seed);
    const state = newTimelineState({
      tenantId: newTenantId(),
      timelineId: newTimelineId(),
      pgVersionNum: 170011,
      walSegmentSize: 1 << 24,
      startLsn: START,
    });
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

  send(node: Node, message: Parameters<Acceptor["handle"]>[0]): AcceptorMessage[] {
    return node.send(message, true);
  }

  vote(node: Node, term: number): VoteResponse {
    const reply = this.send(node, { kind: "vote", generation: 0, term })[0] as VoteResponse;
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
      log: donor.log.slice(0, vote.flushLsn - START),
      commit: START,
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
    this.send(node, {
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
    const records = 1 + Math.floor(this.random() * 4);
    const grown = new Uint8Array(proposer.log.length + records * RECORD_BYTES);
    grown.set(proposer.log);
    for (let at = proposer.log.length; at < grown.length; at++) {
      grown[at] = Math.floor(this.random() * 256);
    }
    proposer.log = grown;
  }

  /** A confused proposer streams without a handshake, often from the right position. */
  intrude(proposer: Proposer, node: Node): void {
    const { writeLsn, flushLsn } = node.acceptor;
    const nextLsn = this.random() < 0.7 ? writeLsn : flushLsn;
    if (nextLsn > START + proposer.log.length) return;
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
    const at = link.nextLsn - START;
    const wal = proposer.log.subarray(at, at + 1 + Math.floor(this.random() * 30));
    const end = (link.nextLsn + wal.length) as Lsn;
    this.send(node, {
      kind: "append",
      generation: 0,
      term: proposer.term,
      beginLsn: link.nextLsn,
      endLsn: end,
      commitLsn: proposer.commit,
      truncateLsn: START,
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
    const claimed = proposer.log.subarray(0, quorum - START);
    const shared = Math.min(claimed.length, this.committed.length);
    assert.deepEqual(claimed.subarray(0, shared), this.committed.subarray(0, shared));
    if (claimed.length > shared) this.committed = claimed.slice();
    this.commits++;
  }

  check(): void {
    let holders = 0;
    for (const node of this.nodes) {
      const { commitLsn, flushLsn, writeLsn } = node.acceptor;
      assert.ok(commitLsn <= flushLsn && flushLsn <= writeLsn);
      assert.ok(flushLsn - START <= node.durableBytes, "acknowledged what is not durable");
      const length = commitLsn - START;
      assert.ok(length <= this.committed.length, "an acceptor claims too much as committed");
      assert.deepEqual(node.log.subarray(0, length), this.committed.subarray(0, length));
      const whole = this.committed.length <= node.durableBytes &&
        this.committed.every((byte, i) => node.log[i] === byte);
      if (whole) holders++;
    }
    assert.ok(holders * 2 > ACCEPTORS, "a committed byte is not durable on a majority");
  }
}

Deno.test("acceptors lose no committed byte over random elections, crashes and stale proposers", () => {
  let commits = 0;
  for (let seed = 1; seed <= SEEDS; seed++) {
    const simulation = new Simulation(seed);
    try {
      for (let i = 0; i < STEPS; i++) simulation.step();
    } catch (thrown) {
      throw new Error(`seed ${seed}: ${(thrown as Error).message}`, { cause: thrown });
    }
    commits += simulation.commits;
  }
  assert.ok(commits > SEEDS, `the schedules are too harsh to commit anything (${commits})`);
});
