/** The documented workflow, command by command, through the real `neon` command. */
import assert from "node:assert/strict";
import { stringify } from "smol-toml";
import { configOnFreePorts } from "../cli/local_neon.ts";
import { type CommandResult, logTails, openSql, runNeon, testWithNeon } from "./harness.ts";

const ID = "[0-9a-f]{32}";
const LSN = "[0-9A-F]+/[0-9A-F]+";

/** A directory for the commands of one test, with a settings file of free ports. */
async function inWorkDirectory(
  test: (neon: (...args: string[]) => Promise<CommandResult>, firstPort: number) => Promise<void>,
): Promise<void> {
  const directory = Deno.makeTempDirSync({ prefix: "neon-workflow-" });
  Deno.chmodSync(directory, 0o755);
  const config = configOnFreePorts(1, 17);
  const { broker, compute, pageservers, safekeepers } = config;
  Deno.writeTextFileSync(
    `${directory}/ports.toml`,
    stringify({ broker, compute, pageservers, safekeepers }),
  );
  const repoDir = `${directory}/.neon`;
  const neon = (...args: string[]) => runNeon(repoDir, args, directory);
  try {
    await test(neon, compute.first_pg_port);
  } catch (thrown) {
    console.error(logTails(repoDir));
    throw thrown;
  } finally {
    await neon("stop", "-m", "immediate");
    Deno.removeSync(directory, { recursive: true });
  }
}

function match(result: CommandResult, ...lines: string[]): RegExpMatchArray {
  assert.equal(result.code, 0, result.stderr);
  const expected = new RegExp(`^${lines.join("\n")}\n$`);
  assert.match(result.stdout, expected);
  return result.stdout.match(expected)!;
}

Deno.test("the documented workflow works as documented", async () => {
  await inWorkDirectory(async (neon, firstPort) => {
    match(
      await neon("init", "--config", "ports.toml"),
      `Initializing pageserver node 1 at '127.0.0.1:\\d+' in ".neon"`,
    );
    match(
      await neon("start"),
      "Starting neon broker at 127.0.0.1:\\d+",
      "storage_broker started, pid: \\d+",
      `Starting pageserver node 1 at '127.0.0.1:\\d+' in ".neon"`,
      "pageserver started, pid: \\d+",
      "Starting safekeeper at '127.0.0.1:\\d+' in '.neon/safekeepers/sk1'",
      "safekeeper 1 started, pid: \\d+",
      "Starting compute host at '127.0.0.1:\\d+' in '.neon/compute'",
      "compute started, pid: \\d+",
    );
    const [, tenant, main] = match(
      await neon("tenant", "create", "--set-default"),
      `tenant (${ID}) successfully created on the pageserver`,
      `Created an initial timeline '(${ID})' at Lsn ${LSN} for tenant: ${ID}`,
      `Setting tenant ${ID} as a default one`,
    );
    match(
      await neon("endpoint", "start", "main"),
      `Starting new endpoint main \\(PostgreSQL v17\\) on timeline ${main} ...`,
      `Starting postgres at 'postgresql://cloud_admin@127.0.0.1:${firstPort}/postgres'`,
    );
    match(
      await neon("endpoint", "list"),
      " ENDPOINT  ADDRESS          TIMELINE                          BRANCH NAME  LSN +STATUS",
      ` main      127.0.0.1:${firstPort}  ${main}  main         ${LSN} +running`,
    );
    await createAndRead(firstPort);
    const [, branch] = match(
      await neon("timeline", "branch", "--branch-name", "migration_check"),
      `Created timeline '(${ID})' at Lsn ${LSN} for tenant: ${tenant}. Ancestor timeline: 'main'`,
    );
    match(
      await neon("timeline", "list"),
      `\\(L\\) main \\[${main}\\]`,
      `\\(L\\) ┗━ @${LSN}: migration_check \\[${branch}\\]`,
    );
    const [, port] = match(
      await neon("endpoint", "start", "migration_check", "--branch-name", "migration_check"),
      `Starting new endpoint migration_check \\(PostgreSQL v17\\) on timeline ${branch} ...`,
      "Starting postgres at 'postgresql://cloud_admin@127.0.0.1:(\\d+)/postgres'",
    );
    await checkIsolation(firstPort, Number(port));
    const listed = JSON.parse((await neon("endpoint", "list", "--json")).stdout);
    assert.deepEqual(
      listed.map((entry: Record<string, string>) => [entry["endpoint"], entry["status"]]),
      [["main", "running"], ["migration_check", "running"]],
    );
    const stopped = await neon("stop");
    assert.equal(stopped.code, 0, stopped.stderr);
    await checkAfterRestart(neon, firstPort);
  });
});

