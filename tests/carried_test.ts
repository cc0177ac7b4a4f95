/**
 * What stock PostgreSQL does not log, and what is there again all the same after an orderly stop:
 * cumulative statistics and free space maps, in every version, and on branches; and that the WAL by
 * which they travel is WAL like any other.
 */
import assert from "node:assert/strict";
import { ComputeClient } from "../compute/client.ts";
import { PgClient } from "../libs/pgwire/client.ts";
import { type Sql, type TestNeon, testWithNeon } from "./harness.ts";
import { StockPostgres } from "./redo_judge/stock_postgres.ts";
import { binariesOf, testedVersions } from "./support/postgres_versions.ts";
import { until } from "./support/waiting.ts";

const ROWS = 20_000;

/** All versions with NEON_TEST_MATRIX=1; else of each way to keep statistics the oldest, and 18. */
const VERSIONS = testedVersions().filter((major) =>
  Deno.env.get("NEON_TEST_MATRIX") === "1" || [14, 15, 18].includes(major)
);

/** A table of which every other row is deleted: half of each page is free, as VACUUM has noted. */
async function makeRoom(open: () => Promise<Sql>): Promise<void> {
  const first = await open();
  await first.unsafe(`
    CREATE TABLE t (id int, v text) WITH (autovacuum_enabled = off);
    INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(1, ${ROWS}) i;
    DELETE FROM t WHERE id % 2 = 0;
    SELECT count(*) FROM t;`);
  await first.end(); // a session reports what it counted at its end at the latest
  const second = await open();
  await until("the deletion is counted", async () => {
    return (await statistics(second)).n_tup_del === EXPECTED.n_tup_del;
  });
  await second.unsafe("VACUUM t");
  await until("the VACUUM is counted", async () => (await statistics(second)).vacuum_count === 1);
}

async function sizeOf(sql: Sql, table: string): Promise<number> {
  const [row] = await sql.unsafe(`SELECT pg_relation_size('${table}')::int AS bytes`);
  return row!["bytes"];
}

async function fillRoom(sql: Sql): Promise<void> {
  await sql.unsafe(
    `INSERT INTO t SELECT i, repeat('y', 100) FROM generate_series(1, ${ROWS * 0.49}) i`,
  );
}

/** Counters that only sequential scans and changes of the table move. */
async function statistics(sql: Sql): Promise<typeof EXPECTED & { seq_scan: number }> {
  const [row] = await sql.unsafe(`SELECT seq_scan::int, n_tup_ins::int, n_tup_del::int,
    n_live_tup::int, vacuum_count::int FROM pg_stat_user_tables WHERE relname = 't'`);
  return row as unknown as typeof EXPECTED & { seq_scan: number };
}

const EXPECTED = {
  n_tup_ins: ROWS,
  n_tup_del: ROWS / 2,
  n_live_tup: ROWS / 2,
  vacuum_count: 1,
};

async function testVersion(neon: TestNeon, major: number): Promise<void> {
  const { tenantId } = await neon.local.createTenant({ pgVersion: major });
  const open = async (name: string, branch: string) => {
    const endpoint = await neon.local.startEndpoint(name, { tenant: tenantId, branch });
    return neon.connect(endpoint);
  };
  const main = `main${major}`;
  await makeRoom(() => open(main, "main"));
  const bytes = await sizeOf(await open(main, "main"), "t");
  await neon.local.stopEndpoint(main);
  const second = await open(main, "main");
  const kept = await statistics(second);
  const { seq_scan, ...counts } = kept;
  assert.deepEqual(counts, EXPECTED, `statistics of PostgreSQL ${major} after a stop`);
  assert.ok(seq_scan >= 2, `${seq_scan} scans`);
  await neon.run("timeline", "branch", "--branch-name", "b", "--tenant-id", tenantId);
  await fillRoom(second);
  assert.equal(await sizeOf(second, "t"), bytes, `free space of PostgreSQL ${major} is used`);
  const branch = await open(`b${major}`, "b");
  assert.deepEqual(await statistics(branch), kept, `statistics of PostgreSQL ${major} on a branch`);
  await fillRoom(branch);
  assert.equal(await sizeOf(branch, "t"), bytes, `free space of ${major} is used on a branch`);
  await neon.local.stopEndpoint(main);
  await neon.local.stopEndpoint(`b${major}`);
}

testWithNeon("statistics and free space maps, by PostgreSQL versions", {}, async (neon) => {
  for (const major of VERSIONS) {
    await testVersion(neon, major);
    await neon.closeClients();
  }
});

