/**
 * What a branch costs, for a small and a large database side by side: `neon timeline branch` and
 * `neon endpoint start`, as commands and inside the daemons; both in one command, up to a row that
 * was there before; and how much of the large database a read by primary key fetches on a fresh
 * branch. Neither may depend on the size.
 *
 * The two databases take turns, so that what else the machine does hits both alike.
 *
 * Run: deno task bench:branching [--branches 20] [--small 3] [--large 100] [--json FILE]
 * (sizes are pgbench's scale: 15 MB each)
 */
import type { TenantId } from "../libs/utils/id.ts";
import type { EndpointStatus, StartTimings } from "../compute/client.ts";
import { presentRuns, readArenaStatistics } from "../compute/lazy_files/arena.ts";
import { type LocalNeon, startLocalNeon } from "../cli/local_neon.ts";
import { openSql } from "../tests/harness.ts";
import { endpointTarget, query, timedCommand } from "./our_side.ts";
import { findPgbench, initialise } from "./pgbench.ts";
import {
  allowOptions,
  figure,
  figuresWithP90,
  machine,
  markdownTable,
  numberOption,
  summarise,
  writeJson,
} from "./report.ts";

const PAGE_BYTES = 8192;

/** Measured of one database, a value for each branch. */
interface Measured {
  readonly name: string;
  readonly tenantId: TenantId;
  readonly megabytes: number;
  readonly branchInsideMs: number[];
  readonly branchCommandMs: number[];
  readonly startInsideMs: number[];
  readonly startCommandMs: number[];
  readonly firstRowMs: number[];
  readonly phasesMs: StartTimings[];
}

/** Sum of what creating branches took inside the pageserver so far, in milliseconds. */
async function branchingMs(local: LocalNeon): Promise<number> {
  const address = local.environment().config.pageservers[0]!.listen_http_addr;
  const text = await (await fetch(`http://${address}/metrics`)).text();
  const sum = /^pageserver_create_branch_seconds_sum (\S+)$/m.exec(text)?.[1];
  if (sum === undefined) throw new Error("The pageserver does not say what a branch takes");
  return Number(sum) * 1000;
}

async function createDatabase(
  local: LocalNeon,
  pgbench: string,
  name: string,
  scale: number,
): Promise<Measured> {
  const { tenantId } = await local.createTenant({ setDefault: true });
  const { port } = await local.startEndpoint(`${name}-main`);
  const target = endpointTarget(port);
  await initialise(pgbench, target, scale);
  const [row] = await query(target, "CHECKPOINT", "SELECT pg_database_size('postgres')");
  return {
    name,
    tenantId,
    megabytes: Number(row![0]) / 1e6,
    branchInsideMs: [],
    branchCommandMs: [],
    startInsideMs: [],
    startCommandMs: [],
    firstRowMs: [],
    phasesMs: [],
  };
}

/** Makes a branch and starts an endpoint on it; returns the endpoint's port. */
async function branchAndStart(local: LocalNeon, of: Measured, branch: string): Promise<string> {
  const tenant = ["--tenant-id", of.tenantId];
  const before = await branchingMs(local);
  const branched = await timedCommand(
    local,
    ...["timeline", "branch", "--branch-name", branch, ...tenant],
  );
  of.branchInsideMs.push(await branchingMs(local) - before);
  of.branchCommandMs.push(branched.ms);
  const started = await timedCommand(local, "endpoint", "start", branch, "--json", ...tenant);
  const status = JSON.parse(started.stdout) as EndpointStatus;
  of.startCommandMs.push(started.ms);
  of.startInsideMs.push(status.timings_ms!.total);
  of.phasesMs.push(status.timings_ms!);
  return status.address;
}

/** Makes a branch with an endpoint on it, and asks that for a row. */
async function branchToFirstRow(local: LocalNeon, of: Measured, branch: string): Promise<void> {
  const command = ["timeline", "branch", "--branch-name", branch, "--start", "--json"];
  const begun = performance.now();
  const { stdout } = await timedCommand(local, ...command, "--tenant-id", of.tenantId);
  const { connection_string: url } = JSON.parse(stdout) as { connection_string: string };
  const rows = await query(
    endpointTarget(Number(new URL(url).port)),
    "SELECT abalance FROM pgbench_accounts WHERE aid = 77777",
  );
  of.firstRowMs.push(performance.now() - begun);
  if (rows.length !== 1) throw new Error("The branch does not have the row");
}

