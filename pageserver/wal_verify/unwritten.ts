/**
 * Records that have a name but that PostgreSQL does not write, each with the reason: what a run of
 * all workloads may miss (tests/wal_coverage), and must not meet.
 */
import type { PgVersion } from "../../libs/postgres/versions.ts";

interface Unwritten {
  readonly record: string;
  readonly reason: string;
  /** First and last version it is true of; default: all. */
  readonly from?: number;
  readonly until?: number;
}

const UNWRITTEN: readonly Unwritten[] = [
  { record: "XLOG NOOP", reason: "nothing writes it (there since 7.1, for extensions)" },
  {
    record: "Heap HOT_UPDATE+INIT",
    reason: "the new row goes to the old one's page, which is not empty then",
  },
];

/** The reasons by record name, for a version. */
export function unwrittenRecords({ major }: PgVersion): Map<string, string> {
  const known = UNWRITTEN.filter(({ from, until }) =>
    major >= (from ?? 0) && major <= (until ?? 99)
  );
  return new Map(known.map(({ record, reason }) => [record, reason]));
}
