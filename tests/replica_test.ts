/**
 * Read replicas: PostgreSQL as a hot standby that begins anywhere in constant time, follows its
 * primary through the safekeepers, and sees exactly what has committed.
 */
import assert from "node:assert/strict";
import { readArenaSettings } from "../compute/lazy_files/arena.ts";
import { PAGE_SIZE, WAL_SEGMENT_SIZE } from "../libs/postgres/constants.ts";
import { parseLsn } from "../libs/utils/lsn.ts";
import { runNeon, type Sql, type TestNeon, testWithNeon } from "./harness.ts";
import { seededRandom } from "./load/random.ts";
import { createLedger, Writers } from "./load/writers.ts";
import { PageOracle } from "./page_oracle/oracle.ts";
import { firstWorkload, openSession, runAll, secondWorkload } from "./page_oracle/workload.ts";
import { processesIn } from "./support/processes.ts";
import { caughtUp } from "./support/replicas.ts";
import { until } from "./support/waiting.ts";
import { endWalBefore } from "./support/wal_position.ts";

async function startReplica(neon: TestNeon, name = "replica", branch = "main"): Promise<Sql> {
  return neon.connect(await neon.local.startEndpoint(name, { mode: "Replica", branch }));
}

async function names(sql: Sql): Promise<string[]> {
  return (await sql`select name from t order by 1`).map((row) => row["name"]);
}

async function statusOf(neon: TestNeon, name: string): Promise<string | undefined> {
  return (await neon.local.listEndpoints()).find((entry) => entry.endpoint === name)?.status;
}

const PREPARING = { settings: { max_prepared_transactions: "5" } };

testWithNeon("a replica sees what was open at its start when that commits", {}, async (neon) => {
  const endpoint = await neon.local.startEndpoint("main", PREPARING);
  const main = neon.connect(endpoint);
  const [open, rolledBack, silent, locker] = [0, 1, 2, 3].map(() => neon.connect(endpoint));
  await main`create table t(name text)`;
  await main`create table changed(a int)`;
  await main`create table kept(a int)`;
  await main`insert into t values ('committed')`;
  await main.unsafe(`begin; insert into t values ('prepared'); savepoint a;
    insert into t values ('prepared sub'); lock kept in access exclusive mode;
    prepare transaction 'p'`);
  await main.unsafe(`begin; insert into t values ('prepared and dropped');
    prepare transaction 'q'`);
  await open!.unsafe(`begin; insert into t values ('open'); savepoint a;
    insert into t values ('sub'); savepoint b; insert into t values ('undone');
    rollback to savepoint b; insert into t values ('sub of sub')`);
  await rolledBack!.unsafe("begin; insert into t values ('rolled back')");
  await silent!.unsafe("begin; select txid_current()"); // an xid of which no record speaks
  await locker!.unsafe("begin; alter table changed add column b int default 7");
  await main`insert into t values ('last')`;

  const replica = await startReplica(neon);
  assert.deepEqual(await names(replica), ["committed", "last"]);
  await assert.rejects(replica`insert into t values ('x')`, /read-only transaction/);
  await replica`set lock_timeout = '50ms'`;
  for (const locked of ["changed", "kept"]) {
    await assert.rejects(replica.unsafe(`select from ${locked}`), /lock timeout/, locked);
  }

  await open!.unsafe("insert into t values ('after'); commit");
  await rolledBack!.unsafe("rollback");
  await silent!.unsafe("insert into t values ('silent'); commit");
  await locker!.unsafe("insert into changed values (1); commit");
  await caughtUp(replica, main);
  const now = ["after", "committed", "last", "open", "silent", "sub", "sub of sub"];
  assert.deepEqual(await names(replica), now);
  assert.deepEqual([...await replica`select * from changed`], [{ a: 1, b: 7 }]);
  await assert.rejects(replica`select from kept`, /lock timeout/);

  // The primary starts again: what was open has ended, what is prepared has not.
  await open!.unsafe("begin; insert into t values ('lost')");
  await neon.closeClients();
  await neon.local.stopEndpoint("main", "immediate");
  const again = neon.connect(await neon.local.startEndpoint("main"));
  const other = await startReplica(neon, "other");
  const before = neon.connect(await neon.local.startEndpoint("replica"));
  await caughtUp(before, again);
  for (const sql of [before, other]) {
    assert.deepEqual(await names(sql), now);
    await sql`set lock_timeout = '50ms'`;
    await assert.rejects(sql`select from kept`, /lock timeout/);
  }
  await again`commit prepared 'p'`;
  await again`rollback prepared 'q'`;
  for (const sql of [before, other]) {
    await caughtUp(sql, again);
    assert.deepEqual(await names(sql), [...now, "prepared", "prepared sub"].sort());
    assert.equal((await sql`select from kept`).count, 0);
  }
});

