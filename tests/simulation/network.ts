/**
 * The network of the simulation: delays, losses, and hosts that cannot reach others, one way or
 * both.
 */
import type { Random } from "./random.ts";

/** How bad it is. */
export interface NetworkPlan {
  /** Probability that a message, and with it its direction of the connection, is lost. */
  readonly loss: number;
  readonly delayMsMax: number;
  /** Probability that a message takes ten times as long. */
  readonly slow: number;
}

/** See the head of the file. Hosts are numbers. */
export class Network {
  readonly #random: Random;
  #plan: NetworkPlan;
  /** "from -> to" pairs that are cut. */
  readonly #cut = new Set<number>();

  constructor(random: Random, plan: NetworkPlan) {
    this.#random = random;
    this.#plan = plan;
  }

  /** Whether what is sent now from one host to another never arrives. */
  loses(from: number, to: number): boolean {
    if (this.#cut.size > 0 && this.#cut.has(from * 1024 + to)) return true;
    return this.#plan.loss > 0 && this.#random.chance(this.#plan.loss);
  }

  /** How long a message takes. */
  delayMs(): number {
    const delay = this.#random.between(0.1, this.#plan.delayMsMax);
    return this.#plan.slow > 0 && this.#random.chance(this.#plan.slow) ? delay * 10 : delay;
  }

  /** Cuts, or restores, the way from one host to another. */
  setCut(from: number, to: number, isCut: boolean): void {
    if (isCut) this.#cut.add(from * 1024 + to);
    else this.#cut.delete(from * 1024 + to);
  }

  /** Everything works from now on. */
  heal(): void {
    this.#cut.clear();
    this.#plan = { ...this.#plan, loss: 0, slow: 0 };
  }
}
