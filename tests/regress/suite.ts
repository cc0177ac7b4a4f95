/**
 * PostgreSQL's own test suites against a running server ("installcheck"): the SQL tests of
 * pg_regress, the specifications of concurrent sessions of pg_isolation_regress, and the tests of
 * the additional modules.
 */
import { join } from "node:path";
import { runContrib } from "./contrib.ts";
import { copyOwned, runPgRegress } from "./pg_regress.ts";
import type { SuiteFiles, SuiteRequest, TestOutcome } from "./types.ts";

/** Files and tests of the suites that src/test has. */
const CORE = {
  regress: {
    program: "pg_regress",
    schedule: "parallel_schedule",
    files: ["sql", "expected", "data", "resultmap", "regress.so"],
    /** What nearly every test builds on. */
    first: ["test_setup"],
    /** Not in the schedule, because they need a setting. */
    besides: [],
  },
  isolation: {
    program: "pg_isolation_regress",
    schedule: "isolation_schedule",
    files: ["specs", "expected", "isolationtester"],
    first: [],
    besides: ["prepared-transactions", "prepared-transactions-cic"],
  },
} as const;

/** Runs a suite to its end. Throws if it could not be run at all. */
export function runSuite(files: SuiteFiles, request: SuiteRequest): Promise<TestOutcome[]> {
  const { suite } = request;
  return suite === "contrib" ? runContrib(files, request) : runCore(files, request, suite);
}

function runCore(
  files: SuiteFiles,
  request: SuiteRequest,
  suite: keyof typeof CORE,
): Promise<TestOutcome[]> {
  const { program, schedule, files: needed, first, besides } = CORE[suite];
  const from = join(files.source, "src/test", suite);
  const libraries = namesIn(from).filter((name) => name.endsWith(".so"));
  const names = new Set([program, schedule, ...needed, ...libraries]);
  copyOwned(files, from, request.directory, names);
  const others = request.tests?.filter((name) => !(first as readonly string[]).includes(name));
  const tests = others === undefined
    ? [`--schedule=${writeSchedule(request, schedule)}`, ...besides]
    : [...first, ...others];
  return runPgRegress(files, request, tests, program);
}

/** The schedule without the tests to be left out; returns the name of the file. */
function writeSchedule({ directory, skip }: SuiteRequest, schedule: string): string {
  const name = "schedule";
  const lines = Deno.readTextFileSync(join(directory, schedule)).split("\n").map((line) =>
    line.startsWith("test:")
      ? line.split(" ").filter((word) => !skip.includes(word)).join(" ")
      : line
  ).filter((line) => line.trim() !== "test:");
  Deno.writeTextFileSync(join(directory, name), lines.join("\n"));
  return name;
}

function namesIn(directory: string): string[] {
  try {
    return [...Deno.readDirSync(directory)].map(({ name }) => name);
  } catch {
    return []; // what is missing is told when it is copied
  }
}
