/**
 * `deno task test:regress`: PostgreSQL's own regression suite against an endpoint, and the proof
 * that the storage has everything afterwards. docs/regression-suite.md says how to prepare it.
 */
import { join } from "node:path";
import { computeClient } from "../../cli/control_plane/clients.ts";
import { parseEndpointSettings } from "../../cli/control_plane/endpoint_records.ts";
import { SUPERUSER } from "../../cli/control_plane/endpoints.ts";
import { cacheDirectory, postgresUser } from "../../cli/control_plane/host_user.ts";
import { findPostgres, type PostgresBinaries } from "../../cli/control_plane/postgres_binaries.ts";
import { silentProgress } from "../../cli/control_plane/progress.ts";
import { configOnFreePorts, startLocalNeon } from "../../cli/local_neon.ts";
import { messageOf } from "../../libs/utils/errors.ts";
import { parseSettings } from "../../cli/control_plane/tenant_settings.ts";
import { logTails, TestNeon, Watchdog } from "../harness.ts";
import { DISTURBED_SAFEKEEPERS, Disturber } from "./disturber.ts";
import { parseOptions, type RegressOptions } from "./options.ts";
import { startReference } from "./reference_cluster.ts";
import { printReport, type Report } from "./report.ts";
import { proveStorage } from "./storage_proof.ts";
import { runSuite } from "./suite.ts";
import type { SuiteFiles, SuiteRun } from "./types.ts";

/** The endpoint under test. */
const ENDPOINT = "main";
/** What the tests need ("make check" sets it, too). */
const SETTINGS = { max_prepared_transactions: "10" };

const began = performance.now();

function say(text: string): void {
  console.log(`[${((performance.now() - began) / 1000).toFixed(0).padStart(4)} s] ${text}`);
}

function majorOf(prefix: string): number {
  const program = join(prefix, "bin/postgres");
  const { stdout } = new Deno.Command(program, { args: ["--version"] }).outputSync();
  return Number(/\) (\d+)/.exec(new TextDecoder().decode(stdout))![1]);
}

/** One run's directory, binaries and files. */
interface Setup {
  readonly options: RegressOptions;
  readonly directory: string;
  readonly major: number;
  readonly build: PostgresBinaries;
  readonly server: PostgresBinaries;
}

async function setUp(options: RegressOptions): Promise<Setup> {
  const major = majorOf(options.prefix);
  const find = (source: { pgBin?: string }) =>
    findPostgres(major, source, postgresUser(), cacheDirectory(), silentProgress);
  const build = await find({ pgBin: join(options.prefix, "bin") });
  const server = options.server === undefined
    ? build
    : await find(options.server === "npm" ? {} : { pgBin: options.server });
  if (options.workDir !== undefined) Deno.mkdirSync(options.workDir, { recursive: true });
  const directory = Deno.makeTempDirSync({
    prefix: "pg-regress-",
    ...(options.workDir === undefined ? {} : { dir: options.workDir }),
  });
  Deno.chmodSync(directory, 0o755); // PostgreSQL's user passes through
  return { options, directory, major, build, server };
}

/** Runs the chosen suites on one server, in directories of that name. */
async function runSuites(
  setup: Setup,
  name: string,
  port: number,
  round: number,
): Promise<SuiteRun[]> {
  const { options, directory, build } = setup;
  const files: SuiteFiles = {
    source: options.source,
    binDir: build.binDir,
    user: postgresUser(),
  };
  const runs: SuiteRun[] = [];
  for (const suite of options.suites) {
    say(`${suite} on ${name}`);
    const started = performance.now();
    const tests = await runSuite(files, {
      suite,
      server: { port, user: SUPERUSER },
      directory: join(directory, `${name}-${suite}`),
      ...(options.tests === undefined ? {} : { tests: options.tests }),
      skip: options.skip,
      line: (text) => /FAILED|^not ok|Bail/.test(text) ? console.log(text) : undefined,
    });
    const seconds = Math.round((performance.now() - started) / 1000);
    say(`${tests.filter(({ passed }) => passed).length} of ${tests.length} passed`);
    runs.push({ suite, round, tests, seconds });
  }
  return runs;
}

async function onReference(setup: Setup): Promise<SuiteRun[]> {
  const { server, major, directory } = setup;
  const user = postgresUser();
  await using stock = await startReference(server.binDir, major, user, directory, SETTINGS);
  return await runSuites(setup, "reference", stock.target.port, 1);
}

async function onEndpoint(setup: Setup): Promise<Omit<Report, "reference">> {
  const { options, directory, major, build, server } = setup;
  const safekeepers = options.disturb ? DISTURBED_SAFEKEEPERS : 1;
  await using local = await startLocalNeon({
    directory: join(directory, ".neon"),
    pgVersion: major,
    pgBin: server.binDir,
    safekeepers,
    config: configOnFreePorts(safekeepers, major),
  });
  await using _watchdog = options.keep ? undefined : new Watchdog(local.directory);
  const tenant = {
    setDefault: true,
    settings: parseSettings([...options.tenantConfig]),
    ...(options.dataChecksums ? {} : { dataChecksums: false }),
  };
  const neon = new TestNeon(local, await local.createTenant(tenant));
  const settings = { ...SETTINGS, ...parseEndpointSettings(options.config) };
  try {
    let { port } = await local.startEndpoint(ENDPOINT, { settings });
    const suites: SuiteRun[] = [];
    for (let round = 1; round <= options.rounds; round++) {
      if (round > 1) {
        await local.stopEndpoint(ENDPOINT);
        ({ port } = await local.startEndpoint(ENDPOINT));
      }
      await using disturber = options.disturb ? new Disturber(neon) : undefined;
      suites.push(...await runSuites(setup, `endpoint-${round}`, port, round));
      await checkRuns(neon);
      if (disturber !== undefined) say(`${disturber.kills} daemons were killed meanwhile`);
    }
    const request = { neon, endpoint: ENDPOINT, port, binDir: build.binDir, major, step: say };
    return {
      server: server.version,
      build: build.version,
      suites,
      proof: await proveStorage(request),
    };
  } catch (thrown) {
    console.error(logTails(local.directory));
    throw thrown;
  }
}

/** Throws if PostgreSQL has crashed under the tests. */
async function checkRuns(neon: TestNeon): Promise<void> {
  const { status, error } = await computeClient(neon.local.environment()).endpoint(ENDPOINT);
  if (status !== "running") throw new Error(`The endpoint is ${status}: ${error}`);
}

async function main(): Promise<boolean> {
  const options = parseOptions(Deno.args);
  const setup = await setUp(options);
  say(`PostgreSQL ${setup.server.version}, tests of ${setup.build.version}, ${setup.directory}`);
  try {
    const report: Report = { reference: await onReference(setup), ...await onEndpoint(setup) };
    if (options.json !== undefined) Deno.writeTextFileSync(options.json, JSON.stringify(report));
    return printReport(report);
  } finally {
    if (!options.keep) Deno.removeSync(setup.directory, { recursive: true });
  }
}

try {
  Deno.exitCode = await main() ? 0 : 1;
} catch (thrown) {
  console.error(messageOf(thrown));
  Deno.exitCode = 1;
}
