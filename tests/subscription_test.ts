/**
 * Logical replication into an endpoint: how far it has applied its publisher is in the WAL and in
 * every base backup, so a restart, orderly or not, applies nothing twice and skips nothing. A
 * branch has its subscriptions disabled and knows no progress.
 */
import assert from "node:assert/strict";
import { decodeOriginFile, encodeOriginFile } from "../libs/postgres/replication_origin.ts";
import type { Sql } from "./harness.ts";
import { testWithNeon } from "./harness.ts";
import { StockPostgres } from "./redo_judge/stock_postgres.ts";
import { IngestedCluster } from "./support/ingested_cluster.ts";
import { binariesOf, testedVersions } from "./support/postgres_versions.ts";
import { processesIn } from "./support/processes.ts";
import { until } from "./support/waiting.ts";

const ROUNDS = 3;
const ROWS_PER_ROUND = 60;

async function summary(sql: Sql): Promise<unknown> {
  const [row] = await sql`select count(*)::int as count, sum(i)::int as sum from t`;
  return row;
}

/** kill -9 of all processes in a directory at once, as if the machine had stopped. */
function killAll(directory: string): void {
  const pids = processesIn(directory);
  for (const signal of ["SIGSTOP", "SIGKILL"] as const) {
    for (const pid of pids) Deno.kill(pid, signal);
  }
}

testWithNeon("a subscriber goes on where it was after restarts", {}, async (neon) => {
  const logical = { settings: { wal_level: "logical" } };
  const publisherEndpoint = await neon.local.startEndpoint("main", logical);
  const publisher = neon.connect(publisherEndpoint);
  await publisher`create table t(i int)`; // without a key: a row that comes twice is there twice
  await publisher`create publication p for table t`;
  const { tenantId: tenant } = await neon.local.createTenant({ pgVersion: 17 });
  const start = async () => neon.connect(await neon.local.startEndpoint("subscriber", { tenant }));
  let subscriber = await start();
  await subscriber`create table t(i int)`;
  const from = `host=127.0.0.1 port=${publisherEndpoint.port} user=cloud_admin dbname=postgres`;
  await subscriber.unsafe(`create subscription s connection '${from}' publication p
    with (synchronous_commit = on)`);
  const positions = () =>
    subscriber`select external_id, remote_lsn from pg_replication_origin_status
      where remote_lsn is not null order by 1`;
  for (let round = 0; round < ROUNDS; round++) {
    const insert = async (part: number) => {
      for (let i = 0; i < ROWS_PER_ROUND / 2; i++) {
        await publisher`insert into t values (${round * 1000 + part * 100 + i})`;
      }
    };
    await insert(0);
    await until("rows have arrived", async () => {
      const [row] = await subscriber`select 1 from t where i >= ${round * 1000} limit 1`;
      return row !== undefined;
    });
    const before = round === 0 ? [] : [...await positions()];
    const inserting = insert(1);
    if (round === 1) killAll(`${neon.local.directory}/compute/endpoints/subscriber`);
    else await neon.local.stopEndpoint("subscriber");
    subscriber = await start();
    await inserting;
    const expected = await summary(publisher);
    await until("everything has arrived", async () => {
      const rows = await summary(subscriber) as { count: number };
      return rows.count >= (expected as { count: number }).count;
    });
    assert.deepEqual(await summary(subscriber), expected, `round ${round}`);
    const after = [...await positions()];
    assert.equal(after.length, 1);
    assert.notDeepEqual(after, before);
  }
  await neon.run("timeline", "branch", "--branch-name", "branch", "--tenant-id", tenant);
  const branch = neon.connect(await neon.local.startEndpoint("branch", { tenant }));
  assert.deepEqual([...await branch`select subenabled from pg_subscription`], [{
    subenabled: false,
  }]);
  assert.equal((await branch`select from pg_replication_origin_status`).count, 0);
  assert.deepEqual(await summary(branch), await summary(publisher));
});

const SETTINGS = {
  fsync: "off",
  full_page_writes: "off",
  autovacuum: "off",
  max_prepared_transactions: "2",
};

/** Each way in which progress is logged. */
const ORIGIN_WORKLOAD = [
  "CREATE TABLE t (i int)",
  ...["forced", "dropped", "session", "prepared", "back"].map((name) =>
    `SELECT pg_replication_origin_create('${name}')`
  ),
  "SELECT pg_replication_origin_advance('forced', 'F/10')",
  "SELECT pg_replication_origin_advance('dropped', '0/20')",
  "SELECT pg_replication_origin_drop('dropped')",
  "SELECT pg_replication_origin_advance('back', 'FFFFFFFF/FFFFFFF8')",
  "SELECT pg_replication_origin_advance('back', '0/40')",
  "SELECT pg_replication_origin_session_setup('session')",
  "BEGIN",
  "SELECT pg_replication_origin_xact_setup('0/50', '2020-01-02 03:04:05Z')",
  "INSERT INTO t VALUES (1)",
  "COMMIT",
  "SELECT pg_replication_origin_session_reset()",
  "SELECT pg_replication_origin_session_setup('prepared')",
  "BEGIN",
  "SELECT pg_replication_origin_xact_setup('0/60', '2020-01-02 03:04:05Z')",
  "INSERT INTO t VALUES (2)",
  "PREPARE TRANSACTION 'p'",
  "SELECT pg_replication_origin_session_reset()",
];

const VERSIONS = testedVersions().filter((major) =>
  Deno.env.get("NEON_TEST_MATRIX") === "1" || major === 14 || major === 18
);

for (const major of VERSIONS) {
  Deno.test(`progress of replication origins is PostgreSQL ${major}'s own`, async () => {
    const { binDir } = await binariesOf(major);
    const server = new StockPostgres(binDir);
    const file = () =>
      decodeOriginFile(Deno.readFileSync(`${server.dataDir}/pg_logical/replorigin_checkpoint`));
    try {
      await using cluster = await IngestedCluster.import(server, major);
      await server.start(SETTINGS);
      const client = await server.connect();
      for (const statement of ORIGIN_WORKLOAD) await client.query(statement);
      client.close();
      await server.stop();
      const expected = file();
      assert.deepEqual(
        [...expected.values()].sort(),
        [0x40n, 0x50n, 0x60n, 0xf_0000_0010n].sort(),
      );
      await cluster.ingest();
      await cluster.restore();
      assert.deepEqual(file(), expected);
      await server.start(SETTINGS);
      const restored = await server.connect();
      const { rows } = await restored.query(
        "SELECT external_id, remote_lsn FROM pg_replication_origin_status ORDER BY 1",
      );
      assert.deepEqual(rows, [
        ["back", "0/40"],
        ["forced", "F/10"],
        ["prepared", "0/60"],
        ["session", "0/50"],
      ]);
      await restored.query("COMMIT PREPARED 'p'");
      restored.close();
      await server.stop();
      await using imported = await IngestedCluster.import(server, major);
      await imported.restore();
      assert.deepEqual(file(), expected);
    } finally {
      await server.remove();
    }
  });
}

Deno.test("a damaged file of origins is refused", () => {
  const bytes = encodeOriginFile(new Map([[3, 7n]]));
  assert.equal(bytes.length, 24);
  for (let at = 0; at < bytes.length; at++) {
    const damaged = bytes.slice();
    damaged[at]! ^= 1;
    assert.throws(() => decodeOriginFile(damaged), /Cannot read/, `byte ${at}`);
  }
  assert.throws(() => decodeOriginFile(bytes.subarray(0, 20)), /it has 20 bytes/);
});
