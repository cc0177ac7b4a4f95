/**
 * SQL that makes PostgreSQL write every kind of GiST and SP-GiST record. Sizes are what keeps it to
 * seconds.
 */
import type { PgClient } from "../../libs/pgwire/client.ts";
import type { Workload } from "./judge_run.ts";
import { all, compress } from "./workload.ts";

/** No images of the tables: other tests judge them. */
const IMAGES = "SET wal_consistency_checking = 'gist, spgist'";

/** What happens in GiST and SP-GiST indexes. */
export const searchTreeWorkload: Workload = async (_server, one, two) => {
  for (const client of [one, two]) {
    await compress(client, "lz4");
    await all(client, [IMAGES]);
  }
  await gistWorkload(one);
  await gistTypesWorkload(two);
  await gistDeadItemWorkload(one);
  await quadTreeWorkload(one);
  await radixTreeWorkload(two);
  await spgistTypesWorkload(one);
};

/** Points: splits up to three levels, pages that become empty, are deleted and used again. */
async function gistWorkload(client: PgClient): Promise<void> {
  await all(client, [
    "CREATE TABLE gi (id int, p point)",
    "CREATE INDEX gi_p ON gi USING gist (p)",
    "INSERT INTO gi SELECT i, point(i % 100, i / 100) FROM generate_series(1, 2400) i",
    // Empty pages in the middle, and pages that lose some items.
    "DELETE FROM gi WHERE id BETWEEN 500 AND 2000 OR id % 5 = 0",
    "VACUUM gi",
    "SELECT txid_current()",
    "SELECT txid_current()",
    "VACUUM gi",
    "INSERT INTO gi SELECT i, point(i % 100, i / 100) FROM generate_series(4000, 5200) i",
    "DELETE FROM gi",
    "VACUUM gi",
    "INSERT INTO gi SELECT i, point(i % 7, i) FROM generate_series(1, 500) i",
  ]);
}

/** Builds of both kinds, several columns, ranges with an exclusion constraint, documents. */
async function gistTypesWorkload(client: PgClient): Promise<void> {
  await all(client, [
    // Sorted build, then more; buffered build, then more.
    "CREATE TABLE gb (id int, p point, b box)",
    `INSERT INTO gb SELECT i, point(i % 50, i), box(point(i, i), point(i + 9, i + i % 9))
     FROM generate_series(1, 3000) i`,
    "CREATE INDEX gb_p ON gb USING gist (p)",
    "CREATE INDEX gb_b ON gb USING gist (b) WITH (buffering = on, fillfactor = 95)",
    `INSERT INTO gb SELECT i, point(i % 60, i), box(point(i, 5), point(i - 4, i % 99))
     FROM generate_series(1, 600) i`,
    // Ranges that exclude each other, and empty ones.
    `CREATE TABLE gr (r int4range, t tsrange, EXCLUDE USING gist (r WITH &&))`,
    `INSERT INTO gr SELECT int4range(i * 10, i * 10 + 1 + i % 10)
     FROM generate_series(1, 1200) i`,
    "INSERT INTO gr SELECT 'empty' FROM generate_series(1, 100) i",
    `INSERT INTO gr SELECT int4range(i * 10, i * 10 + 1) FROM generate_series(1000, 1300) i
     ON CONFLICT DO NOTHING`,
    "DELETE FROM gr WHERE lower(r) % 30 = 0",
    "VACUUM gr",
    "INSERT INTO gr SELECT int4range(i * 30, i * 30 + 2) FROM generate_series(3, 400) i",
    // Signatures of 1900 bytes: pages of four, splits of inner pages, and of more than two pages.
    "CREATE TABLE gt (id int, d tsvector, r int4range)",
    "CREATE INDEX gt_d ON gt USING gist (d tsvector_ops (siglen = 1900))",
    `INSERT INTO gt SELECT i, to_tsvector('simple', string_agg((i * 7919 % 997 + w * w)::text, ' '))
     FROM generate_series(1, 100) i, generate_series(1, 300) w GROUP BY i`,
    "DELETE FROM gt WHERE id % 3 > 0",
    "VACUUM gt",
    "INSERT INTO gt SELECT i, to_tsvector('simple', 'a' || i) FROM generate_series(1, 100) i",
    // Several columns, one of them included, null keys, and updates.
    "CREATE INDEX gt_rd ON gt USING gist (r, d) INCLUDE (id)",
    "UPDATE gt SET r = int4range(id, id + 5) WHERE id % 2 = 0",
    // Many small tuples, and four large ones that fill a page: halves that are too large again.
    "CREATE TABLE gm (p point, pad text)",
    "ALTER TABLE gm ALTER pad SET STORAGE EXTERNAL",
    "CREATE INDEX gm_p ON gm USING gist (p) INCLUDE (pad)",
    `INSERT INTO gm SELECT point(c * 10000 + i, 0), 'x'
     FROM generate_series(1, 5) c, generate_series(1, 30) i`,
    `INSERT INTO gm SELECT point(c * 10000 + 1000 + i, 0), repeat('y', 1970)
     FROM generate_series(1, 5) c, generate_series(1, 8) i`,
    // Not logged, but for the empty index that a crash leaves.
    "CREATE UNLOGGED TABLE gu (p point, q point)",
    "CREATE INDEX gu_p ON gu USING gist (p)",
    "CREATE INDEX gu_q ON gu USING spgist (q)",
    "INSERT INTO gu SELECT point(i, i), point(i, -i) FROM generate_series(1, 700) i",
    "ALTER TABLE gu SET LOGGED",
    "INSERT INTO gu SELECT point(i, 2), point(3, i) FROM generate_series(1, 200) i",
  ]);
}

