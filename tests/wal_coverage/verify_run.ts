/** `neon wal verify` as people run it, over a cluster's copy and the WAL since. */
import { runNeon } from "../harness.ts";
import type { RecordedRun } from "./scenario.ts";

/** A line of its coverage table. */
interface RecordCoverage {
  readonly record: string;
  readonly seen: number;
  readonly applied: number;
  readonly compared: number;
  readonly different: number;
  readonly failed: number;
  readonly adopted: number;
}

/** Its report. */
export interface VerifyReport {
  readonly pg_version: number;
  readonly records: number;
  readonly wal_bytes: number;
  readonly seconds: number;
  readonly megabytes_per_second: number;
  readonly memory_bytes: number;
  readonly redone: number;
  readonly compared: number;
  readonly differences: number;
  readonly failed: number;
  readonly skipped: number;
  readonly after: {
    readonly compared: Readonly<Record<string, number>>;
    readonly differences: readonly string[];
  };
  readonly coverage: readonly RecordCoverage[];
  readonly first_differences: readonly { record: string; page: string; diff: string[] }[];
  readonly first_failures: readonly string[];
}

/** Verifies. Throws if that could not be done; differences are in the report. */
export async function verifyRun({ server, base }: RecordedRun): Promise<VerifyReport> {
  const { dataDir } = server;
  const where = ["--pgdata", base, "--wal", `${dataDir}/pg_wal`, "--after", dataDir];
  const args = ["wal", "verify", ...where, "--json"];
  const { code, stdout, stderr } = await runNeon(server.directory, args);
  if (code > 1) throw new Error(`Cannot verify: ${stderr.trim().split("\n").at(-1)}`);
  return JSON.parse(stdout);
}
