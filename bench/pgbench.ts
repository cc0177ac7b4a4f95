/**
 * Runs pgbench, PostgreSQL's own load generator, and reads its report.
 *
 * It is taken from $PGBENCH, the PATH, or a distribution's PostgreSQL directory: npm's packages of
 * the server do not have it. Any version from 14 on will do, for both sides alike.
 */
import { join } from "node:path";

/** Where distributions put programs that are not on the PATH. */
const SYSTEM_DIRECTORY = "/usr/lib/postgresql";
/** Of proc(5), on all platforms that matter. */
export const TICKS_A_SECOND = 100;

/** A server to load. */
export interface Target {
  readonly port: number;
  readonly user: string;
  readonly database: string;
}

/** One run of pgbench. */
export interface Load {
  /**
   * tpcb: read, update and insert in one transaction; update: the same without the rows that all
   * clients share; select: one read by primary key.
   */
  readonly script: "tpcb" | "update" | "select";
  readonly clients: number;
  readonly seconds: number;
}

/** What pgbench said. */
interface LoadResult {
  readonly tps: number;
  /** Mean over transactions. */
  readonly latencyMs: number;
}

/** What pgbench said, and what it wrote about each transaction. */
export interface TimedLoad extends LoadResult {
  /** Milliseconds from the first statement of a transaction to the answer to its last. */
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** Of pgbench itself, in cores. */
  readonly clientCpu: number;
}

const BUILTIN = { tpcb: "tpcb-like", update: "simple-update", select: "select-only" };

/** The path of pgbench. Throws an Error that says where one can be had. */
export function findPgbench(): string {
  const named = Deno.env.get("PGBENCH");
  const onPath = (Deno.env.get("PATH") ?? "").split(":").filter((path) => path !== "");
  const candidates = named !== undefined
    ? [named]
    : [...onPath, ...systemDirectories()].map((directory) => join(directory, "pgbench"));
  const found = candidates.find(isFile);
  if (found !== undefined) return found;
  throw new Error(
    named === undefined
      ? `Cannot find pgbench on the PATH or under ${SYSTEM_DIRECTORY}/*/bin: install it (Debian: ` +
        `package postgresql-contrib or postgresql-17), or name it with PGBENCH=/path/to/pgbench`
      : `Cannot run PGBENCH="${named}": there is no such file`,
  );
}

function systemDirectories(): string[] {
  try {
    return [...Deno.readDirSync(SYSTEM_DIRECTORY)].map(({ name }) => name).sort().reverse()
      .map((version) => join(SYSTEM_DIRECTORY, version, "bin"));
  } catch {
    return []; // another system
  }
}

function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

async function run(pgbench: string, target: Target, args: string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(pgbench, {
    args: [...args, "-h", "127.0.0.1", "-p", String(target.port), "-U", target.user].concat(
      target.database,
    ),
    env: { LC_ALL: "C" },
  }).output();
  const decoder = new TextDecoder();
  if (success) return decoder.decode(stdout);
  throw new Error(`pgbench ${args.join(" ")} failed: ${decoder.decode(stderr).trim()}`);
}

/** Makes pgbench's tables: `scale` times 100,000 accounts, 15 MB. */
export async function initialise(pgbench: string, target: Target, scale: number): Promise<void> {
  // g: rows made by the server, so that the client's speed does not matter
  await run(pgbench, target, ["-i", "-I", "dtgvp", "-q", "-s", String(scale)]);
}

/** Does so many transactions of the script tpcb. Throws an Error if some failed. */
export async function transactions(
  pgbench: string,
  target: Target,
  clients: number,
  count: number,
): Promise<LoadResult> {
  const all = argumentsOf({ script: "tpcb", clients, seconds: 0 }).slice(0, -1);
  const each = `--transactions=${Math.ceil(count / clients)}`;
  return parseReport(await run(pgbench, target, [...all, each]));
}

/** Loads the server. Throws an Error if transactions failed. */
export async function load(pgbench: string, target: Target, what: Load): Promise<LoadResult> {
  return parseReport(await run(pgbench, target, argumentsOf(what)));
}

function argumentsOf({ clients, seconds, script }: Load): string[] {
  return [
    "--no-vacuum",
    `--builtin=${BUILTIN[script]}`,
    `--client=${clients}`,
    `--jobs=${Math.min(clients, 2)}`,
    `--time=${seconds}`,
  ];
}

/** As load, with the time of each transaction. Nothing else of this process's may end meanwhile. */
export async function timedLoad(
  pgbench: string,
  target: Target,
  what: Load,
): Promise<TimedLoad> {
  const directory = Deno.makeTempDirSync({ prefix: "pgbench-" });
  try {
    const cpuBefore = endedChildrenCpuSeconds();
    const output = await run(pgbench, target, [
      ...argumentsOf(what),
      "--log",
      `--log-prefix=${join(directory, "log")}`,
    ]);
    const clientCpu = (endedChildrenCpuSeconds() - cpuBefore) / what.seconds;
    const times = Float64Array.from(
      [...Deno.readDirSync(directory)].flatMap(({ name }) =>
        transactionTimesMs(Deno.readTextFileSync(join(directory, name)))
      ),
    ).sort();
    const at = (part: number) => times[Math.floor((times.length - 1) * part)]!;
    return { ...parseReport(output), p50Ms: at(0.5), p99Ms: at(0.99), clientCpu };
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

/** pgbench's log: client, transaction, microseconds, script, and when, a line each. */
function transactionTimesMs(log: string): number[] {
  return log.trimEnd().split("\n").map((line) => Number(line.split(" ")[2]) / 1000);
}

/** CPU seconds of all children that have ended, to a hundredth (cutime and cstime in proc(5)). */
function endedChildrenCpuSeconds(): number {
  const stat = Deno.readTextFileSync("/proc/self/stat");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[13]) + Number(fields[14])) / TICKS_A_SECOND;
}

/** Reads pgbench's summary. Throws an Error if it is none. */
function parseReport(output: string): LoadResult {
  const tps = /^tps = ([\d.]+) \(without initial connection time\)/m.exec(output)?.[1];
  const latency = /^latency average = ([\d.]+) ms/m.exec(output)?.[1];
  const failed = /^number of failed transactions: (\d+)/m.exec(output)?.[1] ?? "0";
  if (tps === undefined || latency === undefined) {
    throw new Error(`Cannot read pgbench's report:\n${output}`);
  }
  if (failed !== "0") throw new Error(`pgbench: ${failed} transactions failed`);
  return { tps: Number(tps), latencyMs: Number(latency) };
}
