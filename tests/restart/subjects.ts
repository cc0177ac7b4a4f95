/**
 * What has to survive a restart, subject by subject: SQL before it, and what must be so after it.
 * Each subject keeps to a schema of its own name, so they can be told apart in a failure.
 */
import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { Sql } from "../harness.ts";

/** Opens a session, on the endpoint as it is at the time. */
export type Connect = (database?: string) => Sql;

/** One subject. */
interface Subject {
  readonly name: string;
  before(sql: Sql, connect: Connect): Promise<unknown>;
  after(sql: Sql, connect: Connect): Promise<unknown>;
}

const COPIED_ROWS = 100_000;

/** One value of one row. */
async function value(sql: Sql, query: string): Promise<unknown> {
  const [row] = await sql.unsafe(query);
  return Object.values(row!)[0];
}

const count = (sql: Sql, from: string) => value(sql, `select count(*)::int from ${from}`);

async function expectRows(sql: Sql, query: string, expected: unknown[][]): Promise<void> {
  const rows = await sql.unsafe(query);
  assert.deepEqual(rows.map((row) => Object.values(row)), expected, query);
}

const preparedTransactions: Subject = {
  name: "prepared",
  async before(sql) {
    await sql.unsafe(`
      create table prepared.t(id int primary key, v text);
      insert into prepared.t select i, 'old' from generate_series(1, 10) i`);
    await sql.unsafe(`
      begin; update prepared.t set v = 'new' where id <= 5; savepoint s;
      insert into prepared.t values (100, 'sub'); release s; prepare transaction 'to commit'`);
    await sql.unsafe(`
      begin; insert into prepared.t values (200, 'no'); prepare transaction 'to roll back'`);
    await sql.unsafe(`
      begin; create table prepared.made as select i from generate_series(1, 1000) i;
      prepare transaction 'to create'`);
  },
  async after(sql) {
    await expectRows(sql, "select gid from pg_prepared_xacts order by 1", [
      ["to commit"],
      ["to create"],
      ["to roll back"],
    ]);
    assert.equal(await value(sql, "show max_prepared_transactions"), "5");
    assert.equal(await count(sql, "prepared.t where v = 'old'"), 10);
    await assert.rejects(
      sql.unsafe("select * from prepared.t where id = 1 for update nowait"),
      /could not obtain lock/,
    );
    await sql.unsafe("commit prepared 'to commit'");
    await sql.unsafe("rollback prepared 'to roll back'");
    await sql.unsafe("commit prepared 'to create'");
    await expectRows(sql, "select v, count(*)::int from prepared.t group by 1 order by 1", [
      ["new", 5],
      ["old", 5],
      ["sub", 1],
    ]);
    assert.equal(await count(sql, "prepared.made"), 1000);
    await sql.unsafe(
      "begin; insert into prepared.t values (300, 'later'); prepare transaction 'x'",
    );
    await sql.unsafe("commit prepared 'x'");
    assert.equal(await count(sql, "prepared.t"), 12);
  },
};

const sequences: Subject = {
  name: "sequences",
  async before(sql) {
    await sql.unsafe(`
      create sequence sequences.s; create sequence sequences.jumpy increment 10 cache 5;
      create sequence sequences.down increment -1 minvalue -1000000;
      create table sequences.t(id int generated always as identity, v int);
      insert into sequences.t(v) select i from generate_series(1, 77) i;
      select nextval('sequences.s') from generate_series(1, 45);
      select nextval('sequences.jumpy') from generate_series(1, 3);
      select nextval('sequences.down') from generate_series(1, 40)`);
  },
  async after(sql) {
    const next = async (name: string) =>
      Number(await value(sql, `select nextval('sequences.${name}')`));
    const s = await next("s");
    assert.ok(s > 45 && s <= 45 + 33, `nextval ${s} after 45`);
    assert.ok(await next("jumpy") > 21);
    assert.ok(await next("down") < -40);
    const id = await value(sql, "insert into sequences.t(v) values (0) returning id");
    assert.ok(Number(id) > 77 && Number(id) <= 77 + 33, `identity ${id} after 77`);
  },
};

