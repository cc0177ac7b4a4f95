/**
 * Static endpoints and branches by time: they show what was committed by then, to the microsecond,
 * whatever is restarted in between.
 */
import assert from "node:assert/strict";
import { pageserverClient } from "../cli/control_plane/clients.ts";
import { runNeon, type Sql, type TestNeon, testWithNeon } from "./harness.ts";

/** Now, as Postgres writes it. */
async function now(sql: Sql): Promise<string> {
  return (await sql`select clock_timestamp()::text as now`)[0]!["now"];
}

async function rows(neon: TestNeon, endpoint: string): Promise<string[]> {
  const sql = neon.connect(await neon.local.startEndpoint(endpoint));
  return (await sql`select name from t order by name`).map((row) => row["name"]);
}

async function refused(neon: TestNeon, ...args: string[]): Promise<string> {
  const { code, stderr } = await runNeon(neon.local.directory, args);
  assert.notEqual(code, 0);
  return stderr;
}

testWithNeon("endpoints and branches as of a time", {}, async (neon) => {
  const { tenantId, timelineId } = neon.tenant;
  const endpoint = await neon.local.startEndpoint("main");
  const [main, open] = [neon.connect(endpoint), neon.connect(endpoint)];
  const before = await now(main);
  await main`create table t(name text)`;
  await open.unsafe("begin; insert into t values ('open')");
  await main`insert into t values ('a')`;
  const one = await now(main);
  await main`insert into t values ('b')`;
  await open.unsafe("commit");
  const two = await now(main);
  await neon.local.createBranch("dev");
  await main`delete from t`;

  await neon.run("endpoint", "create", "one", "--timestamp", one);
  await neon.run("endpoint", "start", "two", "--branch-name", "main", "--timestamp", two);
  assert.deepEqual(await rows(neon, "one"), ["a"]);
  assert.deepEqual(await rows(neon, "two"), ["a", "b", "open"]);
  const branch = ["timeline", "branch", "--branch-name"];
  await neon.run(...branch, "of_one", "--ancestor-start-timestamp", one);
  assert.deepEqual(await rows(neon, "of_one"), ["a"]);
  await neon.run("endpoint", "create", "latest", "--timestamp", "0 seconds ago");
  assert.deepEqual(await rows(neon, "latest"), [], "everything that is committed now");

  // A pageserver that is behind, or has lost what it had in memory, gets the WAL first
  const three = await now(main);
  await main`insert into t values ('c')`;
  const four = await now(main);
  await neon.killRole("pageserver");
  await neon.local.start();
  await neon.run("endpoint", "create", "three", "--timestamp", three);
  await neon.run("endpoint", "create", "four", "--timestamp", four);
  assert.deepEqual([await rows(neon, "three"), await rows(neon, "four")], [[], ["c"]]);
  const again = ["endpoint", "start", "one", "--timestamp"];
  assert.match(await neon.run(...again, one), /already running/);
  assert.match(await refused(neon, ...again, two), /it exists as Static/);

  // A branch has its own commits, and what lies before its start is its ancestor's
  const dev = neon.connect(await neon.local.startEndpoint("dev"));
  const started = await now(dev);
  await dev`insert into t values ('d')`;
  const onDev = ["endpoint", "create", "old", "--branch-name", "dev", "--timestamp"];
  assert.match(await refused(neon, ...onDev, one), /branched off later, .* its ancestor, "main"/);
  await neon.run(...onDev, started);
  assert.deepEqual(await rows(neon, "old"), ["a", "b", "open"]);

  const create = ["endpoint", "create", "no", "--timestamp"];
  assert.match(await refused(neon, ...create, "2100-01-01T00:00:00Z"), /that is in the future/);
  assert.match(await refused(neon, ...create, "50 days ago"), /its first commit is later/);
  assert.match(
    await refused(neon, ...branch, "no", "--ancestor-start-timestamp", before.slice(0, 10)),
    /expected a time with its offset/,
  );
  assert.match(await refused(neon, ...create, one, "--lsn", "0/28"), /use one of --timestamp/);
  const client = pageserverClient(neon.local.environment());
  const { last_record_lsn } = await client.timeline(tenantId, timelineId);
  const time = Temporal.Instant.from(two);
  const { lsn, kind } = await client.lsnByTimestamp(tenantId, timelineId, time, last_record_lsn);
  assert.equal(kind, "present");
  const address = neon.local.environment().config.pageservers[0]!.listen_http_addr;
  const url = `http://${address}/v1/tenant/${tenantId}/timeline/${timelineId}`;
  const told = await (await fetch(`${url}/get_timestamp_of_lsn?lsn=${lsn}`)).json();
  const instant = Temporal.Instant.from(told);
  assert.equal(Temporal.Instant.compare(Temporal.Instant.from(one), instant), -1);
  assert.equal(Temporal.Instant.compare(instant, time), -1);
});
