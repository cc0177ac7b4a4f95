/**
 * WAL in remote storage, with real processes: stock PostgreSQL recovers from the segments alone, a
 * standby and a pageserver that lost everything are fed from there through the safekeepers, and an
 * idle timeline lives in a bucket.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { parse, stringify } from "smol-toml";
import type { SafekeeperConfig } from "../cli/control_plane/config.ts";
import { safekeeperClient } from "../cli/control_plane/clients.ts";
import { PgClient } from "../libs/pgwire/client.ts";
import { TEST_BUCKET, TEST_CREDENTIALS, TestS3 } from "../libs/remote_storage/s3_server_fixture.ts";
import { WAL_SEGMENT_SIZE, WAL_TIMELINE_ID } from "../libs/postgres/constants.ts";
import { segmentName, segmentNumber } from "../libs/postgres/wal/segment.ts";
import { parseAddress } from "../libs/utils/address.ts";
import type { TimelineId } from "../libs/utils/id.ts";
import { type Lsn, parseLsn } from "../libs/utils/lsn.ts";
import { PageserverClient } from "../pageserver/client.ts";
import type { TimelineStatus } from "../safekeeper/client.ts";
import { type Sql, type TestNeon, withNeon } from "./harness.ts";
import { replaceData } from "./ingest_oracle/cluster_files.ts";
import { StockPostgres } from "./redo_judge/stock_postgres.ts";
import { binariesOf } from "./support/postgres_versions.ts";
import { until } from "./support/waiting.ts";

/** About two segments of WAL with rows of all kinds of change. */
async function change(sql: Sql, table: string): Promise<void> {
  await sql.unsafe(`
    CREATE TABLE ${table} (id int PRIMARY KEY, v text);
    ALTER TABLE ${table} ALTER v SET STORAGE EXTERNAL;
    INSERT INTO ${table} SELECT i, repeat(md5(i::text), 250) FROM generate_series(1, 3000) i;
    UPDATE ${table} SET v = v || 'x' WHERE id % 3 = 0;
    DELETE FROM ${table} WHERE id % 7 = 0;`);
  await sql.unsafe(`VACUUM ${table}`);
}

const CONTENTS = (table: string) =>
  `SELECT count(*)::int AS rows, md5(string_agg(md5(v), ';' ORDER BY id)) AS hash FROM ${table}`;

async function contents(sql: Sql, tables: string[]): Promise<unknown[]> {
  const found = [];
  for (const table of tables) found.push({ ...(await sql.unsafe(CONTENTS(table)))[0] });
  return found;
}

function pageserverOf(neon: TestNeon): PageserverClient {
  return new PageserverClient(neon.local.environment().config.pageservers[0]!.listen_http_addr);
}

async function safekeeperStatus(
  neon: TestNeon,
  timeline = neon.tenant.timelineId,
): Promise<TimelineStatus[]> {
  const { safekeepers } = neon.local.environment().config;
  return await Promise.all(
    safekeepers.map((one) =>
      safekeeperClient(neon.local.environment(), one).timelineStatus(neon.tenant.tenantId, timeline)
    ),
  );
}

/** Ends the current segment; returns when all before is in remote storage. */
async function backUp(neon: TestNeon, sql: Sql): Promise<void> {
  const [row] = await sql`select pg_switch_wal()::text as lsn`;
  const end: Lsn = parseLsn(row!["lsn"]);
  await sql`select pg_logical_emit_message(true, 'x', 'behind the switch')`;
  await until("remote storage has all segments", async () => {
    const all = await safekeeperStatus(neon);
    return all.every((status) => parseLsn(status.backup_lsn) >= end);
  });
}

/** Changes settings of safekeeper 1. */
async function setSafekeeper1(neon: TestNeon, changes: Record<string, unknown>): Promise<void> {
  const { settingsFile } = neon.role("safekeeper 1");
  const before = parse(Deno.readTextFileSync(settingsFile));
  Deno.writeTextFileSync(settingsFile, stringify({ ...before, ...changes }));
  await neon.run("safekeeper", "restart");
}

/** Makes a whole segment of what safekeeper 1 has uploaded of a stopped timeline's last one. */
async function finishLastSegment(
  neon: TestNeon,
  timeline: TimelineId,
  archive: string,
): Promise<void> {
  const { name } = await until("the last segment is uploaded", async () => {
    const [{ commit_lsn, partial_backup }] = await safekeeperStatus(neon, timeline) as [
      TimelineStatus,
    ];
    return partial_backup.find(({ status, flush_lsn }) =>
      status === "uploaded" && flush_lsn === commit_lsn
    );
  });
  const segment = `${archive}/${name.split("_")[0]}`;
  Deno.copyFileSync(`${archive}/${name}`, segment);
  Deno.truncateSync(segment, WAL_SEGMENT_SIZE);
}

