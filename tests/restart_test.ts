/**
 * What PostgreSQL keeps over a restart, it keeps here, in all three ways to restart: the endpoint
 * is stopped and started, everything is, and Postgres is killed with transactions open.
 */
import assert from "node:assert/strict";
import { ComputeClient } from "../compute/client.ts";
import { PAGE_SIZE, WAL_SEGMENT_SIZE } from "../libs/postgres/constants.ts";
import { formatLsn, type Lsn, parseLsn } from "../libs/utils/lsn.ts";
import { type TestNeon, testWithNeon } from "./harness.ts";
import { checkStructure } from "./restart/checks.ts";
import { INDEX_METHODS } from "./restart/index_methods.ts";
import { type Connect, SUBJECTS } from "./restart/subjects.ts";
import { until } from "./support/waiting.ts";
import { endWalBefore } from "./support/wal_position.ts";

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

/**
 * Ends the WAL of main with so many bytes left before a multiple of `unit`, and starts there: where
 * headers and the first record just fit, or do not.
 */
async function startAtEdges(neon: TestNeon, unit: number, bytesLeft: number[]): Promise<void> {
  const compute = new ComputeClient(neon.local.environment().config.compute.listen_http_addr);
  const { tenantId, timelineId } = neon.tenant;
  const start = async (name: string, expected?: Lsn) => {
    const sql = neon.connect(await neon.local.startEndpoint(name));
    const { start_lsn } = await compute.endpoint(name);
    if (expected !== undefined) assert.equal(start_lsn, formatLsn(expected), name);
    return sql;
  };
  const crashAt = async (lsn: Lsn) => {
    await until("everything is committed", async () => {
      const writer = await compute.timeline(tenantId, timelineId);
      return writer?.commit_lsn === formatLsn(lsn);
    });
    await neon.closeClients();
    neon.killPostgres("main");
    return await start("main", lsn);
  };
  let sql = await start("main");
  await sql`alter system set autovacuum = off`;
  await sql`create table t(n int primary key)`;
  for (const [n, left] of bytesLeft.entries()) {
    await sql`insert into t values (${n})`;
    await sql`checkpoint`; // so that nothing else is written in the background
    const end = await endWalBefore(sql, unit, left);
    sql = await crashAt(end);
    assert.equal((await sql`select from t`).count, n + 1);

    const name = `left_${left}`;
    await neon.local.createBranch(name, { ancestorLsn: end });
    const branch = await start(name, end);
    await branch`insert into t values (100)`;
    await branch.end();
    await neon.local.stopEndpoint(name);
    const again = await start(name);
    assert.equal((await again`select from t`).count, n + 2);
    await again.end();
    await neon.local.stopEndpoint(name, "immediate");
  }
  // Behind a switch of segments, too: the next position is the start of a segment.
  const [row] = await sql`select pg_switch_wal(), pg_current_wal_lsn()::text as lsn`;
  const segmentStart = parseLsn(row!["lsn"]);
  assert.equal(segmentStart % WAL_SEGMENT_SIZE, 0);
  sql = await crashAt(segmentStart);
  await sql`insert into t values (200)`;
  assert.equal((await sql`select from t`).count, bytesLeft.length + 1);
}

testWithNeon("Postgres starts where its WAL ends near the end of a page", {}, async (neon) => {
  await startAtEdges(neon, PAGE_SIZE, [0, 8, 16, 24, 104, 112, 120]);
});

testWithNeon("Postgres starts where its WAL ends near the end of a segment", {}, async (neon) => {
  await startAtEdges(neon, WAL_SEGMENT_SIZE, [0, 24, 104, 120]);
});

testWithNeon("indexes of every method answer after a restart", {}, async (neon) => {
  let sql = neon.connect(await neon.local.startEndpoint("main"));
  for (const { statements } of INDEX_METHODS) {
    for (const statement of statements) await sql.unsafe(statement);
  }
  await sql.end();
  const elsewhere = neon.connect(await neon.local.startEndpoint("main"), "template1");
  await elsewhere`create database by_file template postgres strategy file_copy`;
  await neon.closeClients();
  await neon.local.stopEndpoint("main");

  const main = await neon.local.startEndpoint("main");
  for (const database of ["postgres", "by_file"]) {
    sql = neon.connect(main, database);
    await sql`set enable_seqscan = off`;
    for (const { method, query } of INDEX_METHODS) {
      const plan = JSON.stringify(await sql.unsafe(`explain ${query}`));
      assert.match(plan, new RegExp(`${method}_v`), "the query reads the index");
      assert.deepEqual([...await sql.unsafe(query)], [{ n: 1 }], method);
      await sql.unsafe(`delete from ${method} where id = 7`);
      assert.deepEqual([...await sql.unsafe(query)], [{ n: 0 }], method);
      await sql.unsafe(`vacuum ${method}`);
    }
    assert.ok(await checkStructure(sql) > 200);
  }
});
