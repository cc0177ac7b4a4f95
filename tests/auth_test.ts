/**
 * A local Neon whose daemons want tokens of each other (`neon init --auth`) does all that one
 * without does, keeps its tokens from those they are not for, and exchanges its keys while it runs.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { safekeeperClient } from "../cli/control_plane/clients.ts";
import { newKeyPair } from "../libs/auth/keys.ts";
import { parseLsn } from "../libs/utils/lsn.ts";
import { type Sql, type TestNeon, testWithNeon } from "./harness.ts";
import { caughtUp } from "./support/replicas.ts";
import { tokenOf } from "./support/tokens.ts";
import { until } from "./support/waiting.ts";

/** What every token begins with. */
const TOKEN = "eyJ";
/** Files longer than this hold pages or WAL. */
const SECRET_FILE_BYTES_MAX = 100_000;

/** Rows of a table as one number, so that a wrong or missing one shows. */
async function sum(sql: Sql, table: string): Promise<number> {
  return Number((await sql.unsafe(`select coalesce(sum(a), 0) as sum from ${table}`))[0]!["sum"]);
}

/** Where a safekeeper's log of the main branch ends, and how far it is in remote storage. */
async function positions(neon: TestNeon): Promise<{ flush: number; backup: number }[]> {
  const env = neon.local.environment();
  const { tenantId, timelineId } = neon.tenant;
  return await Promise.all(env.config.safekeepers.map(async (one) => {
    const status = await safekeeperClient(env, one).timelineStatus(tenantId, timelineId);
    return { flush: parseLsn(status.flush_lsn), backup: parseLsn(status.backup_lsn) };
  }));
}

/** Branch, endpoint, replica, sql: as without tokens. */
async function work(neon: TestNeon, main: Sql): Promise<Sql> {
  await main`create table t as select generate_series(1, 1000) as a`;
  await main`create role someone login`;
  await neon.run("timeline", "branch", "--branch-name", "dev");
  const dev = neon.connect(await neon.local.startEndpoint("dev"));
  assert.equal(await sum(dev, "t"), 500500);
  await dev`delete from t`;
  const answer = await neon.run("sql", "dev", "-c", "select count(*) from t");
  assert.match(answer, /\b0\b/);
  await neon.run("endpoint", "start", "reader", "--branch-name", "main", "--hot-standby", "true");
  const reader = neon.connect(await neon.local.startEndpoint("reader"));
  await main`insert into t values (1)`;
  await caughtUp(reader, main);
  assert.equal(await sum(reader, "t"), 500501);
  assert.match(await neon.run("wal", "stats", "--branch", "main"), /Heap/);
  return reader;
}

/** A command line or an environment of a process. */
function procFile(pid: number, name: "cmdline" | "environ"): string {
  return Deno.readTextFileSync(`/proc/${pid}/${name}`);
}

/** The processes whose environment, working directory or arguments are of this local Neon. */
function processesOf(neon: TestNeon): number[] {
  return [...Deno.readDirSync("/proc")].map(({ name }) => Number(name)).filter((pid) => {
    try {
      return pid > 0 && pid !== Deno.pid &&
        Deno.readLinkSync(`/proc/${pid}/cwd`).startsWith(neon.local.directory);
    } catch {
      return false; // it has ended
    }
  });
}

/** No user of Postgres, no other user of the machine and no log sees a token. */
async function checkSecrecy(neon: TestNeon, main: Sql, reader: Sql): Promise<void> {
  const { directory } = neon.local;
  const processes = processesOf(neon);
  assert.ok(processes.includes(neon.postmasterPid("main")));
  for (const pid of processes) {
    for (const file of ["cmdline", "environ"] as const) {
      assert.ok(!procFile(pid, file).includes(TOKEN), `${file} of ${pid}`);
    }
  }
  for (const sql of [main, reader]) {
    const settings = await sql`select name, setting, reset_val, boot_val from pg_settings`;
    assert.ok(!JSON.stringify(settings).includes(TOKEN));
    assert.ok(!JSON.stringify(await sql`select * from pg_stat_activity`).includes(TOKEN));
  }
  const [row] = await reader`select conninfo from pg_stat_wal_receiver`;
  assert.doesNotMatch(row!["conninfo"], /eyJ/);
  await reader`set role someone`;
  await assert.rejects(reader`show primary_conninfo`, /permission denied/);
  for (const name of ["arena", "passfile"]) {
    const path = `${directory}/compute/endpoints/reader/${name}`;
    await assert.rejects(reader`select pg_read_binary_file(${path})`, /permission denied/);
  }
  await reader`reset role`;

  const holders: string[] = [];
  const walk = (path: string) => {
    for (const { name, isDirectory, isFile } of Deno.readDirSync(path)) {
      const inner = join(path, name);
      if (isDirectory) walk(inner);
      if (!isFile || Deno.statSync(inner).size > SECRET_FILE_BYTES_MAX) continue;
      const text = Deno.readTextFileSync(inner);
      if (!text.includes(TOKEN) && !text.includes("PRIVATE KEY")) continue;
      assert.equal(Deno.statSync(inner).mode! & 0o077, 0, inner);
      holders.push(inner.slice(directory.length + 1));
    }
  };
  walk(directory);
  assert.deepEqual(
    holders.sort(),
    [
      "auth_private_key.pem",
      "compute/endpoints/dev/arena",
      "compute/endpoints/dev/state",
      "compute/endpoints/main/arena",
      "compute/endpoints/main/state",
      "compute/endpoints/reader/arena",
      "compute/endpoints/reader/passfile",
      "compute/endpoints/reader/state",
      "pageserver_1/safekeeper_jwt_token",
      "safekeepers/sk1/peer_jwt_token",
      "safekeepers/sk2/peer_jwt_token",
      "safekeepers/sk3/peer_jwt_token",
    ],
  );
}

