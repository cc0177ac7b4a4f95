/** Runs schedules one after the other. */
import { type Outcome, World } from "./world.ts";

/** What many schedules came to. */
export interface Totals {
  readonly schedules: number;
  readonly steps: number;
  readonly commits: number;
  readonly elections: number;
  readonly crashes: number;
}

/** A schedule that broke a rule. */
interface Failure {
  readonly seed: number;
  readonly error: Error;
}

/** Runs the schedules of seeds first..first+count-1, up to the first failure. */
export function simulate(first: number, count: number): { totals: Totals; failure?: Failure } {
  const totals = { schedules: 0, steps: 0, commits: 0, elections: 0, crashes: 0 };
  for (let seed = first; seed < first + count; seed++) {
    let outcome: Outcome;
    try {
      outcome = new World(seed).run();
    } catch (thrown) {
      return { totals, failure: { seed, error: thrown as Error } };
    }
    totals.schedules++;
    totals.steps += outcome.steps;
    totals.commits += outcome.commits;
    totals.elections += outcome.elections;
    totals.crashes += outcome.crashes;
  }
  return { totals };
}

/** Runs one schedule and tells its story; returns what it threw. */
export function trace(seed: number, tell: (text: string) => void): Error | undefined {
  const world = new World(seed, tell);
  try {
    world.run();
    return undefined;
  } catch (thrown) {
    for (const node of world.nodes) tell(`safekeeper ${node.id}: ${node.describe()}`);
    return thrown as Error;
  }
}
