/**
 * A seeded simulation of the real proposer against the real acceptor: three safekeepers on model
 * disks, in-order connections that break at any message, crashes that lose what was not synced, and
 * several proposers at once, some of them stale. After each step: a term has one winner, every log
 * of a term starts at the same place, and what any proposer ever called committed is durable on a
 * majority and never changes. A failure prints its seed.
 */
import assert from "node:assert/strict";
import {
  CommittedLog,
  grown,
  LOG_START,
  ModelAcceptor,
  randomRecords,
  seededRandom,
  simulate,
  someTimelineState,
} from "../../safekeeper/acceptor_fixture.ts";
import {
  type AcceptorMessage,
  NO_HOT_STANDBY,
  type ProposerMessage,
} from "../../libs/safekeeper_protocol/messages.ts";
import { NO_MEMBERSHIP } from "../../libs/safekeeper_protocol/membership.ts";
import { INVALID_LSN, type Lsn } from "../../libs/utils/lsn.ts";
import { type AppendRange, type Effect, Proposer } from "./proposer.ts";

const NODES = 3;
const SEEDS = 60;
const STEPS = 2500;

/** A safekeeper that acknowledges WAL, mostly after a sync. */
class Node extends ModelAcceptor {
  handle(message: ProposerMessage): AcceptorMessage[] {
    const replies: AcceptorMessage[] = [];
    for (const effect of this.acceptor.handle(message)) {
      const reply = this.perform(effect);
      if (reply !== undefined) replies.push(reply);
      if (effect.kind !== "acknowledge") continue;
      if (this.random() < 0.7) this.flush();
      replies.push(this.acceptor.appendResponse(NO_HOT_STANDBY));
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
  readonly committed = new CommittedLog();
  readonly termStarts = new Map<number, Lsn>();
  elections = 0;
  commits = 0;

  constructor(seed: number) {
    this.random = seededRandom(seed);
    const state = someTimelineState();
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
      tenantId: node.acceptor.state.tenantId,
      timelineId: node.acceptor.state.timelineId,
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
        endpoint.voterLogs[peer] = this.nodes[peer]!.log.slice(0, replies[0].flushLsn - LOG_START);
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
        assert.equal(endpoint.log.length, proposer.startLsn - LOG_START);
      }
    }
  }

  generate(endpoint: Endpoint): void {
    if (endpoint.log === undefined) return;
    endpoint.log = grown(endpoint.log, randomRecords(this.random));
  }

  append(endpoint: Endpoint, peer: number, link: Link): void {
    const { proposer, log, range } = endpoint;
    if (log === undefined || !proposer.isStreaming(peer)) return;
    const cut = proposer.sentLsn(peer) + 1 + Math.floor(this.random() * 30);
    const end = Math.min(LOG_START + log.length, cut) as Lsn;
    if (!proposer.nextAppend(peer, end, range)) proposer.heartbeat(peer, range);
    link.toNode.push({
      kind: "append",
      generation: 0,
      term: proposer.term,
      beginLsn: range.begin,
      endLsn: range.end,
      commitLsn: range.commit,
      truncateLsn: range.truncate,
      wal: log.slice(range.begin - LOG_START, range.end - LOG_START),
    });
  }

  noteCommit(endpoint: Endpoint): void {
    this.commits++;
    this.committed.claim(endpoint.log!, endpoint.proposer.commitLsn);
  }

  check(): void {
    for (const node of this.nodes) {
      for (const entry of node.acceptor.state.termHistory) {
        const start = this.termStarts.get(entry.term);
        assert.ok(start === undefined || start === entry.lsn, "a term starts at two places");
      }
    }
    this.committed.check(this.nodes);
    for (const { proposer } of this.endpoints) {
      assert.ok(proposer.truncateLsn <= Math.max(LOG_START, proposer.commitLsn, proposer.startLsn));
    }
  }
}

Deno.test("proposer and acceptors lose no committed byte over random schedules", () => {
  const runs = simulate(SEEDS, STEPS, (seed) => new Simulation(seed));
  const commits = runs.reduce((sum, run) => sum + run.commits, 0);
  const elections = runs.reduce((sum, run) => sum + run.elections, 0);
  assert.ok(commits > SEEDS * 5, `the simulation commits (${commits})`);
  assert.ok(elections > SEEDS, `and elects (${elections})`);
});
