/**
 * Safekeepers that are replaced while a writer goes on, with real processes: one whose disk is
 * lost, one that lives, with the command killed on its way; the writer's own log says what must be
 * there afterwards, on whichever majority is left.
 */
import assert from "node:assert/strict";
import { WalProposer } from "../compute/wal_proposer/driver.ts";
import { loadTenantRecord } from "../cli/control_plane/tenant_records.ts";
import { programFile } from "../cli/control_plane/supervisor.ts";
import { SafekeeperClient } from "../safekeeper/client.ts";
import { openSql, runNeon, type TestNeon, testWithNeon } from "./harness.ts";
import { createLedger, Writers } from "./load/writers.ts";
import { caughtUp } from "./support/replicas.ts";
import { until } from "./support/waiting.ts";

const WRITERS = 4;

/** A moment of the command: it is killed when this has come. */
type Moment = (neon: TestNeon) => boolean | Promise<boolean>;

function recordOf(neon: TestNeon) {
  const { tenantId, timelineId } = neon.tenant;
  const { timelines } = loadTenantRecord(neon.local.directory, tenantId);
  return timelines[timelineId]!;
}

function clientOf(neon: TestNeon, id: number): SafekeeperClient {
  const { safekeepers } = neon.local.environment().config;
  const { http_port } = safekeepers.find((known) => known.id === id)!;
  return new SafekeeperClient(`127.0.0.1:${http_port}`);
}

async function generationAt(neon: TestNeon, id: number): Promise<number> {
  const { tenantId, timelineId } = neon.tenant;
  const status = await clientOf(neon, id)
    .timelineStatus(tenantId, timelineId)
    .catch(() => undefined);
  return status?.mconf.generation ?? -1;
}

/** Begins the command and kills it -9 at that moment. */
async function interrupted(neon: TestNeon, args: string[], moment: Moment): Promise<void> {
  // bin/neon would live on as a child of the shell
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", programFile("cli/main.ts"), ...args],
    env: { NEON_REPO_DIR: neon.local.directory },
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();
  await until("the command has come so far", async () => await moment(neon));
  child.kill("SIGKILL");
  await child.status;
}

testWithNeon("safekeepers are replaced under a writer", { safekeepers: 3 }, async (neon) => {
  const main = await neon.local.startEndpoint("main");
  const sql = neon.connect(main);
  await createLedger(sql);
  const writers = new Writers(main.port, WRITERS);
  writers.start();
  try {
    await writers.more(200);
    // Number 1 and its disk are lost
    const { directory } = neon.role("safekeeper 1");
    const kept = `${directory}.kept`;
    await neon.killRole("safekeeper 1");
    Deno.renameSync(directory, kept);
    await writers.more(100);
    await neon.run("safekeeper", "replace", "1");
    assert.deepEqual(recordOf(neon).safekeepers, [2, 3, 4]);
    await writers.more(200);
    // Number 2 lives; the command is killed again and again
    const moments: Moment[] = [
      () => recordOf(neon).next_safekeepers !== undefined,
      async () => await generationAt(neon, 5) === 3,
      async () => await generationAt(neon, 3) >= 3,
    ];
    for (const moment of moments) {
      await interrupted(neon, ["safekeeper", "replace", "2"], moment);
      await writers.more(50);
    }
    const said = await runNeon(neon.local.directory, ["safekeeper", "replace", "2"]);
    assert.equal(said.code, 0, said.stderr);
    assert.match(said.stdout + said.stderr, /replaced by safekeeper 5/);
    assert.deepEqual(recordOf(neon), {
      pg_version: 17,
      safekeepers: [3, 4, 5],
      membership_generation: 4,
    });
    assert.match(await neon.run("safekeeper", "replace", "2"), /^$/);
    const listed = JSON.parse(await neon.run("safekeeper", "list", "--json"));
    assert.deepEqual(
      listed.map(({ id, status, timelines }: Record<string, unknown>) => [id, status, timelines]),
      [[3, "running", 1], [4, "running", 1], [5, "running", 1]],
    );
    await writers.more(100);
    await oldOnesDecideNothing(neon, kept);
    // Of the first three only number 3 is left; without it commits go on
    await neon.killRole("safekeeper 3");
    await writers.more(200);
    await writers.check(sql);
  } finally {
    await writers.stop();
  }
  // What the new ones have is all there is
  await neon.closeClients();
  neon.killPostgres("main");
  await neon.killRole("compute");
  await neon.run("compute", "start");
  const again = openSql((await neon.local.startEndpoint("main")).port);
  try {
    await writers.check(again);
  } finally {
    await again.end();
  }
});

