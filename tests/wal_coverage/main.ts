/**
 * `deno task test:coverage`: is our redo right for every record that PostgreSQL writes? Runs all
 * workloads on clusters with and without page checksums, has `neon wal verify` replay the WAL, and
 * prints for each version what was seen of every record. Exit code 1: something differs, could not
 * be replayed, was not reached, or was reached although it is listed as unwritten.
 *
 *   --version N        only this major version (may be repeated; default: all that npm has)
 *   --pg-install DIR   this installation (DIR/bin/postgres) instead of npm's of its version
 *   --regress          PostgreSQL's own regression and isolation suites instead of the workloads,
 *   --pg-source DIR    from this source tree, in which they have been built (may be repeated)
 *   --keep             leave the clusters
 *
 * NEON_TEST_PG_DISTRIB_DIR names a directory with installations v14 to v18.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type PgVersion, pgVersion } from "../../libs/postgres/versions.ts";
import { messageOf } from "../../libs/utils/errors.ts";
import { binariesOf, testedVersions } from "../support/postgres_versions.ts";
import { CoverageTable } from "./coverage_table.ts";
import { runRegressionSuites, sourceMajor } from "./regress_run.ts";
import { type RecordedRun, runScenario } from "./scenario.ts";
import { type VerifyReport, verifyRun } from "./verify_run.ts";

/** How one cluster is made and used. */
interface Run {
  readonly name: string;
  readonly record: () => Promise<RecordedRun>;
}

function majorOf(binDir: string): number {
  const { stdout } = new Deno.Command(join(binDir, "postgres"), { args: ["--version"] })
    .outputSync();
  return Number(/\d+/.exec(new TextDecoder().decode(stdout))?.[0]);
}

/** Directories of programs by major version. */
async function installations(
  named: readonly string[],
  versions: readonly number[],
): Promise<Map<number, string>> {
  if (named.length > 0) {
    return new Map(named.map((directory) => {
      const binDir = join(directory, "bin");
      return [majorOf(binDir), binDir];
    }));
  }
  const distrib = Deno.env.get("NEON_TEST_PG_DISTRIB_DIR");
  const found = new Map<number, string>();
  for (const major of versions) {
    const binDir = distrib === undefined
      ? (await binariesOf(major)).binDir
      : join(distrib, `v${major}`, "bin");
    found.set(major, binDir);
  }
  return found;
}

function suiteRuns(binDir: string, source: string | undefined, major: number): Run[] {
  if (source === undefined) throw new Error(`Cannot find a source tree of PostgreSQL ${major}`);
  const record = () =>
    runRegressionSuites(
      binDir,
      source,
      withoutChecksums(major),
      (text) => console.log(`  ${text}`),
    );
  return [{ name: "suites", record }];
}

function withoutChecksums(major: number): string[] {
  return major >= 18 ? ["--no-data-checksums"] : [];
}

function scenarioRuns(binDir: string, major: number): Run[] {
  const without = withoutChecksums(major);
  return ([["no checksums", without], ["checksums", ["--data-checksums"]]] as const).map(
    ([name, options]) => ({
      name,
      record: () => runScenario(binDir, options, (stage) => console.log(`  ${name}: ${stage}`)),
    }),
  );
}

function printRun(name: string, report: VerifyReport, seconds: number): void {
  const megabytes = (report.wal_bytes / 1e6).toFixed(0);
  console.log(
    `  ${name}: ${megabytes} MB, ${report.records} records, written in ${seconds.toFixed(0)} s, ` +
      `verified in ${report.seconds.toFixed(0)} s (${
        report.megabytes_per_second.toFixed(1)
      } MB/s, ` +
      `${(report.memory_bytes / 1e6).toFixed(0)} MB of memory): ${report.compared} images, ` +
      `${report.differences} differences, ${report.failed} failures`,
  );
  const after = Object.entries(report.after.compared).map(([kind, count]) => `${kind} ${count}`);
  console.log(
    `  ${name}: pages compared with the files afterwards: ${after.join(", ")}; ` +
      `${report.after.differences.length} different`,
  );
  for (const difference of report.after.differences.slice(0, 20)) console.log(`    ${difference}`);
  for (const { record, page, diff } of report.first_differences) {
    console.log(`    ${record} left ${page} different`);
    for (const line of diff.slice(0, 20)) console.log(`      ${line}`);
  }
  for (const failure of report.first_failures) console.log(`    ${failure}`);
}

async function verifyVersion(
  version: PgVersion,
  runs: readonly Run[],
  complete: boolean,
  keep: boolean,
): Promise<boolean> {
  const table = new CoverageTable(version);
  for (const { name, record } of runs) {
    const begin = performance.now();
    const recorded = await record();
    const seconds = (performance.now() - begin) / 1000;
    try {
      const report = await verifyRun(recorded);
      printRun(name, report, seconds);
      table.add(report);
    } finally {
      if (keep) console.log(`  ${name}: kept in ${recorded.server.directory}`);
      else await recorded.server.remove();
    }
  }
  console.log(table.lines().map((line) => `  ${line}`).join("\n"));
  const images = [...table.imagesByRmgr()].map(([rmgr, count]) => `${rmgr} ${count}`);
  console.log(`  records reached: ${table.reached()}; images compared: ${images.join(", ")}`);
  const faults = table.faults(complete);
  for (const fault of faults) console.log(`  FAULT: ${fault}`);
  return faults.length === 0;
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    args: Deno.args,
    options: {
      version: { type: "string", multiple: true },
      "pg-install": { type: "string", multiple: true },
      "pg-source": { type: "string", multiple: true },
      regress: { type: "boolean", default: false },
      keep: { type: "boolean", default: false },
    },
  });
  const sources = new Map((values["pg-source"] ?? []).map((path) => [sourceMajor(path), path]));
  if (values.regress && sources.size === 0) {
    throw new Error("Cannot run the regression suites: name their source tree with --pg-source");
  }
  const all = values.regress ? [...sources.keys()] : testedVersions();
  const versions = values.version?.map(Number) ?? all;
  const found = await installations(values["pg-install"] ?? [], versions);
  let right = true;
  for (const [major, binDir] of found) {
    console.log(`PostgreSQL ${major}, ${binDir}`);
    const runs = values.regress
      ? suiteRuns(binDir, sources.get(major), major)
      : scenarioRuns(binDir, major);
    right = await verifyVersion(pgVersion(major), runs, !values.regress, values.keep) && right;
  }
  return right ? 0 : 1;
}

if (import.meta.main) {
  try {
    Deno.exitCode = await main();
  } catch (thrown) {
    console.error(`error: ${messageOf(thrown)}`);
    Deno.exitCode = 2;
  }
}
