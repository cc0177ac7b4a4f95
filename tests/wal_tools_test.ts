/**
 * `neon wal` and `neon page` as people use them: on a branch of a running Neon, and on the WAL of a
 * stock PostgreSQL, where `neon wal verify` has to see one wrong byte.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { PAGE_SIZE } from "../libs/postgres/constants.ts";
import { runNeon, testWithNeon } from "./harness.ts";
import { findPostgres17, StockPostgres } from "./redo_judge/stock_postgres.ts";

testWithNeon("WAL and pages of a branch can be looked at", {}, async (neon) => {
  const endpoint = await neon.local.startEndpoint("main");
  const sql = neon.connect(endpoint);
  await sql`create table t (id int primary key, v text)`;
  await sql`insert into t select i, 'row ' || i from generate_series(1, 50) i`;
  await sql`update t set v = 'changed' where id = 7`;
  const [place] = await sql`
    select pg_relation_filenode('t') as rel, d.oid as db, dattablespace as spc,
      pg_current_wal_flush_lsn() as lsn
    from pg_database d where datname = current_database()`;
  const { rel, db, spc, lsn } = place!;
  const relation = `${spc}/${db}/${rel}`;

  const lines = (await neon.run("wal", "dump", "--branch", "main", "-R", relation, "-F", "main"))
    .trim().split("\n");
  assert.equal(lines.length, 51);
  assert.match(lines[0]!, /desc: INSERT\+INIT off: 1, .*blkref #0: rel \S+ blk 0/);
  assert.match(lines[50]!, /desc: HOT_UPDATE .*old_off: 7/);
  const json = (await neon.run("wal", "dump", "--branch", "main", "-R", relation, "--json"))
    .trim().split("\n").map((line) => JSON.parse(line));
  const from = json[50].lsn;
  const rest = await neon.run("wal", "dump", from, "--branch", "main", "-R", relation);
  assert.equal(rest.trim().split("\n").length, 1, "it starts in the middle of the WAL");
  const stats = JSON.parse(await neon.run("wal", "stats", "--branch", "main", "--json"));
  assert.ok(stats.records["Heap INSERT"].records >= 49 && stats.rmgrs.Btree.records >= 50);

  const page = await neon.run("page", "get", "t", "0", "--lsn", String(lsn), "--explain");
  assert.match(page, /kind: heap/);
  assert.match(page, /items: 51, /);
  assert.match(page, /layer in memory of timeline/);
  assert.match(page, /Heap INSERT\+INIT, .*makes the page/);
  assert.match(page, /Heap HOT_UPDATE/);
  const before = JSON.parse(await neon.run("page", "get", relation, "0", "--lsn", from, "--json"));
  assert.equal(before.steps.length, 50);
  const none = await runNeon(neon.local.directory, ["page", "get", relation, "99"]);
  assert.equal(none.code, 1);
  assert.match(none.stderr, /it has 1 blocks/);
});

const postgres = findPostgres17().at(-1);

Deno.test({
  name: "neon wal verify sees one wrong byte",
  ignore: postgres === undefined,
  fn: async () => {
    const server = new StockPostgres(postgres!.binDir);
    try {
      await server.start({ fsync: "off" });
      let client = await server.connect();
      await client.query("create table t as select i from generate_series(1, 10) i");
      await client.query("checkpoint");
      const { rows } = await client.query("select pg_relation_filepath('t')");
      client.close();
      await server.stop();
      const base = server.copyData("base");
      await server.start({
        fsync: "off",
        // An image that is restored would repair the wrong byte.
        full_page_writes: "off",
        wal_consistency_checking: "all",
      });
      client = await server.connect();
      await client.query("insert into t values (11), (12)");
      client.close();
      await server.stop();
      const args = ["wal", "verify", "--pgdata", base, "--wal", server.dataDir];
      args.push("--after", server.dataDir);
      const right = await runNeon(server.directory, args);
      assert.equal(right.code, 0, right.stdout + right.stderr);
      assert.match(right.stdout, /Heap INSERT +2 +2 +2 /);
      assert.match(right.stdout, /, 0 differences, 0 failures/);
      assert.match(right.stdout, /files after it: 1 of pg_xact; 0 different/);

      using file = Deno.openSync(join(base, rows[0]![0]!), { read: true, write: true });
      file.seekSync(PAGE_SIZE - 8, Deno.SeekMode.Start); // in the first tuple's only column
      file.writeSync(Uint8Array.of(0x77));
      const wrong = await runNeon(server.directory, args);
      assert.equal(wrong.code, 1, wrong.stdout + wrong.stderr);
      assert.match(wrong.stdout, /Heap INSERT at 0\/\S+ left \S+ block 0 different: 1 bytes/);
      assert.match(wrong.stdout, /bytes 8184 to 8184 \(item 1, byte 24\)\n +- 77\n +\+ 01/);
      assert.match(wrong.stdout, /2 differences on 1 pages in all/);
      const json = JSON.parse((await runNeon(server.directory, [...args, "--json"])).stdout);
      assert.equal(json.differences, 2);
      assert.deepEqual(json.after, { compared: { pg_xact: 1 }, differences: [] });

      using states = Deno.openSync(join(server.dataDir, "pg_xact", "0000"), { write: true });
      states.writeSync(Uint8Array.of(0xff)); // of the first four transactions
      const other = await runNeon(server.directory, args);
      assert.equal(other.code, 1, other.stdout + other.stderr);
      assert.match(other.stdout, /; 1 different\n +pg_xact segment 0 block 0: 1 bytes from 0/);

      const away = await runNeon(server.directory, [
        "wal",
        "verify",
        "--pgdata",
        base,
        "--wal",
        "x",
      ]);
      assert.deepEqual([away.code, away.stdout], [2, ""], "that is no difference");
    } finally {
      await server.remove();
    }
  },
});
