/**
 * SQL that makes PostgreSQL write every kind of GIN record, and every kind of change to a posting
 * tree's leaf: arrays, tsvector, jsonb, trigrams; with and without the pending list; entry trees
 * of several levels by keys of 2 KB, posting trees of several pages by keys in every row.
 *
 * Tables are filled without images in the records, which are wanted for GIN only.
 */
import type { PgClient } from "../../libs/pgwire/client.ts";

const QUIET = "SET wal_consistency_checking = ''";
const CHECKED = "SET wal_consistency_checking = 'gin'";

async function all(client: PgClient, statements: string[]): Promise<void> {
  for (const statement of statements) {
    try {
      await client.query(statement);
    } catch (thrown) {
      throw new Error(`${statement}: ${thrown}`, { cause: thrown });
    }
  }
}

/** All of it, on tables that ginLaterWorkload goes on with. */
export async function ginWorkload(client: PgClient): Promise<void> {
  await pendingListWorkload(client);
  await postingTreeWorkload(client);
  await entryTreeWorkload(client);
  await typesWorkload(client);
}

/** A pending list that fills up, is cleaned by insertion, by vacuum and by hand; long tuples. */
async function pendingListWorkload(client: PgClient): Promise<void> {
  await all(client, [
    CHECKED,
    "CREATE TABLE ga (id int, a int[], b int[])",
    "ALTER TABLE ga ALTER a SET STORAGE EXTERNAL",
    "CREATE INDEX ga_ab ON ga USING gin (a, b) WITH (gin_pending_list_limit = 64)",
    "INSERT INTO ga SELECT i, ARRAY[0, i % 50, i], ARRAY[i % 7] FROM generate_series(1, 1500) i",
    // The pending tuples of one row fill several pages.
    "INSERT INTO ga SELECT -1, array_agg(i), '{}' FROM generate_series(1, 900) i",
    "INSERT INTO ga VALUES (-2, NULL, '{}'), (-3, '{NULL, 7}', NULL)",
    "VACUUM ga",
    "INSERT INTO ga SELECT i, ARRAY[0, 0, i % 5], '{1}' FROM generate_series(1, 900) i",
    "SELECT gin_clean_pending_list('ga_ab')",
    "DELETE FROM ga WHERE id % 3 = 0",
    "VACUUM ga",
    "SELECT txid_current()",
    // Reuses the pages of the old pending list.
    "INSERT INTO ga SELECT i, ARRAY[0, i % 90, -i], ARRAY[i % 3] FROM generate_series(1, 700) i",
  ]);
}

/** Posting trees: made by an index build, emptied in the middle, filled there again. */
async function postingTreeWorkload(client: PgClient): Promise<void> {
  await all(client, [
    QUIET,
    "CREATE TABLE gp (id int, k int[])",
    `INSERT INTO gp SELECT i, CASE WHEN i % 3 = 0 THEN '{1,2}' ELSE '{1}' END::int[]
     FROM generate_series(1, 42000) i`,
    "CREATE INDEX gp_k ON gp USING gin (k) WITH (fastupdate = off)",
    CHECKED,
    "DELETE FROM gp WHERE id % 11 = 0",
    "VACUUM gp",
    "DELETE FROM gp WHERE id BETWEEN 5000 AND 34000",
    "VACUUM gp",
    "SELECT txid_current()",
    "VACUUM gp",
    // Single rows into the gaps, then the rest in one go through the pending list.
    "INSERT INTO gp SELECT i, '{1,2}' FROM generate_series(1, 900) i",
    "ALTER INDEX gp_k SET (fastupdate = on, gin_pending_list_limit = 10000)",
    QUIET,
    "INSERT INTO gp SELECT i, '{1,2,3}' FROM generate_series(50000, 66000) i",
    CHECKED,
    "SELECT gin_clean_pending_list('gp_k')",
    "DELETE FROM gp WHERE id % 7 = 1 AND id < 60000",
    "VACUUM gp",
    "ALTER INDEX gp_k SET (fastupdate = off)",
    "INSERT INTO gp SELECT i, '{1}' FROM generate_series(70000, 70500) i",
  ]);
}

