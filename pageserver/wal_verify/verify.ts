/**
 * Replays WAL over a cold copy of a cluster with our redo, and compares every page with the image
 * that the record carries of it (wal_consistency_checking).
 *
 * Pages that the WAL touches are held in their newest version, so many of them in memory and the
 * others in a spill file; pages of relations that were dropped are forgotten.
 */
import { join } from "node:path";
import { type ControlFile, DbState, decodeControlFile } from "../../libs/postgres/control_file.ts";
import { allRecordNames } from "../../libs/postgres/rmgr_names.ts";
import type { PgVersion } from "../../libs/postgres/versions.ts";
import { WalCounts } from "../../libs/postgres/wal/wal_counts.ts";
import { BadRequest, NotFound } from "../../libs/utils/errors.ts";
import { ifThere } from "../../libs/utils/if_there.ts";
import { formatLsn, type Lsn, maxLsn } from "../../libs/utils/lsn.ts";
import { type WalEnd, WalFiles } from "../../libs/wal_files/wal_files.ts";
import { ConsistencyChecker } from "../walredo/consistency.ts";
import { ClusterPages } from "./cluster_pages.ts";
import { type AfterComparison, compareAfter } from "./compare_after.ts";
import { SpillFile } from "./spill_file.ts";

/** WAL between two reports of progress. */
const PROGRESS_BYTES = 16 * 1024 * 1024;

/** What to verify. */
interface VerifyOptions {
  readonly pgdata: string;
  readonly wal: string;
  /** Default: the last checkpoint of the copy. */
  readonly start: Lsn | undefined;
  readonly end: Lsn | undefined;
  /** The data directory of the server that wrote the WAL, stopped after it. */
  readonly after: string | undefined;
  /** Pages held in memory if there is a spill file for the others; without it all are. */
  readonly pagesMax: number;
  readonly spillPath: string | undefined;
  /** Milliseconds of a clock that only goes forward. */
  readonly now: () => number;
  /** Bytes that the process has in memory. */
  readonly memory: () => number;
  readonly onProgress: (bytes: number, ofBytes: number, records: number) => void;
}

/** One record name of the coverage table. */
interface Coverage {
  readonly record: string;
  readonly seen: number;
  /** Changes of pages by our redo. */
  readonly applied: number;
  /** Images compared, of heap and index pages and of visibility maps. */
  readonly compared: number;
  readonly different: number;
  readonly failed: number;
  /** Images only taken over: there is no redo for the resource manager. */
  readonly adopted: number;
}

/** What came out. */
export interface VerifyResult {
  readonly version: PgVersion;
  readonly start: Lsn;
  readonly end: WalEnd;
  readonly records: number;
  readonly walBytes: number;
  readonly seconds: number;
  /** The most memory that was seen in use. */
  readonly memoryBytes: number;
  readonly checker: ConsistencyChecker;
  /** With `after`. */
  readonly after: AfterComparison | undefined;
  /** Records that were seen, in the order of resource managers. */
  readonly coverage: readonly Coverage[];
  /** Names of records of this version that the WAL does not have. */
  readonly unseen: readonly string[];
}

function readControl(pgdata: string): ControlFile {
  const bytes = ifThere(() => Deno.readFileSync(join(pgdata, "global", "pg_control")));
  if (bytes !== undefined) return decodeControlFile(bytes);
  throw new NotFound(`Cannot verify over "${pgdata}": it has no global/pg_control`);
}

function checkBase(pgdata: string, control: ControlFile, files: WalFiles): void {
  if (control.state !== DbState.SHUT_DOWN) {
    throw new BadRequest(
      `Cannot verify over "${pgdata}": it is not a copy of a cluster that was shut down cleanly`,
    );
  }
  if (control.systemId !== files.systemId || control.version !== files.version) {
    throw new BadRequest(
      `Cannot verify over "${pgdata}": it is of cluster ${control.systemId} ` +
        `(PostgreSQL ${control.version.major}), the WAL of cluster ${files.systemId} ` +
        `(PostgreSQL ${files.version.major})`,
    );
  }
}

/** Verifies. Throws NotFound and BadRequest where copy or WAL are not there or do not fit. */
export function verify(options: VerifyOptions): VerifyResult {
  const control = readControl(options.pgdata);
  const files = WalFiles.open(options.wal);
  checkBase(options.pgdata, control, files);
  const { version } = files;
  const start = options.start ?? control.checkPointLsn;
  if (start > control.checkPointLsn) {
    throw new BadRequest(
      `Cannot verify from ${formatLsn(start)}: the copy is at ${formatLsn(control.checkPointLsn)}`,
    );
  }
  using pages = new ClusterPages(options.pgdata, version);
  using spill = options.spillPath === undefined ? undefined : new SpillFile(options.spillPath);
  const checker = new ConsistencyChecker({
    version,
    loadPage: (key, page) => pages.read(key, page),
    keepGoing: true,
    tracksCommits: control.parameters.trackCommitTimestamp,
    pagesMax: options.pagesMax,
    spill,
  });
  const counts = new WalCounts(version);
  const total = files.bytesFrom(start, options.end);
  const begin = options.now();
  let reported = start as number;
  let memoryBytes = 0;
  const end = files.read({ start, end: options.end }, (cursor) => {
    // Records before the copy's checkpoint are in its files already.
    if (cursor.lsn < control.checkPointLsn) return true;
    checker.apply(cursor);
    counts.add(cursor);
    if (cursor.endLsn - reported >= PROGRESS_BYTES) {
      reported = cursor.endLsn;
      memoryBytes = Math.max(memoryBytes, options.memory());
      options.onProgress(reported - start, total, counts.total.records);
    }
    return true;
  });
  const after = options.after === undefined
    ? undefined
    : compareWith(options.after, checker, version, end.lsn);
  return {
    version,
    start,
    end,
    records: counts.total.records,
    walBytes: maxLsn(end.lsn, start) - start,
    seconds: (options.now() - begin) / 1000,
    memoryBytes: Math.max(memoryBytes, options.memory()),
    checker,
    after,
    ...coverageOf(checker, counts, version),
  };
}

function compareWith(
  directory: string,
  checker: ConsistencyChecker,
  version: PgVersion,
  endLsn: Lsn,
): AfterComparison {
  const { state, checkPointLsn } = readControl(directory);
  const wasStopped = state === DbState.SHUT_DOWN || state === DbState.SHUT_DOWN_IN_RECOVERY;
  if (!wasStopped || checkPointLsn >= endLsn) {
    throw new BadRequest(
      `Cannot compare with "${directory}": it is of a server that was stopped at ` +
        `${formatLsn(checkPointLsn)} or still runs, and the WAL was read to ${formatLsn(endLsn)}`,
    );
  }
  using files = new ClusterPages(directory, version);
  return compareAfter(checker, files);
}

function coverageOf(
  checker: ConsistencyChecker,
  counts: WalCounts,
  version: PgVersion,
): Pick<VerifyResult, "coverage" | "unseen"> {
  const byName = counts.byName();
  const coverage = [...byName].map(([record, { records }]) => ({
    record,
    seen: records,
    applied: checker.applied.get(record) ?? 0,
    compared: (checker.compared.get(record) ?? 0) +
      (checker.compared.get(`${record} (visibility map)`) ?? 0),
    different: checker.different.get(record) ?? 0,
    failed: checker.failed.get(record) ?? 0,
    adopted: checker.adopted.get(record) ?? 0,
  }));
  return { coverage, unseen: allRecordNames(version).filter((name) => !byName.has(name)) };
}