/** Scans that find dead rows mark their index items; the next to insert there deletes them. */
async function gistDeadItemWorkload(client: PgClient): Promise<void> {
  await all(client, [
    "CREATE TABLE gd (id int, p point) WITH (autovacuum_enabled = off)",
    "CREATE INDEX gd_p ON gd USING gist (p)",
    "INSERT INTO gd SELECT i, point(i % 40, i / 40) FROM generate_series(1, 1500) i",
    "DELETE FROM gd WHERE id % 2 = 0",
    "SELECT txid_current()",
    "SET enable_seqscan = off",
    "SET enable_bitmapscan = off",
    "SELECT count(*) FROM gd WHERE p <@ box '((0,0),(50,50))'",
    "INSERT INTO gd SELECT i, point(i % 40, i / 40) FROM generate_series(1, 1500) i",
    "RESET enable_seqscan",
    "RESET enable_bitmapscan",
  ]);
}

/** Points: a root that is a leaf, pages that split, chains that move, die, and come back. */
async function quadTreeWorkload(client: PgClient): Promise<void> {
  await all(client, [
    "CREATE TABLE sq (id int, p point)",
    "CREATE INDEX sq_p ON sq USING spgist (p) WITH (fillfactor = 75)",
    "INSERT INTO sq SELECT i, point(i * 10, i * 10) FROM generate_series(1, 10) i",
    "DELETE FROM sq WHERE id < 5",
    "VACUUM sq",
    `INSERT INTO sq SELECT i, point(i * 7919 % 10007, i * 104729 % 9973)
     FROM generate_series(1, 2500) i`,
    "INSERT INTO sq SELECT i, point(i, i) FROM generate_series(1, 700) i",
    "INSERT INTO sq SELECT i, NULL FROM generate_series(1, 900) i",
    "DELETE FROM sq WHERE id % 3 > 0",
    "VACUUM sq",
    "SELECT txid_current()",
    "VACUUM sq",
    `INSERT INTO sq SELECT i, point(i * 7919 % 10007, i * 104729 % 9973)
     FROM generate_series(1, 2500) i`,
    "DELETE FROM sq WHERE id BETWEEN 200 AND 1800",
    "VACUUM sq",
    `INSERT INTO sq SELECT i, point(i * 7919 % 10007, i * 104729 % 9973)
     FROM generate_series(1, 900) i`,
    "INSERT INTO sq SELECT i, NULL FROM generate_series(1, 500) i",
    // All of a page's keys are equal: a split that does not divide them.
    "INSERT INTO sq SELECT i, '(77,77)' FROM generate_series(1, 900) i",
    "DELETE FROM sq WHERE p ~= '(77,77)' AND id % 4 > 0",
    "VACUUM sq",
    "INSERT INTO sq SELECT i, '(77,77)' FROM generate_series(1, 300) i",
    // The other kind of tree.
    "CREATE INDEX sq_kd ON sq USING spgist (p kd_point_ops)",
    "INSERT INTO sq SELECT i, point(i % 91, i % 89) FROM generate_series(1, 1200) i",
  ]);
}

