/**
 * Clusters with data checksums: pages leave the pageserver with the checksum that PostgreSQL would
 * have given them, so an imported cluster keeps its setting, and PostgreSQL can verify each page of
 * a full base backup.
 */
import assert from "node:assert/strict";
import { PAGE_SIZE } from "../libs/postgres/constants.ts";
import { decodeControlFile } from "../libs/postgres/control_file.ts";
import { setPageChecksum } from "../libs/postgres/page_checksum.ts";
import { readForks } from "./ingest_oracle/cluster_files.ts";
import { StockPostgres } from "./redo_judge/stock_postgres.ts";
import { binariesOf, testedVersions } from "./support/postgres_versions.ts";
import { IngestedCluster } from "./support/ingested_cluster.ts";

const SETTINGS = { fsync: "off", full_page_writes: "off", autovacuum: "off" };

/** With pages of all kinds of forks, some of them changed by nothing but hint bits. */
const WORKLOAD = `
  CREATE EXTENSION pg_prewarm;
  CREATE TABLE t (id int PRIMARY KEY, v text);
  CREATE UNLOGGED TABLE u (id int PRIMARY KEY);
  INSERT INTO t SELECT i, repeat('x', i % 300) FROM generate_series(1, 20000) i;
  INSERT INTO u SELECT generate_series(1, 100);
  DELETE FROM t WHERE id % 3 = 0;
  CHECKPOINT;
  SELECT count(*) FROM t`;

const READ_ALL = `SELECT sum(pg_prewarm(oid::regclass, 'buffer', fork))
  FROM pg_class, unnest(ARRAY['main', 'vm', 'fsm', 'init']) AS fork
  WHERE relkind IN ('r', 'i', 't', 'S') AND pg_relation_filenode(oid) IS NOT NULL
    AND pg_relation_size(oid::regclass, fork) > 0`;

/** Sets the checksum of every page of a stopped cluster anew. Nothing may change. */
function checkOwnPages(dataDir: string): void {
  let checked = 0;
  for (const { tag, bytes } of readForks(dataDir).values()) {
    const view = new DataView(bytes.buffer);
    for (let block = 0; block < bytes.length / PAGE_SIZE; block++) {
      const stored = view.getUint16(block * PAGE_SIZE + 8, true);
      setPageChecksum(view, block * PAGE_SIZE, block);
      const computed = view.getUint16(block * PAGE_SIZE + 8, true);
      assert.equal(computed, stored, `${tag.db}/${tag.rel} fork ${tag.fork} block ${block}`);
      if (stored !== 0) checked++;
    }
  }
  assert.ok(checked > 1000, `${checked} pages`);
}

for (const major of testedVersions().filter((version) => version === 15 || version === 18)) {
  Deno.test(`a cluster of PostgreSQL ${major} keeps its data checksums`, async () => {
    const { binDir } = await binariesOf(major);
    const server = new StockPostgres(binDir, major < 18 ? ["--data-checksums"] : []);
    try {
      await using cluster = await IngestedCluster.import(server, major);
      await server.start(SETTINGS);
      const client = await server.connect();
      for (const statement of WORKLOAD.split(";")) await client.query(statement);
      client.close();
      await server.stop();
      checkOwnPages(server.dataDir);
      await cluster.ingest();
      assert.ok(await cluster.makeImages() > 300);
      await cluster.restore();
      const control = Deno.readFileSync(`${server.dataDir}/global/pg_control`);
      assert.equal(decodeControlFile(control).dataChecksumVersion, 1);
      checkOwnPages(server.dataDir);
      await server.start(SETTINGS);
      const restored = await server.connect();
      assert.deepEqual((await restored.query("SHOW data_checksums")).rows, [["on"]]);
      const { rows } = await restored.query(READ_ALL);
      assert.ok(Number(rows[0]![0]) > 1000);
      restored.close();
    } finally {
      await server.remove();
    }
  });
}
