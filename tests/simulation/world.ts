/**
 * One schedule: some safekeepers, hosts that fight over them, and faults, all out of one seed. It
 * goes wrong for a while; then everything is mended but for a minority of safekeepers, and commits
 * must go on.
 */
import {
  type MembershipConfiguration,
  NO_MEMBERSHIP,
} from "../../libs/safekeeper_protocol/membership.ts";
import { isMajority } from "../../libs/safekeeper_protocol/membership_change.ts";
import { newTenantId, newTimelineId } from "../../libs/utils/id.ts";
import type { AcceptorMessage, ProposerMessage } from "../../libs/safekeeper_protocol/messages.ts";
import { newTimelineState, type TimelineState } from "../../safekeeper/timeline_state.ts";
import { type KnownMembers, SimEndpoint } from "./endpoint.ts";
import { LOG_START } from "./model_wal.ts";
import { Network } from "./network.ts";
import { SimNode } from "./node.ts";
import { Oracle, Violation } from "./oracle.ts";
import { configuration, Operator } from "./operator.ts";
import { makePlan, type Plan } from "./plan.ts";
import { Random } from "./random.ts";
import { VirtualClock } from "./virtual_clock.ts";

/** By then commits must have gone on after everything was mended. */
const RECOVERY_MS_MAX = 2000;
/** What must be committed then, in bytes more than before. */
const RECOVERY_BYTES = 16;
/** Safekeepers hear of each other at least this often. */
const GOSSIP_MS_MAX = 12;
/** By then they must have caught up from each other, if nobody writes. */
const PEER_RECOVERY_MS_MAX = 500;
/** A member without the timeline gets it after about so long. */
const FILL_MS_MAX = 20;
/** Network numbers of hosts start here. */
const HOSTS_FROM = 100;

/** A timeline on which nothing has happened. */
export const STATE: TimelineState = newTimelineState({
  tenantId: newTenantId(),
  timelineId: newTimelineId(),
  pgVersionNum: 170011,
  walSegmentSize: 1 << 24,
  startLsn: LOG_START,
});

/** What a schedule came to. */
export interface Outcome {
  readonly steps: number;
  readonly commits: number;
  readonly elections: number;
  readonly crashes: number;
}

/** See the head of the file. */
export class World {
  readonly random: Random;
  readonly plan: Plan;
  readonly clock = new VirtualClock();
  readonly network: Network;
  readonly oracle = new Oracle();
  readonly nodes: SimNode[] = [];
  /** Says what happens, if anybody listens. */
  readonly note: ((text: string) => void) | undefined;
  endpoints: SimEndpoint[] = [];
  #members: readonly number[];
  /** What hosts that start are told of the members. */
  #recorded: MembershipConfiguration;
  #operator: Operator | undefined;
  /** Changes of members that are to come. */
  #changes: readonly (readonly number[])[] = [];
  #hosts = 0;
  #steps = 0;
  #crashes = 0;

  constructor(seed: number, tell?: (text: string) => void) {
    this.random = new Random(seed);
    this.plan = makePlan(this.random);
    this.network = new Network(this.random, this.plan.network);
    this.note = tell && ((text) => tell(`${this.clock.nowMs.toFixed(2).padStart(8)}  ${text}`));
    const { membership, nodes } = this.plan;
    for (let id = 1; id <= nodes; id++) this.nodes.push(new SimNode(this, id, this.#stateOf(id)));
    this.#members = membership?.lists[0] ?? this.nodes.map((node) => node.id);
    this.#recorded = configuration(membership?.generation ?? 0, this.#members);
    if (this.plan.peersRecover) {
      for (const node of this.nodes) {
        node.recoverAgain();
        this.#gossip(node);
      }
    }
    if (membership === undefined) return;
    this.#changes = membership.lists.slice(1);
    this.#changeLater();
  }

  /** The next change of members begins after a while. */
  #changeLater(): void {
    const to = this.#changes[0];
    if (to === undefined) return;
    this.#changes = this.#changes.slice(1);
    this.clock.after(this.random.between(5, this.plan.faultyMs), () => {
      this.#operator = new Operator(this, this.#recorded.generation, this.#members, to);
    });
  }

  /** What the control plane has on record about the members. */
  recorded(): KnownMembers {
    const { generation } = this.#recorded;
    return {
      ids: this.#recorded.members.map(({ id }) => id),
      // A host may not have been told
      membership: generation === 0 || this.random.chance(0.3) ? NO_MEMBERSHIP : this.#recorded,
    };
  }

  /** What follows when the last step of a change has begun, and when it is done. */
  #followChange(): void {
    const operator = this.#operator;
    if (operator === undefined || !operator.isFinal) return;
    const { final } = operator;
    this.#members = final.members.map(({ id }) => id);
    if (!operator.isDone || this.#recorded === final) return;
    this.#recorded = final;
    for (const node of this.nodes) {
      const hasLeft = node.disk.control !== undefined && !this.#members.includes(node.id);
      if (hasLeft && this.random.chance(0.7)) node.drop();
    }
    this.#fillAgain();
    this.#changeLater();
  }

  /** Members that could not be reached get the timeline when they can. */
  #fillAgain(): void {
    const recorded = this.#recorded;
    this.clock.after(this.random.between(1, FILL_MS_MAX), () => {
      const members = recorded.members.map(({ id }) => this.nodes[id - 1]!);
      const missing = members.filter((node) => node.disk.control === undefined);
      if (recorded !== this.#recorded || missing.length === 0) return;
      const source = this.random.pick(members);
      if (source.core !== undefined) this.random.pick(missing).pull(source, recorded);
      this.#fillAgain();
    });
  }

  /** Whoever is no member yet does not have the timeline. */
  #stateOf(id: number): TimelineState | undefined {
    const { membership } = this.plan;
    if (membership === undefined) return STATE;
    const { generation, lists } = membership;
    if (!lists[0]!.includes(id)) return undefined;
    return generation === 0 ? STATE : { ...STATE, membership: configuration(1, lists[0]!) };
  }