testWithNeon("a replica starts wherever the WAL ends", {}, async (neon) => {
  const main = neon.connect(await neon.local.startEndpoint("main"));
  await main`create table t(n int)`;
  const ends: [string, () => Promise<unknown>][] = [
    ...[0, 8, 16, 24, 112].map((left): [string, () => Promise<unknown>] => [
      `${left} bytes before the end of a page`,
      () => endWalBefore(main, PAGE_SIZE, left),
    ]),
    ["at the end of a segment, after a record of many pages", () => {
      return endWalBefore(main, WAL_SEGMENT_SIZE, 0);
    }],
    ["after a switch", () => main`select pg_switch_wal()`],
  ];
  for (const [n, [where, end]] of ends.entries()) {
    await end();
    const replica = await startReplica(neon, `r${n}`);
    const [row] = await replica`select pg_last_wal_replay_lsn()::text as lsn`;
    await main`insert into t values (${n})`;
    await caughtUp(replica, main);
    assert.equal((await replica`select from t`).count, n + 1, `${where}: ${row!["lsn"]}`);
    await neon.local.stopEndpoint(`r${n}`, "immediate");
  }
});

const ACCOUNTS = 20;
/** PostgreSQL alone would need 10 s to notice, and never get away when it connects to such a one. */
const SOURCE_MS_MAX = 8000;

/** Moves amounts between accounts, half of it in a subtransaction, until told to stop. */
async function transfer(port: number, seed: string, goesOn: () => boolean): Promise<void> {
  const [random, session] = [seededRandom(seed), await openSession(port)];
  const add = (amount: number) =>
    `UPDATE accounts SET amount = amount + ${amount} WHERE id = ${random.between(1, ACCOUNTS)}`;
  while (goesOn()) {
    const amount = random.between(1, 9);
    const ending = random.between(0, 9) === 0 ? "ROLLBACK" : "COMMIT";
    try {
      await session.query(
        `BEGIN; ${add(amount)}; SAVEPOINT a; ${add(1000)}; ROLLBACK TO SAVEPOINT a;
         SAVEPOINT b; ${add(-amount)}; RELEASE SAVEPOINT b; ${ending}`,
      );
    } catch (thrown) {
      if (!/deadlock/.test(String(thrown))) throw thrown;
      await session.query("ROLLBACK");
    }
  }
  session.close();
}

testWithNeon("replicas that start under load see whole transactions", {}, async (neon) => {
  const { port, ...endpoint } = await neon.local.startEndpoint("main");
  const main = neon.connect({ port, ...endpoint });
  await createLedger(main);
  await main`create table accounts as select id, 0 as amount
    from generate_series(1, ${ACCOUNTS}::int) id`;
  const writers = new Writers(port, 2);
  writers.start();
  let loading = true;
  const transfers = [1, 2, 3].map((n) => transfer(port, `transfer ${n}`, () => loading));
  const replicas: Sql[] = [];
  try {
    for (const name of ["a", "b", "c", "d"]) {
      await writers.more(50);
      const before = writers.acknowledged;
      const replica = await startReplica(neon, name);
      for (let i = 0; i < 50; i++) {
        const [row] = await replica`select (select sum(amount)::int from accounts) as sum,
          (select count(*)::int from ledger) as rows,
          (select sum(last)::int from
            (select max(number) as last from ledger group by writer) l) as last`;
        assert.equal(row!["sum"], 0, "transfers are seen whole or not at all");
        assert.equal(row!["rows"], row!["last"], "of each writer the first rows are seen");
        assert.ok(row!["rows"] >= before, "what was acknowledged before the start is seen");
      }
      replicas.push(replica);
    }
  } finally {
    loading = false;
    await Promise.all([writers.stop(), ...transfers]);
  }
  const accounts = (sql: Sql) => sql`select id, amount from accounts order by id`;
  for (const replica of replicas) {
    await caughtUp(replica, main);
    await writers.check(replica);
    assert.deepEqual([...await accounts(replica)], [...await accounts(main)]);
  }
});