const subtransactions: Subject = {
  name: "subxacts",
  async before(sql, connect) {
    await sql.unsafe(`
      create table subxacts.t(id int primary key, v text);
      do $$ begin
        for i in 1..300 loop
          begin
            insert into subxacts.t values (i, 'kept');
            if i % 3 = 0 then raise division_by_zero; end if;
          exception when division_by_zero then null; end;
        end loop;
      end $$;
      begin; insert into subxacts.t values (1000, 'outer'); savepoint a;
      insert into subxacts.t values (1001, 'undone'); savepoint b;
      insert into subxacts.t values (1002, 'undone too'); release b; rollback to a;
      insert into subxacts.t values (1003, 'outer'); commit`);
    // Left open: gone, with all its subtransactions, more than a backend's array of 64 holds.
    await connect().unsafe(`begin; do $$ begin
      for i in 1..100 loop
        begin insert into subxacts.t values (2000 + i, 'x'); exception when others then null; end;
      end loop; end $$`);
  },
  async after(sql) {
    await expectRows(sql, "select v, count(*)::int from subxacts.t group by 1 order by 1", [
      ["kept", 200],
      ["outer", 2],
    ]);
    assert.equal(await count(sql, "subxacts.t where id % 3 = 0 and id < 1000"), 0);
    await sql.unsafe("insert into subxacts.t select i, 'again' from generate_series(2001, 2100) i");
  },
};

const multixacts: Subject = {
  name: "multixacts",
  async before(sql, connect) {
    await sql.unsafe(`
      create table multixacts.t(id int primary key, v int);
      insert into multixacts.t select i, 0 from generate_series(1, 2500) i`);
    const [a, b, c] = [connect(), connect(), connect()];
    await a.unsafe("begin; select 1 from multixacts.t for key share");
    // One multixact for each subtransaction: more than a page of offsets, and of members.
    await b.unsafe(`do $$ begin for i in 1..2400 loop
      begin perform 1 from multixacts.t where id = i for share;
      exception when division_by_zero then null; end; end loop; end $$`);
    await b.unsafe("update multixacts.t set v = 1 where id % 10 = 0");
    await b.unsafe("begin; select 1 from multixacts.t where id < 20 for share");
    await c.unsafe("begin; select 1 from multixacts.t where id < 10 for share");
  },
  async after(sql) {
    assert.equal(await count(sql, "multixacts.t where v = 1"), 250);
    assert.equal(await count(sql, "(select from multixacts.t for update nowait) locked"), 2500);
    await sql.unsafe("update multixacts.t set v = v + 1");
    await sql.unsafe("vacuum (freeze) multixacts.t");
    await expectRows(sql, "select v, count(*)::int from multixacts.t group by 1 order by 1", [
      [1, 2250],
      [2, 250],
    ]);
  },
};

const rewrites: Subject = {
  name: "rewrites",
  async before(sql) {
    await sql.unsafe(`
      create table rewrites.full(id int primary key, v text);
      insert into rewrites.full select i, repeat('f', i % 90) from generate_series(1, 5000) i;
      delete from rewrites.full where id % 2 = 0;
      create table rewrites.clustered(id int, v text);
      create index clustered_v on rewrites.clustered(v);
      insert into rewrites.clustered select i, md5(i::text) from generate_series(1, 3000) i;
      create table rewrites.emptied(id int primary key);
      insert into rewrites.emptied select generate_series(1, 3000);
      create table rewrites.retyped(id int, v int);
      insert into rewrites.retyped select i, i from generate_series(1, 3000) i`);
    for (
      const statement of [
        "vacuum full rewrites.full",
        "cluster rewrites.clustered using clustered_v",
        "truncate rewrites.emptied",
        "insert into rewrites.emptied select generate_series(11, 20)",
        "alter table rewrites.retyped alter v type text",
        "create index retyped_v on rewrites.retyped(v)",
        "create unique index concurrently retyped_id on rewrites.retyped(id)",
        "reindex table rewrites.full",
        "reindex table concurrently rewrites.clustered",
        "reindex table pg_attribute",
        "vacuum full pg_proc",
        "vacuum full pg_authid",
        "create table rewrites.gone as select generate_series(1, 3000) i",
        "drop table rewrites.gone",
        "begin; truncate rewrites.full; insert into rewrites.full values (1, 'undone'); rollback",
      ]
    ) await sql.unsafe(statement);
  },
  async after(sql) {
    assert.equal(await count(sql, "rewrites.full where id % 2 = 1"), 2500);
    await sql.unsafe("set enable_seqscan = off");
    assert.equal(
      await count(sql, "rewrites.clustered c where v = md5(id::text) and v >= '0'"),
      3000,
    );
    assert.equal(await count(sql, "rewrites.retyped where v = '2999'"), 1);
    await sql.unsafe("reset enable_seqscan");
    await expectRows(sql, "select min(id), max(id) from rewrites.emptied", [[11, 20]]);
    await assert.rejects(sql.unsafe("select from rewrites.gone"), /does not exist/);
    await assert.rejects(
      sql.unsafe("insert into rewrites.retyped values (5, 'again')"),
      /duplicate key/,
    );
  },
};

