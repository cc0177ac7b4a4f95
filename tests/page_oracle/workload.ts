/** A bit of everything that changes pages, in a database of an endpoint. */
import { PgClient } from "../../libs/pgwire/client.ts";
import {
  btreeWorkload,
  churnWorkload,
  heapWorkload,
  lockWorkload,
  sequenceWorkload,
  transactionWorkload,
} from "../redo_judge/workload.ts";

/** Sessions that write at the same time. */
const WRITERS = 4;

/** Opens a session. */
export function openSession(port: number, database = "postgres"): Promise<PgClient> {
  return PgClient.connect({ hostname: "127.0.0.1", port }, { user: "cloud_admin", database });
}

/** Runs statements one by one; an error names its statement. */
export async function runAll(client: PgClient, statements: readonly string[]): Promise<void> {
  for (const statement of statements) {
    try {
      await client.query(statement);
    } catch (thrown) {
      throw new Error(`${statement}: ${thrown}`, { cause: thrown });
    }
  }
}

/** Heap, btree, sequences, locks, transactions, COPY, many writers. `copyFile` is what is copied. */
export async function firstWorkload(port: number, copyFile: string): Promise<void> {
  const [a, b] = [await openSession(port), await openSession(port)];
  await heapWorkload(a);
  await churnWorkload(a);
  await btreeWorkload(a);
  await sequenceWorkload(a);
  await lockWorkload(a, b);
  await transactionWorkload(a);
  await runAll(a, [
    "CREATE TABLE copied (id int PRIMARY KEY, v text)",
    `COPY copied FROM '${copyFile}'`,
    "CREATE INDEX copied_v ON copied (v)",
    "DELETE FROM copied WHERE id % 7 = 0",
    "VACUUM copied",
    "UPDATE copied SET v = v || 'u' WHERE id % 11 = 0",
    "CREATE DATABASE by_file STRATEGY file_copy",
    "CREATE DATABASE by_wal TEMPLATE template0 STRATEGY wal_log",
    "CREATE UNLOGGED TABLE unlogged_rows (i int PRIMARY KEY)",
    "INSERT INTO unlogged_rows SELECT generate_series(1, 500)",
    "CREATE TABLE shrunk AS SELECT i, repeat('s', 500) AS v FROM generate_series(1, 3000) i",
    "VACUUM shrunk",
    "DELETE FROM shrunk WHERE i > 100",
    "VACUUM shrunk",
    "CREATE TABLE emptied AS SELECT generate_series(1, 3000) i",
    "TRUNCATE emptied",
    "VACUUM FULL pg_class",
    "REINDEX TABLE pg_attribute",
  ]);
  for (const client of [a, b]) client.close();
  for (const database of ["by_file", "by_wal"]) await concurrentWriters(port, database);
}

/** What goes on after a restart, on pages that were there and on new ones. */
export async function secondWorkload(port: number): Promise<void> {
  const client = await openSession(port);
  await runAll(client, [
    "UPDATE t SET b = 'after' || b WHERE id % 3 = 1",
    "DELETE FROM t WHERE id % 8 = 0",
    "UPDATE copied SET v = 'moved' WHERE id % 5 = 0",
    "DELETE FROM copied WHERE id % 4 = 1",
    "VACUUM copied",
    "INSERT INTO copied SELECT i, 'filled' FROM generate_series(1, 8001, 7) i " +
    "ON CONFLICT DO NOTHING",
    "INSERT INTO emptied SELECT generate_series(1, 1000)",
    "INSERT INTO wide SELECT i, repeat(md5(i::text), 300) FROM generate_series(100, 130) i",
    "UPDATE m SET v = v + 1 WHERE id % 3 = 0",
    "SELECT count(nextval('s')) FROM generate_series(1, 100)",
    "VACUUM (FREEZE) hot",
    "VACUUM shrunk",
    "INSERT INTO unlogged_rows SELECT generate_series(1, 500)",
    "CREATE TABLE IF NOT EXISTS later (id serial PRIMARY KEY, v text)",
    "INSERT INTO later(v) SELECT md5(i::text) FROM generate_series(1, 2000) i",
  ]);
  client.close();
  await concurrentWriters(port, "by_wal");
}

/** Sessions that insert, update and delete in one table, so that it grows by blocks at a time. */
async function concurrentWriters(port: number, database: string): Promise<void> {
  const clients = await Promise.all(
    Array.from({ length: WRITERS }, () => openSession(port, database)),
  );
  await runAll(clients[0]!, [
    "CREATE TABLE IF NOT EXISTS busy (id int, n int, pad text)",
    "CREATE INDEX ON busy (id)",
  ]);
  await Promise.all(clients.map(async (client, writer) => {
    for (let i = 0; i < 20; i++) {
      const first = writer * 100_000 + i * 40;
      await runAll(client, [
        `INSERT INTO busy SELECT i, 0, repeat('p', 200)
         FROM generate_series(${first}, ${first + 39}) i`,
        `UPDATE busy SET n = n + 1 WHERE id % 17 = ${i % 17}
         AND id BETWEEN ${writer * 100_000} AND ${writer * 100_000 + 99_999}`,
        `DELETE FROM busy WHERE id = ${first + 3}`,
      ]);
    }
  }));
  for (const client of clients) client.close();
}
