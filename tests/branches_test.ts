/**
 * Branches: they hold what their ancestor held at one position, not a row less and not a row more,
 * and nothing that happens afterwards on either side is seen on the other.
 */
import assert from "node:assert/strict";
import { addLsn, formatLsn, type Lsn, parseLsn } from "../libs/utils/lsn.ts";
import { PageserverClient } from "../pageserver/client.ts";
import { openSql, type Sql, type TestNeon, testWithNeon } from "./harness.ts";
import { createLedger, Writers } from "./load/writers.ts";

const BRANCHES_UNDER_LOAD = 30;
/** Endpoints that are checked at the same time. */
const CHECKS_AT_ONCE = 3;

async function names(sql: Sql): Promise<string[]> {
  const rows = await sql<{ name: string }[]>`select name from visited order by name`;
  return rows.map((row) => row.name);
}

async function walPosition(sql: Sql): Promise<Lsn> {
  const [row] = await sql`select pg_current_wal_lsn()::text as lsn`;
  return parseLsn(row!["lsn"]);
}

/** Starts an endpoint of the branch's name and opens a client. */
async function connectTo(neon: TestNeon, branch: string): Promise<Sql> {
  return neon.connect(await neon.local.startEndpoint(branch));
}

testWithNeon("a branch of a branch of a branch holds what each ancestor held", {}, async (neon) => {
  const generations = ["main", "child", "grandchild", "great_grandchild"];
  const clients: Sql[] = [await connectTo(neon, "main")];
  await clients[0]!`create table visited(name text primary key, filler text)`;
  const pageserver = new PageserverClient(
    neon.local.environment().config.pageservers[0]!.listen_http_addr,
  );
  for (const [i, name] of generations.entries()) {
    const sql = clients[i]!;
    await sql`insert into visited values (${name}, repeat('x', 5000))`;
    await sql`update visited set filler = ${name} where name <> ${name}`;
    const next = generations[i + 1];
    if (next === undefined) break;
    await neon.local.createBranch(next, { ancestorBranch: name });
    // The one in the middle reads its ancestors' pages from layer files, the others from memory.
    if (i === 1) {
      for (const timeline of await neon.local.listTimelines()) {
        await pageserver.checkpoint(neon.tenant.tenantId, timeline.timeline_id as never);
      }
    }
    clients.push(await connectTo(neon, next));
  }
  for (const [i, sql] of clients.entries()) await sql`insert into visited values (${`late ${i}`})`;
  const check = async (i: number, sql: Sql) => {
    const own = [...generations.slice(0, i + 1), `late ${i}`].sort();
    assert.deepEqual(await names(sql), own, `branch ${generations[i]}`);
    const [{ count }] =
      await sql`select count(*)::int from visited where filler = ${generations[i]!}` as unknown as [
        { count: number },
      ];
    assert.equal(count, i, `rows that ${generations[i]} has updated`);
  };
  for (const [i, sql] of clients.entries()) await check(i, sql);
  await neon.closeClients();
  await neon.local.stop();
  await neon.local.start();
  for (const [i, name] of generations.entries()) await check(i, await connectTo(neon, name));
  const ancestors = (await neon.local.listTimelines()).map((timeline) => timeline.ancestor_lsn);
  assert.equal(ancestors.filter((lsn) => lsn === null).length, 1);
});

testWithNeon("a branch in the past holds the rows before and not those after", {}, async (neon) => {
  const main = await connectTo(neon, "main");
  await main`create table visited(name text primary key)`;
  await main`insert into visited values ('before')`;
  const between = await walPosition(main);
  await main`insert into visited values ('after')`;
  const after = await walPosition(main);
  await main`drop table visited`;
  await neon.run(
    ..."timeline branch --branch-name between --ancestor-branch-name main".split(" "),
    "--ancestor-start-lsn",
    formatLsn(between),
  );
  await neon.local.createBranch("after", { ancestorLsn: after });
  // In the middle of a record, and before the commit record of 'after' in any case.
  await neon.local.createBranch("inside", { ancestorLsn: addLsn(between, 8) });
  for (const [branch, held] of [["between", 1], ["after", 2], ["inside", 1]] as const) {
    const sql = await connectTo(neon, branch);
    assert.deepEqual(await names(sql), ["after", "before"].slice(-held), branch);
    await sql`insert into visited values ('own')`;
    await neon.local.createBranch(`${branch}_child`, { ancestorBranch: branch });
    const child = await connectTo(neon, `${branch}_child`);
    assert.deepEqual(await names(child), ["after", "before", "own"].slice(-held - 1), branch);
  }
  await assert.rejects(main`select * from visited`, /does not exist/);
});