/** A full backup of a timeline as of an LSN, as a tar file. */
async function fullBackup(
  neon: TestNeon,
  timeline: TimelineId,
  lsn: string,
  path: string,
): Promise<void> {
  const address = neon.local.environment().config.pageservers[0]!.listen_pg_addr;
  const client = await PgClient.connect(parseAddress(address), { user: "x", database: "x" });
  using file = Deno.openSync(path, { write: true, create: true });
  const command = `fullbackup ${neon.tenant.tenantId} ${timeline} ${lsn}`;
  for await (const chunk of client.copyOut(command)) {
    for (let done = 0; done < chunk.length;) done += file.writeSync(chunk.subarray(done));
  }
  client.close();
}

/** Runs `body` on a stock PostgreSQL that was started on a full backup with a signal file. */
async function onBackup<T>(
  tar: string,
  signal: "recovery.signal" | "standby.signal",
  settings: Record<string, string>,
  body: (client: PgClient) => Promise<T>,
): Promise<T> {
  const { binDir } = await binariesOf(17);
  const server = new StockPostgres(binDir);
  try {
    server.superuser = "cloud_admin";
    replaceData(server, tar);
    Deno.writeTextFileSync(join(server.dataDir, signal), "");
    await server.start(settings);
    const client = await server.connect();
    const found = await body(client);
    client.close();
    return found;
  } finally {
    await server.remove();
  }
}

async function contentsOf(client: PgClient, tables: string[]): Promise<unknown[]> {
  const found = [];
  for (const table of tables) {
    const { rows } = await client.query(CONTENTS(table));
    found.push({ rows: Number(rows[0]![0]), hash: rows[0]![1] });
  }
  return found;
}

/** What stock PostgreSQL has after recovery from a base backup and an archive. */
function recovered(tar: string, archive: string, tables: string[]): Promise<unknown[]> {
  const settings = { restore_command: `cp '${archive}/%f' %p`, hot_standby: "off" };
  return onBackup(tar, "recovery.signal", settings, async (client) => {
    await client.query("CREATE EXTENSION IF NOT EXISTS amcheck");
    for (const table of tables) {
      await client.query(`SELECT bt_index_parent_check('${table}_pkey', true)`);
    }
    return await contentsOf(client, tables);
  });
}

/** What a stock standby has that follows a safekeeper from a base backup on. */
async function followed(neon: TestNeon, tar: string, tables: string[]): Promise<unknown[]> {
  const { tenantId, timelineId } = neon.tenant;
  const [{ pg_port }] = neon.local.environment().config.safekeepers as [SafekeeperConfig];
  const [{ commit_lsn }] = await safekeeperStatus(neon) as [TimelineStatus];
  const settings = {
    primary_conninfo: `host=127.0.0.1 port=${pg_port} user=standby ` +
      `options='-c timeline_id=${timelineId} -c tenant_id=${tenantId}'`,
    recovery_target_timeline: "current",
    // At least the primary's
    max_connections: "500",
    max_wal_senders: "50",
    max_worker_processes: "50",
    max_prepared_transactions: "500",
  };
  return await onBackup(tar, "standby.signal", settings, async (client) => {
    await until("the standby has everything", async () => {
      const { rows } = await client.query(
        `SELECT pg_last_wal_replay_lsn() >= '${commit_lsn}'::pg_lsn`,
      );
      return rows[0]![0] === "t";
    });
    return await contentsOf(client, tables);
  });
}