async function createAndRead(port: number): Promise<void> {
  const sql = openSql(port);
  try {
    await sql`create table t(key int primary key, value text)`;
    await sql`insert into t values(1, 1)`;
    assert.deepEqual([...await sql`select * from t`], [{ key: 1, value: "1" }]);
  } finally {
    await sql.end();
  }
}

async function checkIsolation(mainPort: number, branchPort: number): Promise<void> {
  const main = openSql(mainPort);
  const branch = openSql(branchPort);
  try {
    assert.deepEqual([...await branch`select key from t order by 1`], [{ key: 1 }]);
    await branch`insert into t values(2, 'branch')`;
    await main`insert into t values(3, 'main')`;
    assert.deepEqual([...await main`select key from t order by 1`], [{ key: 1 }, { key: 3 }]);
    assert.deepEqual([...await branch`select key from t order by 1`], [{ key: 1 }, { key: 2 }]);
  } finally {
    await Promise.all([main.end(), branch.end()]);
  }
}

async function checkAfterRestart(
  neon: (...args: string[]) => Promise<CommandResult>,
  firstPort: number,
): Promise<void> {
  assert.equal((await neon("status")).code, 1);
  assert.equal((await neon("start")).code, 0);
  assert.equal((await neon("status")).code, 0);
  const started = await neon("endpoint", "start", "main");
  assert.equal(started.code, 0, started.stderr);
  const sql = openSql(firstPort);
  try {
    assert.deepEqual([...await sql`select key from t order by 1`], [{ key: 1 }, { key: 3 }]);
  } finally {
    await sql.end();
  }
}

Deno.test("commands that cannot work say why and what to do", async () => {
  await inWorkDirectory(async (neon) => {
    const uninitialised = await neon("start");
    assert.equal(uninitialised.code, 1);
    assert.match(uninitialised.stderr, /run "neon init" first/);
    assert.equal((await neon("bogus")).code, 2);
    assert.equal((await neon("timeline", "branch")).code, 2);
    assert.equal((await neon("endpoint", "start", "--help")).code, 0);
    assert.equal((await neon("init", "--config", "ports.toml")).code, 0);
    const again = await neon("init");
    assert.equal(again.code, 1);
    assert.match(again.stderr, /--force=remove-all-contents/);
    const noTenant = await neon("timeline", "list");
    assert.match(noTenant.stderr, /neon tenant create --set-default/);
  });
});

testWithNeon("starting twice changes nothing", {}, async (neon) => {
  const daemons = async () =>
    JSON.parse(await neon.run("status", "--json")).daemons
      .map(({ name, pid, status }: Record<string, unknown>) => ({ name, pid, status }));
  const before = await daemons();
  await neon.run("start");
  await neon.run("endpoint", "start", "main");
  assert.match(await neon.run("endpoint", "start", "main"), /already running at/);
  assert.deepEqual(await daemons(), before);
});

testWithNeon("settings of an endpoint belong to its definition", {}, async (neon) => {
  const settings = ["-c", "max_prepared_transactions=3", "-c", "wal_level=logical"];
  await neon.run("endpoint", "create", "main", ...settings, "--config", "vacuum_cost_delay=7.5");
  for (let run = 0; run < 2; run++) {
    const sql = neon.connect(await neon.local.startEndpoint("main"));
    const [row] = await sql`select current_setting('max_prepared_transactions') as prepared,
      current_setting('wal_level') as level, current_setting('vacuum_cost_delay') as delay`;
    assert.deepEqual(row, { prepared: "3", level: "logical", delay: "7500us" });
    await neon.local.stopEndpoint("main");
  }
  await neon.run("endpoint", "start", "main", "-c", "wal_level=logical");
  await assert.rejects(
    neon.run("endpoint", "start", "main", "-c", "work_mem=1MB"),
    /with work_mem=1MB: it exists without that; use ALTER SYSTEM/,
  );
  await assert.rejects(neon.run("endpoint", "create", "other", "-c", "x"), /use name=value/);
  await assert.rejects(
    neon.run("endpoint", "create", "other", "-c", "neon.max_replication_write_lag=much"),
    /Cannot use neon.max_replication_write_lag = "much": give a size such as 500MB/,
  );
});