testWithNeon("a row whose commit has returned is on the branch, under load", {}, async (neon) => {
  const { port } = await neon.local.startEndpoint("main");
  const sql = openSql(port);
  const writers = new Writers(port, 4);
  try {
    await createLedger(sql);
    await sql`create table marks(n int primary key)`;
    writers.start();
    for (let n = 0; n < BRANCHES_UNDER_LOAD; n++) {
      await writers.more(5);
      await sql`insert into marks values (${n})`;
      await neon.local.createBranch(`b${n}`);
    }
  } finally {
    await writers.stop();
    await sql.end();
  }
  await neon.local.stopEndpoint("main");
  const unchecked = Array.from({ length: BRANCHES_UNDER_LOAD }, (_, n) => n);
  const checkNext = async () => {
    for (let n = unchecked.pop(); n !== undefined; n = unchecked.pop()) {
      const branch = openSql((await neon.local.startEndpoint(`b${n}`)).port);
      try {
        const rows = await branch`select max(n) as last, count(*)::int as count from marks`;
        assert.deepEqual([...rows], [{ last: n, count: n + 1 }]);
        const [ledger] = await branch`
          select count(*)::int as count, count(distinct (writer, number))::int as rows,
            (select count(*)::int from ledger l where l.number > 1 and not exists
              (select from ledger p where p.writer = l.writer and p.number = l.number - 1)) as gaps
          from ledger`;
        assert.equal(ledger!["count"], ledger!["rows"]);
        assert.equal(ledger!["gaps"], 0, "of each writer's rows it holds the first ones");
        assert.ok(ledger!["count"] >= 5 * (n + 1));
      } finally {
        await branch.end();
      }
      await neon.local.stopEndpoint(`b${n}`, "immediate");
    }
  };
  await Promise.all(Array.from({ length: CHECKS_AT_ONCE }, checkNext));
});

testWithNeon("neither side of a branch sees what the other does", {}, async (neon) => {
  const main = await connectTo(neon, "main");
  await main`create table kept(id serial primary key, note text)`;
  await main`create table dropped(id int primary key)`;
  await main`create table altered(id int primary key, old text)`;
  await main`insert into kept(note) select 'shared' from generate_series(1, 1000)`;
  await main`insert into dropped select generate_series(1, 1000)`;
  await main`insert into altered select i, i::text from generate_series(1, 1000) i`;
  await main`create sequence ticket`;
  await main`select nextval('ticket') from generate_series(1, 50)`;
  await neon.local.createBranch("other");
  const other = await connectTo(neon, "other");

  const next = async (sql: Sql) => Number((await sql`select nextval('ticket') as n`)[0]!["n"]);
  const first = await next(other);
  assert.ok(first > 50, `the branch's sequence goes on after what was handed out: ${first}`);
  await main`select setval('ticket', 5000)`;
  assert.equal(await next(other), first + 1);

  await main`drop table dropped`;
  await main`create table on_main(id int)`;
  await main`alter table altered rename column old to renamed`;
  await main`truncate kept`;
  await main.unsafe("create database made_on_main");
  await other`alter table altered drop column old`;
  await other`alter table altered add column extra int default 7`;
  await other`create index on dropped(id)`;
  await other`create table on_branch(id int)`;
  await other`insert into kept(note) values ('branch')`;
  await other`create role made_on_branch`;
  await other`create function twice(int) returns int language sql return $1 * 2`;

  const relations = async (sql: Sql) =>
    (await sql`select relname::text as name from pg_class where relkind = 'r'
      and relnamespace = 'public'::regnamespace order by 1`).map((row) => row["name"]);
  const count = async (sql: Sql, from: string) =>
    (await sql.unsafe(`select count(*)::int as n from ${from}`))[0]!["n"];
  const check = async (main: Sql, other: Sql) => {
    assert.deepEqual(await relations(main), ["altered", "kept", "on_main"]);
    assert.deepEqual(await relations(other), ["altered", "dropped", "kept", "on_branch"]);
    assert.deepEqual([await count(main, "kept"), await count(other, "kept")], [0, 1001]);
    assert.equal(await count(main, "altered where renamed = id::text"), 1000);
    assert.equal(await count(other, "altered where extra = 7"), 1000);
    assert.equal(await count(other, "dropped where id between 1 and 1000"), 1000);
    assert.equal(await count(main, "pg_database where datname = 'made_on_main'"), 1);
    assert.equal(await count(other, "pg_database where datname = 'made_on_main'"), 0);
    assert.equal(await count(main, "pg_roles where rolname = 'made_on_branch'"), 0);
    assert.deepEqual([...await other`select twice(21)`], [{ twice: 42 }]);
    await assert.rejects(main`select twice(21)`, /does not exist/);
  };
  await check(main, other);
  for (const name of ["main", "other"]) await neon.local.stopEndpoint(name);
  await check(await connectTo(neon, "main"), await connectTo(neon, "other"));
});

