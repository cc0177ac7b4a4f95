/**
 * Endpoints when things around them go away: their directory, their host, their place as the
 * writer, the pageserver.
 */
import assert from "node:assert/strict";
import { readArenaStatistics, updateArena } from "../compute/lazy_files/arena.ts";
import { openSql, type Sql, type TestNeon, testWithNeon } from "./harness.ts";
import { createLedger, Writers } from "./load/writers.ts";
import { processesIn } from "./support/processes.ts";
import { SecondMachine } from "./support/second_machine.ts";
import { commitsWaiting } from "./support/commits_waiting.ts";
import { until } from "./support/waiting.ts";

function endpointDirectory(neon: TestNeon, name = "main"): string {
  return `${neon.local.directory}/compute/endpoints/${name}`;
}

async function statusOf(neon: TestNeon, name = "main"): Promise<string | undefined> {
  return (await neon.local.listEndpoints()).find((entry) => entry.endpoint === name)?.status;
}

testWithNeon("an endpoint starts without its local directory", {}, async (neon) => {
  const directory = endpointDirectory(neon);
  let sql = neon.connect(await neon.local.startEndpoint("main"));
  await sql`
    create table t as select i, repeat(md5(i::text), 20) as v from generate_series(1, 2000) i`;
  const [expected] = await sql`select md5(string_agg(t::text, '' order by i)) from t`;
  for (const hostEnds of [false, true]) {
    await neon.closeClients();
    await neon.local.stopEndpoint("main");
    assert.deepEqual(processesIn(directory), [], "a stop leaves no process");
    if (hostEnds) await neon.killRole("compute");
    Deno.removeSync(directory, { recursive: true });
    if (hostEnds) await neon.local.start();
    sql = neon.connect(await neon.local.startEndpoint("main"));
    const { fetchCalls } = readArenaStatistics(`${directory}/arena`);
    assert.equal(fetchCalls > 8, hostEnds, "a host that knows has put the catalogs there");
    const [found] = await sql`select md5(string_agg(t::text, '' order by i)) from t`;
    assert.deepEqual(found, expected);
  }
  await neon.closeClients();
  await neon.local.stopEndpoint("main", "immediate");
  assert.deepEqual(processesIn(directory), []);
});

testWithNeon("Postgres outlives its host, and the next host takes it over", {}, async (neon) => {
  const main = await neon.local.startEndpoint("main");
  const pid = neon.postmasterPid("main");
  const [sql, observer] = [neon.connect(main), neon.connect(main)];
  await sql`create table t(n int primary key)`;
  for (let n = 0; n < 3; n++) {
    await neon.killRole("compute");
    // Nobody hands WAL to the safekeepers: the commit waits, reading goes on.
    const inserting = sql`insert into t values (${n})`.then((rows) => rows.count);
    await commitsWaiting(observer, 1);
    assert.equal((await observer`select from t`).count, n);
    await neon.local.start();
    assert.equal(await inserting, 1);
    assert.equal(neon.postmasterPid("main"), pid);
    assert.equal(await statusOf(neon), "running");
    assert.equal((await neon.local.startEndpoint("main")).port, main.port);
  }
  assert.equal(neon.postmasterPid("main"), pid, "starting it again changed nothing");
  await neon.closeClients();
  await neon.local.stopEndpoint("main");
  assert.deepEqual(processesIn(endpointDirectory(neon)), []);
  const after = neon.connect(await neon.local.startEndpoint("main"));
  assert.deepEqual([...await after`select max(n), count(*)::int from t`], [{ max: 2, count: 3 }]);
});

testWithNeon(
  "a Postgres that died with its host is crashed, and starts again",
  {},
  async (neon) => {
    const main = await neon.local.startEndpoint("main");
    await createLedger(neon.connect(main));
    const writers = new Writers(main.port, 3);
    writers.start();
    try {
      await writers.more(50);
      await neon.killRole("compute");
      neon.killPostgres("main");
      await until(
        "all its processes have ended",
        () => processesIn(endpointDirectory(neon)).length === 0,
      );
      assert.equal(await statusOf(neon), "crashed", "also while no host can be asked");
      await neon.local.start();
      assert.equal(await statusOf(neon), "crashed");
      await neon.local.startEndpoint("main");
      assert.equal(await statusOf(neon), "running");
      await writers.more(50);
    } finally {
      await writers.stop();
    }
    await writers.check(neon.connect(main));
    // Without its host an endpoint can be stopped, too.
    await neon.killRole("compute");
    await neon.local.stopEndpoint("main");
    assert.deepEqual(processesIn(endpointDirectory(neon)), []);
    assert.equal(await statusOf(neon), "stopped");
  },
);

