/**
 * A seeded simulation of the real proposer against the real acceptor: three safekeepers on model
 * disks, in-order connections that break at any message, crashes that lose what was not synced, and
 * several proposers at once, some of them stale. After each step: a term has one winner, every log
 * of a term starts at the same place, and what any proposer ever called committed is durable on a
 * majority and never changes. A failure prints its seed.
 */
import assert from "node:assert/strict";
import { Acceptor } from "../../safekeeper/acceptor.ts";
import { newTimelineState, type TimelineState } from "../../safekeeper/timeline_state.ts";
import {
  type AcceptorMessage,
  NO_HOT_STANDBY,
  type ProposerMessage,
} from "../../libs/safekeeper_protocol/messages.ts";
import { NO_MEMBERSHIP } from "../../libs/safekeeper_protocol/membership.ts";
import { newTenantId, newTimelineId } from "../../libs/utils/id.ts";
import { INVALID_LSN, type Lsn } from "../../libs/utils/lsn.ts";
import { type AppendRange, type Effect, Proposer } from "./proposer.ts";

const START = 0x1000028 as Lsn;
const RECORD_BYTES = 8;
const NODES = 3;
const SEEDS = 60;
const STEPS = 2500;

function randomOf(seed: number): () => number {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function recordEnd(bytes: number): Lsn {
  return (START + bytes - bytes % RECORD_BYTES) as Lsn;
}

class Node {
  acceptor!: Acceptor;
  log = new Uint8Array(0);
  durable = 0;
  epoch = 0;
  state: TimelineState;

  constructor(readonly id: number, state: TimelineState, readonly random: () => number) {
    this.state = state;
    this.restart();
  }

  restart(): void {
    const kept = this.durable + Math.floor(this.random() * (this.log.length - this.durable + 1));
    this.log = this.log.slice(0, recordEnd(kept) - START);
    this.durable = this.log.length;
    this.acceptor = new Acceptor(this.id, this.state, recordEnd(this.durable));
    this.epoch++;
  }

  flush(): void {
    this.durable = this.log.length;
    this.acceptor.flushed(recordEnd(this.log.length));
  }

  handle(message: ProposerMessage): AcceptorMessage[] {
    const replies: AcceptorMessage[] = [];
    for (const effect of this.acceptor.handle(message)) {
      switch (effect.kind) {
        case "persist":
          this.state = effect.state;
          this.acceptor.persisted(effect.state);
          break;
        case "truncate":
          this.log = this.log.slice(0, effect.lsn - START);
          this.durable = Math.min(this.durable, this.log.length);
          this.flush();
          this.acceptor.truncated(effect.lsn);
          break;
        case "write":
          this.log = Uint8Array.from([...this.log, ...effect.bytes]);
          this.acceptor.written((START + this.log.length) as Lsn, recordEnd(this.log.length));
          break;
        case "flush":
          this.flush();
          break;
        case "reply":
          replies.push(effect.message);
          break;
        case "acknowledge":
          if (this.random() < 0.7) this.flush();
          replies.push(this.acceptor.appendResponse(NO_HOT_STANDBY));
          break;
      }
    }
    return replies;
  }
}

interface Link {
  epoch: number;
  readonly toNode: ProposerMessage[];
  readonly toProposer: AcceptorMessage[];
}

/** A proposer with the Postgres behind it. */
class Endpoint {
  readonly proposer = new Proposer([0, 1, 2]);
  readonly links: (Link | undefined)[] = [];
  /** What each voter's log was when it voted: the donor's is what Postgres starts from. */
  readonly voterLogs: Uint8Array[] = [];
  log: Uint8Array | undefined;
  pausing = false;
  /** The network's partition: which safekeepers it can reach at the moment. */
  reachable = [true, true, true];
  readonly range: AppendRange = {
    begin: INVALID_LSN,
    end: INVALID_LSN,
    commit: INVALID_LSN,
    truncate: INVALID_LSN,
  };
}

class Simulation {
  readonly random: () => number;
  readonly nodes: Node[];
  endpoints: Endpoint[] = [];
  committed = new Uint8Array(0);
  readonly termStarts = new Map<number, Lsn>();
  elections = 0;
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
    this.nodes = Array.from({ length: NODES }, (_, i) => new Node(i, state, this.random));
  }

  pick<T>(items: readonly T[]): T {
    return items[Math.floor(this.random() * items.length)]!;
  }

  step(): void {
    const roll = this.random();
    if (this.endpoints.length === 0 || roll < 0.004) {
      this.endpoints = [...this.endpoints.slice(-2), new Endpoint()];
    }
    const endpoint = this.random() < 0.85 ? this.endpoints.at(-1)! : this.pick(this.endpoints);
    const peer = Math.floor(this.random() * NODES);
    if (this.random() < 0.01) {
      endpoint.reachable = endpoint.reachable.map(() => this.random() < 0.7);
    }
    const link = endpoint.links[peer];
    if (!endpoint.reachable[peer]) {
      if (link !== undefined) this.cut(endpoint, peer);
    } else if (roll < 0.008) this.pick(this.nodes).restart();
    else if (link === undefined) this.connect(endpoint, peer);
    else if (roll < 0.015 || link.epoch !== this.nodes[peer]!.epoch) this.cut(endpoint, peer);
    else if (roll < 0.4) this.deliverToNode(endpoint, peer, link);
    else if (roll < 0.75) this.deliverToProposer(endpoint, peer, link);
    else if (roll < 0.85) this.generate(endpoint);
    else if (roll < 0.97) this.append(endpoint, peer, link);
    else if (endpoint.pausing) this.campaign(endpoint);
    this.check();
  }

  connect(endpoint: Endpoint, peer: number): void {
    const node = this.nodes[peer]!;
    endpoint.proposer.connected(peer);
    endpoint.links[peer] = { epoch: node.epoch, toNode: [], toProposer: [] };
    endpoint.links[peer].toNode.push({
      kind: "greeting",
      tenantId: node.state.tenantId,
      timelineId: node.state.timelineId,
      membership: NO_MEMBERSHIP,
      pgVersionNum: 170011,
      systemId: 0n,
      walSegmentSize: 1 << 24,
    });
  }

  cut(endpoint: Endpoint, peer: number): void {
    delete endpoint.links[peer];
    endpoint.proposer.disconnected(peer);
  }

  campaign(endpoint: Endpoint): void {
    endpoint.pausing = false;
    endpoint.proposer.campaign();
    this.perform(endpoint, endpoint.proposer.takeEffects());
  }

  deliverToNode(endpoint: Endpoint, peer: number, link: Link): void {
    const message = link.toNode.shift();
    if (message === undefined) return;
    try {
      const replies = this.nodes[peer]!.handle(message);
      link.toProposer.push(...replies);
      if (replies[0]?.kind === "vote" && endpoint.proposer.state !== "elected") {
        endpoint.voterLogs[peer] = this.nodes[peer]!.log.slice(0, replies[0].flushLsn - START);
      }
    } catch (thrown) {
      assert.ok(!(thrown as Error).message.includes("Cannot truncate"), String(thrown));
      this.cut(endpoint, peer);
    }
  }

  deliverToProposer(endpoint: Endpoint, peer: number, link: Link): void {
    const message = link.toProposer.shift();
    if (message === undefined) return;
    const { proposer } = endpoint;
    if (message.kind === "greeting") proposer.greeted(peer, message);
    else if (message.kind === "vote") proposer.voted(peer, message);
    else if (proposer.appended(peer, message.term, message.flushLsn)) this.noteCommit(endpoint);
    this.perform(endpoint, proposer.takeEffects());
  }

  perform(endpoint: Endpoint, effects: Effect[]): void {
    const { proposer } = endpoint;
    for (const effect of effects) {
      if (effect.kind === "send") {
        endpoint.links[effect.peer]?.toNode.push(effect.message);
      } else if (effect.kind === "drop") this.cut(endpoint, effect.peer);
      else if (effect.kind === "retry") endpoint.pausing = true;
      else if (effect.kind === "elected") {
        this.elections++;
        assert.ok(!this.termStarts.has(proposer.term), `two winners of term ${proposer.term}`);
        this.termStarts.set(proposer.term, proposer.startLsn);
        endpoint.log = endpoint.voterLogs[proposer.donor]!;
        assert.equal(endpoint.log.length, proposer.startLsn - START);
      }
    }
  }

  generate(endpoint: Endpoint): void {
    if (endpoint.log === undefined) return;
    const more = Uint8Array.from(
      { length: (1 + Math.floor(this.random() * 4)) * RECORD_BYTES },
      () => Math.floor(this.random() * 256),
    );
    endpoint.log = Uint8Array.from([...endpoint.log, ...more]);
  }

  append(endpoint: Endpoint, peer: number, link: Link): void {
    const { proposer, log, range } = endpoint;
    if (log === undefined || !proposer.isStreaming(peer)) return;
    const cut = proposer.sentLsn(peer) + 1 + Math.floor(this.random() * 30);
    const end = Math.min(START + log.length, cut) as Lsn;
    if (!proposer.nextAppend(peer, end, range)) proposer.heartbeat(peer, range);
    link.toNode.push({
      kind: "append",
      generation: 0,
      term: proposer.term,
      beginLsn: range.begin,
      endLsn: range.end,
      commitLsn: range.commit,
      truncateLsn: range.truncate,
      wal: log.slice(range.begin - START, range.end - START),
    });
  }

  noteCommit(endpoint: Endpoint): void {
    this.commits++;
    const claimed = endpoint.log!.subarray(0, endpoint.proposer.commitLsn - START);
    const shared = Math.min(claimed.length, this.committed.length);
    assert.deepEqual(claimed.subarray(0, shared), this.committed.subarray(0, shared));
    if (claimed.length > shared) this.committed = claimed.slice();
  }

  check(): void {
    let holders = 0;
    for (const node of this.nodes) {
      for (const entry of node.state.termHistory) {
        const start = this.termStarts.get(entry.term);
        assert.ok(start === undefined || start === entry.lsn, "a term starts at two places");
      }
      const whole = this.committed.length <= node.durable &&
        this.committed.every((byte, i) => node.log[i] === byte);
      if (whole) holders++;
    }
    assert.ok(holders * 2 > NODES, "a committed byte is not durable on a majority");
    for (const { proposer } of this.endpoints) {
      assert.ok(proposer.truncateLsn <= Math.max(START, proposer.commitLsn, proposer.startLsn));
    }
  }
}

Deno.test("proposer and acceptors lose no committed byte over random schedules", () => {
  let commits = 0;
  let elections = 0;
  for (let seed = 1; seed <= SEEDS; seed++) {
    const simulation = new Simulation(seed);
    try {
      for (let i = 0; i < STEPS; i++) simulation.step();
    } catch (thrown) {
      throw new Error(`seed ${seed}: ${(thrown as Error).message}`, { cause: thrown });
    }
    commits += simulation.commits;
    elections += simulation.elections;
  }
  assert.ok(commits > SEEDS * 5, `the simulation commits (${commits})`);
  assert.ok(elections > SEEDS, `and elects (${elections})`);
});
