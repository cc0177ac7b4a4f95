/**
 * Counters near the end of 32 bits: transactions, multixacts and their members go around while the
 * WAL is ingested, and vacuum truncates what is behind them. After each part the storage has what
 * stock PostgreSQL has on disk, and PostgreSQL starts on a base backup of it and reads its rows.
 *
 * To get there in no time the stopped cluster's control file is changed, and the cluster is taken
 * through the storage: its base backup has WAL that agrees with the control file.
 */
import assert from "node:assert/strict";
import { PAGE_SIZE } from "../libs/postgres/constants.ts";
import type { CheckPoint } from "../libs/postgres/checkpoint.ts";
import { decodeControlFile, encodeControlFile } from "../libs/postgres/control_file.ts";
import {
  MEMBERS_PER_PAGE,
  OFFSETS_PER_PAGE,
  SLRU_SEGMENT_PAGES,
  SlruKind,
  slruSegmentPath,
  XIDS_PER_PAGE,
} from "../libs/postgres/slru.ts";
import { connectTo, readSlru } from "./ingest_oracle/cluster_files.ts";
import { StockPostgres } from "./redo_judge/stock_postgres.ts";
import { IngestedCluster } from "./support/ingested_cluster.ts";
import { binariesOf, testedVersions } from "./support/postgres_versions.ts";

const SETTINGS = {
  fsync: "off",
  full_page_writes: "off",
  autovacuum: "off",
  track_commit_timestamp: "on",
  vacuum_multixact_freeze_min_age: "0",
  vacuum_multixact_freeze_table_age: "0",
};
const TWO_32 = 2 ** 32;

/** A page of zeros where the next id of a kind will be written. */
function makeSlruPage(server: StockPostgres, kind: number, page: number): void {
  const path = slruSegmentPath(kind, Math.floor(page / SLRU_SEGMENT_PAGES));
  const bytes = new Uint8Array((page % SLRU_SEGMENT_PAGES + 1) * PAGE_SIZE);
  Deno.writeFileSync(`${server.dataDir}/${path}`, bytes);
}

function controlFile(server: StockPostgres) {
  return decodeControlFile(Deno.readFileSync(`${server.dataDir}/global/pg_control`));
}

/** One cluster of one version, taken from part to part. */
class Scene {
  readonly server: StockPostgres;
  readonly #major: number;

  constructor(server: StockPostgres, major: number) {
    this.server = server;
    this.#major = major;
  }

