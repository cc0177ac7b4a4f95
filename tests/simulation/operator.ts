/**
 * Somebody who replaces safekeepers while others write: from one membership over a joint one to
 * another, with nothing but greetings and votes that ask for nothing.
 *
 *   1. the joint configuration is in force once a majority of the old and of the new members have
 *      adopted it: from then on nobody commits without both
 *   2. what the old ones may have committed before is at most the newest of their logs; a majority
 *      of the new ones must have that, and know a term as high, or a term could be won twice
 *   3. then the new configuration replaces the joint one
 */
import type {
  AcceptorMessage,
  ProposerMessage,
  VoteResponse,
} from "../../libs/safekeeper_protocol/messages.ts";
import type { MembershipConfiguration } from "../../libs/safekeeper_protocol/membership.ts";
import { lastLogTerm, type Term } from "../../libs/safekeeper_protocol/term_history.ts";
import type { Answerable, SimNode } from "./node.ts";
import { STATE, type World } from "./world.ts";

const ROUND_MS_MAX = 6;

/** A configuration of these safekeepers. */
export function configuration(
  generation: number,
  ids: readonly number[],
  newIds?: readonly number[],
): MembershipConfiguration {
  const members = (list: readonly number[]) => list.map((id) => ({ id, host: "sim", pgPort: 1 }));
  const conf = { generation, members: members(ids) };
  return newIds === undefined ? conf : { ...conf, newMembers: members(newIds) };
}

/** True if `has` is true of more than half. */
export function isMajority(ids: readonly number[], has: (id: number) => boolean): boolean {
  return ids.filter(has).length * 2 > ids.length;
}

/** See the head of the file. */
export class Operator implements Answerable {
  votersLog = undefined;
  /** The last step has begun: a majority of the new members has everything that is committed. */
  isFinal = false;
  isDone = false;
  readonly #world: World;
  readonly #from: readonly number[];
  readonly #to: readonly number[];
  #conf: MembershipConfiguration;
  /** What those that adopted `conf` said of their logs. */
  readonly #votes = new Map<number, VoteResponse>();
  #answer: AcceptorMessage | undefined;

  constructor(world: World, generation: number, from: readonly number[], to: readonly number[]) {
    this.#world = world;
    this.#from = from;
    this.#to = to;
    this.#conf = configuration(generation + 1, from, to);
    this.#again();
  }

  toProposer(message: AcceptorMessage): void {
    this.#answer = message;
  }

  closeAtNode(): void {}

  #again(): void {
    this.#world.clock.after(this.#world.random.between(1, ROUND_MS_MAX), () => {
      for (const id of new Set([...this.#from, ...this.#to])) {
        this.#visit(this.#world.nodes[id - 1]!);
      }
      this.#advance();
      if (!this.isDone) this.#again();
    });
  }

  /** Tells one safekeeper of the configuration and asks for its log. */
  #visit(node: SimNode): void {
    const { network, random, clock } = this.#world;
    if (random.chance(0.3) || node.hungUntilMs > clock.nowMs || network.loses(0, node.id)) return;
    if (node.disk.control === undefined) node.create({ ...STATE, membership: this.#conf });
    const { tenantId, timelineId, pgVersionNum, walSegmentSize } = STATE;
    const adopted = this.#ask(node, {
      kind: "greeting",
      tenantId,
      timelineId,
      pgVersionNum,
      walSegmentSize,
      systemId: 0n,
      membership: this.#conf,
    });
    const { generation } = this.#conf;
    if (adopted?.kind !== "greeting" || adopted.membership.generation !== generation) return;
    const isNew = this.#to.includes(node.id);
    const term = isNew ? this.#highestTerm() : 0;
    const vote = this.#ask(node, { kind: "vote", generation, term });
    if (vote?.kind === "vote") this.#votes.set(node.id, vote);
  }

  #ask(node: SimNode, message: ProposerMessage): AcceptorMessage | undefined {
    this.#answer = undefined;
    if (node.core !== undefined) node.receive(this, message);
    return this.#answer;
  }

  #advance(): void {
    const adopted = (id: number) => this.#votes.has(id);
    if (!isMajority(this.#to, adopted)) return;
    if (this.isFinal) {
      this.isDone = true;
      this.#world.note?.(`membership ${this.#conf.generation} is in force`);
      return;
    }
    if (!isMajority(this.#from, adopted)) return;
    const newest = this.#from.filter(adopted).reduce((a, b) => this.#isNewer(a, b) ? a : b);
    const term = this.#highestTerm();
    const isReady = (id: number) =>
      adopted(id) && this.#votes.get(id)!.term >= term && !this.#isNewer(newest, id);
    if (!isMajority(this.#to, isReady)) return;
    this.isFinal = true;
    this.#conf = configuration(this.#conf.generation + 1, this.#to);
    this.#votes.clear();
    this.#world.note?.(`membership ${this.#conf.generation} can come into force`);
  }

  /** The highest term that the old members which answered have seen. */
  #highestTerm(): Term {
    return Math.max(0, ...this.#from.map((id) => this.#votes.get(id)?.term ?? 0));
  }

  /** Whether the log of one is newer than that of the other. */
  #isNewer(one: number, other: number): boolean {
    const a = this.#votes.get(one)!;
    const b = this.#votes.get(other)!;
    const terms = lastLogTerm(a.termHistory, a.flushLsn) - lastLogTerm(b.termHistory, b.flushLsn);
    return terms > 0 || (terms === 0 && a.flushLsn > b.flushLsn);
  }
}