testWithNeon("transactions with very many subtransactions", {}, async (neon) => {
  const endpoint = await neon.local.startEndpoint("main");
  const [main, open] = [neon.connect(endpoint), neon.connect(endpoint)];
  await main`create table t(i int)`;
  const subtransactions = (count: number) =>
    `do $$ begin for i in 1..${count} loop
      begin insert into t values (i); exception when division_by_zero then null; end;
    end loop; end $$`;
  // More than PostgreSQL's own list has room for: 65 for each of some 120 processes.
  await open.unsafe(`begin; ${subtransactions(12_000)}`);
  await main`select pg_current_wal_flush_lsn()`;
  await main`insert into t values (0)`;
  const replica = await startReplica(neon);
  const count = async () => (await replica`select count(*)::int as n from t`)[0]!["n"];
  assert.equal(await count(), 1);
  await open.unsafe(`${subtransactions(200)}; commit`);
  await caughtUp(replica, main);
  assert.equal(await count(), 12_201);
});

testWithNeon("definitions, vacuum and many pages on a replica", {}, async (neon) => {
  let { port } = await neon.local.startEndpoint("main", PREPARING);
  const copyFile = `${neon.local.directory}/compute/copied.txt`;
  const lines = Array.from({ length: 30_000 }, (_, i) => `${i}\t${"z".repeat(i % 60)}\n`);
  Deno.writeTextFileSync(copyFile, lines.join(""));
  const setting = await openSession(port);
  await runAll(setting, ["ALTER SYSTEM SET autovacuum = off"]);
  setting.close();
  await firstWorkload(port, copyFile);
  const replica = await startReplica(neon);
  await neon.local.stopEndpoint("main"); // what follows begins with no page in memory
  ({ port } = await neon.local.startEndpoint("main"));
  await secondWorkload(port);
  const main = await openSession(port);
  await runAll(main, [
    "DROP TABLE hot",
    "TRUNCATE emptied",
    "INSERT INTO emptied SELECT generate_series(1, 5000)",
    "CREATE TABLE fresh AS SELECT i, md5(i::text) AS v FROM generate_series(1, 5000) i",
    "CREATE INDEX ON fresh(v)",
    "VACUUM FULL copied",
    "DELETE FROM shrunk WHERE i > 10",
    "VACUUM shrunk",
    "DROP DATABASE by_file",
    "CREATE DATABASE again STRATEGY file_copy TEMPLATE template0",
    "ALTER TABLE wide ADD COLUMN extra int DEFAULT 3",
    "CHECKPOINT",
  ]);
  const [[lsn]] = (await main.query("SELECT pg_current_wal_flush_lsn()")).rows as [[string]];
  const [[byWal]] = (await main.query("SELECT oid FROM pg_database WHERE datname = 'by_wal'"))
    .rows as [[string]];
  main.close();
  const client = neon.connect(await neon.local.startEndpoint("main"));
  await caughtUp(replica, client);
  const content = (sql: Sql) =>
    sql`select md5(string_agg(c::text, '' order by id)) as copied,
      (select md5(string_agg(f::text, '' order by i)) from fresh f) as fresh,
      (select count(*)::int from emptied) as emptied, (select count(*)::int from shrunk) as shrunk,
      (select md5(string_agg(w::text, '' order by id)) from wide w) as wide,
      (select string_agg(datname, ' ' order by datname) from pg_database) as databases
      from copied c`;
  assert.deepEqual([...await content(replica)], [...await content(client)]);
  await assert.rejects(replica`select from hot`, /does not exist/);
  await replica`checkpoint`;
  const oracle = await PageOracle.compare(neon, {
    endpoint: "replica",
    branch: "main",
    lsn: parseLsn(lsn),
    copiedByWal: [Number(byWal)],
  });
  assert.deepEqual(oracle.differences.slice(0, 20), [], `${oracle.differences.length} differences`);
  const { written, fetched, absent } = oracle.pages;
  console.log(`${written} pages written by replay, ${fetched} fetched, ${absent} not read`);
  assert.ok(written > 500 && fetched > 10 && absent > 100);
});

/** A snapshot on the replica, and a count of what it sees. */
async function beginReading(port: number) {
  const session = await openSession(port);
  const value = async (sql: string) => (await session.query(sql)).rows[0]![0];
  await session.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
  const count = () => value("SELECT count(*) FROM t");
  assert.equal(await count(), "1000");
  const xmin = await value("SELECT pg_snapshot_xmin(pg_current_snapshot())");
  return { count, xmin, end: () => session.close() };
}

