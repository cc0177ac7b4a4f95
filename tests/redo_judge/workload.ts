/**
 * SQL that makes PostgreSQL write every kind of heap, heap2, btree and sequence record that can be
 * provoked, with two or three sessions where one is not enough. Sizes are what keeps it to seconds.
 */
import type { PgClient } from "../../libs/pgwire/client.ts";
import type { StockPostgres } from "./stock_postgres.ts";

/** Runs the statements, one by one; an error names its statement. */
export async function all(client: PgClient, statements: string[]): Promise<void> {
  for (const statement of statements) {
    try {
      await client.query(statement);
    } catch (thrown) {
      throw new Error(`${statement}: ${thrown}`, { cause: thrown });
    }
  }
}

/** Sets wal_compression for the session, if the server was built with that method. */
export async function compress(client: PgClient, method: string): Promise<void> {
  await client.query(`SET wal_compression = ${method}`).catch(() => undefined);
}

/** Inserts, updates in and out of place, deletes, pruning, freezing, visibility map both ways. */
export async function heapWorkload(client: PgClient): Promise<void> {
  await compress(client, "lz4");
  await all(client, [
    "CREATE TABLE t (id int PRIMARY KEY, a int, b text, c text) WITH (fillfactor = 80)",
    `INSERT INTO t SELECT i, i % 10, repeat('b', i % 40), repeat('c', i % 77)
     FROM generate_series(1, 1500) i`,
    "UPDATE t SET b = b || 'x' WHERE id % 3 = 0",
    "UPDATE t SET b = 'y' || b WHERE id % 4 = 0",
    "SELECT count(*) FROM t",
    "UPDATE t SET id = id + 100000 WHERE id % 7 = 0",
    "UPDATE t SET c = repeat('d', 300) WHERE id % 11 = 0",
    "DELETE FROM t WHERE id % 5 = 0",
    "VACUUM t",
    // Every page is all-visible now: each of these clears bits of the map.
    "UPDATE t SET a = a + 1 WHERE id % 50 = 1",
    "INSERT INTO t SELECT i, 0, 'new' FROM generate_series(5000, 5050) i",
    "DELETE FROM t WHERE id % 53 = 2",
    "SELECT count(*) FROM t",
    "VACUUM (FREEZE) t",
    "SELECT id FROM t WHERE id % 61 = 3 FOR UPDATE",
    "UPDATE t SET c = repeat('e', 900) WHERE id % 59 = 4",
    "VACUUM (FREEZE) t",
    "SELECT id FROM t WHERE id % 37 = 3 FOR KEY SHARE",
    // No indexes: dead items become unused at once.
    "CREATE TABLE u (id int, v text)",
    "INSERT INTO u SELECT i, repeat('v', 20) FROM generate_series(1, 1000) i",
    "UPDATE u SET v = 'w' WHERE id % 2 = 0",
    "DELETE FROM u WHERE id > 500 AND id % 3 = 0",
    "VACUUM u",
    "INSERT INTO u SELECT i, 'again' FROM generate_series(1, 400) i",
    // The end of the table is cut off, and its map with it.
    "DELETE FROM u WHERE id > 300",
    "VACUUM (TRUNCATE true) u",
    "VACUUM (FREEZE, TRUNCATE true) u",
    "INSERT INTO u SELECT i, 'after' FROM generate_series(1, 300) i",
    "TRUNCATE u",
    "INSERT INTO u VALUES (1, 'one')",
    "CREATE TABLE wide (id int, v text) WITH (toast_tuple_target = 8160)",
    "ALTER TABLE wide ALTER v SET STORAGE EXTERNAL",
    "INSERT INTO wide SELECT i, repeat(md5(i::text), 200) FROM generate_series(1, 40) i",
    "UPDATE wide SET v = v || 'tail' WHERE id % 2 = 0",
    "DELETE FROM wide WHERE id % 3 = 0",
    "VACUUM wide",
  ]);
}

