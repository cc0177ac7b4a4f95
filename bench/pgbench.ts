/**
 * Runs pgbench, PostgreSQL's own load generator, and reads its report.
 *
 * It is taken from $PGBENCH, the PATH, or a distribution's PostgreSQL directory: npm's packages of
 * the server do not have it. Any version from 14 on will do, for both sides alike.
 */
import { join } from "node:path";

/** Where distributions put programs that are not on the PATH. */
const SYSTEM_DIRECTORY = "/usr/lib/postgresql";

/** A server to load. */
export interface Target {
  readonly port: number;
  readonly user: string;
  readonly database: string;
}

/** One run of pgbench. */
export interface Load {
  /** tpcb: read, update and insert in one transaction; select: one read by primary key. */
  readonly script: "tpcb" | "select";
  readonly clients: number;
  readonly seconds: number;
}

/** What pgbench said. */
export interface LoadResult {
  readonly tps: number;
  /** Mean over transactions. */
  readonly latencyMs: number;
}

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
  await run(pgbench, target, ["-i", "-I", "dtGvp", "-q", "-s", String(scale)]);
}

/** Loads the server. Throws an Error if transactions failed. */
export async function load(pgbench: string, target: Target, what: Load): Promise<LoadResult> {
  const { clients, seconds, script } = what;
  const output = await run(pgbench, target, [
    "--no-vacuum",
    `--builtin=${script === "tpcb" ? "tpcb-like" : "select-only"}`,
    `--client=${clients}`,
    `--jobs=${Math.min(clients, 2)}`,
    `--time=${seconds}`,
  ]);
  return parseReport(output);
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
