/**
 * What PostgreSQL keeps over a restart, it keeps here, in all three ways to restart: the endpoint is
 * stopped and started, everything is, and Postgres is killed with transactions open.
 */
import assert from "node:assert/strict";
import { type TestNeon, testWithNeon } from "./harness.ts";
import { checkStructure } from "./restart/checks.ts";
import { INDEX_METHODS } from "./restart/index_methods.ts";
import { type Connect, SUBJECTS } from "./restart/subjects.ts";

const RESTARTS: Record<string, (neon: TestNeon) => Promise<void>> = {
  "a stop of the endpoint": (neon) => neon.local.stopEndpoint("main"),
  "a stop of everything": async (neon) => {
    await neon.local.stop();
    await neon.local.start();
  },
  "kill -9 of Postgres": async (neon) => neon.killPostgres("main"),
};

for (const [name, restart] of Object.entries(RESTARTS)) {
  testWithNeon(`everything that PostgreSQL keeps is there after ${name}`, {}, async (neon) => {
    let main = await neon.local.startEndpoint("main");
    let sql = neon.connect(main);
    const connect: Connect = (database) => neon.connect(main, database);
    await sql`alter system set max_prepared_transactions = 5`;
    await neon.local.stopEndpoint("main");
    main = await neon.local.startEndpoint("main");
    sql = neon.connect(main);
    for (const subject of SUBJECTS) {
      await sql.unsafe(`create schema ${subject.name}`);
      await named(subject.name, subject.before(sql, connect));
    }
    await restart(neon);
    await neon.closeClients();
    const began = performance.now();
    main = await neon.local.startEndpoint("main");
    console.log(`started again in ${Math.round(performance.now() - began)} ms`);
    sql = neon.connect(main);
    for (const subject of SUBJECTS) await named(subject.name, subject.after(sql, connect));
    for (const database of ["postgres", "by_wal", "by_file"]) {
      const relations = await checkStructure(connect(database));
      console.log(`${relations} relations of ${database} checked`);
    }
  });
}

/** Awaits, and says in an error which subject it was. */
async function named(subject: string, work: Promise<unknown>): Promise<void> {
  try {
    await work;
  } catch (thrown) {
    throw new Error(`${subject}: ${thrown}`, { cause: thrown });
  }
}

testWithNeon("a page that redo cannot build is an error by itself, and alone", {}, async (neon) => {
  let sql = neon.connect(await neon.local.startEndpoint("main"));
  for (const { statements } of INDEX_METHODS) {
    for (const statement of statements) await sql.unsafe(statement);
  }
  await sql`create database copied template template0`;
  const template = neon.connect(await neon.local.startEndpoint("main"), "copied");
  await sql.end();
  await template`create database by_file template postgres strategy file_copy`;
  await neon.closeClients();
  await neon.local.stopEndpoint("main");

  const main = await neon.local.startEndpoint("main");
  const logFile = `${neon.local.directory}/compute/endpoints/main/postgres.log`;
  for (const database of ["postgres", "by_file"]) {
    sql = neon.connect(main, database);
    await sql`set enable_seqscan = off`;
    for (const { method, resourceManager, query } of INDEX_METHODS) {
      const logStart = Deno.statSync(logFile).size;
      await assert.rejects(sql.unsafe(query), (error: { code: string; message: string }) => {
        assert.equal(error.code, "58030", `${method}: ${error.message}`);
        return true;
      });
      const log = Deno.readTextFileSync(logFile).slice(logStart);
      const name = database === "postgres" ? resourceManager : "Database";
      assert.match(
        log,
        new RegExp(`Cannot redo ${name} .* ending at 0/[0-9A-F]+ on 1663/`),
        method,
      );
      // The table itself, by its btree index and by a scan, is as it was.
      const [byKey] = await sql.unsafe(`select count(*)::int as n from ${method} where id = 7`);
      assert.equal(byKey!["n"], 1);
      const [scanned] = await sql.unsafe(`select sum(id)::int as n from ${method}`);
      assert.equal(scanned!["n"], 3000 * 3001 / 2);
      await sql.unsafe(`drop index ${method}_v`);
      await sql.unsafe(`delete from ${method} where id = 7`);
      assert.deepEqual([...await sql.unsafe(query)], [{ n: 0 }]);
    }
    assert.ok(await checkStructure(sql) > 200);
  }
});
