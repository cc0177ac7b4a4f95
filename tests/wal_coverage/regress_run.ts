/**
 * PostgreSQL's own regression and isolation suites on a stock server that puts images of all pages
 * into its WAL. What the tests print is of no matter here: their WAL is.
 *
 * The programs (pg_regress, psql, isolationtester, regress.so) are those of a built source tree;
 * the server may be of another minor version. All of it is copied to where the server's user can
 * read it.
 */
import { join } from "node:path";
import { type RecordedRun, SETTINGS } from "./scenario.ts";
import { StockPostgres } from "../redo_judge/stock_postgres.ts";

const SUITES = [
  {
    name: "regress",
    program: "pg_regress",
    schedule: "parallel_schedule",
    besides: ["--max-concurrent-tests=20"],
  },
  {
    name: "isolation",
    program: "pg_isolation_regress",
    schedule: "isolation_schedule",
    besides: ["prepared-transactions", "prepared-transactions-cic"],
  },
] as const;

/** psql and the library that it and isolationtester need. */
const PSQL = "src/bin/psql/psql";
const LIBPQ = "src/interfaces/libpq/libpq.so.5";

/** The major version of a source tree that has been configured. */
export function sourceMajor(source: string): number {
  const text = Deno.readTextFileSync(join(source, "src/include/pg_config.h"));
  const major = /PG_MAJORVERSION "(\d+)"/.exec(text)?.[1];
  if (major === undefined) throw new Error(`Cannot tell the version of "${source}"`);
  return Number(major);
}

/** Runs both suites; the caller removes the cluster. `log` is told how each of them ended. */
export async function runRegressionSuites(
  binDir: string,
  source: string,
  initdb: readonly string[],
  log: (text: string) => void,
): Promise<RecordedRun> {
  const server = new StockPostgres(binDir, [...initdb]);
  try {
    const base = server.copyData("base");
    await server.start({ ...SETTINGS, full_page_writes: "off", autovacuum: "on" });
    await compressImages(server);
    const programs = copyPrograms(server, source);
    for (const suite of SUITES) {
      const directory = copySuite(server, source, suite.name);
      const begin = performance.now();
      const output = server.tryRun(join(directory, suite.program), [
        `--inputdir=${directory}`,
        `--outputdir=${directory}`,
        `--bindir=${programs}`,
        "--dlpath=.",
        `--host=${server.directory}`,
        "--user=postgres",
        `--schedule=${join(directory, suite.schedule)}`,
        ...suite.besides,
      ], { cwd: directory, env: { LD_LIBRARY_PATH: programs } });
      const seconds = ((performance.now() - begin) / 1000).toFixed(0);
      const last = output.trim().split("\n").filter((line) => / tests |passed|failed/.test(line));
      log(`${suite.name}: ${last.at(-1)?.trim() ?? output.slice(-500)} (${seconds} s)`);
    }
    await server.stop();
    return { server, base };
  } catch (thrown) {
    await server.remove();
    throw thrown;
  }
}

/** Images of everything are tens of gigabytes: with the fastest method that the server has. */
async function compressImages(server: StockPostgres): Promise<void> {
  const client = await server.connect();
  const use = (method: string) => client.query(`ALTER SYSTEM SET wal_compression = ${method}`);
  await use("lz4").catch(() => use("on"));
  await client.query("SELECT pg_reload_conf()");
  client.close();
}

function copyPrograms(server: StockPostgres, source: string): string {
  const directory = join(server.directory, "programs");
  Deno.mkdirSync(directory);
  for (const path of [PSQL, LIBPQ]) copy(join(source, path), directory);
  return directory;
}

function copySuite(server: StockPostgres, source: string, name: string): string {
  copy(join(source, "src/test", name), server.directory);
  server.own(name);
  return join(server.directory, name);
}

function copy(from: string, to: string): void {
  const { success } = new Deno.Command("cp", { args: ["-RL", from, to] }).outputSync();
  if (!success) {
    throw new Error(`Cannot copy "${from}": build the source tree, and src/test/regress in it`);
  }
}
