/** Many relations: what an endpoint's start and a branch cost must not run away with their number. */
import assert from "node:assert/strict";
import { type Sql, testWithNeon } from "./harness.ts";

const TABLES = 2000;
/** Tables that one transaction creates. */
const BATCH = 250;
const ROWS = 20;
/** Far more than it takes, and far less than a person waits without wondering. */
const START_MS_MAX = 5000;
/** What a commit elsewhere may wait during a start: so long, or half of the start if that is long. */
const PAUSE_MS_MAX = 1000;
/** Files that are made to see how long one takes here. */
const SAMPLE_FILES = 200;

/** Rows of all tables, by one union for each batch, through the index or not. */
async function countAll(sql: Sql, throughIndex: boolean): Promise<number> {
  await sql.unsafe(`set enable_seqscan = ${throughIndex ? "off" : "on"}`);
  let total = 0;
  for (let first = 0; first < TABLES; first += BATCH) {
    const counts = Array.from(
      { length: BATCH },
      (_, i) => `select count(*) as n from t${first + i} where id >= 0`,
    );
    const [row] = await sql.unsafe(`select sum(n)::int as n from (${counts.join(" union all ")})`);
    total += row!["n"];
  }
  return total;
}

/** Milliseconds that making a file takes: from a fiftieth to one, by the file system's mood. */
function msPerFile(directory: string): number {
  const path = Deno.makeTempDirSync({ dir: directory });
  const began = performance.now();
  for (let i = 0; i < SAMPLE_FILES; i++) {
    Deno.openSync(`${path}/${i}`, { createNew: true, write: true }).close();
  }
  const ms = (performance.now() - began) / SAMPLE_FILES;
  Deno.removeSync(path, { recursive: true });
  return ms;
}

/** Commits one after the other for as long as it runs; knows the longest that one took. */
class Heart {
  longestMs = 0;
  beats = 0;
  #stopped = false;
  readonly #beating: Promise<void>;

  constructor(sql: Sql) {
    this.#beating = this.#beat(sql);
  }

  async #beat(sql: Sql): Promise<void> {
    while (!this.#stopped) {
      const began = performance.now();
      await sql`insert into beats values (now())`;
      this.longestMs = Math.max(this.longestMs, performance.now() - began);
      this.beats++;
    }
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#beating;
  }
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
    const filesMs = 2 * TABLES * msPerFile(neon.local.directory);
    assert.ok(ms < START_MS_MAX + filesMs, `${name} took ${ms} ms to start (files ${filesMs} ms)`);
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
  await sql`create table beats(at timestamptz)`;
  const heart = new Heart(sql);
  const began = performance.now();
  const branch = await start("branch");
  const pauseMsMax = Math.max(PAUSE_MS_MAX, (performance.now() - began) / 2);
  await heart.stop();
  console.log(`${heart.beats} commits on main meanwhile, the longest ${heart.longestMs} ms`);
  assert.ok(heart.longestMs < pauseMsMax, "a start does not hold other endpoints up");
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
  const rows = await left`select max(id), count(*)::int from t7`;
  assert.deepEqual([...rows], [{ max: ROWS, count: ROWS }]);
});