async function recoverFromStorage(neon: TestNeon, directory: string): Promise<void> {
  const { tenantId, timelineId } = neon.tenant;
  const archive = (timeline: TimelineId) => `${directory}/safekeepers/${tenantId}/${timeline}`;
  const pageserver = pageserverOf(neon);
  await setSafekeeper1(neon, { partial_backup_timeout_ms: 0 });
  let main = await neon.local.startEndpoint("main");
  await change(neon.connect(main), "one");
  await neon.local.stopEndpoint("main");
  main = await neon.local.startEndpoint("main");
  const branch = await neon.local.createBranch("branch");
  const onBranch = neon.connect(await neon.local.startEndpoint("branch"));
  const onMain = neon.connect(main);
  await Promise.all([change(onMain, "two"), change(onBranch, "three")]);
  await backUp(neon, onMain);
  const expected = await contents(onMain, ["one", "two"]);
  const expectedOnBranch = await contents(onBranch, ["one", "three"]);

  const base = `${directory}/base.tar`;
  await fullBackup(neon, timelineId, neon.tenant.startLsn, base);
  assert.deepEqual(await recovered(base, archive(timelineId), ["one", "two"]), expected);
  await neon.closeClients();
  await neon.local.stopEndpoint("branch");
  await finishLastSegment(neon, branch.timelineId, archive(branch.timelineId));
  await fullBackup(neon, branch.timelineId, branch.lsn, `${directory}/branch.tar`);
  assert.deepEqual(
    await recovered(`${directory}/branch.tar`, archive(branch.timelineId), ["one", "three"]),
    expectedOnBranch,
  );
  assert.match(await neon.run("status"), new RegExp(`remote storage +${directory}`));

  // Nobody keeps WAL that the pageserver has; then it loses everything.
  await pageserver.checkpoint(tenantId, timelineId);
  const firstSegment = segmentName(
    WAL_TIMELINE_ID,
    segmentNumber(parseLsn(neon.tenant.startLsn), WAL_SEGMENT_SIZE),
    WAL_SEGMENT_SIZE,
  );
  const sk = (id: number) => `${neon.local.directory}/safekeepers/sk${id}`;
  await until(
    "no safekeeper has the first segment",
    () =>
      [1, 2, 3].every((id) =>
        [...Deno.readDirSync(`${sk(id)}/${tenantId}/${timelineId}`)]
          .every(({ name }) => name !== firstSegment)
      ),
  );
  await neon.local.stopEndpoint("main");
  assert.deepEqual(await followed(neon, base, ["one", "two"]), expected);
  await pageserver.deleteTimeline(tenantId, branch.timelineId);
  await pageserver.deleteTimeline(tenantId, timelineId);
  await pageserver.importBasebackup(tenantId, timelineId, 17, (await Deno.open(base)).readable);
  const again = neon.connect(await neon.local.startEndpoint("main"));
  assert.deepEqual(await contents(again, ["one", "two"]), expected);
}

Deno.test("stock PostgreSQL, a new standby and a lost pageserver are fed from remote storage", async () => {
  const directory = Deno.makeTempDirSync({ prefix: "wal_archive_" });
  Deno.chmodSync(directory, 0o755); // PostgreSQL's user reads it
  try {
    await withNeon(
      { safekeepers: 3, remoteStorage: { local_path: directory } },
      (neon) => recoverFromStorage(neon, directory),
    );
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

async function offloadAndComeBack(neon: TestNeon): Promise<void> {
  await setSafekeeper1(neon, {
    enable_offload: true,
    eviction_min_resident_ms: 0,
    partial_backup_timeout_ms: 0,
  });
  const { tenantId, timelineId } = neon.tenant;
  const sql = neon.connect(await neon.local.startEndpoint("main"));
  await change(sql, "one");
  const expected = await contents(sql, ["one"]);
  await neon.closeClients();

  const offloaded = async () => {
    await pageserverOf(neon).checkpoint(tenantId, timelineId);
    const [status] = await safekeeperStatus(neon);
    return typeof status!.eviction_state === "object" && status!.eviction_state.Offloaded;
  };
  for (const how of ["in order", "after kill -9"]) {
    await neon.local.stopEndpoint("main");
    await until("the timeline is offloaded", offloaded);
    const path = `${neon.local.directory}/safekeepers/sk1/${tenantId}/${timelineId}`;
    const left = [...Deno.readDirSync(path)].map(({ name }) => name);
    assert.ok(left.every((name) => name.startsWith("safekeeper.control")), left.join());
    if (how === "after kill -9") {
      await neon.killRole("safekeeper 1");
      await neon.local.start();
    }
    const again = neon.connect(await neon.local.startEndpoint("main"));
    assert.deepEqual(await contents(again, ["one"]), expected);
    await again.unsafe("UPDATE one SET v = v WHERE id % 10 = 0");
    await neon.closeClients();
  }
}

Deno.test("an idle timeline lives in a bucket, and comes back when it is used", async () => {
  await using s3 = await TestS3.start();
  for (const [name, value] of Object.entries(TEST_CREDENTIALS)) Deno.env.set(name, value);
  const remoteStorage = {
    bucket_name: TEST_BUCKET,
    bucket_region: "eu-central-1",
    prefix_in_bucket: "neon",
    endpoint: s3.endpoint,
  };
  await withNeon({ safekeepers: 1, remoteStorage }, offloadAndComeBack);
  assert.ok(s3.seen.some((request) => request.startsWith(`PUT /${TEST_BUCKET}/neon/safekeepers/`)));
});
