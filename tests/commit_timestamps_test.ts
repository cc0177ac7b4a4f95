/**
 * Commit timestamps (track_commit_timestamp) of every PostgreSQL version: rebuilt from WAL they are
 * the server's own pages, through the setting being turned on, off and on again; and an endpoint
 * and a branch answer with those of transactions before their start.
 */
import assert from "node:assert/strict";
import { decodeControlFile } from "../libs/postgres/control_file.ts";
import type { PgClient } from "../libs/pgwire/client.ts";
import { type Sql, testWithNeon } from "./harness.ts";
import { readSlru } from "./ingest_oracle/cluster_files.ts";
import { StockPostgres } from "./redo_judge/stock_postgres.ts";
import { IngestedCluster } from "./support/ingested_cluster.ts";
import { binariesOf, testedVersions } from "./support/postgres_versions.ts";

const SETTINGS = {
  fsync: "off",
  full_page_writes: "off",
  autovacuum: "off",
  max_prepared_transactions: "2",
};

/** More transactions than a page has entries, trees of subtransactions, prepared ones. */
const TRANSACTIONS = [
  "CREATE TABLE IF NOT EXISTS t (i int)",
  `DO $$ BEGIN
     FOR i IN 1..900 LOOP INSERT INTO t VALUES (i); COMMIT; END LOOP;
   END $$`,
  `DO $$ BEGIN
     FOR i IN 1..900 LOOP
       BEGIN INSERT INTO t VALUES (i); EXCEPTION WHEN division_by_zero THEN NULL; END;
     END LOOP;
   END $$`,
  "BEGIN",
  "INSERT INTO t VALUES (-1)",
  "SAVEPOINT s",
  "INSERT INTO t VALUES (-2)",
  "PREPARE TRANSACTION 'later'",
  "INSERT INTO t VALUES (-3)",
  "COMMIT PREPARED 'later'",
  "CHECKPOINT",
  "INSERT INTO t VALUES (-4)",
];

const TIMES = `SELECT count(pg_xact_commit_timestamp(xmin)) || ' of ' || count(*) || ' '
  || md5(string_agg(concat_ws(' ', i, xmin, pg_xact_commit_timestamp(xmin)), ';' ORDER BY ctid))
  FROM t`;

async function timesOf(client: PgClient): Promise<string> {
  return (await client.query(TIMES)).rows[0]![0]!;
}

/** Oldest and newest transaction with a timestamp, as the stopped cluster has them. */
function limitsOf(server: StockPostgres): [number, number] {
  const control = decodeControlFile(Deno.readFileSync(`${server.dataDir}/global/pg_control`));
  return [control.checkPoint.oldestCommitTsXid, control.checkPoint.newestCommitTsXid];
}

/** Runs transactions on the server as it is restored, and restores it from the storage again. */
async function runWith(
  server: StockPostgres,
  cluster: IngestedCluster,
  setting: "on" | "off",
): Promise<string> {
  const settings = { ...SETTINGS, track_commit_timestamp: setting };
  await server.start(settings);
  let client = await server.connect();
  for (const statement of TRANSACTIONS) await client.query(statement);
  const times = setting === "on" ? await timesOf(client) : "";
  client.close();
  await server.stop();
  await cluster.ingest();
  assert.deepEqual(cluster.differences(), [], `timestamps turned ${setting}`);
  assert.equal(readSlru(server.dataDir, "pg_commit_ts").size, setting === "on" ? 1 : 0);
  const limits = limitsOf(server);
  await cluster.restore();
  assert.deepEqual(limitsOf(server), limits);
  if (setting === "off") {
    assert.deepEqual(limits, [0, 0]);
    return times;
  }
  await server.start(settings);
  client = await server.connect();
  assert.equal(await timesOf(client), times, "after the restart");
  client.close();
  await server.stop();
  await cluster.ingest();
  return times;
}

/** The first has the old width of page numbers in WAL; the others only on demand. */
const VERSIONS = testedVersions().filter((major) =>
  Deno.env.get("NEON_TEST_MATRIX") === "1" || major === 15 || major === 18
);

for (const major of VERSIONS) {
  Deno.test(`commit timestamps of PostgreSQL ${major} are kept`, async () => {
    const { binDir } = await binariesOf(major);
    // Without checksums: a page's LSN would change with its hint bits, and the storage has neither.
    const server = new StockPostgres(binDir, major >= 18 ? ["--no-data-checksums"] : []);
    try {
      await using cluster = await IngestedCluster.import(server, major);
      assert.match(await runWith(server, cluster, "on"), /^1804 of 1804 /);
      await runWith(server, cluster, "off");
      assert.match(await runWith(server, cluster, "on"), /^1804 of 5412 /);
      await using imported = await IngestedCluster.import(server, major);
      const limits = limitsOf(server);
      await imported.restore();
      assert.deepEqual(limitsOf(server), limits);
    } finally {
      await server.remove();
    }
  });
}

testWithNeon("endpoints and branches know commit times from before", {}, async (neon) => {
  const settings = { track_commit_timestamp: "on" };
  const times = async (sql: Sql) => [...await sql.unsafe(TIMES)];
  let main = neon.connect(await neon.local.startEndpoint("main", { settings }));
  await main`create table t(i int)`;
  for (let i = 0; i < 10; i++) await main`insert into t values (${i})`;
  const before = await times(main);
  await neon.local.createBranch("branch");
  await main`insert into t values (10)`;
  const later = await times(main);
  await neon.local.stopEndpoint("main");
  main = neon.connect(await neon.local.startEndpoint("main"));
  assert.deepEqual(await times(main), later);
  const branch = neon.connect(await neon.local.startEndpoint("branch", { settings }));
  assert.deepEqual(await times(branch), before);
  assert.match(JSON.stringify(before), /10 of 10/);
});