/** A row churned so that reading prunes it, and updates that reuse items and shared prefixes. */
export async function churnWorkload(client: PgClient): Promise<void> {
  await compress(client, "zstd");
  await all(client, [
    "CREATE TABLE hot (id int PRIMARY KEY, n int, pad text) WITH (fillfactor = 50)",
    "INSERT INTO hot SELECT i, 0, repeat('p', 60) FROM generate_series(1, 60) i",
  ]);
  for (let i = 0; i < 40; i++) {
    await client.query(`UPDATE hot SET n = n + 1 WHERE id % 4 = ${i % 4}`);
  }
  await all(client, [
    "CREATE TABLE part (k int, v text) PARTITION BY LIST (k)",
    "CREATE TABLE part1 PARTITION OF part FOR VALUES IN (1)",
    "CREATE TABLE part2 PARTITION OF part FOR VALUES IN (2)",
    "INSERT INTO part SELECT 1, i::text FROM generate_series(1, 50) i",
    "UPDATE part SET k = 2 WHERE v::int % 2 = 0",
  ]);
}

/** COPY into new and into used pages, and with FREEZE. */
export async function copyWorkload(client: PgClient, server: StockPostgres): Promise<void> {
  await compress(client, "off");
  const lines = Array.from({ length: 1500 }, (_, i) => `${i}\t${"z".repeat(i % 60)}\n`).join("");
  const big = server.writeFile("copy_big.txt", lines);
  const small = server.writeFile("copy_small.txt", lines.slice(0, 1000));
  await all(client, [
    "CREATE TABLE copied (id int, v text)",
    `COPY copied FROM '${big}'`,
    "DELETE FROM copied WHERE id % 2 = 0",
    "VACUUM copied",
    ...Array.from({ length: 5 }, () => `COPY copied FROM '${small}'`),
    "VACUUM (FREEZE) copied",
    `COPY copied FROM '${small}'`,
    "BEGIN",
    "CREATE TABLE frozen (id int, v text)",
    `COPY frozen FROM '${big}' (FREEZE)`,
    "COMMIT",
    "DELETE FROM frozen WHERE id % 100 = 7",
  ]);
}

/**
 * Row locks of two sessions, a multixact for each row, locks on rows updated meanwhile. By default
 * that is more than a page of multixact offsets and of members.
 */
export async function lockWorkload(a: PgClient, b: PgClient, rows = 2200): Promise<void> {
  await all(a, [
    "CREATE TABLE m (id int PRIMARY KEY, v int)",
    `INSERT INTO m SELECT i, 0 FROM generate_series(1, ${rows + 100}) i`,
    "VACUUM (FREEZE) m",
    "BEGIN",
    "SELECT count(*) FROM (SELECT 1 FROM m FOR KEY SHARE) locked",
  ]);
  // Each subtransaction of b makes one more multixact.
  await all(b, [
    `DO $$ BEGIN FOR i IN 1..${rows} LOOP
       BEGIN PERFORM 1 FROM m WHERE id = i FOR SHARE; EXCEPTION WHEN division_by_zero THEN END;
     END LOOP; END $$`,
    "UPDATE m SET v = v + 1 WHERE id % 10 = 0",
  ]);
  await all(a, ["COMMIT", "BEGIN", "UPDATE m SET v = v + 1 WHERE id < 40"]);
  await all(b, [
    "BEGIN",
    "SELECT id FROM m WHERE id < 40 FOR KEY SHARE",
    "COMMIT",
  ]);
  await all(a, ["ROLLBACK", "VACUUM (FREEZE) m"]);
  await all(b, ["VACUUM (FREEZE) m"]);
}

