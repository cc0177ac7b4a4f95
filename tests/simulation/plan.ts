/**
 * What a schedule is made of, out of its seed: each has another mixture, many leave some kinds of
 * fault out, since a fault that always happens hides what needs its absence.
 */
import type { NetworkPlan } from "./network.ts";
import type { Random } from "./random.ts";

/**
 * Kinds of fault: power lost in the middle of a driver's steps, or at some time; a safekeeper that
 * hangs; a disk that is full; a sync that fails; a way of the network that is cut; a host that only
 * reaches one safekeeper any more, while another host starts; a second host on the timeline, one in
 * place of the last, one that adopts the Postgres of the last.
 */
type Fault =
  | "crash"
  | "power"
  | "hang"
  | "fill"
  | "sync"
  | "cut"
  | "isolate"
  | "rival"
  | "replace"
  | "adopt";

const FAULTS: readonly Fault[] = [
  "crash",
  "power",
  "hang",
  "fill",
  "sync",
  "cut",
  "isolate",
  "rival",
  "replace",
  "adopt",
];

/** A schedule's mixture. Times are in virtual milliseconds. */
export interface Plan {
  /** Safekeepers. */
  readonly nodes: number;
  readonly network: NetworkPlan;
  /** How long things go wrong. */
  readonly faultyMs: number;
  readonly faultEveryMs: number;
  readonly faults: readonly Fault[];
  /** Postgres writes at least this often. */
  readonly generateMsMax: number;
  readonly syncMsMax: number;
  /** Probability that the ring drops everything committed at a commit. */
  readonly forgets: number;
  /** WAL for those that no commit waits for is gathered for so long; 0: nobody's is. */
  readonly gatherMsMax: number;
  /** Safekeepers catch up from their peers. */
  readonly peersRecover: boolean;
  /** Every other fault meets this safekeeper, if there is one of that number. */
  readonly victim: number;
  /** Where members change: those that follow each other, and the generation of the first. */
  readonly membership:
    | { readonly generation: number; readonly lists: readonly (readonly number[])[] }
    | undefined;
}

/** Some of the safekeepers 1..nodes, at least one. */
function someOf(random: Random, nodes: number): number[] {
  const ids = Array.from({ length: nodes }, (_, i) => i + 1).filter(() => random.chance(0.6));
  return ids.length === 0 ? [1 + random.below(nodes)] : ids;
}

function memberships(random: Random, nodes: number): NonNullable<Plan["membership"]> {
  const lists = [someOf(random, nodes), someOf(random, nodes)];
  while (random.chance(0.4)) lists.push(someOf(random, nodes));
  return { generation: random.pick([0, 1]), lists };
}

/** The plan of a schedule. */
export function makePlan(random: Random): Plan {
  const faults = FAULTS.filter(() => random.chance(0.5));
  const nodes = random.pick([1, 2, 3, 3, 3, 3, 3, 3, 4, 5]);
  return {
    nodes,
    network: {
      loss: random.pick([0, 0, 0.002, 0.02]),
      delayMsMax: random.pick([0.5, 1, 3]),
      slow: random.pick([0, 0, 0.05]),
    },
    faultyMs: random.between(30, 120),
    faultEveryMs: random.pick([3, 6, 12]),
    faults: faults.length === 0 ? FAULTS : faults,
    generateMsMax: random.pick([2, 5]),
    syncMsMax: random.pick([0.2, 2, 6]),
    forgets: random.pick([0, 0.1, 0.5]),
    gatherMsMax: random.pick([0, 0, 0.5, 5]),
    peersRecover: random.chance(0.4),
    victim: random.pick([0, 1]),
    membership: random.chance(0.25) ? memberships(random, nodes) : undefined,
  };
}
