/**
 * WAL with tablespaces, which an endpoint refuses to make: it is kept and ingest goes on. What lies
 * in a tablespace cannot be read where it is not, and says so; everything else can, and the way out
 * (dropping it) works.
 */
import assert from "node:assert/strict";
import { StockPostgres } from "./redo_judge/stock_postgres.ts";
import { IngestedCluster } from "./support/ingested_cluster.ts";
import { binariesOf, testedVersions } from "./support/postgres_versions.ts";

const SETTINGS = {
  fsync: "off",
  full_page_writes: "off",
  autovacuum: "off",
  allow_in_place_tablespaces: "on",
};

const WORKLOAD = [
  "CREATE TABLE before AS SELECT generate_series(1, 1000) i",
  "CREATE TABLESPACE inside LOCATION ''",
  "CREATE TABLE there (i int PRIMARY KEY USING INDEX TABLESPACE inside) TABLESPACE inside",
  "CREATE TABLE moved TABLESPACE inside AS SELECT generate_series(1, 1000) i",
  "CREATE TABLE here (i int)",
  "CREATE INDEX here_i ON here (i) TABLESPACE inside",
  "INSERT INTO there SELECT generate_series(1, 5000)",
  "INSERT INTO here SELECT generate_series(1, 5000)",
  "ALTER TABLE moved SET TABLESPACE pg_default",
  "CREATE UNLOGGED TABLE unlogged (i int) TABLESPACE inside",
  "CREATE DATABASE elsewhere TABLESPACE inside",
  "CREATE DATABASE copied TABLESPACE inside STRATEGY file_copy",
  "CREATE TABLESPACE empty LOCATION ''",
  "DROP TABLESPACE empty",
  "CREATE TABLE after AS SELECT generate_series(1, 1000) i",
  "CHECKPOINT",
];

Deno.test("WAL with tablespaces is ingested; only what lies in them cannot be read", async () => {
  const major = 17;
  if (!testedVersions().includes(major)) return;
  const { binDir } = await binariesOf(major);
  const server = new StockPostgres(binDir);
  try {
    await using cluster = await IngestedCluster.import(server, major);
    await server.start(SETTINGS);
    const client = await server.connect();
    for (const statement of WORKLOAD) await client.query(statement);
    client.close();
    await server.stop();
    await cluster.ingest();
    await cluster.restore();
    await server.start(SETTINGS);
    const restored = await server.connect();
    const count = async (table: string) =>
      (await restored.query(`SELECT count(*) FROM ${table}`)).rows[0]![0];
    for (const table of ["before", "after", "moved"]) assert.equal(await count(table), "1000");
    await assert.rejects(count("there"), /could not open file "pg_tblspc\/.*No such file/);
    // Its index is there no more, the table is
    await restored.query("DROP INDEX here_i");
    assert.equal(await count("here"), "5000");
    await restored.query("INSERT INTO here VALUES (0)");
    for (const table of ["there", "unlogged"]) await restored.query(`DROP TABLE ${table}`);
    for (const database of ["elsewhere", "copied"]) {
      await restored.query(`DROP DATABASE ${database}`);
    }
    await restored.query("DROP TABLESPACE inside");
    await restored.query("VACUUM");
    await restored.query("CHECKPOINT");
    restored.close();
    await server.stop();
    await cluster.ingest();
    await cluster.restore();
    await server.start(SETTINGS);
    const again = await server.connect();
    const { rows } = await again.query(
      "SELECT (SELECT count(*) FROM here), (SELECT count(*) FROM pg_tablespace)",
    );
    assert.deepEqual(rows, [["5001", "2"]]);
    again.close();
  } finally {
    await server.remove();
  }
});