testWithNeon("vacuum on the primary, with and without feedback", {}, async (neon) => {
  const main = neon.connect(await neon.local.startEndpoint("main"));
  await main`alter system set autovacuum = off`;
  await main`select pg_reload_conf()`;
  const replica = await startReplica(neon);
  const { port } = await neon.local.startEndpoint("replica");
  await replica`alter system set max_standby_streaming_delay = 0`;
  await replica`select pg_reload_conf()`;
  const heldBack = async () => {
    const [slot] = await main`select xmin::text as xmin from pg_replication_slots`;
    return (slot?.["xmin"] ?? null) as string | null; // there is a slot once it is needed
  };
  await main`create table t as select generate_series(1, 1000) i`;
  await caughtUp(replica, main);
  const reader = await beginReading(port);
  assert.equal(await heldBack(), null);
  await main`delete from t`;
  await main`vacuum t`;
  await caughtUp(replica, main);
  await assert.rejects(
    reader.count(),
    /conflict with recovery|closed the connection|Connection reset/,
  );
  reader.end();

  await replica`alter system set hot_standby_feedback = on`;
  await replica`select pg_reload_conf()`;
  await main`insert into t select generate_series(1, 1000) i`;
  await caughtUp(replica, main);
  const patient = await beginReading(port);
  await until("the primary knows it", async () => await heldBack() === patient.xmin);
  await main`delete from t`;
  await main`vacuum t`;
  await caughtUp(replica, main);
  assert.equal(await patient.count(), "1000");
  patient.end();
  await neon.local.stopEndpoint("replica");
  await until("nothing is held back", async () => await heldBack() === null);
});

function safekeeperOf(neon: TestNeon, port: number): number {
  const { safekeepers } = neon.local.environment().config;
  return safekeepers.find((config) => config.pg_port === port)!.id;
}

/** Pages that are read late are asked for at a later LSN, and are what they must be. */
async function checkReadsMoveOn(neon: TestNeon, whole: Sql, late: Sql[]): Promise<void> {
  for (const endpoint of ["main", "again"]) {
    const arena = `${neon.local.directory}/compute/endpoints/${endpoint}/arena`;
    await until(`reads of ${endpoint} move on`, () => {
      const { requestLsn, notModifiedSince } = readArenaSettings(arena);
      return Promise.resolve(requestLsn > notModifiedSince);
    });
  }
  for (const table of ["unread", "kept"]) {
    const sum = async (sql: Sql) => [
      ...await sql.unsafe(
        `select count(*), md5(string_agg(i || v, ',' order by i, v)) as rows from ${table}`,
      ),
    ];
    for (const sql of late) assert.deepEqual(await sum(sql), await sum(whole), table);
  }
}

/** A safekeeper that hangs: the replica streams from it, and another one begins with it. */
async function checkHungSource(
  neon: TestNeon,
  source: () => Promise<number>,
  write: (name: string) => Promise<void>,
): Promise<void> {
  const hung = await source();
  neon.signalRole(`safekeeper ${hung}`, "SIGSTOP");
  try {
    const began = performance.now();
    await write("its safekeeper hangs");
    const tookMs = performance.now() - began;
    assert.ok(tookMs < SOURCE_MS_MAX, `it went on after ${tookMs} ms`);
    assert.notEqual(await source(), hung);
  } finally {
    neon.signalRole(`safekeeper ${hung}`, "SIGCONT");
  }
  neon.signalRole("safekeeper 1", "SIGSTOP");
  try {
    await write("the first one hangs");
    const other = await startReplica(neon, "other");
    await write("the first one still hangs");
    await until(
      "the other has it",
      async () => (await names(other)).includes("the first one still hangs"),
    );
  } finally {
    neon.signalRole("safekeeper 1", "SIGCONT");
  }
  await neon.local.stopEndpoint("other");
}

