/**
 * A pageserver that does not keep up: commits wait when it is further behind than the endpoint's
 * limit, reads go on, it is shown, and nothing is lost when it comes back. Meanwhile the compute
 * host may be killed and the endpoint stopped.
 */
import assert from "node:assert/strict";
import { computeClient } from "../cli/control_plane/clients.ts";
import { daemonPid } from "../cli/control_plane/supervisor.ts";
import type { PageserverLag } from "../compute/client.ts";
import { parseLsn } from "../libs/utils/lsn.ts";
import type { RunningEndpoint } from "../mod.ts";
import { runNeon, type Sql, type TestNeon, testWithNeon } from "./harness.ts";
import { createLedger, Writers } from "./load/writers.ts";
import { commitsWaiting, isSettled } from "./support/commits_waiting.ts";
import { until } from "./support/waiting.ts";

const WRITERS = 4;
const LIMIT_BYTES = 256 * 1024;
/** WAL of the commits that one sync is for, at most. */
const GROUP_BYTES_MAX = 64 * 1024;
/** Autovacuum would read pages that only the pageserver has, and a stop wait for that. */
const SETTINGS = { "neon.max_replication_write_lag": "256kB", autovacuum: "off" };
const BULK_ROWS = 20_000;

/** Holds the pageserver still until disposed of. */
function freezePageserver(neon: TestNeon): Disposable {
  const pid = daemonPid(neon.role("pageserver"))!;
  Deno.kill(pid, "SIGSTOP");
  return { [Symbol.dispose]: () => Deno.kill(pid, "SIGCONT") };
}

async function lagOf(neon: TestNeon): Promise<PageserverLag> {
  const { pageserver_lag } = await computeClient(neon.local.environment()).endpoint("main");
  return pageserver_lag!;
}

/** Reads what is read again while the pageserver does not answer: the endpoint has it then. */
async function warmUp(sql: Sql): Promise<void> {
  await commitsWaiting(sql, 0);
  await acknowledgedLsn(sql);
}

/** How far Postgres's commits have returned. */
async function acknowledgedLsn(sql: Sql): Promise<number> {
  const [row] = await sql`select pg_current_wal_flush_lsn()::text as lsn`;
  return parseLsn(row!["lsn"]);
}

async function undelayed(neon: TestNeon): Promise<void> {
  await until("nothing waits", async () => !(await lagOf(neon)).commits_delayed);
}

testWithNeon(
  "commits wait while the pageserver is further behind than the limit",
  { safekeepers: 3 },
  async (neon) => {
    const main = await neon.local.startEndpoint("main", { settings: SETTINGS });
    const sql = neon.connect(main);
    const probe = neon.connect(main);
    await createLedger(sql);
    await warmUp(sql);
    await probe`create table probe as select 0 as n`;
    await probe`insert into probe values (1)`;
    const writers = new Writers(main.port, WRITERS);
    writers.start();
    try {
      await writers.more(100);
      await writers.check(sql);
      let probing: Promise<number>;
      {
        using _frozen = freezePageserver(neon);
        await checkHeldBack(neon, sql);
        probing = probe`insert into probe values (2)`.then((rows) => rows.count);
        await commitsWaiting(sql, WRITERS + 1);
        await writers.check(sql); // reads go on
        assert.equal(await isSettled(probing), false);
        await neon.killRole("compute");
        await neon.run("compute", "start");
        await checkHeldBack(neon, sql); // the next compute host keeps to it as well
        await commitsWaiting(sql, WRITERS + 1);
        assert.equal(await isSettled(probing), false);
      }
      assert.equal(await probing, 1);
      await writers.more(1000);
      await checkReconfigure(neon, sql, writers);
    } finally {
      await writers.stop();
    }
    await undelayed(neon);
    assert.match(await neon.run("endpoint", "list"), /running *$/m);
    await writers.check(sql);
    await checkStop(neon, main, writers);
  },
);

/** All that a quorum has and the limit does not allow is held back, and no more than a group. */
async function checkHeldBack(neon: TestNeon, sql: Sql): Promise<void> {
  const client = computeClient(neon.local.environment());
  const { tenantId, timelineId } = neon.tenant;
  await until("the limit is acknowledged", async () => {
    const lag = await lagOf(neon);
    const acknowledged = await acknowledgedLsn(sql);
    const writer = await client.timeline(tenantId, timelineId);
    const received = parseLsn(writer!.commit_lsn) - lag.write_bytes;
    const allowed = received + LIMIT_BYTES;
    return lag.commits_delayed && lag.has_reported && lag.write_bytes > LIMIT_BYTES &&
      acknowledged <= allowed && acknowledged > allowed - GROUP_BYTES_MAX;
  });
  assert.match(await neon.run("endpoint", "list"), /running, commits wait: pageserver \d+ MB behi/);
}

/** The limit can be changed while the endpoint runs, and stays changed. */
async function checkReconfigure(neon: TestNeon, sql: Sql, writers: Writers): Promise<void> {
  const name = "neon.max_replication_write_lag";
  const change = (to: string) =>
    runNeon(neon.local.directory, ["endpoint", "reconfigure", "main", "--config", to]);
  using _frozen = freezePageserver(neon);
  await checkHeldBack(neon, sql);
  assert.equal((await change(`${name}=-1`)).code, 0);
  await writers.more(100);
  const [shown] = await sql.unsafe(`show ${name}`);
  assert.equal(shown![name], "-1");
  await neon.killRole("compute");
  await neon.run("compute", "start");
  await writers.more(100);
  assert.equal((await change(`${name}=256kB`)).code, 0);
  await commitsWaiting(sql, WRITERS);
  assert.match(
    (await change("neon.max_replication_lag=1GB")).stderr,
    /there is no such setting; th/,
  );
  assert.match((await change("work_mem=1GB")).stderr, /ALTER SYSTEM/);
  assert.match((await change(`${name}=much`)).stderr, /give a size such as 500MB/);
}

/** A stop does not wait for the pageserver, and what was acknowledged is there afterwards. */
async function checkStop(
  neon: TestNeon,
  main: RunningEndpoint,
  writers: Writers,
): Promise<void> {
  const [writer, observer] = [neon.connect(main), neon.connect(main)];
  await writer`create table bulk(n int)`;
  await writer`insert into bulk select generate_series(1, ${BULK_ROWS})`;
  await warmUp(observer);
  await undelayed(neon);
  {
    using _frozen = freezePageserver(neon);
    const bulk = writer`insert into bulk select generate_series(1, ${BULK_ROWS})`
      .then(() => {}, () => {}); // the stop may end the session before its commit is acknowledged
    await until("its commit is held back", async () => (await lagOf(neon)).commits_delayed);
    await commitsWaiting(observer, 1);
    await neon.local.stopEndpoint("main");
    await bulk;
    await neon.closeClients();
  }
  const log = Deno.readTextFileSync(`${neon.local.directory}/compute/compute.log`);
  assert.match(log, /commits wait for the pageserver, which is behind/);
  assert.doesNotMatch(log, /stopping immediately/);
  const sql = neon.connect(await neon.local.startEndpoint("main"));
  await writers.check(sql);
  assert.equal((await sql`select from bulk`).count, 2 * BULK_ROWS);
}