/** Pages that a read by primary key fetches on an endpoint that has just started. */
async function pagesRead(local: LocalNeon, endpoint: string, address: string, rows: number) {
  const arena = `${local.directory}/compute/endpoints/${endpoint}/arena`;
  const present = presentRuns(arena, () => true).reduce((sum, { pages }) => sum + pages, 0);
  const { pagesFetched } = readArenaStatistics(arena);
  const sql = openSql(Number(address.split(":")[1]));
  try {
    const aid = Math.ceil(rows * 0.6);
    const found = await sql`SELECT abalance FROM pgbench_accounts WHERE aid = ${aid}`;
    if (found.length !== 1) throw new Error(`There is no account ${aid}`);
  } finally {
    await sql.end();
  }
  const after = readArenaStatistics(arena).pagesFetched;
  return { atStart: present, byRead: after - pagesFetched };
}

function report(small: Measured, large: Measured): string {
  const row = (what: string, pick: (of: Measured) => number[], aim: string) => {
    const [a, b] = [summarise(pick(small)), summarise(pick(large))];
    return [what, figuresWithP90(a), figuresWithP90(b), figure(b.median / a.median), aim];
  };
  const phases = Object.keys(small.phasesMs[0]!) as (keyof StartTimings)[];
  return markdownTable(
    ["ms", `${figure(small.megabytes)} MB`, `${figure(large.megabytes)} MB`, "ratio", "aim"],
    [
      row("branch, inside the pageserver", (of) => of.branchInsideMs, "< 20"),
      row("branch, whole command", (of) => of.branchCommandMs, ""),
      row("start, inside the compute host", (of) => of.startInsideMs, "< 100"),
      row("start, whole command", (of) => of.startCommandMs, ""),
      row("branch --start to the first row", (of) => of.firstRowMs, "< 150"),
      ...phases.filter((phase) => phase !== "total").map((phase) =>
        row(`  phase ${phase}`, (of) => of.phasesMs.map((timings) => timings[phase] ?? 0), "")
      ),
    ],
  );
}

async function main(args: readonly string[]): Promise<void> {
  allowOptions(args, ["branches", "large", "small", "json"]);
  const branches = numberOption(args, "branches", 20);
  const pgbench = findPgbench();
  console.log(machine());
  await using local = await startLocalNeon();
  const small = await createDatabase(local, pgbench, "small", numberOption(args, "small", 3));
  const scale = numberOption(args, "large", 100);
  const large = await createDatabase(local, pgbench, "large", scale);
  const pages: { atStart: number; byRead: number }[] = [];
  for (let i = 0; i < branches; i++) {
    for (const of of i % 2 === 0 ? [small, large] : [large, small]) {
      const branch = `${of.name}-${i}`;
      const address = await branchAndStart(local, of, branch);
      if (of === large) pages.push(await pagesRead(local, branch, address, scale * 100_000));
      await timedCommand(local, "endpoint", "stop", branch);
      await branchToFirstRow(local, of, `${branch}-row`);
      await timedCommand(local, "endpoint", "stop", `${branch}-row`);
    }
  }
  const total = Math.round(large.megabytes * 1e6 / PAGE_BYTES);
  const [byStart, byRead] = [
    summarise(pages.map(({ atStart }) => atStart)).median,
    summarise(pages.map((count) => count.byRead)).median,
  ];
  console.log(`medians of ${branches} (lowest to highest)\n\n${report(small, large)}\n`);
  console.log(
    `A read by primary key on a fresh branch fetches ${byRead} of ${total} pages ` +
      `(${(byRead / total * 100).toFixed(2)}%); the start fetched ${byStart} ` +
      `(together ${((byStart + byRead) / total * 100).toFixed(2)}%, aim < 1%).`,
  );
  writeJson(args, { machine: machine(), small, large, pages, total });
}

if (import.meta.main) await main(Deno.args);
