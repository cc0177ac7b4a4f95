/**
 * The whole system under every PostgreSQL version, side by side in one local Neon: a tenant of
 * each, with data that was updated, deleted, vacuumed and frozen, read again after a restart from
 * the storage alone and on a branch. With NEON_TEST_MATRIX=1 (`deno task test:matrix`) more of
 * everything.
 */
import assert from "node:assert/strict";
import type { TenantId } from "../libs/utils/id.ts";
import { type Sql, type TestNeon, testWithNeon } from "./harness.ts";
import { caughtUp } from "./support/replicas.ts";
import { testedVersions } from "./support/postgres_versions.ts";

const ROWS = Deno.env.get("NEON_TEST_MATRIX") === "1" ? 50_000 : 3_000;
const VERSIONS = testedVersions();

/** Tables, indexes and the states that their pages go through; ends with frozen pages. */
async function change(sql: Sql): Promise<void> {
  await sql.unsafe(`
    CREATE TABLE t (id int PRIMARY KEY, n int, v text) WITH (fillfactor = 80);
    CREATE INDEX t_n ON t (n);
    CREATE SEQUENCE s;
    CREATE TABLE big (id int, v text);
    ALTER TABLE big ALTER v SET STORAGE EXTERNAL;
    INSERT INTO t SELECT i, i % 50, repeat('x', i % 90) FROM generate_series(1, ${ROWS}) i;
    INSERT INTO big SELECT i, repeat(md5(i::text), 300) FROM generate_series(1, 20) i;
    SELECT count(nextval('s')) FROM generate_series(1, 100);
    UPDATE t SET v = v || 'y' WHERE id % 3 = 0;
    DELETE FROM t WHERE id % 7 = 0;`);
  await sql.unsafe("VACUUM t");
  await sql.unsafe("UPDATE t SET n = n + 1 WHERE id % 5 = 0");
  await sql.unsafe("VACUUM (FREEZE, ANALYZE)");
  await sql.unsafe(`
    ALTER TABLE t ADD COLUMN extra int DEFAULT 7;
    UPDATE t SET extra = id WHERE id % 11 = 0;
    INSERT INTO t SELECT i, 1, 'after' FROM generate_series(${ROWS + 1}, ${ROWS + 50}) i;
    SELECT id FROM t WHERE id % 13 = 1 FOR UPDATE;`);
}

/** All that was stored, through the tables and through each index. */
async function contents(sql: Sql): Promise<unknown> {
  const [tables] = await sql.unsafe(`SELECT
    (SELECT md5(string_agg(t::text, ';' ORDER BY id)) FROM t) AS t,
    (SELECT md5(string_agg(v, ';' ORDER BY id)) FROM big) AS big`);
  await sql.unsafe("SET enable_seqscan = off");
  const [indexed] = await sql.unsafe(`SELECT
    (SELECT count(*)::int FROM t WHERE n = 7) AS n,
    (SELECT count(*)::int FROM t WHERE id BETWEEN 100 AND 900) AS id`);
  await sql.unsafe("RESET enable_seqscan");
  return { ...tables, ...indexed };
}

/** amcheck of the indexes and, where there is one, of the heap. */
async function check(sql: Sql): Promise<void> {
  await sql.unsafe("CREATE EXTENSION IF NOT EXISTS amcheck");
  await sql.unsafe(`SELECT bt_index_parent_check(indexrelid, true) FROM pg_index
    WHERE indrelid = 't'::regclass`);
  assert.deepEqual([...await sql.unsafe("SELECT * FROM verify_heapam('t')")], []);
}

/** PostgreSQL itself reads every block of every relation; it verifies their checksums if it has any. */
async function readAllBlocks(sql: Sql): Promise<void> {
  await sql.unsafe("CREATE EXTENSION IF NOT EXISTS pg_prewarm");
  const [read] = await sql.unsafe(
    `SELECT sum(pg_prewarm(oid::regclass, 'buffer', fork))::int AS blocks
    FROM pg_class, unnest(ARRAY['main', 'vm', 'fsm']) AS fork
    WHERE relkind IN ('r', 'i', 't', 'S', 'm') AND pg_relation_size(oid::regclass, fork) > 0`,
  );
  assert.ok(read!["blocks"] > 500);
}

/** Versions before 18 of which the test makes a cluster with checksums, too. */
const WITH_CHECKSUMS = 16;