  /** Runs `body` from these counters on; then everything is compared and restored. */
  async part(
    counters: Partial<CheckPoint>,
    body: () => Promise<void>,
  ): Promise<CheckPoint> {
    const { server } = this;
    const control = controlFile(server);
    const checkPoint = { ...control.checkPoint, ...counters };
    const { nextXid, nextMulti, nextMultiOffset } = counters;
    const page = (id: number, perPage: number) => Math.floor((id % TWO_32) / perPage);
    if (nextXid !== undefined) makeSlruPage(server, SlruKind.CLOG, page(nextXid, XIDS_PER_PAGE));
    if (nextMulti !== undefined) {
      makeSlruPage(server, SlruKind.OFFSETS, page(nextMulti, OFFSETS_PER_PAGE));
    }
    if (nextMultiOffset !== undefined) {
      makeSlruPage(server, SlruKind.MEMBERS, page(nextMultiOffset, MEMBERS_PER_PAGE));
    }
    const bytes = encodeControlFile({ ...control, checkPoint });
    Deno.writeFileSync(`${server.dataDir}/global/pg_control`, bytes);
    await using cluster = await IngestedCluster.import(server, this.#major);
    if (Object.keys(counters).length > 0) await cluster.restore();
    await server.start(SETTINGS);
    await body();
    await server.stop();
    const after = controlFile(server).checkPoint;
    await cluster.ingest();
    assert.deepEqual(cluster.differences(), []);
    await cluster.restore();
    assert.deepEqual({ ...controlFile(server).checkPoint, redo: 0, time: 0 }, {
      ...after,
      redo: 0,
      time: 0,
    });
    return after;
  }

  /** Runs a statement in a session of its own. */
  async query(sql: string, database = "postgres"): Promise<(string | null)[][]> {
    const client = await connectTo(this.server, database);
    const { rows } = await client.query(sql);
    client.close();
    return rows;
  }

  /** Freezes every database, after which vacuum truncates pg_xact, pg_commit_ts, pg_multixact. */
  async freeze(): Promise<void> {
    for (const database of ["template0", "template1", "postgres"]) {
      await this.query("VACUUM (FREEZE)", database);
    }
  }

  /** One transaction for each row. */
  async insert(rows: number): Promise<void> {
    await this.query(`DO $$ BEGIN
      FOR n IN 1..${rows} LOOP INSERT INTO t VALUES (n); COMMIT; END LOOP; END $$`);
  }

  /** One multixact of two members for each of the first rows of `locked`. */
  async lock(rows: number): Promise<void> {
    const all = await this.server.connect();
    await all.query("BEGIN");
    await all.query(`SELECT 1 FROM locked WHERE i <= ${rows} FOR KEY SHARE`);
    await this.query(`DO $$ BEGIN
      FOR n IN 1..${rows} LOOP
        PERFORM 1 FROM locked WHERE i = n FOR KEY SHARE;
        COMMIT;
      END LOOP; END $$`);
    await all.query("COMMIT");
    all.close();
  }

  async rows(): Promise<number> {
    return Number((await this.query("SELECT count(*) FROM t"))[0]![0]);
  }
}

async function runParts(scene: Scene): Promise<void> {
  const { server } = scene;
  await server.start(SETTINGS);
  await scene.query("CREATE TABLE t (n int)");
  await scene.query("CREATE TABLE locked AS SELECT i FROM generate_series(1, 700) i");
  await scene.query("CREATE INDEX ON locked (i)");
  await scene.query("ALTER DATABASE template0 ALLOW_CONNECTIONS true");
  await server.stop();

  // Two billion transactions later: vacuum truncates pg_xact
  const far = await scene.part({ nextXid: 2_100_000_000 }, async () => {
    await scene.insert(500);
    await scene.freeze();
    await scene.insert(500);
  });
  assert.ok(far.oldestXid >= 2_100_000_000);
  assert.ok(!readSlru(server.dataDir, "pg_xact").has(0), "the first segment is gone");
  // Again, and over the end of 32 bits
  await scene.part({ nextXid: 4_200_000_000 }, () => scene.freeze());
  const around = await scene.part({ nextXid: TWO_32 - 2000 }, () => scene.insert(4000));
  assert.ok(around.nextXid > TWO_32 + 1500 && around.oldestXid > 4_000_000_000);
  const truncated = await scene.part({}, async () => {
    assert.equal(await scene.rows(), 5000);
    await scene.freeze();
    await scene.insert(10);
  });
  assert.ok(truncated.oldestXid < 100_000);

  // Members around the end of their numbers, then ids, then both truncated
  const members = { nextMulti: 3000, oldestMulti: 3000, nextMultiOffset: TWO_32 - 600 };
  assert.ok((await scene.part(members, () => scene.lock(700))).nextMultiOffset < 2000);
  await scene.part({}, () => scene.freeze());
  const ids = { nextMulti: TWO_32 - 300, oldestMulti: TWO_32 - 300, nextMultiOffset: 500_000 };
  assert.ok((await scene.part(ids, () => scene.lock(700))).nextMulti < 1000);
  const last = await scene.part({}, async () => {
    const locked = await scene.query(
      "SELECT count(*) FROM (SELECT FROM locked FOR UPDATE NOWAIT) l",
    );
    assert.deepEqual(locked, [["700"]]);
    await scene.freeze();
  });
  assert.ok(last.oldestMulti < 1000);
  assert.equal(readSlru(server.dataDir, "pg_multixact/offsets").size, 1);
  await server.start(SETTINGS);
  assert.equal(await scene.rows(), 5010);
}

const VERSIONS = testedVersions().filter((major) =>
  Deno.env.get("NEON_TEST_MATRIX") === "1" || major === 17
);

for (const major of VERSIONS) {
  Deno.test(`counters of PostgreSQL ${major} go around`, async () => {
    const { binDir } = await binariesOf(major);
    // Without checksums: a page's LSN would change with its hint bits, and the storage has neither.
    const server = new StockPostgres(binDir, major >= 18 ? ["--no-data-checksums"] : []);
    try {
      await runParts(new Scene(server, major));
    } finally {
      await server.remove();
    }
  });
}
