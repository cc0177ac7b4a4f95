/**
 * What a commit costs: small transactions that write, on four servers that take turns on the same
 * machine and disk (and change who goes first), so that what else the machine does hits all.
 *
 *   stock                stock PostgreSQL, fsync=on: one copy
 *   stock, 2 standbys    and two synchronous standbys of which one has to answer: two of three
 *   ours, 1 safekeeper   one copy
 *   ours, 3 safekeepers  two of three: the same promise as with the standbys
 *
 * The transaction is pgbench's simple-update (one UPDATE, one SELECT, one INSERT), the same
 * binaries, user, shared_buffers everywhere. Latencies are of whole transactions. Only ratios mean
 * something; they are medians of the rounds' ratios. A second table says which process takes how
 * much CPU for a transaction, pgbench itself included.
 *
 * Run: deno task bench:commits [--rounds 5] [--seconds 2] [--scale 10] [--json FILE]
 */
import { dirname } from "node:path";
import { postgresUser } from "../cli/control_plane/host_user.ts";
import { configOnFreePorts, type LocalNeon, startLocalNeon } from "../cli/local_neon.ts";
import { type CpuLoad, cpuLoad, type LoadedServer, totalUs } from "./cpu_load.ts";
import { endpointTarget, settle } from "./our_side.ts";
import { findPgbench, initialise, type TimedLoad } from "./pgbench.ts";
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
import { COMMON_SETTINGS, PG_MAJOR, StockPostgres } from "./stock_postgres.ts";
import { StockQuorum } from "./stock_quorum.ts";

const CLIENTS = [1, 8, 32] as const;

/** One of the servers. */
interface Side extends LoadedServer {
  readonly name: string;
}

/** Results of one side under one number of clients, round by round. */
interface Measured {
  readonly name: string;
  readonly clients: number;
  readonly results: CpuLoad[];
}

async function openOurs(local: LocalNeon, safekeepers: number): Promise<Side> {
  const tenant = await local.createTenant({ setDefault: true });
  const { port } = await local.startEndpoint("main");
  const name = `ours, ${safekeepers} safekeeper${safekeepers === 1 ? "" : "s"}`;
  const directories = [local.directory];
  return { name, target: endpointTarget(port), settle: () => settle(local, tenant), directories };
}

async function measure(
  pgbench: string,
  sides: readonly Side[],
  rounds: number,
  seconds: number,
): Promise<Measured[]> {
  const all: Measured[] = CLIENTS.flatMap((clients) =>
    sides.map(({ name }) => ({ name, clients, results: [] }))
  );
  for (let round = 0; round < rounds; round++) {
    for (const clients of CLIENTS) {
      for (let turn = 0; turn < sides.length; turn++) {
        const side = sides[(round + turn) % sides.length]!;
        const of = all.find((one) => one.name === side.name && one.clients === clients)!;
        of.results.push(await cpuLoad(pgbench, side, { script: "update", clients, seconds }));
      }
    }
  }
  return all;
}

/** One side's tps in each round through another side's. */
function ratio(of: Measured, to: Measured): string {
  return figures(summarise(of.results.map(({ tps }, round) => tps / to.results[round]!.tps)));
}

function report(all: readonly Measured[], stock: string, quorum: string): string {
  return markdownTable(
    ["clients", "", "tps", "p50, ms", "p99, ms", "to stock", "to standbys", "client CPU"],
    all.map((of) => {
      const summary = (pick: (result: TimedLoad) => number) => summarise(of.results.map(pick));
      const same = (name: string) =>
        all.find((one) => one.name === name && one.clients === of.clients)!;
      return [
        String(of.clients),
        of.name,
        figures(summary(({ tps }) => tps)),
        figures(summary(({ p50Ms }) => p50Ms)),
        figures(summary(({ p99Ms }) => p99Ms)),
        ratio(of, same(stock)),
        ratio(of, same(quorum)),
        figure(summary(({ clientCpu }) => clientCpu).median),
      ];
    }),
  );
}

/** The second table. */
function cpuReport(all: readonly Measured[]): string {
  const roles = [...new Set(all.flatMap(({ results }) => Object.keys(results[0]!.cpuUs)))];
  const median = ({ results }: Measured, pick: (result: CpuLoad) => number) =>
    figure(summarise(results.map(pick)).median);
  return markdownTable(
    ["clients", "", "CPU, us", ...roles],
    all.map((of) => [
      String(of.clients),
      of.name,
      median(of, totalUs),
      ...roles.map((role) => median(of, ({ cpuUs }) => cpuUs[role] ?? 0)),
    ]),
  );
}

async function main(args: readonly string[]): Promise<void> {
  allowOptions(args, ["rounds", "scale", "seconds", "json"]);
  const rounds = numberOption(args, "rounds", 5);
  const seconds = numberOption(args, "seconds", 2);
  const scale = numberOption(args, "scale", 10);
  const pgbench = findPgbench();
  console.log(`${machine()}; all: ${JSON.stringify(COMMON_SETTINGS)}`);
  await using one = await startLocalNeon({ safekeepers: 1, pgVersion: PG_MAJOR });
  await using three = await startLocalNeon({ safekeepers: 3, pgVersion: PG_MAJOR });
  const ours = [await openOurs(one, 1), await openOurs(three, 3)];
  const { bin_dir } = one.environment().config.postgres[0]!;
  const parent = dirname(one.directory);
  const { first_pg_port } = configOnFreePorts(1, PG_MAJOR).compute;
  await using stock = await StockPostgres.start(bin_dir, postgresUser(), parent, first_pg_port);
  const { safekeepers } = configOnFreePorts(3, PG_MAJOR);
  const ports = safekeepers.map(({ pg_port }) => pg_port);
  await using quorum = await StockQuorum.start(bin_dir, postgresUser(), parent, ports);
  const settled = async () => {};
  const sides: Side[] = [
    { name: "stock", target: stock.target, settle: settled, directories: [stock.dataDir] },
    {
      name: "stock, 2 standbys",
      target: quorum.target,
      settle: settled,
      directories: quorum.dataDirs,
    },
    ...ours,
  ];
  for (const side of sides) {
    await initialise(pgbench, side.target, scale);
    await side.settle();
  }
  const measured = await measure(pgbench, sides, rounds, seconds);
  console.log(
    `medians of ${rounds} rounds of ${seconds} s (lowest to highest), -s ${scale}\n\n` +
      report(measured, sides[0]!.name, sides[1]!.name) +
      `\n\nCPU of a transaction, by process, medians\n\n${cpuReport(measured)}`,
  );
  const [load] = Deno.loadavg();
  console.log(`\nload ${figure(load!)} at the end; client CPU: cores that pgbench itself used`);
  writeJson(args, { machine: machine(), rounds, seconds, scale, measured });
}

if (import.meta.main) await main(Deno.args);