/** Subtransactions and prepared transactions, committed and not. */
export async function transactionWorkload(client: PgClient): Promise<void> {
  const prepared = (name: string) => [
    "BEGIN",
    `INSERT INTO x VALUES ('${name}')`,
    "SAVEPOINT s",
    `INSERT INTO x VALUES ('${name} sub')`,
    "RELEASE s",
    `PREPARE TRANSACTION '${name}'`,
  ];
  await all(client, [
    "CREATE TABLE x (v text)",
    `DO $$ BEGIN FOR i IN 1..100 LOOP
       BEGIN
         INSERT INTO x VALUES (i::text);
         IF i % 3 = 0 THEN RAISE division_by_zero; END IF;
       EXCEPTION WHEN division_by_zero THEN NULL; END;
     END LOOP; END $$`,
    "BEGIN",
    "INSERT INTO x VALUES ('gone')",
    "SAVEPOINT s",
    "INSERT INTO x VALUES ('gone too')",
    "ROLLBACK",
    ...prepared("one"),
    "COMMIT PREPARED 'one'",
    ...prepared("two"),
    "ROLLBACK PREPARED 'two'",
  ]);
}

/**
 * Indexes: splits everywhere, duplicates, deletion of items and of pages on several levels, reuse.
 * There are six keys to a page of the tree of `keys` keys.
 */
export async function btreeWorkload(client: PgClient, keys = 1400): Promise<void> {
  await compress(client, "lz4");
  await all(client, [
    "CREATE TABLE dup (k int, v int)",
    "CREATE INDEX dup_k ON dup (k)",
    "CREATE INDEX dup_v ON dup (v)",
    "INSERT INTO dup SELECT (i * 7919) % 23, -i FROM generate_series(1, 4000) i",
    "DELETE FROM dup WHERE v % 3 = 0",
    "VACUUM dup",
    "INSERT INTO dup SELECT (i * 104729) % 23, i FROM generate_series(1, 2500) i",
    "CREATE TABLE churn (id int PRIMARY KEY, a int, b int)",
    "CREATE INDEX churn_a ON churn (a)",
    "CREATE INDEX churn_b ON churn (b)",
    "INSERT INTO churn SELECT i, i % 7, i FROM generate_series(1, 120) i",
  ]);
  for (let i = 0; i < 30; i++) await client.query("UPDATE churn SET b = b + 1000");
  const key = "repeat(chr(97 + i % 26), 1200) || to_char(i, 'FM000000')";
  await all(client, [
    "CREATE TABLE deep (k text)",
    "ALTER TABLE deep ALTER k SET STORAGE PLAIN",
    "CREATE INDEX deep_k ON deep (k)",
    `INSERT INTO deep SELECT right(${key}, 1200) FROM generate_series(1, ${keys / 2}) i`,
    `INSERT INTO deep SELECT right(${key}, 1200) FROM generate_series(${keys}, ${
      keys / 2 + 1
    }, -1) i`,
    "DELETE FROM deep WHERE k < repeat('m', 3)",
    "VACUUM deep",
    "DELETE FROM deep WHERE k < repeat('y', 3)",
    "VACUUM deep",
    "SELECT txid_current()",
    "VACUUM deep",
    "VACUUM deep",
    `INSERT INTO deep SELECT right(${key}, 1200) FROM generate_series(1, ${keys / 5}) i`,
    "DELETE FROM deep",
    "VACUUM deep",
    "SELECT txid_current()",
    "VACUUM deep",
    `INSERT INTO deep SELECT right(${key}, 1200) FROM generate_series(1, 100) i`,
  ]);
}

/** Sequences: logged and unlogged, set, altered, read. */
export async function sequenceWorkload(client: PgClient): Promise<void> {
  await all(client, [
    "CREATE SEQUENCE s",
    "SELECT count(setval('s', i)) FROM generate_series(1, 2400) i",
    "SELECT count(nextval('s')) FROM generate_series(1, 3000) i",
    "ALTER SEQUENCE s INCREMENT 5 CACHE 10",
    "SELECT nextval('s')",
    // Unlogged ones came with 15, and of them the init fork is logged
    `DO $$ BEGIN IF current_setting('server_version_num')::int >= 150000 THEN
       EXECUTE 'CREATE UNLOGGED SEQUENCE su'; PERFORM nextval('su');
     END IF; END $$`,
    "CREATE TABLE ident (id int GENERATED ALWAYS AS IDENTITY, v int)",
    "INSERT INTO ident (v) SELECT i FROM generate_series(1, 100) i",
    "TRUNCATE ident RESTART IDENTITY",
  ]);
}

