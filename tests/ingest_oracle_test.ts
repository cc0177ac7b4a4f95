/**
 * The oracle of ingest: stock PostgreSQL writes WAL without full page images, the pageserver
 * ingests it on top of an import of the same cluster, and then everything must be equal: which
 * relations exist, their sizes, every page, pg_xact and pg_multixact, relation maps; the same from
 * image layers. At last stock PostgreSQL is started on a full base backup of the middle of the WAL
 * and must hold the same rows.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { decodeControlFile } from "../libs/postgres/control_file.ts";
import { endOfCheckpointRecord } from "../libs/postgres/wal/start_checkpoint.ts";
import { newTenantId, newTimelineId } from "../libs/utils/id.ts";
import { addLsn, type Lsn, parseLsn } from "../libs/utils/lsn.ts";
import { Basebackup } from "../pageserver/basebackup/basebackup.ts";
import { Compactor } from "../pageserver/compaction/compactor.ts";
import { importCluster } from "../pageserver/import/import_cluster.ts";
import { WalIngest } from "../pageserver/ingest/wal_ingest.ts";
import { PageReader } from "../pageserver/page_service/page_reader.ts";
import { TenantManager } from "../pageserver/repository/tenant_manager.ts";
import { type ServedTimeline, servedTimeline } from "../pageserver/served_timeline.ts";
import {
  connectTo,
  fingerprint,
  readWal,
  replaceData,
  tarOf,
} from "./ingest_oracle/cluster_files.ts";
import { compareWithCluster, pageDifference } from "./ingest_oracle/compare.ts";
import { directoryWorkload } from "./ingest_oracle/workload.ts";
import { findPostgres17, StockPostgres } from "./redo_judge/stock_postgres.ts";
import {
  btreeWorkload,
  churnWorkload,
  copyWorkload,
  heapWorkload,
  lockWorkload,
  sequenceWorkload,
  transactionWorkload,
} from "./redo_judge/workload.ts";

const FEED_BYTES = 128 * 1024;
const CACHE_BYTES = 64 * 1024 * 1024;

const SETTINGS = {
  fsync: "off",
  full_page_writes: "off",
  wal_level: "replica",
  max_wal_size: "4GB",
  wal_keep_size: "4GB",
  max_prepared_transactions: "10",
  autovacuum: "off",
};

const found = findPostgres17();
const [oldest, newest] = [found[0], found.at(-1)];

Deno.test({
  name: "pages rebuilt from WAL are PostgreSQL's own, and a base backup of them starts",
  ignore: oldest === undefined,
  async fn() {
    const server = new StockPostgres(oldest!.binDir);
    const repository = Deno.makeTempDirSync({ prefix: "ingest-oracle-" });
    const now = () => performance.now();
    const pause = () => setImmediate();
    const manager = TenantManager.open(repository, { now, pause });
    const reader = new PageReader(CACHE_BYTES);
    try {
      const tenant = await manager.attach(newTenantId(), 1);
      const importing = now();
      const timeline = await importCluster(
        tenant,
        manager.interner,
        newTimelineId(),
        17,
        tarOf(server.dataDir),
      );
      console.log(`imported in ${Math.round(now() - importing)} ms`);
      const outcome = await runWorkload(server);
      const control = decodeControlFile(
        Deno.readFileSync(join(server.dataDir, "global/pg_control")),
      );
      const end = endOfCheckpointRecord(control.checkPointLsn, control.walSegmentSize);

      const served = servedTimeline(timeline);
      const start = timeline.lastRecordLsn;
      const ingesting = now();
      const ingest = new WalIngest({ served, reader, now, pause });
      for (const part of readWal(server.dataDir, start, end, control.walSegmentSize, FEED_BYTES)) {
        await ingest.feed(part);
      }
      assert.equal(timeline.lastRecordLsn, end);
      assert.equal(timeline.prevRecordLsn, control.checkPointLsn);
      report("ingested", end - start, now() - ingesting);

      const compare = (pages: PageReader) =>
        compareAll(served, pages, end, server.dataDir, outcome.databaseCopiedByWal);
      await compare(reader);
      await timeline.flush();
      await compare(new PageReader(CACHE_BYTES));
      const { images: made } = await new Compactor({ manager, now }).compact(timeline, true);
      console.log(`images of ${made.pages} pages`);
      assert.deepEqual([made.failedPages, made.firstFailure], [0, undefined]);
      assert.ok(made.pages > 1000);
      await compare(new PageReader(CACHE_BYTES));
      await restartFromBackup(served, reader, server, outcome);
    } finally {
      await manager.shutdown();
      await server.remove();
      Deno.removeSync(repository, { recursive: true });
    }
  },
});

Deno.test("the comparison of the oracle sees a single changed byte of a tuple", () => {
  const page = new Uint8Array(8192);
  const view = new DataView(page.buffer);
  view.setUint16(12, 28, true); // one line pointer
  view.setUint16(14, 8000, true);
  view.setUint16(16, 8192, true);
  view.setUint16(18, 8192 | 4, true);
  view.setUint32(24, 8000 | (1 << 15) | (100 << 17), true);
  const tag = { spc: 1663, db: 5, rel: 16384, fork: 0 };
  assert.equal(pageDifference(page.slice(), page.slice(), tag, 0), undefined);
  const other = page.slice();
  other[8090] = 1;
  assert.match(pageDifference(other, page.slice(), tag, 0) ?? "", /^byte 8090/);
});

/** What the workload has left. */
interface Outcome {
  /** What the server held when the insert position was `lsn` and the next xid `nextXid`. */
  readonly lines: string[];
  readonly lsn: Lsn;
  readonly nextXid: number;
  readonly databaseCopiedByWal: number;
}