/**
 * The first safekeeper comes back as it was when it was lost. With number 3 it was a majority then,
 * for a host that has not heard of anything since; now it has no say.
 */
async function oldOnesDecideNothing(neon: TestNeon, kept: string): Promise<void> {
  const { tenantId, timelineId } = neon.tenant;
  const { config } = neon.local.environment();
  const [first, second] = config.spare_safekeeper_ports!.slice(-2);
  const third = config.safekeepers.find(({ id }) => id === 3)!.pg_port;
  const old = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", programFile("safekeeper/main.ts"), "-D", kept],
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();
  const proposer = new WalProposer({
    tenantId,
    timelineId,
    pgVersionNum: 170000,
    walSegmentSize: 16 * 1024 * 1024,
    safekeepers: [first![0], second![0], third].map((pgPort, i) => ({
      id: i + 1,
      host: "127.0.0.1",
      pgPort,
    })),
    onDeposed: () => {},
  });
  try {
    const client = new SafekeeperClient(`127.0.0.1:${first![1]}`);
    const look = () => client.timelineStatus(tenantId, timelineId).catch(() => undefined);
    const before = await until("the old safekeeper is back", look);
    assert.equal(before.mconf.generation, 0);
    for (const id of [4, 5]) await neon.killRole(`safekeeper ${id}`);
    proposer.start();
    await until(
      "the proposer has heard of the new members",
      () => proposer.membership.generation === 4,
    );
    await assert.rejects(proposer.elected(2000), /Cannot win an election/);
    const after = await client.timelineStatus(tenantId, timelineId);
    assert.deepEqual(after.acceptor_state, before.acceptor_state, "nobody asks it for its vote");
  } finally {
    await proposer.stop();
    old.kill("SIGKILL");
    await old.status;
    for (const id of ["4", "5"]) await neon.run("safekeeper", "start", id);
  }
}

testWithNeon("too few safekeepers refuse a replacement, in one line", {
  safekeepers: 3,
}, async (neon) => {
  await neon.killRole("safekeeper 1");
  await neon.killRole("safekeeper 2");
  const { code, stderr } = await runNeon(neon.local.directory, ["safekeeper", "replace", "1"]);
  assert.equal(code, 1);
  assert.match(
    stderr,
    /^Error: Cannot change the safekeepers of timeline [0-9a-f]{32}: a majority of 1, 2, 3 has to answer, only 3 answer; "neon safekeeper start 1" starts one\n$/i,
  );
  assert.deepEqual(recordOf(neon).safekeepers, [1, 2, 3]);
  assert.equal(neon.local.environment().config.safekeepers.length, 3);
});

testWithNeon("all safekeepers change under a replica, idle branches and a host that was away", {
  safekeepers: 3,
}, async (neon) => {
  const main = await neon.local.startEndpoint("main");
  const sql = neon.connect(main);
  await sql`create table t(n int)`;
  await sql`insert into t values (1)`;
  await neon.run("timeline", "branch", "--branch-name", "idle");
  const options = { branch: "main", mode: "Replica" } as const;
  const replica = neon.connect(await neon.local.startEndpoint("replica", options));
  await neon.run("safekeeper", "replace", "1");
  await sql`insert into t values (2)`;
  await neon.killRole("compute");
  await neon.run("safekeeper", "replace", "2");
  await neon.run("compute", "start");
  await sql`insert into t values (3)`;
  await neon.run("safekeeper", "add");
  await neon.run("safekeeper", "remove", "3");
  await sql`insert into t values (4)`;
  const { config } = neon.local.environment();
  assert.deepEqual(config.safekeepers.map(({ id }) => id), [4, 5, 6]);
  assert.deepEqual(recordOf(neon).safekeepers, [4, 5, 6]);
  await neon.killRole("safekeeper 4");
  await sql`insert into t values (5)`;
  await caughtUp(replica, sql);
  assert.equal((await replica`select from t`).count, 5);
  const idle = neon.connect(await neon.local.startEndpoint("idle"));
  await idle`insert into t values (2)`;
  assert.equal((await idle`select from t`).count, 2);
});