testWithNeon("a writer that another has replaced is stopped and commits nothing more", {
  safekeepers: 3,
}, async (neon) => {
  await using second = await SecondMachine.start(neon);
  const main = await neon.local.startEndpoint("main");
  await createLedger(neon.connect(main));
  const here = new Writers(main.port, 3);
  here.start();
  await here.more(100);
  const port = await second.startEndpoint("main");
  const there = openSql(port);
  try {
    await until("the first writer is stopped", async () => await statusOf(neon) === "crashed");
    assert.deepEqual(processesIn(endpointDirectory(neon)), []);
    await here.stop();
    await here.check(there);
    await there`insert into ledger values (9, 9, 'second')`;
    // And back again.
    const again = neon.connect(await neon.local.startEndpoint("main"));
    await until(
      "the second writer is stopped",
      async () => (await second.compute.endpoint("main")).status === "crashed",
    );
    const { error } = await second.compute.endpoint("main");
    assert.match(error ?? "", /somebody else writes this timeline now/);
    await assert.rejects(there`insert into ledger values (9, 10, 'lost')`);
    assert.deepEqual([...await again`select number from ledger where writer = 9`], [{ number: 9 }]);
    await again`delete from ledger where writer = 9`;
    await here.check(again);
  } finally {
    await here.stop();
    await there.end();
  }
});

testWithNeon("CREATE TABLESPACE is refused, and nothing else suffers", {}, async (neon) => {
  const main = await neon.local.startEndpoint("main");
  const sql = neon.connect(main);
  const directory = `${endpointDirectory(neon)}/socket`; // Postgres's own, and outside its data
  await assert.rejects(
    sql.unsafe(`create tablespace elsewhere location '${directory}'`),
    /could not create symbolic link .*Operation not permitted/,
  );
  await sql`set allow_in_place_tablespaces = on`;
  await assert.rejects(sql`create tablespace inside location ''`, /Operation not permitted/);
  assert.equal((await sql`select from pg_tablespace`).count, 2);
  assert.match(
    Deno.readTextFileSync(`${endpointDirectory(neon)}/postgres.log`),
    /cannot create a tablespace: this server's storage has none but the default/,
  );
  await sql`create table t as select 1 as a`;
  await neon.closeClients();
  await neon.local.stopEndpoint("main");
  const again = neon.connect(await neon.local.startEndpoint("main"));
  assert.deepEqual([...await again`select a from t`], [{ a: 1 }]);
});

/** Two sessions that have read everything their next statements need but the table itself. */
async function warmSessions(neon: TestNeon): Promise<[Sql, Sql]> {
  const main = await neon.local.startEndpoint("main");
  const [reader, observer] = [neon.connect(main), neon.connect(main)];
  await reader`select sum(i), count(*)::int from cold where false`;
  await isReading(observer);
  return [reader, observer];
}

/** Whether a session waits for pages of a relation. */
async function isReading(observer: Sql): Promise<boolean> {
  const rows = await observer`
    select pid from pg_stat_activity
    where wait_event = 'DataFileRead' and backend_type = 'client backend'`;
  return rows.length > 0;
}

testWithNeon(
  "a cold read without a pageserver waits, then errs, and is never zeros",
  {},
  async (neon) => {
    const rows = 20_000;
    const first = neon.connect(await neon.local.startEndpoint("main"));
    await first`create table cold as select i from generate_series(1, ${rows}::int) i`;
    await neon.closeClients();
    const expected = [{ sum: String(rows * (rows + 1) / 2), count: rows }];
    const readAll = async (sql: Sql) => [...await sql`select sum(i), count(*)::int from cold`];

    await neon.local.stopEndpoint("main");
    let [reader, observer] = await warmSessions(neon);
    await neon.killRole("pageserver");
    const reading = readAll(reader);
    await until("the read waits", () => isReading(observer));
    await neon.local.start();
    assert.deepEqual(await reading, expected);

    await neon.closeClients();
    await neon.local.stopEndpoint("main");
    [reader, observer] = await warmSessions(neon);
    await observer`create table warm(i int)`;
    await observer`insert into warm values (1)`;
    updateArena(`${endpointDirectory(neon)}/arena`, { retrySeconds: 1 });
    await neon.killRole("pageserver");
    await assert.rejects(readAll(reader), { code: "58030" });
    // What needs no cold page goes on, a commit as well.
    await observer`create temp table own(i int)`.catch(() => {});
    assert.equal((await observer`select from cold where false`).count, 0);
    updateArena(`${endpointDirectory(neon)}/arena`, { retrySeconds: 60 }); // for a slow start
    await neon.local.start();
    assert.deepEqual(await readAll(reader), expected);
    assert.deepEqual(await readAll(observer), expected);
    await observer`insert into cold values (0)`;
  },
);