testWithNeon("transactions under way where a branch begins", {}, async (neon) => {
  const first = await connectTo(neon, "main");
  await first`alter system set max_prepared_transactions = 5`;
  await neon.closeClients();
  await neon.local.stopEndpoint("main");
  const [main, open] = [await connectTo(neon, "main"), await connectTo(neon, "main")];
  await main`create table t(name text primary key)`;
  await main.unsafe("begin; insert into t values ('prepared'); prepare transaction 'p'");
  await open.unsafe("begin; insert into t values ('open')");
  // Any commit: what it flushes ends behind the open transaction's row.
  await main`insert into t values ('committed')`;
  await neon.local.createBranch("branch");
  await open.unsafe("commit");
  await main.unsafe("rollback prepared 'p'");

  const branch = await connectTo(neon, "branch");
  const names = async (sql: Sql) =>
    (await sql`select name from t order by 1`).map((row) => row["name"]);
  assert.deepEqual(await names(main), ["committed", "open"]);
  assert.deepEqual(await names(branch), ["committed"]);
  await branch`insert into t values ('open')`; // nobody holds its key
  await branch.unsafe("commit prepared 'p'");
  assert.deepEqual(await names(branch), ["committed", "open", "prepared"]);
  assert.deepEqual(await names(main), ["committed", "open"]);
});

testWithNeon("a branch that cannot be says why", {}, async (neon) => {
  const main = await connectTo(neon, "main");
  await main`create table visited(name text)`;
  const branch = (name: string, lsn?: Lsn, ancestorBranch = "main") =>
    neon.local.createBranch(name, {
      ancestorBranch,
      ...(lsn === undefined ? {} : { ancestorLsn: lsn }),
    });
  const now = await walPosition(main);
  const began = performance.now();
  await assert.rejects(
    branch("future", addLsn(now, 1 << 20)),
    /Cannot branch "main".*: it ends at/,
  );
  assert.ok(
    performance.now() - began < 5000,
    "a position that nobody has written is not waited for",
  );
  const start = parseLsn(neon.tenant.startLsn);
  await assert.rejects(branch("early", addLsn(start, -8)), /Cannot branch .*: it begins at 0\//);
  await assert.rejects(branch("nowhere", parseLsn("0/8")), /Cannot branch .*: it begins at 0\//);
  await branch("twin");
  await assert.rejects(branch("twin"), /"twin": it already names timeline/);
  await assert.rejects(branch("orphan", undefined, "nobody"), /branch "nobody".*it has main, twin/);
  await assert.rejects(
    neon.run("timeline", "branch", "--branch-name", "x", "--ancestor-start-lsn", "zero"),
    /zero/,
  );
  // Where the ancestor begins there is something to see already, and nothing of what came later.
  await branch("origin", start);
  const origin = await connectTo(neon, "origin");
  assert.deepEqual([...await origin`select to_regclass('visited') as found`], [{ found: null }]);
  const names = (await neon.local.listTimelines()).map((timeline) => timeline.branch_name);
  assert.deepEqual(names.sort(), ["main", "origin", "twin"], "a refused branch leaves nothing");
});
