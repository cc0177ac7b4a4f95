/** `neon wal verify` as people run it, over a cluster's copy and the WAL since. */
import { decodeControlFile } from "../../libs/postgres/control_file.ts";
import { formatLsn, parseLsn } from "../../libs/utils/lsn.ts";
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
  readonly end_lsn: string;
  readonly coverage: readonly RecordCoverage[];
  readonly first_differences: readonly { record: string; page: string; diff: string[] }[];
  readonly first_failures: readonly string[];
}

/**
 * Verifies. Throws if that could not be done, or not up to the server's last checkpoint;
 * differences are in the report.
 */
export async function verifyRun({ server, base }: RecordedRun): Promise<VerifyReport> {
  const args = ["wal", "verify", "--pgdata", base, "--wal", `${server.dataDir}/pg_wal`, "--json"];
  const { code, stdout, stderr } = await runNeon(server.directory, args);
  if (code > 1) throw new Error(`Cannot verify: ${stderr.trim().split("\n").at(-1)}`);
  const report: VerifyReport = JSON.parse(stdout);
  const control = Deno.readFileSync(`${server.dataDir}/global/pg_control`);
  const { checkPointLsn } = decodeControlFile(control);
  if (parseLsn(report.end_lsn) <= checkPointLsn) {
    throw new Error(
      `Cannot verify all WAL: reading ends at ${report.end_lsn}, before the last checkpoint at ` +
        `${formatLsn(checkPointLsn)}`,
    );
  }
  return report;
}
