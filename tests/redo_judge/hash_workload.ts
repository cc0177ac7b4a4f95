/**
 * SQL that makes PostgreSQL write every kind of hash, BRIN and generic record. Sizes are what keeps
 * it to seconds.
 */
import type { PgClient } from "../../libs/pgwire/client.ts";
import type { Workload } from "./judge_run.ts";
import { all, compress } from "./workload.ts";

/** No images of the tables: other tests judge them. */
const IMAGES = "SET wal_consistency_checking = 'hash, brin, generic'";

/** What happens in hash indexes, BRIN indexes and bloom indexes. */
export const indexWorkload: Workload = async (_server, one, two) => {
  for (const client of [one, two]) {
    await compress(client, "lz4");
    await all(client, [IMAGES]);
  }
  await bloomWorkload(two);
  await unloggedWorkload(two);
  await brinWorkload(one);
  await hashWorkload(one);
  await emptyPageWorkload(one);
  await deadItemWorkload(one);
};

/** Splits with and without overflow pages, squeezing, freed pages that are used again. */
async function hashWorkload(client: PgClient): Promise<void> {
  await all(client, [
    "CREATE TABLE h (k int, v text)",
    "CREATE INDEX h_k ON h USING hash (k)",
    "INSERT INTO h SELECT i, 'v' FROM generate_series(1, 2500) i",
    // One value only: a long chain of overflow pages, which splits copy whole.
    "INSERT INTO h SELECT 4711, 'same' FROM generate_series(1, 1300) i",
    "INSERT INTO h SELECT i, 'w' FROM generate_series(10000, 11200) i",
    "DELETE FROM h WHERE k <> 4711 AND k % 3 > 0",
    "VACUUM h",
    "DELETE FROM h WHERE v = 'same' AND (ctid::text::point)[1]::int % 4 > 0",
    "VACUUM h",
    "INSERT INTO h SELECT 4711, 'again' FROM generate_series(1, 450) i",
    "INSERT INTO h SELECT i, 'x' FROM generate_series(1, 600) i",
    "DELETE FROM h WHERE k = 4711",
    "VACUUM h",
    "DELETE FROM h",
    "VACUUM h",
    // Several values share few buckets: tuples from the end fill pages in the middle.
    "CREATE TABLE sq (k int) WITH (autovacuum_enabled = off)",
    "CREATE INDEX sq_k ON sq USING hash (k) WITH (fillfactor = 100)",
    "INSERT INTO sq SELECT i % 5 FROM generate_series(1, 3600) i",
    "DELETE FROM sq WHERE (ctid::text::point)[1]::int % 3 = 0",
    "VACUUM sq",
    "DELETE FROM sq WHERE (ctid::text::point)[0]::int % 2 = 0",
    "VACUUM sq",
    "INSERT INTO sq SELECT i % 5 FROM generate_series(1, 900) i",
    "DELETE FROM sq WHERE k = 3",
    "VACUUM sq",
    // Thought to have many rows: many buckets at once, the last of them a quarter of a doubling.
    "CREATE TABLE big (k int)",
    "INSERT INTO big SELECT i FROM generate_series(1, 500) i",
    "ANALYZE big",
    "UPDATE pg_class SET reltuples = 50000 WHERE relname = 'big'",
    "CREATE INDEX big_k ON big USING hash (k) WITH (fillfactor = 10)",
    "INSERT INTO big SELECT i FROM generate_series(1, 300) i",
  ]);
}

/** Tuples of one value that a bucket page of a hash index holds. */
const BUCKET_TUPLES = 407;

/**
 * Pages of one bucket that empty while tuples already go to an overflow page: just before it, and
 * with a full page between.
 */
async function emptyPageWorkload(client: PgClient): Promise<void> {
  for (const pages of [4, 5]) {
    const name = `chain${pages}`;
    const page = `(n - 1) / ${BUCKET_TUPLES}`;
    await all(client, [
      "SET wal_consistency_checking = ''",
      `CREATE TABLE ${name} (k int, n int)`,
      `CREATE INDEX ${name}_k ON ${name} USING hash (k) WITH (fillfactor = 100)`,
      `INSERT INTO ${name} SELECT 1, n FROM generate_series(1, ${pages * BUCKET_TUPLES}) n`,
      IMAGES,
      `DELETE FROM ${name} WHERE (${page} = 0 AND n % 4 = 0) OR (${page} <> 0 AND n % 2 = 0)
       OR ${page} = ${pages - 2}`,
      `VACUUM ${name}`,
    ]);
  }
}

/** Dead items that an insertion clears away: read by an index scan first, then found in the way. */
async function deadItemWorkload(client: PgClient): Promise<void> {
  await all(client, [
    "CREATE TABLE dead (k int, v int)",
    "CREATE INDEX dead_k ON dead USING hash (k)",
    "INSERT INTO dead SELECT i % 7, i FROM generate_series(1, 1500) i",
    "SET enable_seqscan = off",
    "SET enable_bitmapscan = off",
  ]);
  for (let round = 0; round < 4; round++) {
    await all(client, [
      `DELETE FROM dead WHERE v % 3 = ${round % 3}`,
      ...[0, 1, 2, 3, 4, 5, 6].map((k) => `SELECT count(v) FROM dead WHERE k = ${k}`),
      "INSERT INTO dead SELECT i % 7, i FROM generate_series(1, 300) i",
    ]);
  }
  await all(client, ["RESET enable_seqscan", "RESET enable_bitmapscan", "VACUUM dead"]);
}

