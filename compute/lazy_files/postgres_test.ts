import { deepEqual, equal, match, ok } from "node:assert/strict";
import { join } from "node:path";
import { findPostgres17 } from "../../tests/redo_judge/stock_postgres.ts";
import { until } from "../../tests/support/waiting.ts";
import { Cluster } from "./cluster_fixture.ts";
import type { LayOutOptions } from "./lay_out.ts";
import { hashContents, LazyClone, runTransfers } from "./lazy_clone_fixture.ts";
import { dataDirectorySource, PageServiceFixture } from "./page_service_fixture.ts";

/** Any major version may be named; one library serves all. */
const NAMED = Deno.env.get("NEON_TEST_PG_BIN")?.split(":")[0];
const POSTGRES = Deno.build.os === "linux" ? NAMED ?? findPostgres17().at(-1)?.binDir : undefined;
if (POSTGRES === undefined) console.log("tests of lazy clones are skipped: no PostgreSQL 17");

const ACCOUNTS = 100000;
const SCHEMA = `
  CREATE TABLE accounts (id int PRIMARY KEY, balance bigint, filler char(84));
  INSERT INTO accounts SELECT i, 0, '' FROM generate_series(1, ${ACCOUNTS}) i;
  CREATE TABLE branches (id int PRIMARY KEY, balance bigint);
  INSERT INTO branches SELECT i, 0 FROM generate_series(1, 8) i;
  CREATE TABLE history (account int, delta bigint);
  CREATE TABLE wide (id int PRIMARY KEY, body text);
  ALTER TABLE wide ALTER body SET STORAGE EXTERNAL;
  INSERT INTO wide SELECT i, repeat(chr(65 + i % 26), 9000) FROM generate_series(1, 300) i;
  CREATE TABLE many (id serial, v int, tags int[]);
  INSERT INTO many (v, tags) SELECT i % 97, ARRAY[i % 7, i % 11] FROM generate_series(1, 60000) i;
  CREATE INDEX ON many (v);
  CREATE INDEX ON many USING gin (tags);
  CREATE INDEX ON many USING brin (id);
  DELETE FROM many WHERE v = 13;
  VACUUM many;
  CREATE UNLOGGED TABLE scratch (id serial PRIMARY KEY, v int);
  INSERT INTO scratch (v) SELECT generate_series(1, 1000);
  CREATE MATERIALIZED VIEW sums AS SELECT v, count(*) FROM many GROUP BY v`;
const CATALOG_READS = ["SELECT * FROM pg_stats", "SELECT * FROM pg_indexes", "TABLE pg_settings"];
const MONEY_IS_KEPT = `SELECT (SELECT sum(balance) FROM accounts) =
  (SELECT sum(balance) FROM branches) AND (SELECT sum(balance) FROM branches) =
  (SELECT coalesce(sum(delta), 0) FROM history)`;

/** A stopped cluster with data, the hashes of its contents, and clones of it. */
class Source {
  readonly cluster: Cluster;
  hashes = new Map<string, string>();

  constructor(binDir: string) {
    this.cluster = new Cluster(binDir);
  }

  async fill(): Promise<void> {
    this.cluster.initdb();
    await this.cluster.start({ autovacuum: "off" });
    const session = await this.cluster.connect();
    for (const statement of SCHEMA.split(";")) await session.query(statement);
    this.hashes = await hashContents(session);
    session.close();
    await this.cluster.stop();
  }