testWithNeon("a second primary on a timeline is refused while the first runs", {}, async (neon) => {
  await neon.local.startEndpoint("main");
  await assert.rejects(
    neon.local.startEndpoint("second", { branch: "main" }),
    /endpoint "main" already is the primary/,
  );
  await neon.local.stopEndpoint("main");
  const second = await neon.local.startEndpoint("second", { branch: "main" });
  assert.deepEqual([...await neon.connect(second)`select 1 as one`], [{ one: 1 }]);
});

testWithNeon("timeline branch --start gives a branch with PostgreSQL on it", {}, async (neon) => {
  await neon.run("endpoint", "start", "main");
  await neon.run("sql", "main", "-c", "create table t as select 42 as n");
  const branch = ["timeline", "branch", "--branch-name", "pr_17", "--start"];
  const { connection_string } = JSON.parse(await neon.run(...branch, "--json"));
  const sql = openSql(Number(new URL(connection_string).port));
  try {
    assert.deepEqual([...await sql`select n from t`], [{ n: 42 }]);
  } finally {
    await sql.end();
  }
  const again = await neon.run(...branch, "--if-not-exists");
  assert.ok(again.includes(connection_string), again);
});

testWithNeon("timeline branch --if-not-exists may run twice", {}, async (neon) => {
  const args = ["timeline", "branch", "--branch-name", "dev", "--if-not-exists"];
  assert.match(await neon.run(...args), /^Created timeline/);
  assert.equal(await neon.run(...args), "");
  await assert.rejects(neon.run("timeline", "branch", "--branch-name", "dev"), /already names/);
});

testWithNeon("endpoints ride through a restart of every daemon", {}, async (neon) => {
  const main = await neon.local.startEndpoint("main");
  const sql = neon.connect(main);
  await sql`create table t(key int primary key)`;
  const pid = neon.postmasterPid("main");
  const roles = ["compute", "safekeeper", "pageserver", "storage-broker", "safekeeper", "compute"];
  for (const [i, role] of roles.entries()) {
    await neon.run(role, "restart");
    await sql`insert into t values(${i})`;
  }
  assert.deepEqual([...await sql`select count(*)::int from t`], [{ count: roles.length }]);
  assert.equal(neon.postmasterPid("main"), pid);
  const [listed] = await neon.local.listEndpoints();
  assert.equal(listed?.status, "running");
  const { lsn } = await neon.local.createBranch("after");
  assert.match(lsn, /^0\/[0-9A-F]+$/);
  const after = neon.connect(await neon.local.startEndpoint("after"));
  assert.deepEqual([...await after`select count(*)::int from t`], [{ count: roles.length }]);
});

testWithNeon(
  "a branch made after everything was killed has every acknowledged row",
  { safekeepers: 3 },
  async (neon) => {
    const sql = neon.connect(await neon.local.startEndpoint("main"));
    await sql`create table t(key int primary key)`;
    for (let i = 0; i < 20; i++) await sql`insert into t values(${i})`;
    for (const role of ["compute", "pageserver", "safekeeper 1", "safekeeper 2", "safekeeper 3"]) {
      await neon.killRole(role);
    }
    neon.killPostgres("main");
    await neon.closeClients();
    await neon.local.start();
    await neon.run("safekeeper", "stop", "3");
    await neon.local.createBranch("after");
    const after = neon.connect(await neon.local.startEndpoint("after"));
    assert.deepEqual([...await after`select count(*)::int from t`], [{ count: 20 }]);
    const main = neon.connect(await neon.local.startEndpoint("main"));
    assert.deepEqual([...await main`select count(*)::int from t`], [{ count: 20 }]);
    await neon.run("safekeeper", "start", "3"); // gets the timeline that was made without it
    await neon.run("safekeeper", "stop", "1");
    await after`insert into t values(20)`;
    await assert.rejects(
      neon.run("timeline", "branch", "--branch-name", "future", "--ancestor-start-lsn", "9/0"),
      /it ends at 0/,
    );
  },
);