/** Summaries that are made, grow on their page and off it, are moved and taken away. */
async function brinWorkload(client: PgClient): Promise<void> {
  await all(client, [
    "CREATE TABLE b (k int, t text, pad text) WITH (fillfactor = 10)",
    "CREATE INDEX b_k ON b USING brin (k) WITH (pages_per_range = 1)",
    "CREATE INDEX b_t ON b USING brin (t) WITH (pages_per_range = 1, autosummarize = on)",
    "CREATE INDEX b_m ON b USING brin (k int4_minmax_multi_ops) WITH (pages_per_range = 2)",
    "CREATE INDEX b_b ON b USING brin (t text_bloom_ops) WITH (pages_per_range = 16)",
    "INSERT INTO b SELECT i, 'a', repeat('p', 300) FROM generate_series(1, 600) i",
    "SELECT brin_summarize_new_values(i) FROM unnest('{b_k, b_t, b_m, b_b}'::regclass[]) i",
    // Within the range, beyond it, and with longer and longer texts.
    "UPDATE b SET k = k + 100000 WHERE k % 5 = 0",
    "UPDATE b SET t = repeat('z', 200 + k % 900) WHERE k % 7 = 0",
    "UPDATE b SET t = repeat('0', 1000) WHERE k % 11 = 0",
    "SELECT brin_desummarize_range(i, 2 * n) FROM generate_series(0, 150) n," +
    " unnest('{b_k, b_t, b_m}'::regclass[]) i",
    "VACUUM b",
    "SELECT brin_summarize_range('b_t', 4)",
    "SELECT brin_summarize_new_values(i) FROM unnest('{b_k, b_t, b_m, b_b}'::regclass[]) i",
    "INSERT INTO b SELECT i, 'late', repeat('q', 300) FROM generate_series(1, 500) i",
    "VACUUM b",
    "CREATE INDEX b_later ON b USING brin (t, k) WITH (pages_per_range = 3)",
    // More ranges than one page of the map holds: tuples that are in its way move.
    "CREATE TABLE wide (k int, pad text) WITH (fillfactor = 10)",
    "ALTER TABLE wide ALTER pad SET STORAGE PLAIN",
    "CREATE INDEX wide_k ON wide USING brin (k) WITH (pages_per_range = 1)",
    "INSERT INTO wide SELECT i, repeat('p', 800) FROM generate_series(1, 1100) i",
    "SELECT brin_summarize_new_values('wide_k')",
    "INSERT INTO wide SELECT i, repeat('p', 800) FROM generate_series(1, 500) i",
    "SELECT brin_summarize_new_values('wide_k')",
    "UPDATE wide SET k = -k WHERE k % 100 = 0",
  ]);
}

/** An extension's index type. */
async function bloomWorkload(client: PgClient): Promise<void> {
  await all(client, [
    "CREATE EXTENSION bloom",
    "CREATE TABLE bl (a int, b text)",
    "INSERT INTO bl SELECT i, i::text FROM generate_series(1, 2000) i",
    "CREATE INDEX bl_ab ON bl USING bloom (a, b) WITH (length = 80, col1 = 2)",
    "INSERT INTO bl SELECT i, i::text FROM generate_series(1, 1000) i",
    "DELETE FROM bl WHERE a % 3 = 0",
    "VACUUM bl",
    "INSERT INTO bl SELECT i, i::text FROM generate_series(1, 500) i",
    "DELETE FROM bl WHERE a < 900",
    "VACUUM bl",
    "INSERT INTO bl SELECT i, 'last' FROM generate_series(1, 800) i",
  ]);
}

/** Init forks, which hash logs with its ordinary records. */
async function unloggedWorkload(client: PgClient): Promise<void> {
  await all(client, [
    "CREATE UNLOGGED TABLE un (k int)",
    "CREATE INDEX un_hash ON un USING hash (k)",
    "CREATE INDEX un_brin ON un USING brin (k)",
    "CREATE INDEX un_bloom ON un USING bloom (k)",
    "INSERT INTO un SELECT i FROM generate_series(1, 500) i",
    "ALTER TABLE un SET LOGGED",
    "INSERT INTO un SELECT i FROM generate_series(1, 500) i",
  ]);
}

/** Goes on with the same indexes after a restart. */
export const laterWorkload: Workload = async (_server, one) => {
  await compress(one, "zstd");
  await all(one, [
    IMAGES,
    "INSERT INTO h SELECT i % 900, 'later' FROM generate_series(1, 500) i",
    "DELETE FROM h WHERE k % 2 = 0",
    "VACUUM h",
    "UPDATE b SET k = -k WHERE k % 13 = 0",
    "SELECT brin_summarize_new_values('wide_k')",
    "INSERT INTO bl SELECT i, 'later' FROM generate_series(1, 500) i",
    "VACUUM bl",
  ]);
};
