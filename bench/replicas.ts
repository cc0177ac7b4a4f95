/**
 * What a read replica costs: `neon endpoint start` of one to the first query, on a small and a
 * large database, which may not differ; and how far it is behind under a write load, as a client
 * sees it: from the moment a commit has returned on the primary until a query on the replica shows
 * the row.
 *
 * Run: deno task bench:replicas [--starts 10] [--small 3] [--large 100] [--seconds 10]
 * [--json FILE] (sizes are pgbench's scale: 15 MB each)
 */
import type { EndpointStatus, StartTimings } from "../compute/client.ts";
import { SUPERUSER } from "../cli/control_plane/endpoints.ts";
import { type LocalNeon, startLocalNeon } from "../cli/local_neon.ts";
import { openSql } from "../tests/harness.ts";
import { timedCommand } from "./our_side.ts";
import { findPgbench, initialise, load } from "./pgbench.ts";
import {
  allowOptions,
  figure,
  figures,
  machine,
  markdownTable,
  numberOption,
  summarise,
  writeJson,
} from "./report.ts";

/** Pause before a start, in which the host makes files ahead: what it has when it is at rest. */
const REST_MS = 4000;
const WRITERS = 4;

/** Measured of one database. */
interface Measured {
  readonly name: string;
  readonly port: number;
  readonly megabytes: number;
  readonly commandMs: number[];
  readonly phasesMs: StartTimings[];
}

async function createDatabase(
  local: LocalNeon,
  pgbench: string,
  name: string,
  scale: number,
): Promise<Measured> {
  await local.createTenant({ setDefault: true });
  const { port } = await local.startEndpoint(`${name}-main`);
  await initialise(pgbench, { port, user: SUPERUSER, database: "postgres" }, scale);
  const sql = openSql(port);
  await sql`checkpoint`;
  const [row] = await sql`select pg_database_size('postgres')::float8 as bytes`;
  await sql`create table marks(n int primary key)`;
  await sql.end();
  const replica = ["--branch-name", "main", "--hot-standby", "true"];
  await timedCommand(local, "endpoint", "create", `${name}-replica`, ...replica);
  return { name, port, megabytes: row!["bytes"] / 1e6, commandMs: [], phasesMs: [] };
}

async function measureStart(local: LocalNeon, of: Measured): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, REST_MS));
  const started = await timedCommand(local, "endpoint", "start", `${of.name}-replica`, "--json");
  of.commandMs.push(started.ms);
  of.phasesMs.push((JSON.parse(started.stdout) as EndpointStatus).timings_ms!);
  await timedCommand(local, "endpoint", "stop", `${of.name}-replica`);
}

/** Milliseconds from each commit until the replica shows its row. */
async function measureLag(port: number, replicaPort: number, goesOn: () => boolean) {
  const [primary, replica] = [openSql(port), openSql(replicaPort)];
  const lags: number[] = [];
  try {
    for (let n = 0; goesOn(); n++) {
      await primary`insert into marks values (${n})`;
      const committed = performance.now();
      while ((await replica`select from marks where n = ${n}`).count === 0);
      lags.push(performance.now() - committed);
    }
    await primary`truncate marks`;
  } finally {
    await Promise.all([primary.end(), replica.end()]);
  }
  return lags.sort((a, b) => a - b);
}

function lagRow(what: string, lags: number[]): string[] {
  const at = (part: number) => figure(lags[Math.floor((lags.length - 1) * part)]!);
  return [what, String(lags.length), at(0.5), at(0.95), at(1)];
}

async function main(args: readonly string[]): Promise<void> {
  allowOptions(args, ["large", "seconds", "small", "starts", "json"]);
  const pgbench = findPgbench();
  console.log(machine());
  await using local = await startLocalNeon();
  const small = await createDatabase(local, pgbench, "small", numberOption(args, "small", 3));
  const large = await createDatabase(local, pgbench, "large", numberOption(args, "large", 100));
  const starts = numberOption(args, "starts", 10);
  for (let i = 0; i < starts; i++) {
    for (const of of i % 2 === 0 ? [small, large] : [large, small]) await measureStart(local, of);
  }
  const row = (what: string, pick: (of: Measured) => number[]) => {
    const [a, b] = [summarise(pick(small)), summarise(pick(large))];
    return [what, figures(a), figures(b), figure(b.median / a.median)];
  };
  const phases = Object.keys(small.phasesMs[0]!) as (keyof StartTimings)[];
  console.log(`start of a replica, medians of ${starts} (lowest to highest)\n`);
  console.log(markdownTable(
    ["ms", `${figure(small.megabytes)} MB`, `${figure(large.megabytes)} MB`, "ratio"],
    [
      row("whole command", (of) => of.commandMs),
      ...phases.map((phase) =>
        row(`  ${phase}`, (of) => of.phasesMs.map((timings) => timings[phase] ?? 0))
      ),
    ],
  ));

  const replica = await timedCommand(local, "endpoint", "start", "small-replica", "--json");
  const { address } = JSON.parse(replica.stdout) as EndpointStatus;
  const replicaPort = Number(address.split(":")[1]);
  const seconds = numberOption(args, "seconds", 10);
  const until = performance.now() + seconds * 1000;
  const idle = await measureLag(small.port, replicaPort, () => performance.now() < until);
  let loading = true;
  const target = { port: small.port, user: SUPERUSER, database: "postgres" };
  const work = load(pgbench, target, { script: "tpcb", clients: WRITERS, seconds })
    .finally(() => loading = false);
  const [busy, result] = await Promise.all([
    measureLag(small.port, replicaPort, () => loading),
    work,
  ]);
  console.log(`\nlag in ms; the load is ${WRITERS} clients with ${figure(result.tps)} TPC-B tps\n`);
  const head = ["", "commits", "median", "95%", "highest"];
  console.log(markdownTable(head, [lagRow("idle", idle), lagRow("under load", busy)]));
  writeJson(args, { machine: machine(), small, large, idle, busy, tps: result.tps });
}

if (import.meta.main) await main(Deno.args);