async function testVersion(neon: TestNeon, major: number): Promise<void> {
  const dataChecksums = major === WITH_CHECKSUMS || major >= 18;
  const { tenantId } = await neon.local.createTenant({
    pgVersion: major,
    ...(major === WITH_CHECKSUMS ? { dataChecksums } : {}),
  });
  const open = async (name: string, branch: string) => {
    const endpoint = await neon.local.startEndpoint(name, { tenant: tenantId, branch });
    return neon.connect(endpoint);
  };
  const first = await open(`main${major}`, "main");
  const [settings] = await first`SELECT current_setting('server_version_num')::int / 10000 AS major,
    current_setting('data_checksums') AS checksums`;
  assert.deepEqual(settings, { major, checksums: dataChecksums ? "on" : "off" });
  if (major >= 18) assert.deepEqual([...await first`SHOW io_method`], [{ io_method: "worker" }]);
  await change(first);
  const before = await contents(first);
  await neon.local.stopEndpoint(`main${major}`);
  const again = await open(`main${major}`, "main");
  assert.deepEqual(await contents(again), before, "after the restart");
  await check(again);
  await readAllBlocks(again);
  await checkReplica(neon, again, major, tenantId);
  await again`INSERT INTO t VALUES (-1, 0, 'main alone')`;
  await branchOf(neon, tenantId, major);
  const branch = await open(`branch${major}`, "branch");
  await branch`DELETE FROM t WHERE id = -1`;
  assert.deepEqual(await contents(branch), before, "on the branch");
  await check(branch);
  assert.equal((await again`SELECT 1 FROM t WHERE id = -1`).length, 1);
}

/** A replica that starts while a transaction is open sees it when it commits, and all else. */
async function checkReplica(
  neon: TestNeon,
  main: Sql,
  major: number,
  tenant: TenantId,
): Promise<void> {
  const port = Number((await main`SHOW port`)[0]!["port"]);
  const open = neon.connect({ name: "main", host: "127.0.0.1", port, connectionString: "" });
  await main`CREATE TABLE seen (v text)`;
  await open.unsafe(`BEGIN; INSERT INTO seen VALUES ('open'); SAVEPOINT a;
    INSERT INTO seen VALUES ('sub'); SAVEPOINT b; LOCK big IN ACCESS EXCLUSIVE MODE`);
  await main`INSERT INTO seen VALUES ('committed')`;
  const options = { tenant, branch: "main", mode: "Replica" } as const;
  const replica = neon.connect(await neon.local.startEndpoint(`replica${major}`, options));
  const seen = async () => (await replica`SELECT v FROM seen ORDER BY v`).map((row) => row["v"]);
  assert.deepEqual(await seen(), ["committed"]);
  await replica`SET lock_timeout = '50ms'`;
  await assert.rejects(replica`SELECT FROM big`, /lock timeout/);
  await open.unsafe("COMMIT");
  await caughtUp(replica, main);
  assert.deepEqual(await seen(), ["committed", "open", "sub"]);
  assert.deepEqual(await contents(replica), await contents(main), "on the replica");
  await main`VACUUM FULL t`;
  await main`DROP TABLE seen`;
  await caughtUp(replica, main);
  assert.deepEqual(await contents(replica), await contents(main), "after new files");
  await neon.local.stopEndpoint(`replica${major}`);
}

async function branchOf(neon: TestNeon, tenant: TenantId, major: number): Promise<void> {
  const created = await neon.run(
    ...["timeline", "branch", "--branch-name", "branch", "--tenant-id", tenant],
  );
  assert.match(created, /Ancestor timeline: 'main'/, `of version ${major}`);
}

testWithNeon("every PostgreSQL version, in one local Neon", {}, async (neon) => {
  for (const major of VERSIONS) {
    await testVersion(neon, major);
    await neon.closeClients();
  }
  const known = neon.local.environment().config.postgres.map(({ version }) => version);
  assert.deepEqual(known.toSorted(), [...new Set([...VERSIONS, 17])].toSorted());
});

const OTHER = VERSIONS.find((major) => major !== 17);

testWithNeon(
  "timeline create --pg-version gives a tenant roots of several versions",
  {},
  async (neon) => {
    if (OTHER === undefined) return;
    const args = ["timeline", "create", "--branch-name", "other", "--pg-version", String(OTHER)];
    assert.match(await neon.run(...args), /^Created timeline/);
    const start = await neon.run("endpoint", "start", "other");
    assert.ok(start.includes(`(PostgreSQL v${OTHER})`), start);
    const [other] = await neon.local.listEndpoints();
    const sql = neon.connect(await neon.local.startEndpoint("other"));
    await sql`CREATE TABLE t AS SELECT 1 AS one`;
    assert.equal(other!.branch_name, "other");
    await neon.local.stopEndpoint("other");
    const branch = ["--branch-name", "twig", "--ancestor-branch-name", "other"];
    await neon.run("timeline", "branch", ...branch); // the safekeepers are asked where it ends
    const twig = neon.connect(await neon.local.startEndpoint("twig"));
    assert.deepEqual([...await twig`SELECT * FROM t`], [{ one: 1 }]);
    const main = neon.connect(await neon.local.startEndpoint("main"));
    const [version] = await main`SELECT current_setting('server_version_num')::int / 10000 AS v`;
    assert.deepEqual(version, { v: 17 });
    await assert.rejects(
      neon.run("tenant", "create", "--pg-version", "13"),
      /supported major versions are 14, 15, 16, 17 and 18/,
    );
  },
);
