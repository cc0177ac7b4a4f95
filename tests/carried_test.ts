/**
 * What stock PostgreSQL does not log, and what is there again all the same after an orderly stop:
 * cumulative statistics and free space maps, in every version, and on branches.
 */
import assert from "node:assert/strict";
import { type Sql, type TestNeon, testWithNeon } from "./harness.ts";
import { testedVersions } from "./support/postgres_versions.ts";
import { until } from "./support/waiting.ts";

const ROWS = 20_000;

/** A table of which every other row is deleted: half of each page is free, as VACUUM has noted. */
async function makeRoom(open: () => Promise<Sql>): Promise<void> {
  const first = await open();
  await first.unsafe(`
    CREATE TABLE t (id int, v text) WITH (autovacuum_enabled = off);
    INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(1, ${ROWS}) i;
    DELETE FROM t WHERE id % 2 = 0;
    SELECT count(*) FROM t;`);
  await first.end(); // a session reports what it counted at its end at the latest
  const second = await open();
  await until("the deletion is counted", async () => {
    return (await statistics(second)).n_tup_del === EXPECTED.n_tup_del;
  });
  await second.unsafe("VACUUM t");
  await until("the VACUUM is counted", async () => (await statistics(second)).vacuum_count === 1);
}

async function sizeOf(sql: Sql, table: string): Promise<number> {
  const [row] = await sql.unsafe(`SELECT pg_relation_size('${table}')::int AS bytes`);
  return row!["bytes"];
}

async function fillRoom(sql: Sql): Promise<void> {
  await sql.unsafe(
    `INSERT INTO t SELECT i, repeat('y', 100) FROM generate_series(1, ${ROWS * 0.49}) i`,
  );
}

/** Counters that only sequential scans and changes of the table move. */
async function statistics(sql: Sql): Promise<typeof EXPECTED & { seq_scan: number }> {
  const [row] = await sql.unsafe(`SELECT seq_scan::int, n_tup_ins::int, n_tup_del::int,
    n_live_tup::int, vacuum_count::int FROM pg_stat_user_tables WHERE relname = 't'`);
  return row as unknown as typeof EXPECTED & { seq_scan: number };
}

const EXPECTED = {
  n_tup_ins: ROWS,
  n_tup_del: ROWS / 2,
  n_live_tup: ROWS / 2,
  vacuum_count: 1,
};

async function testVersion(neon: TestNeon, major: number): Promise<void> {
  const { tenantId } = await neon.local.createTenant({ pgVersion: major });
  const open = async (name: string, branch: string) => {
    const endpoint = await neon.local.startEndpoint(name, { tenant: tenantId, branch });
    return neon.connect(endpoint);
  };
  const main = `main${major}`;
  await makeRoom(() => open(main, "main"));
  const bytes = await sizeOf(await open(main, "main"), "t");
  await neon.local.stopEndpoint(main);
  const second = await open(main, "main");
  const kept = await statistics(second);
  const { seq_scan, ...counts } = kept;
  assert.deepEqual(counts, EXPECTED, `statistics of PostgreSQL ${major} after a stop`);
  assert.ok(seq_scan >= 2, `${seq_scan} scans`);
  await neon.run("timeline", "branch", "--branch-name", "b", "--tenant-id", tenantId);
  await fillRoom(second);
  assert.equal(await sizeOf(second, "t"), bytes, `free space of PostgreSQL ${major} is used`);
  const branch = await open(`b${major}`, "b");
  assert.deepEqual(await statistics(branch), kept, `statistics of PostgreSQL ${major} on a branch`);
  await fillRoom(branch);
  assert.equal(await sizeOf(branch, "t"), bytes, `free space of ${major} is used on a branch`);
  await neon.local.stopEndpoint(main);
  await neon.local.stopEndpoint(`b${major}`);
}

testWithNeon("statistics and free space maps, in every PostgreSQL version", {}, async (neon) => {
  for (const major of testedVersions()) {
    await testVersion(neon, major);
    await neon.closeClients();
  }
});