/** INSERT ... ON CONFLICT, with one that loses the race after its tuple is on the page. */
export async function conflictWorkload(
  control: PgClient,
  a: PgClient,
  b: PgClient,
): Promise<void> {
  await all(control, [
    "CREATE TABLE up (k text, v int)",
    // Waits for lock 3 while lock 1 is held elsewhere (the check before insertion), then for 2.
    `CREATE FUNCTION gate(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$
     DECLARE me int := coalesce(nullif(current_setting('judge.session', true), ''), '0')::int;
     BEGIN
       IF me = 0 THEN RETURN $1; END IF;
       IF pg_try_advisory_xact_lock(me, 1) THEN PERFORM pg_advisory_xact_lock(me, 2);
       ELSE PERFORM pg_advisory_xact_lock(me, 3); END IF;
       RETURN $1;
     END $$`,
    "CREATE UNIQUE INDEX up_k ON up (gate(k))",
    `INSERT INTO up SELECT i::text, i FROM generate_series(1, 200) i ON CONFLICT DO NOTHING`,
    `INSERT INTO up SELECT i::text, i FROM generate_series(150, 250) i
     ON CONFLICT (gate(k)) DO UPDATE SET v = up.v + 1000`,
    ...[1, 2].flatMap((s) => [1, 2, 3].map((lock) => `SELECT pg_advisory_lock(${s}, ${lock})`)),
  ]);
  await all(a, ["SET judge.session = 1"]);
  await all(b, ["SET judge.session = 2"]);
  const upsert = "INSERT INTO up VALUES ('race', 1) ON CONFLICT (gate(k)) DO UPDATE SET v = -1";
  const running = [a.query(upsert), b.query(upsert)];
  const release = (s: number, lock: number) =>
    all(control, [`SELECT pg_advisory_unlock(${s}, ${lock})`]);
  await waiting(control, 3, 2);
  for (const s of [1, 2]) await release(s, 1);
  for (const s of [1, 2]) await release(s, 3);
  await waiting(control, 2, 2);
  await release(2, 2);
  await running[1];
  await release(1, 2);
  await running[0];
}

/** Returns when `count` sessions wait for advisory lock number `lock`. */
async function waiting(control: PgClient, lock: number, count: number): Promise<void> {
  for (let attempt = 0; attempt < 2000; attempt++) {
    const { rows } = await control.query(
      `SELECT count(*) FROM pg_locks
       WHERE locktype = 'advisory' AND NOT granted AND objid = ${lock}`,
    );
    if (Number(rows[0]![0]) === count) return;
  }
  throw new Error(`Cannot see ${count} sessions waiting for lock ${lock}`);
}

/** At wal_level logical: whole old rows in the records, command ids, catalog tables. */
export async function logicalWorkload(client: PgClient): Promise<void> {
  await compress(client, "zstd");
  await all(client, [
    "CREATE TABLE lg (id int PRIMARY KEY, v text)",
    "ALTER TABLE lg REPLICA IDENTITY FULL",
    "INSERT INTO lg SELECT i, repeat('l', 50) FROM generate_series(1, 300) i",
    "UPDATE lg SET v = v || 'x' WHERE id % 2 = 0",
    "UPDATE lg SET id = id + 1000 WHERE id % 3 = 0",
    "DELETE FROM lg WHERE id % 5 = 0",
    "VACUUM (FREEZE) lg",
    // Pages that went all-visible and all-frozen before the restart.
    "UPDATE t SET a = -a WHERE id % 13 = 5",
    "DELETE FROM m WHERE id % 19 = 0",
    "SELECT id FROM m WHERE id % 23 = 0 FOR UPDATE",
    "INSERT INTO copied SELECT i, 'later' FROM generate_series(1, 200) i",
    "DELETE FROM lg WHERE id % 7 = 0",
  ]);
}