/** Splits up to the root's root; entries replaced, emptied by vacuum, and found again. */
async function entryTreeWorkload(client: PgClient): Promise<void> {
  const key = "(SELECT string_agg(md5(i::text || '/' || j), '') FROM generate_series(1, 60) j)";
  await all(client, [
    "CREATE TABLE ge (id int, k text[])",
    "CREATE INDEX ge_k ON ge USING gin (k) WITH (fastupdate = off)",
    `INSERT INTO ge SELECT i, ARRAY[${key}] FROM generate_series(1, 160) i`,
    `INSERT INTO ge SELECT i, ARRAY[${key}, 'same'] FROM generate_series(1, 160, 3) i`,
    "DELETE FROM ge WHERE id % 4 = 0",
    "VACUUM ge",
    `INSERT INTO ge SELECT i, ARRAY[${key}, 'same'] FROM generate_series(100, 220, 2) i`,
    "INSERT INTO ge SELECT i, ARRAY['same'] FROM generate_series(1, 900) i",
  ]);
}

/** Other operator classes, other ways to make an index, and an unlogged one. */
async function typesWorkload(client: PgClient): Promise<void> {
  const words = "md5(i::text) || ' ' || md5((i % 20)::text) || ' word' || i % 9";
  const doc = "jsonb_build_object('n', i, 'm', i % 5, 'tags', jsonb_build_array(i % 3, 'x'))";
  await all(client, [
    "CREATE TABLE gt (id int, t text, v tsvector, j jsonb)",
    `INSERT INTO gt SELECT i, ${words}, to_tsvector('simple', ${words}), ${doc}
     FROM generate_series(1, 300) i`,
    "CREATE INDEX gt_v ON gt USING gin (v)",
    "CREATE INDEX CONCURRENTLY gt_j ON gt USING gin (j)",
    "CREATE INDEX gt_p ON gt USING gin (j jsonb_path_ops) WITH (fastupdate = off)",
  ]);
  const { rows } = await client.query(
    "SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_trgm'",
  );
  if (rows[0]![0] === "1") {
    await all(client, [
      "CREATE EXTENSION pg_trgm",
      "CREATE INDEX gt_t ON gt USING gin (t gin_trgm_ops)",
    ]);
  }
  await all(client, [
    `INSERT INTO gt SELECT i, ${words}, to_tsvector('simple', ${words}), ${doc}
     FROM generate_series(301, 420) i`,
    "UPDATE gt SET j = j || '{\"later\": true}', t = t || 'y' WHERE id % 6 = 0",
    "DELETE FROM gt WHERE id % 5 = 0",
    "VACUUM gt",
    "REINDEX INDEX gt_v",
    "CREATE UNLOGGED TABLE gu (n int)",
    "CREATE INDEX gu_n ON gu USING gin ((ARRAY[n]))",
    "INSERT INTO gu SELECT i FROM generate_series(1, 100) i",
    "CREATE TABLE gx (a int[])",
    "CREATE INDEX gx_a ON gx USING gin (a)",
    "INSERT INTO gx SELECT ARRAY[i] FROM generate_series(1, 100) i",
    "TRUNCATE gx",
    "INSERT INTO gx SELECT ARRAY[i] FROM generate_series(1, 30) i",
  ]);
}

/** More of the same, after a restart that may have brought another minor version. */
export async function ginLaterWorkload(client: PgClient): Promise<void> {
  await all(client, [
    CHECKED,
    "INSERT INTO ga SELECT i, ARRAY[0, i % 80, i], ARRAY[i % 9] FROM generate_series(1, 400) i",
    "DELETE FROM gp WHERE id % 5 = 2",
    "VACUUM gp",
    "INSERT INTO gp SELECT i, '{1,3}' FROM generate_series(80000, 80400) i",
    "INSERT INTO ge SELECT i, ARRAY['same', 'later'] FROM generate_series(1, 300) i",
    "VACUUM ga, ge, gt, gx",
  ]);
}