/** Every daemon is killed and comes back; Postgres runs on. */
async function survive(neon: TestNeon, main: Sql, reader: Sql): Promise<void> {
  const pid = neon.postmasterPid("main");
  for (const name of ["compute", "pageserver", "safekeeper 2", "storage_broker"]) {
    await neon.killRole(name);
  }
  await neon.local.start();
  await main`insert into t values (10)`;
  await caughtUp(reader, main);
  assert.equal(neon.postmasterPid("main"), pid);
  // A commit needs safekeeper 2, which has to get what it missed from another one
  await neon.killRole("safekeeper 3");
  await main`insert into t values (100)`;
  await main`select pg_switch_wal()`;
  await main`insert into t values (1000)`;
  // Without a compute safekeeper 3 gets it from its peers
  await neon.closeClients();
  for (const name of ["main", "reader"]) await neon.local.stopEndpoint(name);
  await neon.local.start();
  await agree(neon);
  await pullTimeline(neon);
  await agree(neon);
}

/** Waits until the safekeepers hold the same, and WAL is in remote storage. */
async function agree(neon: TestNeon): Promise<void> {
  await until("the safekeepers agree, and WAL is in remote storage", async () => {
    const found = await positions(neon);
    return found.every(({ flush, backup }) => flush === found[0]!.flush && backup > 0);
  });
}

/** Safekeeper 3 loses the main branch and gets it from the others. */
async function pullTimeline(neon: TestNeon): Promise<void> {
  const env = neon.local.environment();
  const { tenantId, timelineId } = neon.tenant;
  const { safekeepers } = env.config;
  const client = safekeeperClient(env, safekeepers[2]!);
  assert.equal(await client.dropTimeline(tenantId, timelineId), true);
  const hosts = safekeepers.slice(0, 2).map(({ http_port }) => `127.0.0.1:${http_port}`);
  const members = safekeepers.map(({ id, pg_port }) => ({
    id,
    host: "127.0.0.1",
    pgPort: pg_port,
  }));
  await client.pullTimeline(tenantId, timelineId, hosts, { generation: 0, members });
}

/** New keys under running endpoints: nothing is restarted, nothing waits. */
async function exchangeKeys(neon: TestNeon, main: Sql, reader: Sql): Promise<void> {
  const { directory } = neon.local;
  const publicPath = join(directory, "auth_public_key.pem");
  const before = await tokenOf(directory, { scope: "pageserverapi" });
  const { privatePem, publicPem } = await newKeyPair();
  Deno.writeTextFileSync(publicPath, publicPem, { append: true });
  await neon.run("start");
  Deno.writeTextFileSync(join(directory, "auth_private_key.pem"), privatePem);
  await neon.run("start");
  for (const name of ["main", "reader"]) {
    assert.match(await neon.run("endpoint", "start", name), /already running/);
  }
  Deno.writeTextFileSync(publicPath, publicPem);
  await neon.run("start");
  const { pageservers } = neon.local.environment().config;
  const url = `http://${pageservers[0]!.listen_http_addr}/v1/tenant`;
  const old = await fetch(url, { headers: { authorization: `Bearer ${before}` } });
  assert.equal(old.status, 401, await old.text());
  // Every connection is made anew, also those of Postgres and of the host that takes it over
  for (const name of ["compute", "pageserver", "safekeeper 1", "safekeeper 2", "safekeeper 3"]) {
    await neon.killRole(name);
  }
  await neon.local.start();
  await main`insert into t values (10000)`;
  await caughtUp(reader, main);
  // Of a table that these Postgres processes have not read yet
  assert.equal(await sum(reader, "cold"), 5000 * 5001 / 2);
  assert.equal(await sum(main, "cold"), 5000 * 5001 / 2);
}

const storage = Deno.makeTempDirSync({ prefix: "neon-auth-wal-" });

testWithNeon("with tokens everything works as without; keys are exchanged while it runs", {
  auth: true,
  safekeepers: 3,
  remoteStorage: { local_path: storage },
}, async (neon) => {
  try {
    const start = async (name: string) => neon.connect(await neon.local.startEndpoint(name));
    let main = await start("main");
    await main`create table cold as select generate_series(1, 5000) as a`;
    let reader = await work(neon, main);
    await checkSecrecy(neon, main, reader);
    await survive(neon, main, reader);
    [main, reader] = [await start("main"), await start("reader")];
    assert.equal(await sum(main, "t"), 500501 + 1110);
    await exchangeKeys(neon, main, reader);
    assert.equal(await sum(reader, "t"), 500501 + 11110);
  } finally {
    Deno.removeSync(storage, { recursive: true });
  }
});
