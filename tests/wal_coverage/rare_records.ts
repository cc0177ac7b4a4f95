/**
 * SQL for records that ordinary work on tables and indexes does not write: of the cluster's own
 * affairs (checkpoints, backups, databases, tablespaces, settings) and of logical replication.
 */
import { join } from "node:path";
import type { PgClient } from "../../libs/pgwire/client.ts";
import { all } from "../redo_judge/workload.ts";
import type { StockPostgres } from "../redo_judge/stock_postgres.ts";

/** Transactions to use up: a segment of pg_xact is full of 2^20, one of pg_commit_ts earlier. */
const TRANSACTIONS = 16;
const SUBTRANSACTIONS = 66_000;
const CHECKPOINTS_MAX = 100;

async function one(client: PgClient, query: string): Promise<string> {
  const { rows } = await client.query(query);
  return String(rows[0]![0]);
}

/** XLOG, Tablespace, Database, RelMap, Storage and Standby records. */
export async function clusterWorkload(client: PgClient, major: number): Promise<void> {
  await all(
    client,
    [
      "SELECT pg_create_restore_point('here')",
      major < 15 ? "SELECT pg_start_backup('b', true, false)" : "SELECT pg_backup_start('b', true)",
      "CREATE TABLE rc (id int PRIMARY KEY, v text)",
      "INSERT INTO rc SELECT i, 'v' FROM generate_series(1, 300) i",
      major < 15
        ? "SELECT lsn FROM pg_stop_backup(false, false)"
        : "SELECT lsn FROM pg_backup_stop(false)",
      "SELECT pg_switch_wal()",
      "SET allow_in_place_tablespaces = on",
      "CREATE TABLESPACE ts LOCATION ''",
      "CREATE TABLE rt (id int PRIMARY KEY) TABLESPACE ts",
      "INSERT INTO rt SELECT i FROM generate_series(1, 500) i",
      "CREATE DATABASE copied STRATEGY file_copy",
      "CREATE DATABASE logged STRATEGY wal_log",
    ].map((statement) => major < 15 ? statement.replace(/ STRATEGY \w+/, "") : statement),
  );
}

/** In a database that was made by copying: its pages are changed, among them those of catalogs. */
export function changeCopy(client: PgClient): Promise<void> {
  return all(client, [
    "CREATE TABLE c (id int PRIMARY KEY)",
    "INSERT INTO c SELECT i FROM generate_series(1, 400) i",
    "UPDATE pg_class SET reltuples = 1000 + reltuples WHERE relkind = 'r'",
    "VACUUM FULL pg_class",
    "VACUUM FULL pg_proc",
    "VACUUM (FREEZE)",
  ]);
}

/** Copies that go again, a database that moves, rewritten catalogs. */
export async function moveDatabases(client: PgClient): Promise<void> {
  await all(client, [
    "ALTER DATABASE copied SET TABLESPACE ts",
    "DROP DATABASE copied",
    "DROP DATABASE logged",
    "DROP TABLE rt",
    "DROP TABLESPACE ts",
    "VACUUM FULL pg_class",
    "VACUUM FULL pg_database",
    "CLUSTER pg_type USING pg_type_oid_index",
    "BEGIN",
    "LOCK TABLE rc IN ACCESS EXCLUSIVE MODE",
    "COMMIT",
    // Changes of catalogs without a transaction id: their invalidations travel alone.
    "CREATE TABLE iv (id int PRIMARY KEY)",
    "INSERT INTO iv SELECT i FROM generate_series(1, 2000) i",
    "DELETE FROM iv",
    "VACUUM iv",
    "ANALYZE iv",
    "CREATE INDEX iv_later ON iv (id)",
    "DROP INDEX CONCURRENTLY iv_later",
    "REINDEX TABLE CONCURRENTLY iv",
  ]);
}

/** At wal_level logical: what logical decoding needs, and what only it writes. */
export async function decodingWorkload(client: PgClient): Promise<void> {
  await all(client, [
    "SELECT pg_create_logical_replication_slot('s', 'pgoutput')",
    "CREATE TABLE ld (id int PRIMARY KEY, v text)",
    // Rows of the catalog that changed since the slot was made are mapped when it is rewritten.
    "BEGIN",
    "ALTER TABLE ld ADD COLUMN w int",
    "INSERT INTO ld SELECT i, 'v', i FROM generate_series(1, 50) i",
    "ALTER TABLE ld ADD COLUMN x int",
    "UPDATE ld SET w = w + 1",
    "COMMIT",
    "VACUUM FULL pg_class",
    "CLUSTER pg_attribute USING pg_attribute_relid_attnum_index",
    "TRUNCATE ld",
    "SELECT pg_logical_emit_message(true, 'prefix', 'in a transaction')",
    "SELECT pg_logical_emit_message(false, 'prefix', 'alone')",
    "SELECT pg_drop_replication_slot('s')",
    "SELECT pg_replication_origin_create('o')",
    "SELECT pg_replication_origin_create('gone')",
    "SELECT pg_replication_origin_session_setup('o')",
    "BEGIN",
    "SELECT pg_replication_origin_xact_setup('0/ABCD00', '2024-01-01')",
    "INSERT INTO ld VALUES (-1, 'from elsewhere', 0, 0)",
    "COMMIT",
    "SELECT pg_replication_origin_session_reset()",
    "SELECT pg_replication_origin_advance('gone', '0/1234568')",
    "SELECT pg_replication_origin_drop('gone')",
    // More subtransactions than a snapshot names.
    "BEGIN",
    ...Array.from({ length: 150 }, (_, i) => [
      `SAVEPOINT s${i}`,
      `INSERT INTO ld VALUES (${i + 1000}, 'sub')`,
    ]).flat(),
    "COMMIT",
  ]);
}

