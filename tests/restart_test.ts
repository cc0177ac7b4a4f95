/**
 * What PostgreSQL keeps over a restart, it keeps here, in all three ways to restart: the endpoint
 * is stopped and started, everything is, and Postgres is killed with transactions open.
 */
import assert from "node:assert/strict";
import { type Sql, type TestNeon, testWithNeon } from "./harness.ts";
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

/** Why a query is refused, if it is; `log` is what the server's log says meanwhile. */
async function refusal(sql: Sql, query: string, logFile: string) {
  const logStart = Deno.statSync(logFile).size;
  try {
    assert.deepEqual([...await sql.unsafe(query)], [{ n: 1 }], query);
    return undefined;
  } catch (thrown) {
    if (thrown instanceof assert.AssertionError) throw thrown;
    const log = Deno.readTextFileSync(logFile).slice(logStart);
    return { code: (thrown as { code?: string }).code, log };
  }
}

testWithNeon("a page that redo cannot build is an error by itself, and alone", {}, async (neon) => {
  let sql = neon.connect(await neon.local.startEndpoint("main"));
  for (const { statements } of INDEX_METHODS) {
    for (const statement of statements) await sql.unsafe(statement);
  }
  // Copied as files, while Postgres has all pages at hand.
  await sql.end();
  const elsewhere = neon.connect(await neon.local.startEndpoint("main"), "template1");
  await elsewhere`create database by_file template postgres strategy file_copy`;
  await neon.closeClients();
  await neon.local.stopEndpoint("main");

  const main = await neon.local.startEndpoint("main");
  const logFile = `${neon.local.directory}/compute/endpoints/main/postgres.log`;
  const refused: string[] = [];
  for (const database of ["postgres", "by_file"]) {
    sql = neon.connect(main, database);
    await sql`set enable_seqscan = off`;
    for (const { method, resourceManager, query } of INDEX_METHODS) {
      const why = await refusal(sql, query, logFile);
      if (why !== undefined) {
        refused.push(`${database} ${method}`);
        assert.equal(why.code, "58030", `${method} is refused as an I/O error`);
        const name = database === "postgres" ? resourceManager : "Database";
        assert.match(why.log, new RegExp(`Cannot redo ${name} .* ending at .* on 1663/`));
      }
      // The table itself, by its btree index and by a scan, is as it was.
      const [found] = await sql.unsafe(`
        select (select count(*)::int from ${method} where id = 7) as "byKey",
          (select sum(id)::int from ${method}) as scanned`);
      assert.deepEqual(found, { byKey: 1, scanned: 3000 * 3001 / 2 }, method);
      await sql.unsafe(`drop index ${method}_v`);
      await sql.unsafe(`delete from ${method} where id = 7`);
      assert.deepEqual([...await sql.unsafe(query)], [{ n: 0 }], method);
    }
    assert.ok(await checkStructure(sql) > 200);
  }
  console.log(`refused: ${refused.join(", ")}`);
});
