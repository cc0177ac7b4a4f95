/**
 * A copy of a database that can be changed, up to its first query: our branch with an endpoint on
 * it, against CREATE DATABASE ... TEMPLATE (which needs that nobody is connected to the template),
 * and against pg_basebackup with a server started on it; of a small and of a large database.
 */
import { dirname, join } from "node:path";
import { configOnFreePorts, type LocalNeon } from "../../cli/local_neon.ts";
import { endpointTarget, query, settle, timedCommand, timedMs } from "../our_side.ts";
import { initialise, type Target } from "../pgbench.ts";
import { PG_MAJOR, StockPostgres } from "../stock_postgres.ts";
import type { Group, Row } from "./row.ts";

const TEMPLATE = "postgres";
/** What the first query is: a row that was there before. */
const FIRST_QUERY = "SELECT abalance FROM pgbench_accounts WHERE aid = 77777";

async function firstQuery(target: Target): Promise<void> {
  const { length } = await query(target, FIRST_QUERY);
  if (length !== 1) throw new Error("The copy does not have the row");
}

/** Measures with databases of pgbench's `scales`. */
export async function copies(
  pgbench: string,
  local: LocalNeon,
  stock: StockPostgres,
  scales: readonly number[],
  rounds: number,
): Promise<Group> {
  const rows: Row[] = [];
  const program = await backupProgram(pgbench);
  for (const scale of scales) {
    const tenant = await local.createTenant({ setDefault: true });
    const source = `copies-${scale}`;
    const { port } = await local.startEndpoint(source);
    await initialise(pgbench, endpointTarget(port), scale);
    await query(endpointTarget(port), "CHECKPOINT");
    await settle(local, tenant);
    await initialise(pgbench, stock.target, scale);
    await query(stock.target, "CHECKPOINT");
    const ours: number[] = [];
    const template: number[] = [];
    const backup: number[] = [];
    for (let round = 0; round < rounds; round++) {
      const name = `${source}-${round}`;
      ours.push(await timedMs(() => branchAndQuery(local, name)));
      await timedCommand(local, "endpoint", "stop", name);
      template.push(await timedMs(() => templateAndQuery(stock)));
      await query({ ...stock.target, database: "template1" }, "DROP DATABASE copied");
      if (program !== undefined) backup.push(await backupAndQuery(program, stock));
    }
    await timedCommand(local, "endpoint", "stop", source);
    const megabytes = `${scale * 15} MB`;
    const row = (what: string, theirs: number[]): Row => ({
      what: `${megabytes}: ${what}`,
      unit: "ms",
      values: { stock: theirs, ours },
    });
    rows.push(
      { ...row("branch and endpoint; CREATE DATABASE ... TEMPLATE", template), aim: "< 150 ms" },
      ...(program === undefined
        ? []
        : [row("branch and endpoint; pg_basebackup and start", backup)]),
    );
  }
  return { title: "A copy to the first query in it (commands included)", rows };
}

async function branchAndQuery(local: LocalNeon, name: string): Promise<void> {
  const { stdout } = await timedCommand(
    local,
    ...["timeline", "branch", "--branch-name", name, "--start", "--json"],
  );
  const { port } = new URL((JSON.parse(stdout) as { connection_string: string }).connection_string);
  await firstQuery(endpointTarget(Number(port)));
}

async function templateAndQuery(stock: StockPostgres): Promise<void> {
  const elsewhere = { ...stock.target, database: "template1" };
  await query(elsewhere, `CREATE DATABASE copied TEMPLATE ${TEMPLATE}`);
  await firstQuery({ ...stock.target, database: "copied" });
}

/** The pg_basebackup beside pgbench, unless it is older than the servers, which it refuses then. */
async function backupProgram(pgbench: string): Promise<string | undefined> {
  const program = join(dirname(pgbench), "pg_basebackup");
  const { stdout } = await new Deno.Command(program, { args: ["--version"] }).output();
  const version = /\) (\d+)/.exec(new TextDecoder().decode(stdout))?.[1];
  if (Number(version) >= PG_MAJOR) return program;
  console.log(`${program} is of version ${version}: copies by it are left out`);
  return undefined;
}

/** Milliseconds of it; what it made is removed. */
async function backupAndQuery(program: string, stock: StockPostgres): Promise<number> {
  const { first_pg_port } = configOnFreePorts(1, PG_MAJOR).compute;
  const begun = performance.now();
  const copy = await StockPostgres.startBackup(program, stock, first_pg_port);
  try {
    await firstQuery(copy.target);
    return performance.now() - begun;
  } finally {
    await copy[Symbol.asyncDispose]();
  }
}