  /** Runs the schedule. Throws Violation, or whatever the code under test throws. */
  run(): Outcome {
    const { plan } = this;
    this.note?.(`plan: ${JSON.stringify(plan)}`);
    this.#startEndpoint();
    this.#generateAgain();
    this.clock.after(this.random.between(0, plan.faultEveryMs), () => this.#faultAgain());
    this.#runUntil(plan.faultyMs, () => false);
    this.#mend();
    return {
      steps: this.#steps,
      commits: this.oracle.commits,
      elections: this.oracle.elections,
      crashes: this.#crashes,
    };
  }

  #runUntil(untilMs: number, isDone: () => boolean): void {
    while (this.clock.step(untilMs)) {
      this.#steps++;
      this.#followChange();
      this.oracle.check(this.nodes, this.#members);
      if (isDone()) return;
    }
    this.clock.nowMs = untilMs;
  }

  /** A safekeeper hears from the others, now and then, what is committed. */
  #gossip(node: SimNode): void {
    this.clock.after(this.random.between(1, GOSSIP_MS_MAX), () => {
      const { lastLogTerm, commitLsn } = this.random.pick(this.nodes).acceptor ?? {};
      if (lastLogTerm !== undefined) node.acceptor?.peerCommitted(lastLogTerm, commitLsn!);
      this.#gossip(node);
    });
  }