/** Text: prefixes that split, inner tuples that grow until they have to move. */
async function radixTreeWorkload(client: PgClient): Promise<void> {
  await all(client, [
    "CREATE TABLE sx (id int, t text)",
    "CREATE INDEX sx_t ON sx USING spgist (t)",
    "INSERT INTO sx SELECT i, 'f' || repeat('o', 100) || i FROM generate_series(1, 2000) i",
    `INSERT INTO sx SELECT -i, 'f' || repeat('o', 100 - i) || 'surprise'
     FROM generate_series(1, 100) i`,
    // Few letters first, then the other ones at every level.
    `INSERT INTO sx SELECT i, translate(md5(i::text), '456789abcdef', '012301230123')
     FROM generate_series(1, 3000) i`,
    "INSERT INTO sx SELECT i, md5(i::text) FROM generate_series(1, 4000) i",
    `INSERT INTO sx SELECT i, translate(md5(i::text), '0123', 'ghij')
     FROM generate_series(1, 3000) i`,
    "DELETE FROM sx WHERE id % 3 = 0",
    "VACUUM sx",
    "INSERT INTO sx SELECT i, md5(i::text) || 'z' FROM generate_series(1, 1200) i",
    // Long values: few leaves to a page, moves to pages of their own.
    "CREATE TABLE sl (id int, t text, n int)",
    "CREATE INDEX sl_t ON sl USING spgist (t) INCLUDE (n)",
    `INSERT INTO sl SELECT i, repeat(chr(65 + i % 26), 5) || repeat(md5(i::text), 20 + i % 30),
     nullif(i % 3, 0) FROM generate_series(1, 300) i`,
    // Two inner tuples fill a page, and then their prefixes are cut: the rests need new pages.
    "CREATE TABLE sp (t text)",
    "CREATE INDEX sp_t ON sp USING spgist (t) WITH (fillfactor = 100)",
    `INSERT INTO sp SELECT chr(65 + c) || repeat('p', 3932) || i
     FROM generate_series(1, 8) c, generate_series(1, 8) i`,
    "INSERT INTO sp SELECT chr(65 + c) || repeat('p', 1300) || 'X' FROM generate_series(1, 8) c",
    // A page full of chains of one leaf each; some die, others fill it, and the dead must move.
    "CREATE TABLE sd (t text)",
    "ALTER TABLE sd ALTER t SET STORAGE EXTERNAL",
    "CREATE INDEX sd_t ON sd USING spgist (t)",
    "INSERT INTO sd SELECT chr(65 + i) || repeat('q', 270) FROM generate_series(0, 31) i",
    "DELETE FROM sd WHERE ascii(t) % 4 = 0",
    "VACUUM sd",
    `INSERT INTO sd SELECT chr(65 + i) || repeat('r', 100) FROM generate_series(0, 31) i
     WHERE i % 4 <> 3`,
    "INSERT INTO sd SELECT chr(65 + i) || repeat('s', 3000) FROM generate_series(0, 31) i",
    "DELETE FROM sl WHERE id % 4 = 0",
    "VACUUM sl",
    `INSERT INTO sl SELECT i, repeat(chr(65 + i % 26), 4) || i || repeat(md5(i::text), 10 + i % 30)
     FROM generate_series(1, 200) i`,
  ]);
}

/** Networks, ranges, boxes, polygons; an index made while its table is in use. */
async function spgistTypesWorkload(client: PgClient): Promise<void> {
  await all(client, [
    "CREATE TABLE si (id int, n inet, r int4range, b box)",
    "CREATE INDEX si_n ON si USING spgist (n)",
    "CREATE INDEX si_r ON si USING spgist (r)",
    "CREATE INDEX si_b ON si USING spgist (b)",
    `INSERT INTO si SELECT i, ('10.' || i % 200 || '.' || i * 7 % 256 || '.' || i * 31 % 256)::inet,
     int4range(i % 300, i % 300 + i % 50), box(point(i, i % 77), point(i % 33, i))
     FROM generate_series(1, 1500) i`,
    `INSERT INTO si SELECT i, ('2001:db8::' || to_hex(i % 3000))::inet, 'empty', NULL
     FROM generate_series(1, 700) i`,
    "DELETE FROM si WHERE id % 2 = 0",
    "VACUUM si",
    "UPDATE si SET n = n + 256, r = int4range(id, id + 3) WHERE id % 5 = 0",
    "REINDEX INDEX CONCURRENTLY si_r",
    `INSERT INTO si SELECT i, '10.0.0.0/8', int4range(i, i + 9), '(1,1),(2,2)'
     FROM generate_series(1, 300) i`,
    "VACUUM si",
  ]);
}

/** After the restart, at wal_level logical. */
export const laterSearchTreeWorkload: Workload = async (_server, one) => {
  await compress(one, "zstd");
  await all(one, [
    IMAGES,
    "INSERT INTO gi SELECT i, point(i % 50, i / 20) FROM generate_series(1, 1200) i",
    "DELETE FROM gi WHERE id % 2 = 0",
    "VACUUM gi",
    "INSERT INTO sq SELECT i, point(i % 61, i / 7) FROM generate_series(1, 800) i",
    "DELETE FROM sq WHERE id % 4 = 1",
    "VACUUM sq",
    "INSERT INTO sx SELECT i, 'later' || md5(i::text) FROM generate_series(1, 800) i",
    "VACUUM sx",
  ]);
};
