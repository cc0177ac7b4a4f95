/**
 * Our endpoint against stock PostgreSQL: the same binaries, disk, user and buffer sizes, in one
 * run, in rounds in which the two take turns (and change who goes first), so that what else the
 * machine does hits both. Only ratios mean something.
 *
 *   writes  pgbench's TPC-B-like transaction; stock PostgreSQL with fsync=on
 *   reads   one row by primary key, after a restart of both and one scan of all tables
 *
 * Run: deno task bench [--rounds 10] [--seconds 2] [--scale 10] [--safekeepers 1] [--json FILE]
 */
import { postgresUser } from "../cli/control_plane/host_user.ts";
import { configOnFreePorts, type LocalNeon, startLocalNeon } from "../cli/local_neon.ts";
import type { CreatedTenant } from "../mod.ts";
import { endpointTarget, query, settle } from "./our_side.ts";
import {
  findPgbench,
  initialise,
  type Load,
  load,
  type LoadResult,
  type Target,
} from "./pgbench.ts";
import {
  figure,
  figures,
  machine,
  markdownTable,
  numberOption,
  summarise,
  writeJson,
} from "./report.ts";
import { COMMON_SETTINGS, StockPostgres } from "./stock_postgres.ts";

/** Loads and the ratio to stock PostgreSQL that each should reach. */
const MEASURED: readonly { name: string; load: Omit<Load, "seconds">; aim: number }[] = [
  { name: "writes, 1 client", load: { script: "tpcb", clients: 1 }, aim: 0.8 },
  { name: "writes, 8 clients", load: { script: "tpcb", clients: 8 }, aim: 0.8 },
  { name: "reads, 1 client", load: { script: "select", clients: 1 }, aim: 0.95 },
  { name: "reads, 8 clients", load: { script: "select", clients: 8 }, aim: 0.95 },
];

/** The two sides. */
interface Sides {
  readonly pgbench: string;
  readonly local: LocalNeon;
  readonly tenant: CreatedTenant;
  readonly ours: Target;
  readonly stock: StockPostgres;
}

/** Results of one load, round by round. */
interface Measured {
  readonly name: string;
  readonly aim: number;
  readonly ours: LoadResult[];
  readonly stock: LoadResult[];
}

/** Both sides start with nothing in memory and are read once from end to end. */
async function restartWarm(sides: Sides): Promise<void> {
  await sides.stock.restart();
  await sides.local.stopEndpoint("main");
  await sides.local.startEndpoint("main");
  for (const target of [sides.stock.target, sides.ours]) {
    await query(
      target,
      "VACUUM ANALYZE pgbench_accounts",
      "SELECT sum(abalance) FROM pgbench_accounts",
      "SET enable_seqscan = off",
      "SELECT count(*) FROM pgbench_accounts WHERE aid > 0",
    );
  }
}

async function measure(sides: Sides, script: Load["script"], rounds: number, seconds: number) {
  const results: Measured[] = MEASURED.filter((known) => known.load.script === script)
    .map(({ name, aim }) => ({ name, aim, ours: [], stock: [] }));
  for (let round = 0; round < rounds; round++) {
    for (const result of results) {
      const { load: what } = MEASURED.find(({ name }) => name === result.name)!;
      const turns = [
        async () => {
          result.stock.push(await load(sides.pgbench, sides.stock.target, { ...what, seconds }));
        },
        async () => {
          result.ours.push(await load(sides.pgbench, sides.ours, { ...what, seconds }));
          await settle(sides.local, sides.tenant);
        },
      ];
      for (const turn of round % 2 === 0 ? turns : turns.reverse()) await turn();
    }
  }
  return results;
}

function report(results: readonly Measured[]): string {
  return markdownTable(
    ["load", "stock, tps", "ours, tps", "stock, ms", "ours, ms", "ratio", "aim"],
    results.map(({ name, ours, stock, aim }) => [
      name,
      figures(summarise(stock.map(({ tps }) => tps))),
      figures(summarise(ours.map(({ tps }) => tps))),
      figure(summarise(stock.map(({ latencyMs }) => latencyMs)).median),
      figure(summarise(ours.map(({ latencyMs }) => latencyMs)).median),
      figures(summarise(ours.map(({ tps }, round) => tps / stock[round]!.tps))),
      String(aim),
    ]),
  );
}

async function main(args: readonly string[]): Promise<void> {
  const rounds = numberOption(args, "rounds", 10);
  const seconds = numberOption(args, "seconds", 2);
  const scale = numberOption(args, "scale", 10);
  const safekeepers = numberOption(args, "safekeepers", 1);
  const pgbench = findPgbench();
  console.log(`${machine()}; both sides: ${JSON.stringify(COMMON_SETTINGS)}`);
  await using local = await startLocalNeon({ safekeepers });
  const tenant = await local.createTenant({ setDefault: true });
  const { port } = await local.startEndpoint("main");
  const { bin_dir } = local.environment().config.postgres[0]!;
  const parent = local.directory.slice(0, local.directory.lastIndexOf("/"));
  const stockPort = configOnFreePorts(1, 17).compute.first_pg_port;
  await using stock = await StockPostgres.start(bin_dir, postgresUser(), parent, stockPort);
  const ours = endpointTarget(port);
  const sides: Sides = { pgbench, local, tenant, ours, stock };
  for (const target of [stock.target, ours]) await initialise(pgbench, target, scale);
  await settle(sides.local, sides.tenant);
  const writes = await measure(sides, "tpcb", rounds, seconds);
  await restartWarm(sides);
  const reads = await measure(sides, "select", rounds, seconds);
  console.log(
    `medians of ${rounds} rounds of ${seconds} s (lowest to highest), -s ${scale}, ` +
      `${safekeepers} safekeeper(s)\n\n${report([...writes, ...reads])}`,
  );
  writeJson(args, { machine: machine(), rounds, seconds, scale, safekeepers, writes, reads });
}

if (import.meta.main) await main(Deno.args);
