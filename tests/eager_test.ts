/**
 * Eager endpoints: all pages are fetched before Postgres starts, which then needs neither the
 * preloaded library nor, to read, the pageserver. What they have is what lazy ones have.
 */
import assert from "node:assert/strict";
import { computeClient } from "../cli/control_plane/clients.ts";
import { type Sql, type TestNeon, testWithNeon } from "./harness.ts";
import { until } from "./support/waiting.ts";

const LIBRARY = "neon_lazy_files.so";

async function load(sql: Sql): Promise<void> {
  await sql`create table big as select i, repeat(md5(i::text), 8) as v
    from generate_series(1, 40000) i`;
  await sql`create table small(k int primary key, v text)`;
  await sql`insert into small select i, i::text from generate_series(1, 500) i`;
  await sql`create unlogged table fleeting(k int primary key)`;
  await sql`create index on big using hash (v)`;
  await sql`create sequence numbers`;
}

/** Digests of the files of tables and indexes that no query has touched yet. */
async function fileDigests(sql: Sql): Promise<unknown[]> {
  return [
    ...await sql`
    select relname, md5(pg_read_binary_file(pg_relation_filepath(oid)))
    from pg_class where relnamespace = 'public'::regnamespace and relpersistence = 'p'
    order by relname`,
  ];
}

async function contents(sql: Sql): Promise<unknown[]> {
  return [
    ...await sql`select (select md5(string_agg(b::text, '' order by i)) from big b) as big,
    (select md5(string_agg(s::text, '' order by k)) from small s) as small,
    (select md5(string_agg(p::text, '' order by oid)) from pg_proc p) as pg_proc`,
  ];
}

/** Whether the endpoint's Postgres runs with the library. */
function isPreloaded(neon: TestNeon, endpoint: string): boolean {
  return Deno.readTextFileSync(`/proc/${neon.postmasterPid(endpoint)}/maps`).includes(LIBRARY);
}

testWithNeon("eager endpoints have what lazy ones have, and write", {}, async (neon) => {
  const main = neon.connect(await neon.local.startEndpoint("main"));
  await load(main);
  const [row] = await main`select pg_current_wal_flush_lsn()::text as lsn`;
  const mode = { Static: row!["lsn"] as string };
  const lazy = neon.connect(await neon.local.startEndpoint("lazy", { mode, branch: "main" }));
  const eager = neon.connect(
    await neon.local.startEndpoint("eager", { mode, branch: "main", eager: true }),
  );
  const replica = neon.connect(
    await neon.local.startEndpoint("replica", { mode: "Replica", branch: "main", eager: true }),
  );
  assert.deepEqual(["lazy", "eager", "replica"].map((name) => isPreloaded(neon, name)), [
    true,
    false,
    false,
  ]);
  assert.deepEqual(await fileDigests(eager), await fileDigests(lazy));
  const expected = await contents(lazy);

  neon.signalRole("pageserver", "SIGSTOP"); // whoever asks it now waits
  try {
    assert.deepEqual(await contents(eager), expected);
    assert.deepEqual(await contents(replica), expected);
    await main`insert into small values (0, 'more')`;
    await until(
      "the replica follows",
      async () => (await replica`select from small where k = 0`).length === 1,
    );
  } finally {
    neon.signalRole("pageserver", "SIGCONT");
  }
  await stopWhileFetching(neon);
  await writeEagerly(neon);
});

/** An eager primary writes, and its lazy successor has it all. */
async function writeEagerly(neon: TestNeon): Promise<void> {
  for (const name of ["lazy", "eager", "replica", "late"]) await neon.local.stopEndpoint(name);
  const log = () => Deno.readTextFileSync(neon.role("compute").logFile);
  const maps = () => [...log().matchAll(/(\d+) of free space maps/g)].map(([, n]) => Number(n));
  const restart = async (...options: string[]) => {
    await neon.closeClients();
    await neon.local.stopEndpoint("main");
    await neon.run("endpoint", "start", "main", ...options);
    return neon.connect(await neon.local.startEndpoint("main"));
  };
  let sql = await restart("--eager");
  assert.equal(isPreloaded(neon, "main"), false);
  sql = await restart("--eager");
  const [, untouched] = maps();
  assert.equal(untouched, 0, "maps that are as they were fetched are not carried");

  await neon.killRole("pageserver");
  const before = await contents(sql);
  await sql`delete from small where k > 250`;
  await sql`update big set v = 'changed' where i % 10 = 0`;
  await sql`insert into fleeting values (1)`;
  const after = await contents(sql);
  assert.notDeepEqual(after, before);
  await neon.local.start();
  await sql`vacuum small`;
  sql = await restart();
  assert.equal(isPreloaded(neon, "main"), true, "--eager was for that start");
  assert.ok(maps()[2]! > 0, "maps that were changed are carried");
  assert.deepEqual(await contents(sql), after);
  assert.equal((await sql`select from fleeting`).length, 0);
}

/** A start that fetches can be ended, and leaves nothing that is in the way of the next one. */
async function stopWhileFetching(neon: TestNeon): Promise<void> {
  const compute = computeClient(neon.local.environment());
  const options = { mode: "Replica", branch: "main", eager: true } as const;
  await neon.run("endpoint", "create", "late", "--hot-standby", "true", "--eager");
  const starting = neon.local.startEndpoint("late", options).catch((thrown) => thrown);
  await until("pages are fetched", async () => {
    const endpoints = await compute.endpoints();
    const late = endpoints.find(({ endpoint_id }) => endpoint_id === "late");
    return late !== undefined && late.fetched !== null && late.fetched.bytes > 0;
  });
  neon.signalRole("pageserver", "SIGSTOP");
  try {
    const pgdata = `${neon.local.directory}/compute/endpoints/late/pgdata`;
    assert.throws(
      () => Deno.statSync(`${pgdata}/global/pg_control`),
      Deno.errors.NotFound,
      "nobody can start Postgres on files that are not whole",
    );
    await neon.local.stopEndpoint("late", "immediate");
    assert.match(String(await starting), /Cannot start endpoint "late": it was stopped meanwhile/);
  } finally {
    neon.signalRole("pageserver", "SIGCONT");
  }
  const late = await neon.local.startEndpoint("late");
  assert.equal(isPreloaded(neon, "late"), false, "it is defined so");
  assert.equal((await neon.connect(late)`select from small`).length, 501);
}
