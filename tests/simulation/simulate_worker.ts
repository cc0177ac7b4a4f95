/** Runs ranges of schedules in a worker of its own: takes {first, count}, answers what simulate() says. */
import { simulate } from "./simulate.ts";

const scope = self as unknown as Worker;
scope.onmessage = ({ data }: MessageEvent<{ first: number; count: number }>) => {
  const { totals, failure } = simulate(data.first, data.count);
  scope.postMessage({
    totals,
    failure: failure && { seed: failure.seed, why: failure.error.message },
  });
};