const largeValues: Subject = {
  name: "toast",
  async before(sql) {
    await sql.unsafe(`
      create table toast.t(id int primary key, packed text, plain text, hash text);
      alter table toast.t alter plain set storage external;
      insert into toast.t select i, p, q, md5(p || q) from (
        select i, string_agg(md5((i * n)::text), '') as p, repeat(md5(i::text), 30 * i) as q
        from generate_series(1, 40) i, generate_series(1, 600) n group by i) made;
      update toast.t set plain = plain || 'tail', hash = md5(packed || plain || 'tail')
        where id % 3 = 0;
      delete from toast.t where id % 5 = 0;
      create table toast.object as
        select lo_from_bytea(0, decode(repeat('abcd', 50000), 'hex')) as oid`);
  },
  async after(sql) {
    assert.equal(await count(sql, "toast.t where hash = md5(packed || plain)"), 32);
    assert.equal(
      await value(sql, "select length(lo_get(oid)) from toast.object"),
      100_000,
    );
  },
};

const unlogged: Subject = {
  name: "unlogged",
  async before(sql) {
    await sql.unsafe(`
      create unlogged table unlogged.t(id int generated always as identity primary key, v text);
      create index on unlogged.t(v);
      insert into unlogged.t(v) select repeat(md5(i::text), 100) from generate_series(1, 500) i;
      create unlogged table unlogged.became_logged(id int primary key);
      insert into unlogged.became_logged select generate_series(1, 500);
      alter table unlogged.became_logged set logged;
      create table unlogged.became_unlogged(id int primary key);
      insert into unlogged.became_unlogged select generate_series(1, 500);
      alter table unlogged.became_unlogged set unlogged`);
  },
  async after(sql) {
    assert.equal(await count(sql, "unlogged.t"), 0);
    assert.equal(await count(sql, "unlogged.became_unlogged"), 0);
    assert.equal(await count(sql, "unlogged.became_logged"), 500);
    await sql.unsafe("insert into unlogged.t(v) select i::text from generate_series(1, 300) i");
    await sql.unsafe("set enable_seqscan = off");
    assert.equal(await count(sql, "unlogged.t where v = '299'"), 1);
    await sql.unsafe("reset enable_seqscan");
    await sql.unsafe("insert into unlogged.became_unlogged select generate_series(1, 500)");
    await sql.unsafe("vacuum unlogged.t");
  },
};

const databases: Subject = {
  name: "databases",
  async before(sql, connect) {
    for (
      const statement of ["create database origin", "create database doomed strategy file_copy"]
    ) {
      await sql.unsafe(statement);
    }
    const origin = connect("origin");
    await origin.unsafe(`
      create table t(id int primary key, v text);
      insert into t select i, md5(i::text) from generate_series(1, 2000) i`);
    await origin.end();
    for (
      const statement of [
        "create database by_wal template origin strategy wal_log",
        "create database by_file template origin strategy file_copy",
        "create database renamed_later template origin strategy file_copy",
        "alter database renamed_later rename to renamed",
        "alter database by_wal set work_mem = '7MB'",
        "drop database doomed",
        "drop database origin",
      ]
    ) await sql.unsafe(statement);
    const byFile = connect("by_file");
    await byFile.unsafe("delete from t where id > 1000");
    await byFile.end();
  },
  async after(sql, connect) {
    await expectRows(
      sql,
      "select datname from pg_database where datname !~ '^template|^postgres' order by 1",
      [["by_file"], ["by_wal"], ["renamed"]],
    );
    for (
      const [database, rows] of [["by_wal", 2000], ["by_file", 1000], ["renamed", 2000]] as const
    ) {
      const client = connect(database);
      assert.equal(await count(client, "t where v = md5(id::text)"), rows, database);
      await client.unsafe("insert into t values (5000, 'later')");
      if (database === "by_wal") assert.equal(await value(client, "show work_mem"), "7MB");
      await client.end();
    }
    await sql.unsafe("create database origin template by_file");
    await sql.unsafe("drop database origin");
  },
};

const temporaryTables: Subject = {
  name: "temporary",
  async before(_sql, connect) {
    await connect().unsafe(`
      create temp table scratch(id int primary key, v text);
      insert into scratch select i, repeat('t', 500) from generate_series(1, 1000) i`);
  },
  async after(sql, connect) {
    assert.equal(await value(sql, "select to_regclass('scratch')"), null);
    // More sessions than had temporary tables: one of them gets the namespace of the one that had.
    const sessions = [1, 2, 3, 4, 5, 6].map(() => connect());
    for (const [i, session] of sessions.entries()) {
      await session.unsafe("create temp table scratch(id int primary key, v text)");
      await session.unsafe(`insert into scratch select i, 'again' from generate_series(1, ${i}) i`);
      assert.equal(await count(session, "scratch"), i);
    }
    for (const session of sessions) await session.end();
  },
};

