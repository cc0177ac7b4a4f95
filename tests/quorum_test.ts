/**
 * Safekeepers that come and go: a commit returns when a majority has it on disk, waits (and does
 * not fail) while there is none, and is there whichever majority is asked later.
 */
import assert from "node:assert/strict";
import { PageserverClient } from "../pageserver/client.ts";
import { parseTenantId, parseTimelineId } from "../libs/utils/id.ts";
import { SafekeeperClient } from "../safekeeper/client.ts";
import { openSql, type TestNeon, testWithNeon } from "./harness.ts";
import { createLedger, Writers } from "./load/writers.ts";
import { commitsWaiting, isSettled } from "./support/commits_waiting.ts";
import { processesIn } from "./support/processes.ts";
import { until } from "./support/waiting.ts";

const WRITERS = 4;

testWithNeon(
  "two safekeepers: commits wait while one is down",
  { safekeepers: 2 },
  async (neon) => {
    const { port } = await neon.local.startEndpoint("main");
    const [writer, observer] = [openSql(port), openSql(port)];
    try {
      await writer`create table t(n int primary key)`;
      for (const [n, victim] of ["safekeeper 1", "safekeeper 2"].entries()) {
        await neon.killRole(victim);
        const inserting = writer`insert into t values (${n})`.then((rows) => rows.count);
        await commitsWaiting(observer, 1);
        // Reads go on, and do not see what no majority has.
        assert.equal((await observer`select from t`).count, n);
        assert.equal(await isSettled(inserting), false);
        await neon.local.start();
        assert.equal(await inserting, 1);
        assert.equal((await observer`select from t`).count, n + 1);
      }
    } finally {
      await Promise.all([writer.end(), observer.end()]);
    }
  },
);

testWithNeon("three safekeepers: any two are enough", { safekeepers: 3 }, async (neon) => {
  let main = await neon.local.startEndpoint("main");
  let sql = neon.connect(main);
  await createLedger(sql);
  const writers = new Writers(main.port, WRITERS);
  writers.start();
  try {
    await writers.more(100);
    await neon.killRole("safekeeper 2");
    await writers.more(300);
    await neon.killRole("safekeeper 3");
    await commitsWaiting(sql, WRITERS);
    const before = writers.acknowledged;
    await writers.check(sql);
    assert.equal(writers.acknowledged, before);
    await neon.run("safekeeper", "start", "2");
    await writers.more(300);
    await neon.run("safekeeper", "start", "3");
    await writers.more(100);
  } finally {
    await writers.stop();
  }
  // Number 1 was there all the time. Now it is gone, and the two that were not have everything.
  await neon.closeClients();
  await neon.local.stopEndpoint("main");
  await neon.killRole("safekeeper 1");
  main = await neon.local.startEndpoint("main");
  sql = neon.connect(main);
  await writers.check(sql);
  writers.start();
  await writers.more(100);
  await neon.local.start();
  await neon.killRole("safekeeper 2");
  await writers.more(100);
  await writers.stop();
  await neon.closeClients();
  await everywhere(neon, writers);
});

/** Kills Postgres and each safekeeper in turn: every remaining pair has every row. */
async function everywhere(neon: TestNeon, writers: Writers): Promise<void> {
  for (const away of ["1", "2", "3"]) {
    neon.killPostgres("main");
    await neon.local.start();
    await neon.killRole(`safekeeper ${away}`);
    const sql = neon.connect(await neon.local.startEndpoint("main"));
    await writers.check(sql);
    await sql`insert into ledger values (-1, ${Number(away)}, '')`;
    await sql`delete from ledger where writer = -1`;
    await neon.closeClients();
  }
}

testWithNeon("without a majority an endpoint does not start, and says who is missing", {
  safekeepers: 3,
}, async (neon) => {
  const main = await neon.local.startEndpoint("main");
  await neon.connect(main)`create table t as select 1 as a`;
  await neon.closeClients();
  await neon.local.stopEndpoint("main");
  await neon.killRole("safekeeper 1");
  await neon.killRole("safekeeper 3");
  await assert.rejects(neon.local.startEndpoint("main"), (error: Error) => {
    assert.match(error.message, /safekeeper 1: .*safekeeper 3: /s);
    return true;
  });
  await neon.run("safekeeper", "start", "3");
  const again = neon.connect(await neon.local.startEndpoint("main"));
  assert.deepEqual([...await again`select a from t`], [{ a: 1 }]);
  // Number 1 is still away. Without a compute it gets from the others what it missed: WAL, and a
  // timeline that was made meanwhile.
  await neon.run("timeline", "branch", "--branch-name", "later");
  const later = neon.connect(await neon.local.startEndpoint("later"));
  for (const sql of [again, later]) await sql`insert into t select generate_series(1, 20000)`;
  await neon.closeClients();
  for (const branch of ["main", "later"]) await neon.local.stopEndpoint(branch);
  await neon.run("safekeeper", "start", "1");
  const wanted = await ends(neon, 2);
  assert.equal(wanted.length, 2);
  await until("safekeeper 1 catches up", async () => `${await ends(neon, 1)}` === `${wanted}`);
});