/**
 * Runs everything, the first part with the oldest minor release that was found and the rest with
 * the newest (their heap records differ), and stops the server; returns its fingerprint.
 */
async function runWorkload(server: StockPostgres): Promise<Outcome> {
  await server.start(SETTINGS);
  let a = await server.connect();
  await heapWorkload(a);
  await a.query("CHECKPOINT");
  await churnWorkload(a);
  await copyWorkload(a, server);
  a.close();
  await server.stop();
  server.switchTo(newest!.binDir);
  await server.start(SETTINGS);
  a = await server.connect();
  const b = await server.connect();
  await btreeWorkload(a);
  await sequenceWorkload(a);
  await lockWorkload(a, b);
  await transactionWorkload(a);
  await directoryWorkload(a, server);
  const copied = await connectTo(server, "copied_files");
  await heapWorkload(copied);
  await a.query("CHECKPOINT");
  await b.query("BEGIN");
  await b.query("INSERT INTO open_rows SELECT i FROM generate_series(5001, 5050) i");
  const running = await b.query("SELECT pg_current_xact_id()::text");
  const { rows } = await a.query(
    "SELECT oid, pg_current_wal_insert_lsn() FROM pg_database WHERE datname = 'copied_wal'",
  );
  const [database, lsn] = rows[0]!;
  const lines = await fingerprint(server);
  await b.query("COMMIT");
  for (const client of [a, b, copied]) client.close();
  await server.stop();
  return {
    lines,
    databaseCopiedByWal: Number(database),
    lsn: endOfRecord(parseLsn(lsn!)),
    nextXid: Number(running.rows[0]![0]) + 1,
  };
}

/** An insert position behind a page header means the page boundary before it. */
function endOfRecord(position: Lsn): Lsn {
  const inPage = position % 8192;
  return inPage === 24 || inPage === 40 ? addLsn(position, -inPage) : position;
}

function report(what: string, bytes: number, ms: number): void {
  const mib = bytes / 1048576;
  console.log(
    `${what} ${mib.toFixed(1)} MiB in ${ms.toFixed(0)} ms: ${(mib * 1000 / ms).toFixed(0)} MiB/s`,
  );
}

async function compareAll(
  served: ServedTimeline,
  reader: PageReader,
  lsn: Lsn,
  dataDir: string,
  databaseCopiedByWal: number,
): Promise<void> {
  await setImmediate();
  const began = performance.now();
  const { forks, pages, slruPages, differences } = compareWithCluster(
    served,
    reader,
    lsn,
    dataDir,
    databaseCopiedByWal,
  );
  const us = (performance.now() - began) * 1000 / pages;
  console.log(`${forks} forks, ${pages} pages (${us.toFixed(0)} us each), ${slruPages} SLRU pages`);
  assert.deepEqual(differences.slice(0, 20), [], `${differences.length} differences`);
  assert.ok(pages > 2000 && slruPages >= 3);
}

/**
 * Starts stock PostgreSQL on a full base backup of the middle of the WAL, where a transaction was
 * running and another prepared, and compares what it holds.
 */
async function restartFromBackup(
  served: ServedTimeline,
  reader: PageReader,
  original: StockPostgres,
  { lsn, lines, nextXid }: Outcome,
): Promise<void> {
  const tarPath = join(original.directory, "backup.tar");
  const file = Deno.openSync(tarPath, { write: true, create: true });
  const began = performance.now();
  await new Basebackup({ served, reader, lsn, kind: "full" }).write(async (chunk) => {
    for (let done = 0; done < chunk.length;) done += await file.write(chunk.subarray(done));
  });
  file.close();
  report("base backup of", Deno.statSync(tarPath).size, performance.now() - began);
  replaceData(original, tarPath);
  await original.start(SETTINGS);
  const restored = await fingerprint(original);
  const client = await original.connect();
  const xid = await client.query("SELECT pg_current_xact_id()::text");
  assert.deepEqual(xid.rows, [[String(nextXid)]]);
  const { rows } = await client.query("SELECT gid FROM pg_prepared_xacts ORDER BY gid");
  assert.deepEqual(rows.map(([gid]) => gid), ["left open"]);
  await client.query("COMMIT PREPARED 'left open'");
  const open = await client.query("SELECT count(*), max(i) FROM open_rows");
  assert.deepEqual(open.rows, [["600", "600"]]);
  const unlogged = await client.query("SELECT count(*) FROM unlogged_rows");
  assert.deepEqual(unlogged.rows, [["0"]]);
  await client.query("INSERT INTO unlogged_rows SELECT i FROM generate_series(1, 100) i");
  client.close();
  assert.deepEqual(restored, lines);
}
