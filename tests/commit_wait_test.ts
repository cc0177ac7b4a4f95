/**
 * A commit that waits for the safekeepers waits where PostgreSQL syncs its WAL, so nothing but
 * their answer ends the wait: it is neither cancelled nor timed out into a commit that may be lost.
 */
import assert from "node:assert/strict";
import { WAL_BUFFER_BYTES_MAX } from "../compute/wal_proposer/wal_buffer.ts";
import { type Sql, testWithNeon } from "./harness.ts";
import { commitsWaiting, isSettled } from "./support/commits_waiting.ts";

async function pidOf(sql: Sql): Promise<number> {
  const [row] = await sql`select pg_backend_pid() as pid`;
  return row!["pid"];
}

/** The rows that are there. */
async function rowsOf(sql: Sql): Promise<number[]> {
  return (await sql`select n from t order by n`).map(({ n }) => n);
}

testWithNeon("a commit that waits cannot be cancelled, and is not lost", {}, async (neon) => {
  const main = await neon.local.startEndpoint("main");
  const [cancelled, ended, late, local, observer] = [1, 2, 3, 4, 5].map(() => neon.connect(main));
  await observer!`create table t(n int primary key)`;
  const pids = await Promise.all([cancelled!, ended!].map(pidOf));
  await late!`set statement_timeout = '100ms'`;
  await local!`set synchronous_commit = local`;
  await neon.killRole("safekeeper 1");
  const inserts = [cancelled!, ended!, late!, local!].map((sql, n) =>
    sql`insert into t values (${n})`.then(() => "committed", () => "ended")
  );
  await commitsWaiting(observer!, inserts.length);
  await observer!`select pg_cancel_backend(${pids[0]!}), pg_terminate_backend(${pids[1]!})`;
  await observer!`select pg_sleep(0.3)`; // longer than the timeout
  await commitsWaiting(observer!, inserts.length);
  for (const insert of inserts) assert.equal(await isSettled(insert), false);
  assert.deepEqual(await rowsOf(observer!), [], "what waits is not visible");
  await neon.local.start();
  const results = await Promise.all(inserts);
  assert.deepEqual([results[0], results[2], results[3]], ["committed", "committed", "committed"]);
  assert.deepEqual(await rowsOf(observer!), [0, 1, 2, 3], "the ended session had committed");
  neon.killPostgres("main");
  const again = neon.connect(await neon.local.startEndpoint("main"));
  assert.deepEqual(await rowsOf(again), [0, 1, 2, 3]);
});

testWithNeon("bulk writes wait for the safekeepers, too", {}, async (neon) => {
  const main = await neon.local.startEndpoint("main");
  const [bulk, observer] = [neon.connect(main), neon.connect(main)];
  await bulk`create table t(n int, filler text)`;
  await neon.killRole("safekeeper 1");
  const writing = bulk`insert into t select n, repeat('x', 1000) from generate_series(1, 60000) n`
    .then(() => "committed");
  // Its second segment at the latest is not begun before the first is safe
  await commitsWaiting(observer, 1);
  const [row] = await observer`
    select pg_wal_lsn_diff(pg_current_wal_lsn(), pg_current_wal_flush_lsn())::int as unsafe`;
  assert.ok(row!["unsafe"] <= 16 * 1024 * 1024, `${row!["unsafe"]} bytes are not safe`);
  await neon.local.start();
  assert.equal(await writing, "committed");
  neon.killPostgres("main");
  const again = neon.connect(await neon.local.startEndpoint("main"));
  assert.deepEqual([...await again`select count(*)::int as n from t`], [{ n: 60000 }]);
});

testWithNeon("one record may be longer than the WAL that is kept in memory", {
  safekeepers: 3,
}, async (neon) => {
  const main = await neon.local.startEndpoint("main");
  const sql = neon.connect(main);
  await sql`create table t as select 1 as n`;
  await sql`select pg_logical_emit_message(true, 'long', repeat('x', ${
    WAL_BUFFER_BYTES_MAX + 1000
  }))`;
  await sql`insert into t values (2)`;
  neon.killPostgres("main");
  const again = neon.connect(await neon.local.startEndpoint("main"));
  assert.deepEqual([...await again`select n from t order by n`], [{ n: 1 }, { n: 2 }]);
});