/** Where a safekeeper's timelines end, and how far they are committed. */
async function ends(neon: TestNeon, id: number): Promise<string[]> {
  const { safekeepers } = neon.local.environment().config;
  const { http_port } = safekeepers.find((safekeeper) => safekeeper.id === id)!;
  const client = new SafekeeperClient(`127.0.0.1:${http_port}`);
  const found = await Promise.all(
    (await client.listTimelines()).map(async (known) => {
      const [tenant, timeline] = [
        parseTenantId(known.tenant_id),
        parseTimelineId(known.timeline_id),
      ];
      const { flush_lsn, commit_lsn } = await client.timelineStatus(tenant, timeline);
      return `${timeline}: ${flush_lsn} ${commit_lsn}`;
    }),
  );
  return found.sort();
}

/** Names of a safekeeper's WAL segments. */
function segmentsOf(neon: TestNeon, safekeeper: number): string[] {
  const found: string[] = [];
  const walk = (path: string) => {
    for (const { name, isDirectory } of Deno.readDirSync(path)) {
      if (isDirectory) walk(`${path}/${name}`);
      else if (/^[0-9A-F]{24}(\.partial)?$/.test(name)) found.push(name);
    }
  };
  walk(`${neon.local.directory}/safekeepers/sk${safekeeper}`);
  return found;
}

testWithNeon("a safekeeper that was away for many segments catches up, then old WAL goes", {
  safekeepers: 3,
}, async (neon) => {
  const main = await neon.local.startEndpoint("main");
  const sql = neon.connect(main);
  const pageserver = new PageserverClient(
    neon.local.environment().config.pageservers[0]!.listen_http_addr,
  );
  const fill = async (what: string) => {
    await sql.unsafe(`create table ${what} as
      select i, repeat(md5(i::text), 250) as v from generate_series(1, 4000) i`);
    await sql.unsafe(`alter table ${what} alter v set storage external`);
    await sql.unsafe(`update ${what} set v = v || 'x'`);
  };
  await fill("early");
  await neon.killRole("safekeeper 3");
  await fill("late");
  await pageserver.checkpoint(neon.tenant.tenantId, neon.tenant.timelineId);
  const missed = segmentsOf(neon, 1).length - segmentsOf(neon, 3).length;
  assert.ok(missed >= 2, `it missed ${missed} segments`);
  await neon.local.start();
  await neon.killRole("safekeeper 1");
  // A commit needs number 3 now: it returns when that one has everything.
  await sql`create table after as select 1 as a`;
  await neon.local.start();
  await sql`insert into after values (2)`;
  const [total] = await sql`select pg_current_wal_lsn() - '0/0' as bytes`;
  await pageserver.checkpoint(neon.tenant.tenantId, neon.tenant.timelineId);
  await until(
    "no safekeeper keeps WAL that all of them and the pageserver have",
    () => [1, 2, 3].every((id) => segmentsOf(neon, id).length <= 2),
  );
  console.log(`${total!["bytes"]} bytes of WAL, ${missed} segments missed`);
  await neon.closeClients();
  neon.killPostgres("main");
  await neon.killRole("safekeeper 2");
  const again = neon.connect(await neon.local.startEndpoint("main"));
  for (const table of ["early", "late"]) {
    const [row] = await again.unsafe(`select count(*)::int as n from ${table}
      where v = repeat(md5(i::text), 250) || 'x'`);
    assert.equal(row!["n"], 4000);
  }
  assert.equal((await again`select from after`).count, 2);
});

testWithNeon("an endpoint can be stopped without a majority", { safekeepers: 1 }, async (neon) => {
  const main = await neon.local.startEndpoint("main");
  const [sql, observer] = [neon.connect(main), neon.connect(main)];
  await sql`create table t(n int primary key)`;
  await sql`insert into t values (1)`;
  await neon.killRole("safekeeper 1");
  const inserting = sql`insert into t values (2)`.then(() => "acknowledged", () => "not");
  await commitsWaiting(observer, 1);
  await neon.local.stopEndpoint("main");
  assert.deepEqual(processesIn(`${neon.local.directory}/compute/endpoints/main`), []);
  assert.equal(await inserting, "not");
  await neon.local.start();
  const again = neon.connect(await neon.local.startEndpoint("main"));
  assert.equal((await again`select from t where n = 1`).count, 1);
});
