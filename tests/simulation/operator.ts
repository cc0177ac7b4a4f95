/**
 * Somebody who replaces safekeepers while others write, by the rules that the control plane follows
 * (libs/safekeeper_protocol/membership_change.ts): new members get the timeline, all are told the
 * joint configuration, those that lack it the term, then the new members the final configuration.
 * What it knows it may lose at any time, and begins again; whom it cannot reach it tries later.
 */
import type { MembershipConfiguration } from "../../libs/safekeeper_protocol/membership.ts";
import { MembershipChange } from "../../libs/safekeeper_protocol/membership_change.ts";
import type { SimNode } from "./node.ts";
import type { World } from "./world.ts";

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

/** See the head of the file. */
export class Operator {
  /** The last step has begun: a majority of the new members has everything that is committed. */
  isFinal = false;
  isDone = false;
  readonly #world: World;
  readonly #joint: MembershipConfiguration;
  readonly #final: MembershipConfiguration;
  #change: MembershipChange;

  /** `generation` is that of the configuration in force. */
  constructor(world: World, generation: number, from: readonly number[], to: readonly number[]) {
    this.#world = world;
    this.#joint = configuration(generation + 1, from, to);
    this.#final = configuration(generation + 2, to);
    this.#change = new MembershipChange(from, to);
    this.#again();
  }

  /** The configuration that is in force when it is done. */
  get final(): MembershipConfiguration {
    return this.#final;
  }

  #again(): void {
    const { clock, random } = this.#world;
    clock.after(random.between(1, ROUND_MS_MAX), () => {
      if (random.chance(0.05)) this.#forget();
      const { from, to } = this.#change;
      const ids = new Set([...from, ...to]);
      this.#tellHosts();
      for (const id of ids) this.#visit(this.#world.nodes[id - 1]!);
      this.#advance();
      if (!this.isDone) this.#again();
    });
  }

  /** Another process goes on in its place. */
  #forget(): void {
    const { from, to } = this.#change;
    this.#change = new MembershipChange(from, to);
    this.#world.note?.("the operator begins again");
  }

  #tellHosts(): void {
    const { endpoints, random } = this.#world;
    const conf = this.isFinal ? this.#final : this.#joint;
    for (const endpoint of endpoints) if (random.chance(0.3)) endpoint.reconfigure(conf);
  }

  #reaches(node: SimNode): boolean {
    const { network, random, clock } = this.#world;
    return !random.chance(0.3) && node.hungUntilMs <= clock.nowMs && !network.loses(0, node.id);
  }

  #visit(node: SimNode): void {
    if (!this.#reaches(node)) return;
    const { from, to } = this.#change;
    if (node.disk.control === undefined) {
      // Also an old member that could not be reached when it became one
      const source = this.#world.random.pick(from.map((id) => this.#world.nodes[id - 1]!));
      if (source.core === undefined || !this.#reaches(source)) return;
      node.pull(source, this.#joint);
    }
    if (node.core === undefined) return;
    // Somebody has begun the last step: what it needs was there
    if (node.acceptor!.state.membership.generation >= this.#final.generation) this.isFinal = true;
    if (this.isFinal) {
      if (to.includes(node.id) && node.switchMembership(this.#final) !== undefined) {
        this.#change.finalAdopted(node.id);
      }
      return;
    }
    const log = node.switchMembership(this.#joint);
    if (log === undefined) return;
    this.#change.jointAdopted(node.id, log);
    const { goal } = this.#change;
    if (to.includes(node.id) && this.#change.lacksTerm(node.id)) node.raiseTerm(goal!.term);
  }

  #advance(): void {
    const { note } = this.#world;
    if (this.isFinal) {
      if (!this.#change.isFinal) return;
      this.isDone = true;
      note?.(`membership ${this.#final.generation} is in force`);
    } else if (this.#change.mayFinish) {
      this.isFinal = true;
      note?.(`membership ${this.#final.generation} can come into force`);
    }
  }
}
