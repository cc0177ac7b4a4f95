/**
 * What is told of an endpoint that has lost its right to write, or that waits, and the way out:
 * starting it again is enough.
 */
import assert from "node:assert/strict";
import { runNeon, type Sql, type TestNeon, testWithNeon } from "./harness.ts";
import { until } from "./support/waiting.ts";

async function stateOf(neon: TestNeon) {
  return (await neon.local.listEndpoints()).find(({ endpoint }) => endpoint === "main")!;
}

/** What `neon endpoint list` says below its table. */
async function hints(neon: TestNeon): Promise<string> {
  return (await runNeon(neon.local.directory, ["endpoint", "list"])).stderr;
}

testWithNeon("endpoints that may not go on, or have to wait, say so", {}, async (neon) => {
  const main = neon.connect(await neon.local.startEndpoint("main"));
  await main`create table t as select 1 as n`;
  await checkDeposed(neon);
  const again = neon.connect(await neon.local.startEndpoint("main"));
  assert.equal((await again`insert into t select n + 1 from t`).count, 1);
  const { status, error } = await stateOf(neon);
  assert.deepEqual({ status, error }, { status: "running", error: null });
  await checkHungSafekeeper(neon, again);
  await checkSlowAdoption(neon);
  assert.equal((await again`insert into t select n + 1 from t`).count, 2);
});

/** Somebody else is elected. */
async function checkDeposed(neon: TestNeon): Promise<void> {
  const { tenantId, timelineId } = neon.tenant;
  const { http_port } = neon.local.environment().config.safekeepers[0]!;
  const path = `v1/tenant/${tenantId}/timeline/${timelineId}/term_bump`;
  const bumped = await fetch(`http://127.0.0.1:${http_port}/${path}`, { method: "POST" });
  assert.equal(bumped.status, 200, await bumped.text());
  await until("it has noticed", async () => (await stateOf(neon)).status === "crashed");
  assert.match((await stateOf(neon)).error!, /term/);
  const told = await hints(neon);
  assert.match(told, /endpoint main crashed: .*term.*; "neon endpoint start main" starts it again/);
  await neon.closeClients();
}

/** Its only safekeeper hangs: commits wait, and go on. */
async function checkHungSafekeeper(neon: TestNeon, main: Sql): Promise<void> {
  neon.signalRole("safekeeper 1", "SIGSTOP");
  const waiting = main`create table late as select 1`.then(() => true);
  try {
    await until("it is said", async () => (await stateOf(neon)).stalled_commits !== null);
    assert.match(await neon.run("endpoint", "list"), /running, commits wait: no majority of safek/);
    assert.match(await hints(neon), /waited \d+ s for a majority .*no answer from 1.*"neon start"/);
  } finally {
    neon.signalRole("safekeeper 1", "SIGCONT");
  }
  assert.equal(await waiting, true);
  await until("they go on", async () => (await stateOf(neon)).stalled_commits === null);
}

/** A Postgres that does not answer the next host is taken over when it does. */
async function checkSlowAdoption(neon: TestNeon): Promise<void> {
  const pid = neon.postmasterPid("main");
  Deno.kill(pid, "SIGSTOP");
  try {
    await neon.killRole("compute");
    await neon.run("compute", "start");
    const { status, waits_for } = await stateOf(neon);
    assert.equal(status, "starting");
    assert.match(waits_for!, /the Postgres that an earlier one left running/);
    assert.match(
      await hints(neon),
      /endpoint main waits for .*"neon endpoint stop main -m immedia/,
    );
  } finally {
    Deno.kill(pid, "SIGCONT");
  }
  await until("it is adopted", async () => (await stateOf(neon)).status === "running");
  assert.equal(neon.postmasterPid("main"), pid);
}