const copied: Subject = {
  name: "copied",
  async before(sql) {
    await sql.unsafe(
      "create table copied.t(id int primary key, v text); create index on copied.t(v)",
    );
    const lines = function* () {
      for (let i = 0; i < COPIED_ROWS; i += 1000) {
        yield Array.from({ length: 1000 }, (_, n) => `${i + n}\trow ${(i + n) % 977}\n`).join("");
      }
    };
    await pipeline(Readable.from(lines()), await sql`copy copied.t from stdin`.writable());
    await sql.unsafe("vacuum copied.t");
    await sql.unsafe("delete from copied.t where id % 1000 = 7");
  },
  async after(sql) {
    assert.equal(await count(sql, "copied.t"), COPIED_ROWS - COPIED_ROWS / 1000);
    await sql.unsafe("set enable_seqscan = off; set enable_bitmapscan = off");
    assert.equal(await count(sql, "copied.t where id between 0 and 99999"), 99_900);
    assert.equal(await count(sql, "copied.t where v = 'row 976'"), 102);
    await sql.unsafe("reset enable_seqscan; reset enable_bitmapscan");
  },
};

const rolesAndRules: Subject = {
  name: "rules",
  async before(sql) {
    await sql.unsafe(`
      create role reader login password 'secret'; create role group_of_readers;
      grant group_of_readers to reader; alter role reader set work_mem = '9MB';
      create table rules.parent(id int primary key, v text not null check (v <> ''));
      create table rules.child(id int primary key, parent int references rules.parent);
      create type rules.mood as enum ('good', 'bad');
      create table rules.log(what text, mood rules.mood default 'good');
      create function rules.note() returns trigger language plpgsql as
        $$ begin insert into rules.log values (tg_op); return new; end $$;
      create trigger noted after insert on rules.parent for each row execute function rules.note();
      insert into rules.parent values (1, 'one');
      create view rules.seen as select * from rules.parent;
      create materialized view rules.stored as select count(*)::int from rules.parent;
      grant usage on schema rules to group_of_readers;
      grant select on rules.seen to group_of_readers;
      comment on table rules.parent is 'remembered';
      create extension pg_trgm; create extension hstore`);
    await sql.unsafe("alter system set log_min_duration_statement = 12345");
    await sql.unsafe("analyze rules.parent");
  },
  async after(sql) {
    await sql.unsafe("set role reader");
    assert.equal(await count(sql, "rules.seen"), 1);
    await assert.rejects(sql.unsafe("select * from rules.parent"), /permission denied/);
    await sql.unsafe("reset role");
    await sql.unsafe("insert into rules.parent values (2, 'two')");
    await expectRows(sql, "select what, mood from rules.log", [
      ["INSERT", "good"],
      ["INSERT", "good"],
    ]);
    await assert.rejects(sql.unsafe("insert into rules.child values (1, 9)"), /foreign key/);
    await assert.rejects(sql.unsafe("insert into rules.parent values (3, '')"), /check/);
    assert.equal(await value(sql, "select * from rules.stored"), 1);
    assert.equal(
      await value(sql, "select obj_description('rules.parent'::regclass)"),
      "remembered",
    );
    assert.equal(await value(sql, "select similarity('neon', 'neon') = 1"), true);
    assert.equal(await value(sql, "select ('a=>1'::hstore)->'a'"), "1");
    assert.equal(await value(sql, "show log_min_duration_statement"), "12345ms");
    assert.equal(
      await value(sql, "select rolpassword like 'SCRAM%' from pg_authid where rolname = 'reader'"),
      true,
    );
  },
};

const settings: Subject = {
  name: "settings",
  async before(sql) {
    await sql.unsafe("alter system set max_connections = 37");
    await sql.unsafe("alter system set track_commit_timestamp = on");
    // What the storage rests on cannot be set otherwise.
    await sql.unsafe("alter system set synchronous_standby_names = 'nobody'");
    await sql.unsafe("alter system set fsync = off");
    await sql.unsafe("alter system set full_page_writes = on");
  },
  async after(sql) {
    assert.equal(await value(sql, "show max_connections"), "37");
    assert.equal(await value(sql, "show synchronous_standby_names"), "");
    assert.equal(await value(sql, "show fsync"), "on");
    assert.equal(await value(sql, "show full_page_writes"), "off");
    await sql.unsafe("create table settings.t as select 1 as a");
    assert.equal(
      await value(sql, "select pg_xact_commit_timestamp(xmin) <= now() from settings.t"),
      true,
    );
    const older = "select pg_xact_commit_timestamp(xmin) from pg_class where relname = 'pg_class'";
    assert.equal(await value(sql, older), null);
  },
};

/** All subjects. Those at the end leave transactions open that the others would wait for. */
export const SUBJECTS: readonly Subject[] = [
  rewrites,
  databases,
  copied,
  sequences,
  largeValues,
  unlogged,
  rolesAndRules,
  settings,
  temporaryTables,
  preparedTransactions,
  subtransactions,
  multixacts,
];