  #startEndpoint(adopted?: SimEndpoint): void {
    const host = HOSTS_FROM + this.#hosts++;
    const postgres = adopted?.postgres ?? host;
    this.endpoints.push(new SimEndpoint(this, host, postgres, adopted));
    this.endpoints = this.endpoints.filter((endpoint) => endpoint.alive);
  }

  #generateAgain(): void {
    for (const endpoint of this.endpoints) endpoint.generate();
    this.clock.after(
      this.random.between(0.5, this.plan.generateMsMax),
      () => this.#generateAgain(),
    );
  }

  #faultAgain(): void {
    if (this.clock.nowMs >= this.plan.faultyMs) return;
    this.#fault();
    if (!this.endpoints.some((endpoint) => endpoint.alive)) this.#startEndpoint();
    this.clock.after(this.random.between(1, 2 * this.plan.faultEveryMs), () => this.#faultAgain());
  }

  #fault(): void {
    const { random, plan, clock } = this;
    const victim = random.chance(0.5) ? this.nodes[plan.victim - 1] : undefined;
    const node = victim ?? random.pick(this.nodes);
    switch (random.pick(plan.faults)) {
      case "crash": {
        // Somewhere in the next steps of its driver
        if (node.disk.stepsToCrash === 0) node.disk.stepsToCrash = 1 + random.below(12);
        this.#crashes++;
        break;
      }
      case "power": {
        this.#crashes++;
        if (random.chance(0.3)) {
          for (const each of this.nodes) {
            each.crash(random.between(1, 60));
          }
        } else node.crash(random.between(1, 60));
        break;
      }
      case "hang":
        node.hungUntilMs = clock.nowMs + random.between(5, 80);
        this.note?.(`safekeeper ${node.id} hangs until ${node.hungUntilMs.toFixed(2)}`);
        break;
      case "fill":
        node.disk.full = !node.disk.full;
        this.note?.(`the disk of safekeeper ${node.id} is ${node.disk.full ? "full" : "free"}`);
        break;
      case "sync":
        node.disk.syncFails = true;
        this.note?.(`the next sync of safekeeper ${node.id} will fail`);
        break;
      case "cut": {
        const host = random.pick(this.endpoints).host;
        const isCut = random.chance(0.6);
        if (random.chance(0.7)) this.network.setCut(host, node.id, isCut);
        if (random.chance(0.7)) this.network.setCut(node.id, host, isCut);
        this.note?.(`${isCut ? "cut" : "mended"} between host ${host} and safekeeper ${node.id}`);
        break;
      }
      case "isolate": {
        const { host } = random.pick(this.endpoints);
        for (const other of this.nodes) {
          this.network.setCut(host, other.id, other !== node);
          this.network.setCut(other.id, host, other !== node);
        }
        this.note?.(`host ${host} only reaches safekeeper ${node.id}`);
        if (random.chance(0.5)) this.#startEndpoint();
        break;
      }
      case "rival":
        this.#startEndpoint();
        break;
      case "replace":
        random.pick(this.endpoints).stop();
        this.#startEndpoint();
        break;
      case "adopt": {
        const old = random.pick(this.endpoints);
        if (!old.alive || old.proposer.state !== "elected") break;
        old.stop();
        this.#startEndpoint(old);
        break;
      }
    }
  }

  /** Everything works again but for a minority; then commits must go on. */
  #mend(): void {
    const { random, oracle } = this;
    this.network.heal();
    const away = this.plan.membership === undefined
      ? random.below(Math.ceil(this.nodes.length / 2))
      : 0;
    const gone = this.#dispensable();
    const first = random.below(this.nodes.length);
    for (let i = 0; i < this.nodes.length; i++) {
      const node = this.nodes[(first + i) % this.nodes.length]!;
      node.disk.stepsToCrash = 0;
      node.disk.full = false;
      node.disk.syncFails = false;
      node.hungUntilMs = 0;
      if (i < away || node.id === gone) node.crash(Infinity);
      else node.start();
    }
    this.note?.(`mended, ${away} of ${this.nodes.length} safekeepers stay away`);
    if (this.plan.peersRecover) this.#recoverWithoutHosts();
    const newest = this.endpoints.at(-1)!;
    for (const endpoint of this.endpoints) {
      if (endpoint !== newest || random.chance(0.5)) endpoint.stop();
    }
    if (!newest.alive) this.#startEndpoint();
    const goal = oracle.committedBytes + RECOVERY_BYTES;
    const isOver = () =>
      oracle.committedBytes >= goal && this.#operator?.isDone !== false &&
      this.#changes.length === 0;
    // A host that was deposed meanwhile is started again, as an operator would
    const untilMs = this.clock.nowMs + RECOVERY_MS_MAX;
    while (this.clock.nowMs < untilMs && !isOver()) {
      this.#runUntil(Math.min(untilMs, this.clock.nowMs + 100), isOver);
      if (!this.endpoints.some((endpoint) => endpoint.alive)) this.#startEndpoint();
      for (const endpoint of this.endpoints) endpoint.reconfigure(this.#recorded);
    }
    if (!isOver()) throw new Violation(`no commit within ${RECOVERY_MS_MAX} ms with a majority`);
  }

  /** Where members change: one that may stay away, since a majority of each list is without it. */
  #dispensable(): number | undefined {
    const { membership } = this.plan;
    if (membership === undefined || this.random.chance(0.5)) return undefined;
    const { id } = this.random.pick(this.nodes);
    const lists = membership.lists;
    return lists.every((list) => isMajority(list, (other) => other !== id)) ? id : undefined;
  }

  /** Nobody writes any more: safekeepers must catch up from each other. */
  #recoverWithoutHosts(): void {
    for (const endpoint of this.endpoints) endpoint.stop();
    for (const node of this.nodes) node.connections.clear(); // those half open end in time
    const behind = () => this.nodes.find((node) => node.isBehind());
    this.#runUntil(this.clock.nowMs + PEER_RECOVERY_MS_MAX, () => behind() === undefined);
    const left = behind();
    if (left !== undefined) throw new Violation(`safekeeper ${left.id} does not catch up`);
  }

  /** A message, for traces. */
  describe(message: ProposerMessage | AcceptorMessage): string {
    return JSON.stringify(message, (key, value) => {
      if (value instanceof Uint8Array) return `${value.length} bytes`;
      if (typeof value === "bigint") return value.toString();
      const isNoise = /^(tenantId|timelineId|hotStandby|pgVersionNum|walSegmentSize|systemId)$/;
      if (isNoise.test(key)) return undefined;
      return /lsn$|At$/i.test(key) && value >= LOG_START ? value - LOG_START : value;
    });
  }
}
