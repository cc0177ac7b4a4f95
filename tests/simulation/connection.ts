/**
 * A proposer's connection to a safekeeper in the simulation: in order, with delays, like TCP. What
 * is lost breaks its direction for good, and the other side only notices by silence: a connection
 * may be half open, and what is under way on an old one still arrives beside a new one.
 */
import type { AcceptorMessage, ProposerMessage } from "../../libs/safekeeper_protocol/messages.ts";
import type { SimEndpoint } from "./endpoint.ts";
import type { LogBytes } from "./model_wal.ts";
import type { Answerable, SimNode } from "./node.ts";
import type { World } from "./world.ts";

/** See the head of the file. */
export class Connection implements Answerable {
  votersLog: LogBytes | undefined;
  /** When the proposer last heard something. */
  heardMs: number;
  readonly #world: World;
  readonly #incarnation: number;
  #openAtProposer = true;
  #openAtNode = true;
  #lostUp = false;
  #lostDown = false;
  #lastUpMs = 0;
  #lastDownMs = 0;

  constructor(
    world: World,
    readonly endpoint: SimEndpoint,
    readonly peer: number,
    readonly node: SimNode,
  ) {
    this.#world = world;
    this.#incarnation = node.incarnation;
    this.heardMs = world.clock.nowMs;
    node.connections.add(this);
  }

  /** Sends to the safekeeper. */
  toNode(message: ProposerMessage): void {
    if (this.#openAtProposer) this.#up(() => this.node.receive(this, message), message);
  }

  #up(deliver: () => void, message?: ProposerMessage): void {
    const { clock, network, note } = this.#world;
    if (this.#lostUp || network.loses(this.endpoint.host, this.node.id)) {
      this.#lostUp = true;
      return;
    }
    this.#lastUpMs = Math.max(this.#lastUpMs, clock.nowMs + network.delayMs());
    const arrive = () => {
      const { node } = this;
      if (!this.#openAtNode || node.incarnation !== this.#incarnation) return this.#reset();
      if (node.hungUntilMs > clock.nowMs) {
        clock.at(node.hungUntilMs, arrive);
        return;
      }
      if (message !== undefined) {
        note?.(`${this.endpoint.name} -> ${node.id}: ${this.#world.describe(message)}`);
      }
      deliver();
    };
    clock.at(this.#lastUpMs, arrive);
  }

  /** Sends to the proposer. */
  toProposer(message: AcceptorMessage): void {
    if (!this.#openAtNode) return;
    this.#down(() => {
      this.#world.note?.(
        `${this.node.id} -> ${this.endpoint.name}: ${this.#world.describe(message)}`,
      );
      this.heardMs = this.#world.clock.nowMs;
      this.endpoint.receive(this, message);
    });
  }

  #down(deliver: () => void): void {
    const { clock, network } = this.#world;
    if (this.#lostDown || network.loses(this.node.id, this.endpoint.host)) {
      this.#lostDown = true;
      return;
    }
    this.#lastDownMs = Math.max(this.#lastDownMs, clock.nowMs + network.delayMs());
    clock.at(this.#lastDownMs, () => {
      if (this.#openAtProposer) deliver();
    });
  }

  /** The proposer ends it. What it has sent before still arrives. */
  closeAtProposer(): void {
    if (!this.#openAtProposer) return;
    this.#up(() => {
      this.#openAtNode = false;
      this.node.connections.delete(this);
      this.node.core?.forget(this);
    });
    this.#openAtProposer = false;
  }

  /** The safekeeper ends it. What it has sent before still arrives. */
  closeAtNode(): void {
    this.node.connections.delete(this);
    this.node.core?.forget(this);
    this.#reset();
    this.#openAtNode = false;
  }

  /** The safekeeper has crashed: sometimes the proposer is told, sometimes it is just silent. */
  nodeGone(): void {
    this.#openAtNode = false;
    if (this.#world.random.chance(0.5)) this.#reset();
  }

  #reset(): void {
    this.#down(() => {
      this.#openAtProposer = false;
      this.endpoint.lost(this);
    });
  }
}