testWithNeon("replicas when what they depend on is killed", { safekeepers: 3 }, async (neon) => {
  let main = neon.connect(await neon.local.startEndpoint("main"));
  await main`create table t(name text)`;
  await main`create table cold as select i, repeat('c', 200) as v from generate_series(1, 5000) i`;
  let replica = await startReplica(neon);
  const write = async (name: string) => {
    await main`insert into t values (${name})`;
    await caughtUp(replica, main);
    assert.ok((await names(replica)).includes(name));
  };
  await write("first");
  // The replica has these from replay; the primary that starts now, and another replica, have not
  await main`create table unread as select i, repeat('u', 300) v from generate_series(1, 9000) i`;
  await main`create table kept as select * from unread`;
  await main.end();
  await neon.local.stopEndpoint("main");
  main = neon.connect(await neon.local.startEndpoint("main"));
  const again = await startReplica(neon, "again");
  await main`update unread set v = 'changed' where i % 1000 = 0`;
  await main`delete from unread where i > 8000`;
  await main`vacuum unread`;
  await main`update kept set v = 'changed' where ctid in ('(7,1)', '(70,2)', '(170,3)')`;
  await caughtUp(again, main);
  const source = async () =>
    (await replica`select sender_port as port from pg_stat_wal_receiver`)[0]?.["port"];
  const port = await until("the replica streams", source);
  await neon.killRole(`safekeeper ${safekeeperOf(neon, port)}`);
  await write("without its safekeeper");
  assert.notEqual(await until("it streams again", source), port);
  await neon.local.start();
  await write("with all of them again");
  await checkHungSource(
    neon,
    async () => safekeeperOf(neon, await until("it streams", source)),
    write,
  );

  await neon.killRole("pageserver");
  await write("without the pageserver");
  await neon.local.start();
  assert.equal((await replica`select from cold`).count, 5000);

  const pid = neon.postmasterPid("replica");
  await neon.killRole("compute");
  // Nobody hands the primary's commits on, and the replica still answers.
  assert.equal((await names(replica)).length, 7);
  await neon.local.start();
  await write("under another host");
  await checkReadsMoveOn(neon, replica, [main, again]);
  assert.equal(neon.postmasterPid("replica"), pid, "it was taken over");
  assert.equal(await statusOf(neon, "replica"), "running");

  neon.killPostgres("replica");
  await until("it is seen", async () => await statusOf(neon, "replica") === "crashed");
  replica = await startReplica(neon);
  await write("after its own crash");
  assert.equal((await names(replica)).length, 9);
  neon.killPostgres("main");
  await until("it is seen", async () => await statusOf(neon, "main") === "crashed");
  const next = neon.connect(await neon.local.startEndpoint("main"));
  await next`insert into t values ('of the next primary')`;
  await caughtUp(replica, next);
  assert.equal((await names(replica)).length, 10);
});

testWithNeon("a replica that is promoted writes nothing and ends", {}, async (neon) => {
  const main = neon.connect(await neon.local.startEndpoint("main"));
  await main`create table t(name text)`;
  const replica = await startReplica(neon);
  const writer = await openSession((await neon.local.startEndpoint("replica")).port);
  const writeUntilRefused = async () => {
    for (;;) {
      try {
        await writer.query("INSERT INTO t VALUES ('nowhere')");
        return "acknowledged";
      } catch (thrown) {
        if (!/read-only transaction/.test(String(thrown))) return String(thrown);
      }
    }
  };
  await replica`select pg_promote(false)`;
  assert.match(await writeUntilRefused(), /terminating connection|closed the connection/);
  writer.close();
  const directory = `${neon.local.directory}/compute/endpoints/replica`;
  await until("it has ended", async () => await statusOf(neon, "replica") === "crashed");
  await until("so have its processes", () => processesIn(directory).length === 0);
  assert.deepEqual(await names(main), []);
  assert.deepEqual(await names(await startReplica(neon)), []);
});

testWithNeon("one primary a branch, any number of replicas, on branches too", {}, async (neon) => {
  const main = neon.connect(await neon.local.startEndpoint("main"));
  await main`create table t(name text)`;
  await main`insert into t values ('main')`;
  const refused = await runNeon(neon.local.directory, [
    ..."endpoint start second --branch-name main".split(" "),
  ]);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /"main" already is the primary of timeline .*--hot-standby true/);
  await neon.run(..."endpoint create one --branch-name main --hot-standby true".split(" "));
  await neon.run("endpoint", "start", "one");
  await neon.run(..."endpoint start two --branch-name main --hot-standby true".split(" "));
  const list = await neon.run("endpoint", "list");
  assert.match(list, / main .* running +Primary\n[^]* one .* --- +running +Replica\n/);
  assert.match(await neon.run("status"), / two +Replica +127/);

  // A replica of a branch that nobody has written yet, where the ancestor has something open
  const open = neon.connect(await neon.local.startEndpoint("main"));
  await open.unsafe("begin; insert into t values ('open'); lock t in access exclusive mode");
  await main`select pg_logical_emit_message(false, 'x', 'flushed')`;
  await main`create table other()`;
  await neon.local.createBranch("branch");
  const early = await startReplica(neon, "early", "branch");
  assert.deepEqual(await names(early), ["main"]);
  const branch = neon.connect(await neon.local.startEndpoint("branch"));
  await branch`insert into t values ('branch')`;
  await caughtUp(early, branch);
  assert.deepEqual(await names(early), ["branch", "main"]);
  const late = await startReplica(neon, "late", "branch");
  assert.deepEqual(await names(late), ["branch", "main"]);
  await open`rollback`;
});
