/**
 * One run of the judge: a cluster is made and copied, the workload runs with an image of every
 * changed page in every record, the server stops; then the WAL is replayed over the copy, and
 * compared with the images on the way and with the server's own files at the end.
 */
import { join } from "node:path";
import { decodeControlFile } from "../../libs/postgres/control_file.ts";
import { type PgVersion, pgVersion } from "../../libs/postgres/versions.ts";
import { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import { segmentName, segmentNumber } from "../../libs/postgres/wal/segment.ts";
import { WalStreamDecoder } from "../../libs/postgres/wal/stream_decoder.ts";
import type { PgClient } from "../../libs/pgwire/client.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import { ClusterPages } from "../../pageserver/wal_verify/cluster_pages.ts";
import { ConsistencyChecker, type ConsistencyInput } from "../../pageserver/walredo/consistency.ts";
import { comparePages, type Comparison } from "./file_comparison.ts";
import { StockPostgres } from "./stock_postgres.ts";
import {
  btreeWorkload,
  churnWorkload,
  conflictWorkload,
  copyWorkload,
  heapWorkload,
  lockWorkload,
  sequenceWorkload,
  transactionWorkload,
} from "./workload.ts";

const SETTINGS: Record<string, string> = {
  wal_consistency_checking: "all",
  full_page_writes: "off",
  wal_level: "replica",
  wal_compression: "on", // pglz
  max_prepared_transactions: "10",
  autovacuum: "off",
  fsync: "off",
  jit: "off",
  shared_buffers: "64MB",
  checkpoint_timeout: "1h",
  max_wal_size: "8GB",
  wal_keep_size: "8GB",
  bgwriter_lru_maxpages: "0",
};

/** What a workload left behind. */
export interface RecordedWal {
  readonly server: StockPostgres;
  readonly version: PgVersion;
  /** With page checksums hints are logged, and then VISIBLE sets the heap page's LSN. */
  readonly checksums: boolean;
  /** The cluster's files before the workload. */
  readonly baseDir: string;
  /** Start of the first record to replay. */
  readonly startLsn: Lsn;
  readonly segmentSize: number;
}

/** SQL for a server that runs, through three connections to it. */
export type Workload = (
  server: StockPostgres,
  one: PgClient,
  two: PgClient,
  three: PgClient,
) => Promise<void>;

/** What happens on heap, btree indexes, sequences, and to transactions. */
export const tableWorkload: Workload = async (server, one, two, three) => {
  await heapWorkload(one);
  await churnWorkload(one);
  await copyWorkload(one, server);
  await lockWorkload(one, two);
  await transactionWorkload(one);
  await btreeWorkload(two);
  await sequenceWorkload(one);
  await conflictWorkload(one, two, three);
};

/**
 * Makes a cluster, runs `first`, stops the server; then runs `later` at wal_level logical with
 * `laterBinDir`, which may be of another minor version. `initdb`: more options of initdb. The
 * caller removes the cluster.
 */
export async function recordWal(
  binDir: string,
  laterBinDir: string,
  first: Workload,
  later: Workload,
  initdb: string[] = [],
): Promise<RecordedWal> {
  const server = new StockPostgres(binDir, initdb);
  try {
    const control = decodeControlFile(
      Deno.readFileSync(join(server.dataDir, "global", "pg_control")),
    );
    const baseDir = server.copyData("base");
    await runWorkload(server, SETTINGS, first);
    if (laterBinDir !== binDir) server.switchTo(laterBinDir);
    await runWorkload(server, { ...SETTINGS, wal_level: "logical" }, later);
    return {
      server,
      version: pgVersion(Number(Deno.readTextFileSync(join(server.dataDir, "PG_VERSION")))),
      checksums: control.dataChecksumVersion !== 0,
      baseDir,
      startLsn: control.checkPointLsn,
      segmentSize: control.walSegmentSize,
    };
  } catch (thrown) {
    await server.remove();
    throw thrown;
  }
}

async function runWorkload(
  server: StockPostgres,
  settings: Record<string, string>,
  workload: Workload,
): Promise<void> {
  await server.start(settings);
  const clients = [await server.connect(), await server.connect(), await server.connect()] as const;
  await workload(server, ...clients);
  for (const client of clients) client.close();
  await server.stop();
}

/**
 * Calls `visit` for each record from the start LSN to the end of the WAL; returns the bytes read.
 */
function eachRecord(wal: RecordedWal, visit: (cursor: RecordCursor) => boolean): number {
  const decoder = new WalStreamDecoder(wal.startLsn, wal.segmentSize, wal.version);
  const cursor = new RecordCursor();
  let position = wal.startLsn as number;
  for (;;) {
    const segment = segmentNumber(position as Lsn, wal.segmentSize);
    const name = segmentName(1, segment, wal.segmentSize);
    let bytes: Uint8Array;
    try {
      bytes = Deno.readFileSync(join(wal.server.dataDir, "pg_wal", name));
    } catch {
      return position - wal.startLsn;
    }
    decoder.feed(bytes.subarray(position % wal.segmentSize));
    try {
      while (decoder.next(cursor)) {
        if (!visit(cursor)) return decoder.recordLsn - wal.startLsn;
      }
    } catch (thrown) {
      // The unwritten rest of the last segment is no record.
      if (String(thrown).includes("Cannot read the WAL record")) {
        return decoder.recordLsn - wal.startLsn;
      }
      throw thrown;
    }
    position = (segment + 1) * wal.segmentSize;
  }
}

/** Replays the WAL and compares on the way, to its end or until `enough` says so. */
export function judge(
  wal: RecordedWal,
  afterApply?: ConsistencyInput["afterApply"],
  enough: (cursor: RecordCursor) => boolean = () => false,
): { checker: ConsistencyChecker; walBytes: number; records: number } {
  using pages = new ClusterPages(wal.baseDir, wal.version);
  const checker = new ConsistencyChecker({
    version: wal.version,
    loadPage: (key, page) => pages.read(key, page),
    ...(afterApply === undefined ? {} : { afterApply }),
  });
  let records = 0;
  const walBytes = eachRecord(wal, (cursor) => {
    checker.apply(cursor);
    records++;
    return !enough(cursor);
  });
  return { checker, walBytes, records };
}

/**
 * Compares every page that replay touched with the files of the stopped server: the judge of what
 * the images do not cover, SLRU pages and map pages that records do not name.
 */
export function compareWithFiles(wal: RecordedWal, checker: ConsistencyChecker): Comparison {
  const { version, checksums } = wal;
  return comparePages({ dataDir: wal.server.dataDir, version, checksums }, checker.pages());
}
