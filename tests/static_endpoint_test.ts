/** Static endpoints: a branch as of one LSN, for as long as one wants to read it there. */
import assert from "node:assert/strict";
import { addLsn, formatLsn, type Lsn, parseLsn } from "../libs/utils/lsn.ts";
import { runNeon, type Sql, type TestNeon, testWithNeon } from "./harness.ts";
import { until } from "./support/waiting.ts";

async function position(sql: Sql): Promise<Lsn> {
  return parseLsn((await sql`select pg_current_wal_flush_lsn()::text as lsn`)[0]!["lsn"]);
}

async function startStatic(neon: TestNeon, name: string, lsn: Lsn): Promise<Sql> {
  const mode = { Static: formatLsn(lsn) };
  return neon.connect(await neon.local.startEndpoint(name, { mode, branch: "main" }));
}

async function names(sql: Sql): Promise<string[]> {
  return (await sql`select name from t order by 1`).map((row) => row["name"]);
}

/** How often the pageserver was asked for a lease. */
async function leases(neon: TestNeon): Promise<number> {
  const address = neon.local.environment().config.pageservers[0]!.listen_http_addr;
  const text = await (await fetch(`http://${address}/metrics`)).text();
  const line = text.split("\n").find((line) => line.includes('command="LeaseLsn"'));
  return Number(line?.split(" ").at(-1) ?? 0);
}

testWithNeon("static endpoints stay where they are", {}, async (neon) => {
  const endpoint = await neon.local.startEndpoint("main", {
    settings: { max_prepared_transactions: "5" },
  });
  const [main, open] = [neon.connect(endpoint), neon.connect(endpoint)];
  await main`create table t(name text)`;
  await main`create table cold as select i, repeat('c', 300) as v from generate_series(1, 5000) i`;
  await main`insert into t values ('first')`;
  await open.unsafe("begin; insert into t values ('open'); lock cold in access exclusive mode");
  await main.unsafe("begin; insert into t values ('prepared'); prepare transaction 'p'");
  await main`insert into t values ('second')`;
  const second = await position(main);
  const old = await startStatic(neon, "old", second);
  assert.deepEqual(await names(old), ["first", "second"]);
  assert.equal(
    (await old`select from cold where i = 2500`).count,
    1,
    "nobody holds its lock there",
  );
  await open.unsafe("commit");
  await main`commit prepared 'p'`;
  await main`insert into t values ('third')`;
  const third = await position(main);
  await main`drop table cold`;
  await main`truncate t`;
  await main`insert into t values ('last')`;

  assert.deepEqual(await names(old), ["first", "second"]);
  assert.equal((await old`select from cold`).count, 5000, "pages that were not read before");
  const [at] =
    await old`select pg_last_wal_replay_lsn()::text as lsn, pg_is_in_recovery() as reads`;
  assert.deepEqual(at, { lsn: formatLsn(second), reads: true });
  await assert.rejects(old`insert into t values ('x')`, /read-only transaction/);
  const third_ = await startStatic(neon, "newer", third);
  assert.deepEqual(await names(third_), ["first", "open", "prepared", "second", "third"]);
  // In the middle of a record
  const inside = await startStatic(neon, "inside", addLsn(second, 8));
  assert.deepEqual(await names(inside), ["first", "second"]);
  assert.ok(await leases(neon) >= 3);

  // It outlives its primary, its host and the pageserver, and is the same after a start.
  await neon.local.stopEndpoint("main");
  await neon.killRole("compute");
  await neon.killRole("pageserver");
  assert.deepEqual(await names(old), ["first", "second"]);
  const before = await leases(neon).catch(() => 0);
  await neon.local.start();
  await until("its lease is taken anew", async () => await leases(neon) > before);
  neon.killPostgres("newer");
  const listed = async () =>
    (await neon.local.listEndpoints()).map(({ endpoint, lsn, status }) =>
      `${endpoint} ${lsn} ${status}`
    );
  const expected = [
    `inside ${formatLsn(addLsn(second, 8))} running`,
    "main null stopped",
    `newer ${formatLsn(third)} crashed`,
    `old ${formatLsn(second)} running`,
  ];
  await until("all is as listed", async () => (await listed()).join() === expected.join());
  await neon.local.stopEndpoint("old");
  assert.deepEqual(await names(await startStatic(neon, "old", second)), ["first", "second"]);
  assert.equal((await names(await startStatic(neon, "newer", third))).length, 5);
  const list = await neon.run("endpoint", "list");
  assert.match(list, new RegExp(` old .* ${formatLsn(second)} +running +Static\n`));
});

testWithNeon("static endpoints of positions that there are not", {}, async (neon) => {
  const main = neon.connect(await neon.local.startEndpoint("main"));
  await main`create table t(name text)`;
  await main`insert into t values ('main')`;
  const end = await position(main);
  await neon.local.createBranch("branch");
  /** What "create" says, and "start" as well. */
  const refused = async (...args: string[]) => {
    const said = [];
    for (const command of ["create", "start"]) {
      const { code, stderr } = await runNeon(neon.local.directory, ["endpoint", command, ...args]);
      assert.equal(code, 1);
      said.push(stderr);
    }
    assert.equal(said[0], said[1]);
    return said[0]!;
  };
  const ahead = formatLsn(addLsn(end, 1 << 20));
  const branchName = ["--branch-name", "main"];
  assert.match(await refused("a", ...branchName, "--lsn", ahead), /it ends at 0\//);
  assert.match(await refused("b", ...branchName, "--lsn", "0/28"), /it begins at 0\//);
  const early = formatLsn(addLsn(end, -4096));
  const onBranch = await refused("c", "--branch-name", "branch", "--lsn", early);
  assert.match(onBranch, /what is older is on its ancestor's branch/);
  const both = await refused("d", ...branchName, "--lsn", "0/28", "--hot-standby", "true");
  assert.match(both, /use --lsn or --hot-standby/);
  assert.deepEqual((await neon.local.listEndpoints()).map(({ endpoint }) => endpoint), ["main"]);
  const [, start] = /@(\S+): branch/.exec(await neon.run("timeline", "list"))!;
  await neon.run(..."endpoint create at-start --branch-name branch --lsn".split(" "), start!);
  const atStart = neon.connect(await neon.local.startEndpoint("at-start"));
  assert.deepEqual(await names(atStart), ["main"]);
});