testWithNeon("autovacuum goes on from what an earlier Postgres counted", {}, async (neon) => {
  const settings = { autovacuum_naptime: "1s" };
  const open = async () => neon.connect(await neon.local.startEndpoint("main", { settings }));
  const first = await open();
  await first.unsafe("ALTER SYSTEM SET autovacuum = off");
  await first.unsafe("SELECT pg_reload_conf()");
  await first.unsafe(`
    CREATE TABLE t (id int, v text);
    INSERT INTO t SELECT i, 'x' FROM generate_series(1, ${ROWS}) i;
    DELETE FROM t WHERE id % 2 = 0;`);
  await first.unsafe("ALTER SYSTEM RESET autovacuum"); // from the next start on
  await first.end();
  await neon.local.stopEndpoint("main");
  const second = await open();
  await until("autovacuum has removed what was deleted before the stop", async () => {
    const [row] = await second`SELECT autovacuum_count::int AS n, n_dead_tup::int AS dead
      FROM pg_stat_user_tables WHERE relname = 't'`;
    return row?.["n"] > 0 && row?.["dead"] === 0;
  });
});

testWithNeon("stock PostgreSQL recovers from an archive across stops", {}, async (neon) => {
  const open = async () => neon.connect(await neon.local.startEndpoint("main"));
  const first = await open();
  await first`CREATE ROLE postgres SUPERUSER LOGIN`;
  const compute = new ComputeClient(neon.local.environment().config.compute.listen_http_addr);
  const { start_lsn } = await compute.endpoint("main");
  await makeRoom(open);
  await neon.local.stopEndpoint("main");
  const second = await open();
  const bytes = await sizeOf(second, "t");
  await second`INSERT INTO t VALUES (-1, 'after the stop')`;
  await neon.local.stopEndpoint("main");
  const stock = new StockPostgres((await binariesOf(17)).binDir);
  try {
    await unpackBackup(neon, start_lsn!, stock.dataDir);
    const archive = copyArchive(neon, stock.directory);
    await stock.start({
      restore_command: `cp '${archive}/%f' %p`,
      hot_standby: "off",
      fsync: "off",
    });
    const client = await stock.connect();
    const ask = async (query: string) => Number((await client.query(query)).rows[0]![0]);
    assert.equal(await ask("SELECT count(*) FROM t"), ROWS / 2 + 1);
    assert.ok(
      await ask("SELECT pg_relation_size('t', 'fsm')") > 0,
      "the free space map came along",
    );
    await client.query(
      `INSERT INTO t SELECT i, repeat('y', 100) FROM generate_series(1, ${ROWS * 0.49}) i`,
    );
    assert.equal(await ask("SELECT pg_relation_size('t')"), bytes, "and it is used");
    client.close();
  } finally {
    await stock.remove();
  }
});

/** A full backup of the timeline as of `lsn`, in place of what is in `dataDir`, to be recovered. */
async function unpackBackup(neon: TestNeon, lsn: string, dataDir: string): Promise<void> {
  const [, port] = neon.local.environment().config.pageservers[0]!.listen_pg_addr.split(":");
  const user = { user: "test", database: "test" };
  const client = await PgClient.connect({ hostname: "127.0.0.1", port: Number(port) }, user);
  const { tenantId, timelineId } = neon.tenant;
  const { uid, gid } = Deno.statSync(dataDir);
  Deno.removeSync(dataDir, { recursive: true });
  Deno.mkdirSync(dataDir, { mode: 0o700 });
  const tar = new Deno.Command("tar", { args: ["-C", dataDir, "-xf", "-"], stdin: "piped" })
    .spawn();
  const writer = tar.stdin.getWriter();
  for await (const part of client.copyOut(`fullbackup ${tenantId} ${timelineId} ${lsn}`)) {
    await writer.write(part.slice());
  }
  await writer.close();
  client.close();
  assert.ok((await tar.status).success);
  Deno.writeTextFileSync(`${dataDir}/recovery.signal`, "");
  const owned = new Deno.Command("chown", { args: ["-R", `${uid}:${gid}`, dataDir] }).outputSync();
  assert.ok(owned.success);
}

/** The safekeeper's segments, the unfinished one too, as an archive; returns its path. */
function copyArchive(neon: TestNeon, directory: string): string {
  const { tenantId, timelineId } = neon.tenant;
  const from = `${neon.local.directory}/safekeepers/sk1/${tenantId}/${timelineId}`;
  const archive = `${directory}/archive`;
  Deno.mkdirSync(archive, { mode: 0o755 });
  for (const { name } of Deno.readDirSync(from)) {
    const segment = /^[0-9A-F]{24}/.exec(name)?.[0];
    if (segment === undefined) continue;
    Deno.copyFileSync(`${from}/${name}`, `${archive}/${segment}`);
    Deno.chmodSync(`${archive}/${segment}`, 0o644);
  }
  return archive;
}