  async withClone(
    pages: PageServiceFixture,
    use: (clone: LazyClone) => Promise<void>,
    options: Partial<LayOutOptions> = {},
  ): Promise<void> {
    const clone = new LazyClone(this.cluster, pages.address, options);
    try {
      await use(clone);
    } finally {
      await clone.remove();
    }
  }
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

/** The message of an error that must come. */
function messageOfFailure(work: Promise<unknown>): Promise<string> {
  return work.then(() => "", (thrown: Error) => thrown.message);
}

async function compareWithSource(clone: LazyClone, source: Source): Promise<void> {
  const ms = await clone.start({ autovacuum: "off" });
  const { fetchCalls, pagesFetched } = clone.statistics;
  console.log(`ready in ${ms.toFixed(0)} ms, ${pagesFetched} pages in ${fetchCalls} calls`);
  ok(pagesFetched < clone.laidOut.pages / 4, "a start reads few pages");
  const session = await clone.connect();
  const hashes = await hashContents(session);
  for (const sql of CATALOG_READS) await session.query(sql);
  // An unlogged relation comes back empty and in working order.
  await session.query("INSERT INTO scratch (v) VALUES (5)");
  deepEqual((await session.query("SELECT v FROM scratch WHERE id > 0")).rows, [["5"]]);
  session.close();
  for (const name of ["scratch", "scratch_id_seq"]) {
    ok(hashes.delete(name));
    ok(source.hashes.delete(name));
  }
  deepEqual(hashes, source.hashes);
  equal(clone.statistics.errors, 0);
}

async function restartLocally(clone: LazyClone): Promise<void> {
  await clone.stop();
  ok(!exists(join(clone.pgdata, "global/pg_control")), "nobody starts it without the library");
  await clone.start();
}

async function transfer(clone: LazyClone): Promise<void> {
  await runTransfers(() => clone.connect(), 4, 200, ACCOUNTS);
  deepEqual(await clone.query(MONEY_IS_KEPT), [["t"]]);
}

async function dropAndRewrite(clone: LazyClone): Promise<void> {
  await clone.start();
  const session = await clone.connect();
  const rewrites = `
    DROP TABLE wide;
    VACUUM FULL many;
    CREATE TABLE sums_copy AS SELECT * FROM sums;
    TRUNCATE sums_copy;
    DELETE FROM many WHERE id > 30000;
    VACUUM (TRUNCATE, FREEZE) many;
    REINDEX TABLE many;
    DELETE FROM accounts WHERE id > 1000;
    VACUUM accounts;
    CREATE DATABASE copied TEMPLATE template0 ${clone.major >= 15 ? "STRATEGY file_copy" : ""};
    DROP DATABASE copied`;
  for (const statement of rewrites.split(";")) await session.query(statement);
  const count = (await session.query("SELECT count(*) FROM many")).rows;
  await session.query("SET enable_seqscan = off");
  deepEqual((await session.query("SELECT count(*) FROM many WHERE v >= 0")).rows, count);
  deepEqual((await session.query("SELECT count(*) FROM accounts WHERE id > 0")).rows, [["1000"]]);
  session.close();
  const template = await clone.connect("template1");
  await template.query("CREATE DATABASE logged TEMPLATE postgres");
  template.close();
  deepEqual(await clone.query("SELECT count(*) FROM many", "logged"), count);
  ok(clone.statistics.truncations > 0);
  equal(clone.statistics.errors, 0);
}

async function refuseTablespace(clone: LazyClone): Promise<void> {
  const location = join(clone.directory, "elsewhere");
  const { uid, gid } = Deno.statSync(clone.pgdata);
  Deno.mkdirSync(location);
  Deno.chownSync(location, uid, gid);
  const create = `CREATE TABLESPACE elsewhere LOCATION '${location}'`;
  const refused = await messageOfFailure(clone.query(create));
  match(refused, /could not create symbolic link.*Operation not permitted/);
  match(clone.log, /neon_lazy_files.*cannot create a tablespace/);
  const session = await clone.connect();
  await session.query("SET allow_in_place_tablespaces = on");
  const inPlace = session.query("CREATE TABLESPACE in_place LOCATION ''");
  match(await messageOfFailure(inPlace), /Operation not permitted/);
  session.close();
}

/** Backends die in the middle of their work; Postgres recovers over absent pages by itself. */
async function killBackends(clone: LazyClone): Promise<void> {
  await clone.start({ restart_after_crash: "on", full_page_writes: "on" });
  for (let round = 0; round < 3; round++) {
    const load = messageOfFailure(runTransfers(() => clone.connect(), 3, 100000, ACCOUNTS));
    const found = async () =>
      (await clone.query("SELECT pid FROM pg_stat_activity WHERE query LIKE 'BEGIN; %' LIMIT 1"))[
        0
      ];
    while ((await found()) === undefined) await new Promise((resolve) => setTimeout(resolve, 10));
    await new Promise((resolve) => setTimeout(resolve, 200));
    Deno.kill(Number((await found())![0]), "SIGKILL");
    await load;
    // Until the postmaster has noticed it goes on answering
    const restarts = () =>
      clone.log.split("all server processes terminated; reinitializing").length - 1;
    await until("Postgres has begun anew", () => restarts() > round);
    await clone.waitUntilReady();
    deepEqual(await clone.query(MONEY_IS_KEPT), [["t"]]);
  }
  match(clone.log, /terminated by signal 9/);
}

/** Without the page service a read fails: when it is cancelled, else after the retry time. */
async function loseThePageService(clone: LazyClone, pages: PageServiceFixture): Promise<void> {
  await clone.start();
  await clone.query("SELECT 1 FROM many LIMIT 1"); // all catalog pages that planning needs
  await pages.close();
  const session = await clone.connect();
  await session.query("SET statement_timeout = 300");
  const began = performance.now();
  const cancelled = await messageOfFailure(session.query("SELECT sum(v) FROM many"));
  // PostgreSQL 18 reads in a critical section, where nothing may be cancelled.
  ok(performance.now() - began < (clone.major >= 18 ? 8000 : 3000));
  match(cancelled, /Input\/output error|statement timeout/);
  await session.query("SET statement_timeout = 0");
  match(await messageOfFailure(session.query("SELECT sum(v) FROM many")), /Input\/output error/);
  ok(performance.now() - began > 4000);
  deepEqual((await session.query("SELECT 1")).rows, [["1"]]);
  session.close();
}

Deno.test({
  name: "stock Postgres runs on a lazy clone as on a full copy",
  ignore: POSTGRES === undefined,
  async fn(t) {
    const source = new Source(POSTGRES!);
    try {
      await source.fill();
      using contents = dataDirectorySource(source.cluster.pgdata);
      const pages = new PageServiceFixture(contents);
      await source.withClone(pages, async (clone) => {
        await t.step("all contents are equal", () => compareWithSource(clone, source));
        await t.step("after its own shutdown it starts again", () => restartLocally(clone));
        await t.step("transactions keep their sums", () => transfer(clone));
        await t.step("CREATE TABLESPACE is refused", () => refuseTablespace(clone));
      });
      await t.step(
        "tables are dropped, truncated and rewritten",
        () => source.withClone(pages, dropAndRewrite),
      );
      await t.step("backends are killed", () => source.withClone(pages, killBackends));
      await t.step(
        "the page service goes away",
        () =>
          source.withClone(pages, (clone) => loseThePageService(clone, pages), { retrySeconds: 4 }),
      );
      await pages.close();
    } finally {
      await source.cluster.remove();
    }
  },
});
