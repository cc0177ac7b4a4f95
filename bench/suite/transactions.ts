/**
 * Transactions of pgbench: TPC-B-like and simple-update, which commit, and reads by primary key of
 * what is in memory. A second table has the CPU of a transaction by process: where all processors
 * are busy, what is not PostgreSQL's comes off its throughput.
 */
import { type CpuLoad, cpuLoad, totalUs } from "../cpu_load.ts";
import { initialise, type Load, type TimedLoad } from "../pgbench.ts";
import { query } from "../our_side.ts";
import { figure, summarise } from "../report.ts";
import type { Group, Row } from "./row.ts";
import { inTurns, type Side, valuesOf } from "./sides.ts";

const CLIENTS = [1, 8, 32] as const;

const SCRIPTS: readonly { script: Load["script"]; name: string; aim: string }[] = [
  { script: "tpcb", name: "TPC-B-like", aim: "0.9" },
  { script: "update", name: "simple-update", aim: "" },
  { script: "select", name: "warm read by primary key", aim: "0.98" },
];

/** Makes pgbench's tables on all sides. */
export async function makeTables(
  pgbench: string,
  sides: readonly Side[],
  scale: number,
): Promise<void> {
  for (const side of sides) {
    await initialise(pgbench, side.target, scale);
    await side.settle();
  }
}

/** Everything is read once, so that reads are of memory. */
async function warm(sides: readonly Side[]): Promise<void> {
  for (const { target } of sides) {
    await query(
      target,
      "VACUUM ANALYZE pgbench_accounts",
      "SELECT sum(abalance) FROM pgbench_accounts",
      "SET enable_seqscan = off",
      "SELECT count(*) FROM pgbench_accounts WHERE aid > 0",
    );
  }
}

/** Measures all scripts with all numbers of clients. */
export async function transactions(
  pgbench: string,
  sides: readonly Side[],
  rounds: number,
  seconds: number,
): Promise<Group[]> {
  const rows: Row[] = [];
  const cpuRows: Row[] = [];
  for (const { script, name, aim } of SCRIPTS) {
    if (script === "select") await warm(sides);
    for (const clients of CLIENTS) {
      const results = await inTurns(
        sides,
        rounds,
        (side) => cpuLoad(pgbench, side, { script, clients, seconds }),
      );
      const what = `${name}, ${clients} client${clients === 1 ? "" : "s"}`;
      const notes = Object.fromEntries([...results].map(([side, all]) => [side, note(all)]));
      rows.push({ what, unit: "tps", values: valuesOf(results, ({ tps }) => tps), notes, aim });
      const cpuNotes = Object.fromEntries([...results].map(([side, all]) => [side, cpuNote(all)]));
      cpuRows.push({ what, unit: "us", values: valuesOf(results, totalUs), notes: cpuNotes });
    }
  }
  return [
    { title: "Transactions (p50 / p99 in ms; cores that the client used)", rows },
    { title: "CPU of a transaction, by process", rows: cpuRows },
  ];
}

/** The processes that take a hundredth or more, medians. */
function cpuNote(results: readonly CpuLoad[]): string {
  const roles = [...new Set(results.flatMap(({ cpuUs }) => Object.keys(cpuUs)))];
  const total = summarise(results.map(totalUs)).median;
  return roles
    .map((role) => ({ role, us: summarise(results.map(({ cpuUs }) => cpuUs[role] ?? 0)).median }))
    .filter(({ us }) => us >= total / 100)
    .sort((a, b) => b.us - a.us)
    .map(({ role, us }) => `${role} ${figure(us)}`)
    .join(", ");
}

function note(results: readonly TimedLoad[]): string {
  const median = (pick: (load: TimedLoad) => number) => figure(summarise(results.map(pick)).median);
  return `${median(({ p50Ms }) => p50Ms)} / ${median(({ p99Ms }) => p99Ms)} ms; ${
    median(({ clientCpu }) => clientCpu)
  }`;
}
