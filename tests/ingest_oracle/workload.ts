/**
 * SQL about what exists rather than about pages: databases by both strategies, relations created,
 * rewritten, truncated and dropped in committed, aborted and prepared transactions, unlogged ones,
 * the relation maps of catalogs, extension by several blocks at once.
 */
import type { PgClient } from "../../libs/pgwire/client.ts";
import type { StockPostgres } from "../redo_judge/stock_postgres.ts";
import { connectTo } from "./cluster_files.ts";

/** Leaves transaction 'left open' prepared and table unlogged_rows with rows. */
export async function directoryWorkload(client: PgClient, server: StockPostgres): Promise<void> {
  const statements = [
    "CREATE TABLE dropped AS SELECT i FROM generate_series(1, 3000) i",
    "CREATE INDEX dropped_i ON dropped (i)",
    "VACUUM dropped",
    "DROP TABLE dropped",
    "BEGIN",
    "CREATE TABLE never AS SELECT i FROM generate_series(1, 3000) i",
    "ROLLBACK",
    "CREATE TABLE rewritten AS SELECT i, i::text AS t FROM generate_series(1, 3000) i",
    "VACUUM FULL rewritten",
    "ALTER TABLE rewritten ALTER i TYPE bigint",
    "CLUSTER pg_class USING pg_class_oid_index",
    "VACUUM FULL pg_proc",
    "VACUUM FULL pg_authid",
    "REINDEX TABLE pg_attribute",
    "CREATE UNLOGGED TABLE unlogged_rows (i int PRIMARY KEY)",
    "INSERT INTO unlogged_rows SELECT i FROM generate_series(1, 1000) i",
    "CREATE DATABASE copied_files TEMPLATE template1 STRATEGY file_copy",
    "CREATE DATABASE copied_wal TEMPLATE copied_files STRATEGY wal_log",
    "CREATE DATABASE short_lived STRATEGY file_copy",
    "DROP DATABASE short_lived",
    "CREATE TABLE victim AS SELECT 1 AS one",
    "BEGIN",
    "CREATE TABLE prepared_rows AS SELECT i FROM generate_series(1, 500) i",
    "DROP TABLE victim",
    "PREPARE TRANSACTION 'done'",
    "COMMIT PREPARED 'done'",
    "CREATE TABLE kept AS SELECT 1 AS one",
    "BEGIN",
    "CREATE TABLE undone AS SELECT i FROM generate_series(1, 500) i",
    "PREPARE TRANSACTION 'undone'",
    "ROLLBACK PREPARED 'undone'",
    // Its end is cut off while the map has bits for it, and it grows again.
    "CREATE TABLE cut AS SELECT i FROM generate_series(1, 9000) i",
    "VACUUM (FREEZE) cut",
    "DELETE FROM cut WHERE i > 2000",
    "VACUUM (TRUNCATE true) cut",
    "INSERT INTO cut SELECT i FROM generate_series(1, 3000) i",
    // One transaction whose subtransactions lie on two pages of pg_xact.
    "CREATE TABLE many (i int)",
    `DO $$ BEGIN FOR i IN 1..33000 LOOP
       BEGIN INSERT INTO many VALUES (i); EXCEPTION WHEN division_by_zero THEN END;
     END LOOP; END $$`,
    "CREATE TABLE open_rows (i int)",
    "BEGIN",
    "INSERT INTO open_rows SELECT i FROM generate_series(1, 500) i",
    "SAVEPOINT s",
    "INSERT INTO open_rows SELECT i FROM generate_series(501, 600) i",
    "RELEASE s",
    "PREPARE TRANSACTION 'left open'",
  ];
  for (const sql of statements) {
    try {
      await client.query(sql);
    } catch (thrown) {
      throw new Error(`${sql}: ${thrown}`, { cause: thrown });
    }
  }
  const clients = await Promise.all(
    Array.from({ length: 4 }, () => connectTo(server, "copied_wal")),
  );
  await concurrentUpdates(clients);
  for (const client of clients) client.close();
}

/** Sessions that write into one table at once, so that it is extended by blocks at a time. */
async function concurrentUpdates(clients: PgClient[]): Promise<void> {
  await clients[0]!.query("CREATE TABLE busy (id int PRIMARY KEY, n int, pad text)");
  await clients[0]!.query("CREATE INDEX busy_n ON busy (n)");
  await Promise.all(clients.map(async (client, c) => {
    for (let i = 0; i < 25; i++) {
      const first = c * 100_000 + i * 40;
      await client.query(
        `INSERT INTO busy SELECT i, 0, repeat('p', 200) FROM generate_series(${first}, ${
          first + 39
        }) i`,
      );
      await client.query(
        `UPDATE busy SET n = n + 1 WHERE id % 17 = ${i % 17} AND id >= ${c * 100_000}
        AND id < ${(c + 1) * 100_000}`,
      );
    }
  }));
}
