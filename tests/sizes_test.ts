/** Many relations: what an endpoint's start and a branch cost must not run away with their number. */
import assert from "node:assert/strict";
import { type Sql, testWithNeon } from "./harness.ts";

const TABLES = 2000;
/** Tables that one transaction creates. */
const BATCH = 250;
const ROWS = 20;
/** Far more than it takes, and far less than a person waits without wondering. */
const START_MS_MAX = 5000;

/** Rows of all tables, by one union for each batch, through the index or not. */
async function countAll(sql: Sql, throughIndex: boolean): Promise<number> {
  await sql.unsafe(`set enable_seqscan = ${throughIndex ? "off" : "on"}`);
  let total = 0;
  for (let first = 0; first < TABLES; first += BATCH) {
    const counts = Array.from(
      { length: BATCH },
      (_, i) => `select count(*) as n from t${first + i} where id >= 0`,
    );
    const [row] = await sql.unsafe(
      `select sum(n)::int as n from (${counts.join(" union all ")}) c`,
    );
    total += row!["n"];
  }
  return total;
}

testWithNeon("2,000 tables with an index each", {}, async (neon) => {
  const timed = async <T>(what: string, work: Promise<T>): Promise<[T, number]> => {
    const began = performance.now();
    const result = await work;
    const ms = performance.now() - began;
    console.log(`${what}: ${Math.round(ms)} ms`);
    return [result, ms];
  };
  const start = async (name: string): Promise<Sql> => {
    const [endpoint, ms] = await timed(`start of ${name}`, neon.local.startEndpoint(name));
    assert.ok(ms < START_MS_MAX, `${name} took ${ms} ms to start`);
    return neon.connect(endpoint);
  };
  let sql = await start("main");
  const create = async () => {
    for (let first = 0; first < TABLES; first += BATCH) {
      await sql.unsafe(`do $$ begin for i in ${first}..${first + BATCH - 1} loop
        execute format('create table t%s(id int primary key, v text)', i);
        execute format('insert into t%s select n, n from generate_series(1, ${ROWS}) n', i);
      end loop; end $$`);
    }
  };
  await timed(`creation of ${TABLES} tables`, create());
  await neon.closeClients();
  await timed("stop", neon.local.stopEndpoint("main"));
  sql = await start("main");
  const [, ms] = await timed("branch", neon.local.createBranch("branch"));
  assert.ok(ms < START_MS_MAX);
  await sql`insert into t7 values (1000, 'main')`;
  await sql`drop table t8`;
  const branch = await start("branch");
  assert.equal((await timed("reading all", countAll(branch, false)))[0], TABLES * ROWS);
  assert.equal((await timed("by the indexes", countAll(branch, true)))[0], TABLES * ROWS);
  await branch.unsafe(`do $$ begin for i in 0..${TABLES - 1} by 2 loop
    execute format('drop table t%s', i); end loop; end $$`);
  await neon.closeClients();
  neon.killPostgres("branch");
  const left = await start("branch");
  const [row] = await left`select count(*)::int as n from pg_class
    where relname ~ '^t\\d+(_pkey)?$' and relnamespace = 'public'::regnamespace`;
  assert.equal(row!["n"], TABLES);
  assert.deepEqual([...await left`select max(id), count(*)::int from t7`], [{
    max: ROWS,
    count: ROWS,
  }]);
});
