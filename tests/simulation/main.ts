/**
 * `deno task sim`: schedules of the WAL service, as many as wanted.
 *
 *   deno task sim --seeds 100000              seeds 1 to 100000, on one core
 *   deno task sim --seeds 100000 --workers 2  on two
 *   deno task sim --seed 4711 --trace         one of them, told step by step
 *   deno task sim --variants                  the broken variants, and when each is caught
 */
import { parseArgs } from "node:util";
import { simulate, type Totals, trace } from "./simulate.ts";
import { loadVariant, VARIANTS } from "./variants.ts";

const HELP = `Usage: deno task sim [options]

Simulates the WAL service: real proposers and acceptors on a network and disks that fail, each
schedule out of one seed. Stops at the first schedule that breaks a rule, and prints its seed.

  --seeds N     how many schedules (default 10000)
  --seed S      the first one's seed (default 1); alone: that one only
  --trace       tell what happens in it
  --workers W   how many threads (default 1)
  --variants    run the deliberately broken variants instead; each must be caught
  --help        show this
`;

/** Schedules that are run before more are taken. */
const PORTION = 2000;
/** After so many it is said how far things are. */
const PROGRESS = 100_000;

interface Found {
  readonly seed: number;
  readonly why: string;
}

/** The schedules of seeds first..first+count-1 on some threads, up to a failure. */
async function runAll(
  first: number,
  count: number,
  workers: number,
): Promise<{ totals: Totals; failure: Found | undefined }> {
  const totals = { schedules: 0, steps: 0, commits: 0, elections: 0, crashes: 0 };
  const failures: Found[] = [];
  let next = first;
  const add = (more: Totals) => {
    for (const key of Object.keys(totals) as (keyof Totals)[]) totals[key] += more[key];
  };
  const portion = () => {
    if (next > first && (next - first) % PROGRESS === 0) console.error(`${next - first} schedules`);
    const from = next;
    next = Math.min(first + count, next + PORTION);
    return { first: from, count: next - from };
  };
  const isOver = () => next >= first + count || failures.length > 0;
  if (workers === 1) {
    while (!isOver()) {
      const range = portion();
      const { totals: more, failure } = simulate(range.first, range.count);
      add(more);
      if (failure !== undefined) failures.push({ seed: failure.seed, why: failure.error.message });
    }
    return { totals, failure: failures[0] };
  }
  await Promise.all(Array.from({ length: workers }, async () => {
    const worker = new Worker(import.meta.resolve("./simulate_worker.ts"), { type: "module" });
    while (!isOver()) {
      const answer = new Promise<MessageEvent>((resolve) => worker.onmessage = resolve);
      worker.postMessage(portion());
      const { data } = await answer;
      add(data.totals);
      if (data.failure !== undefined) failures.push(data.failure);
    }
    worker.terminate();
  }));
  return { totals, failure: failures.sort((one, other) => one.seed - other.seed)[0] };
}

async function runVariants(): Promise<boolean> {
  const directory = Deno.makeTempDirSync();
  let isGood = true;
  try {
    for (const variant of VARIANTS) {
      const { failure } = (await loadVariant(directory, variant)).simulate(1, variant.seeds);
      if (failure === undefined) isGood = false;
      const caught = failure === undefined
        ? `not in ${variant.seeds} seeds`
        : `seed ${failure.seed}`;
      console.log(`${caught.padEnd(22)}${variant.name}: ${failure?.error.message ?? "NOT CAUGHT"}`);
    }
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
  return isGood;
}

function numberOf(text: string | undefined, otherwise: number): number {
  if (text === undefined) return otherwise;
  if (/^[1-9]\d*$/.test(text)) return Number(text);
  console.error(`Cannot use "${text}": it is not a positive number; see deno task sim --help`);
  Deno.exit(2);
}

const { values } = parseArgs({
  args: Deno.args,
  options: {
    seeds: { type: "string" },
    seed: { type: "string" },
    workers: { type: "string" },
    trace: { type: "boolean" },
    variants: { type: "boolean" },
    help: { type: "boolean" },
  },
});
const first = numberOf(values.seed, 1);
const count = numberOf(values.seeds, values.seed === undefined ? 10_000 : 1);

if (values.help) {
  console.log(HELP);
} else if (values.variants) {
  if (!await runVariants()) Deno.exit(1);
} else if (values.trace) {
  const error = trace(first, (text) => console.log(text));
  console.log(error === undefined ? "no rule is broken" : `${error.name}: ${error.message}`);
  if (error !== undefined) Deno.exit(1);
} else {
  const begun = performance.now();
  const { totals, failure } = await runAll(first, count, numberOf(values.workers, 1));
  const seconds = (performance.now() - begun) / 1000;
  const { schedules, steps, commits, elections, crashes } = totals;
  console.log(
    `${schedules} schedules in ${seconds.toFixed(1)} s (${Math.round(schedules / seconds)} seeds ` +
      `a second): ${steps} steps, ${elections} elections, ${commits} commits, ${crashes} crashes`,
  );
  if (failure !== undefined) {
    console.log(`seed ${failure.seed} breaks a rule: ${failure.why}`);
    console.log(`to see how: deno task sim --seed ${failure.seed} --trace`);
    Deno.exit(1);
  }
}
