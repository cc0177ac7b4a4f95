/**
 * PostgreSQL's own suites (regression, isolation, additional modules) on a stock server that puts
 * images of all pages into its WAL. What the tests print is of no matter here: their WAL is.
 *
 * The programs (pg_regress, psql, isolationtester, regress.so) are those of a built source tree;
 * the server may be of another minor version.
 */
import { join } from "node:path";
import { postgresUser } from "../../cli/control_plane/host_user.ts";
import { StockPostgres } from "../redo_judge/stock_postgres.ts";
import { runSuite } from "../regress/suite.ts";
import type { SuiteFiles } from "../regress/types.ts";
import { type RecordedRun, SETTINGS } from "./scenario.ts";
import { freePort } from "../support/free_port.ts";

/** psql and the library that it and isolationtester need, by their folder in an installation. */
const PROGRAMS = { bin: "src/bin/psql/psql", lib: "src/interfaces/libpq/libpq.so.5" };

/** The major version of a source tree that has been configured. */
export function sourceMajor(source: string): number {
  const text = Deno.readTextFileSync(join(source, "src/include/pg_config.h"));
  const major = /PG_MAJORVERSION "(\d+)"/.exec(text)?.[1];
  if (major === undefined) throw new Error(`Cannot tell the version of "${source}"`);
  return Number(major);
}

/** Runs the suites; the caller removes the cluster. `log` is told how each of them ended. */
export async function runRegressionSuites(
  binDir: string,
  source: string,
  initdb: readonly string[],
  log: (text: string) => void,
): Promise<RecordedRun> {
  const server = new StockPostgres(binDir, [...initdb]);
  try {
    const base = server.copyData("base");
    const port = freePort();
    await server.start({
      ...SETTINGS,
      full_page_writes: "off",
      autovacuum: "on",
      wal_level: "logical",
      track_commit_timestamp: "on",
      listen_addresses: "127.0.0.1",
      port: String(port),
    });
    await compressImages(server);
    const programs = copyPrograms(server, source);
    const files: SuiteFiles = { source, binDir: programs, user: postgresUser() };
    for (const suite of ["regress", "isolation", "contrib"] as const) {
      const directory = join(server.directory, suite);
      const target = { port, user: "postgres" };
      const request = { suite, server: target, directory, skip: [], line: () => {} };
      const begin = performance.now();
      const tests = await runSuite(files, request);
      const seconds = (performance.now() - begin) / 1000;
      const passed = tests.filter((test) => test.passed).length;
      log(`${suite}: ${passed} of ${tests.length} tests passed (${seconds.toFixed(0)} s)`);
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

/** Copies them to where the server's user can read them; returns the directory of psql. */
function copyPrograms(server: StockPostgres, source: string): string {
  for (const [folder, path] of Object.entries(PROGRAMS)) {
    const directory = join(server.directory, "programs", folder);
    Deno.mkdirSync(directory, { recursive: true });
    const args = ["-RL", join(source, path), directory];
    if (new Deno.Command("cp", { args }).outputSync().success) continue;
    throw new Error(`Cannot copy "${join(source, path)}": make the source tree`);
  }
  return join(server.directory, "programs", "bin");
}