/**
 * Uses up transaction ids, then makes all databases forget the old ones, which cuts pg_xact,
 * pg_commit_ts and pg_multixact. `connect` gives a session of a database.
 */
export async function truncateStatus(
  client: PgClient,
  connect: (database: string) => Promise<PgClient>,
): Promise<void> {
  const subtransactions = `DO $$ BEGIN FOR i IN 1..${SUBTRANSACTIONS} LOOP
    BEGIN PERFORM pg_logical_emit_message(true, '', ''); EXCEPTION WHEN division_by_zero THEN END;
  END LOOP; END $$`;
  await all(client, [
    ...Array.from({ length: TRANSACTIONS }, () => subtransactions),
    "ALTER DATABASE template0 ALLOW_CONNECTIONS true",
  ]);
  const { rows } = await client.query("SELECT datname FROM pg_database");
  // Twice: what the last database lets go of is only known then.
  for (const [name] of [...rows, ...rows]) {
    const session = await connect(name!);
    await session.query("VACUUM (FREEZE)");
    session.close();
  }
}

/**
 * At wal_level minimal: rows of a table that is made in the same transaction are not logged, and
 * GiST asks for positions in the WAL instead of writing records.
 */
export function unloggedBuild(client: PgClient): Promise<void> {
  return all(client, [
    "SET wal_skip_threshold = '1GB'",
    "BEGIN",
    "CREATE TABLE nl (p point)",
    "CREATE INDEX nl_p ON nl USING gist (p)",
    "INSERT INTO nl SELECT point(i % 100, i) FROM generate_series(1, 2000) i",
    "COMMIT",
    "INSERT INTO nl SELECT point(i % 100, i) FROM generate_series(1, 500) i",
  ]);
}

/** Hint bits that are set on clean pages, with page images on and logged hints. */
export function hintWorkload(client: PgClient): Promise<void> {
  return all(client, [
    "CREATE TABLE hi AS SELECT i FROM generate_series(1, 3000) i",
    "CREATE INDEX hi_i ON hi (i)",
    "CHECKPOINT",
    "SELECT count(*) FROM hi",
    "DELETE FROM hi WHERE i % 3 = 0",
    "CHECKPOINT",
    "SELECT count(*) FROM hi",
    "INSERT INTO hi SELECT i FROM generate_series(1, 1000) i",
    "CHECKPOINT",
    "VACUUM hi",
    "UPDATE hi SET i = -i WHERE i % 5 = 0",
  ]);
}

/** full_page_writes off and on again while the server runs; both are logged. */
export async function switchPageWrites(client: PgClient): Promise<void> {
  for (const value of ["off", "on"]) {
    await all(client, [`ALTER SYSTEM SET full_page_writes = ${value}`, "SELECT pg_reload_conf()"]);
    // The checkpointer acts on the new setting, and says so in its next checkpoint.
    const flag = value === "on" ? "t" : "f";
    for (let i = 0;; i++) {
      await client.query("CHECKPOINT");
      const query = "SELECT full_page_writes FROM pg_control_checkpoint()";
      if (await one(client, query) === flag) break;
      if (i === CHECKPOINTS_MAX) throw new Error("Cannot switch full_page_writes");
    }
  }
}

/**
 * Kills the server with a record at the end of the WAL that continues in a segment which is then
 * removed, as if it had never reached the disk. Nobody else may write.
 */
export async function breakRecord(client: PgClient, server: StockPostgres): Promise<void> {
  const query = "SELECT pg_walfile_name(pg_current_wal_insert_lsn())";
  const last = await one(client, query);
  await client.query("SELECT pg_logical_emit_message(false, 'x', repeat('y', 20000000))");
  client.close();
  await server.stop("SIGQUIT");
  const directory = join(server.dataDir, "pg_wal");
  for (const { name, isFile } of [...Deno.readDirSync(directory)]) {
    if (isFile && name > last) Deno.removeSync(join(directory, name));
  }
}
