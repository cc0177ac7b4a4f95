/**
 * Multixacts across a page of their offsets, from WAL of every PostgreSQL version: each record also
 * writes the offset of the next multixact, and releases differ in whether the next page was made
 * before that. The cluster starts where an old release left it: the next multixact is the first of
 * a page, which does not exist; newer ones make it at their start without logging that.
 */
import assert from "node:assert/strict";
import { PAGE_SIZE } from "../libs/postgres/constants.ts";
import { decodeControlFile } from "../libs/postgres/control_file.ts";
import { OFFSETS_PER_PAGE } from "../libs/postgres/slru.ts";
import { StockPostgres } from "./redo_judge/stock_postgres.ts";
import { IngestedCluster } from "./support/ingested_cluster.ts";
import { binariesOf, testedVersions } from "./support/postgres_versions.ts";

const SETTINGS = { fsync: "off", full_page_writes: "off", autovacuum: "off" };

/** One multixact for each of the rows: one session locks all, the other each in a transaction. */
async function lockRows(server: StockPostgres, first: number, last: number): Promise<void> {
  const [all, each] = [await server.connect(), await server.connect()];
  const rows = `SELECT 1 FROM t WHERE i BETWEEN ${first} AND ${last} FOR KEY SHARE`;
  await all.query("BEGIN");
  await all.query(rows);
  await each.query(`DO $$ BEGIN
    FOR n IN ${first}..${last} LOOP
      PERFORM 1 FROM t WHERE i = n FOR KEY SHARE;
      COMMIT;
    END LOOP; END $$`);
  await all.query("COMMIT");
  for (const client of [all, each]) client.close();
}

function nextMultixact(server: StockPostgres): number {
  const bytes = Deno.readFileSync(`${server.dataDir}/global/pg_control`);
  return decodeControlFile(bytes).checkPoint.nextMulti;
}

const VERSIONS = testedVersions().filter((major) =>
  Deno.env.get("NEON_TEST_MATRIX") === "1" || major === 14 || major === 18
);

for (const major of VERSIONS) {
  Deno.test(`multixacts of PostgreSQL ${major} cross pages`, async () => {
    const { binDir } = await binariesOf(major);
    // Without checksums: a page's LSN would change with its hint bits, and the storage has neither.
    const server = new StockPostgres(binDir, major >= 18 ? ["--no-data-checksums"] : []);
    try {
      const count = OFFSETS_PER_PAGE - 1; // the first is 1
      await server.start(SETTINGS);
      let client = await server.connect();
      await client.query(
        `CREATE TABLE t AS SELECT i FROM generate_series(1, ${3 * count}) i`,
      );
      await client.query("CREATE INDEX ON t (i)");
      await lockRows(server, 1, count);
      client.close();
      await server.stop();
      assert.equal(nextMultixact(server), OFFSETS_PER_PAGE);
      Deno.truncateSync(`${server.dataDir}/pg_multixact/offsets/0000`, PAGE_SIZE);

      await using cluster = await IngestedCluster.import(server, major);
      await server.start(SETTINGS);
      await lockRows(server, count + 1, 3 * count);
      await server.stop();
      assert.ok(nextMultixact(server) > 2 * OFFSETS_PER_PAGE);
      await cluster.ingest();
      assert.deepEqual(cluster.differences(), []);
      await cluster.restore();
      await server.start(SETTINGS);
      client = await server.connect();
      const { rows } = await client.query(
        "SELECT count(*) FROM (SELECT FROM t FOR UPDATE NOWAIT) locked",
      );
      assert.deepEqual(rows, [[String(3 * count)]]);
      client.close();
    } finally {
      await server.remove();
    }
  });
}
