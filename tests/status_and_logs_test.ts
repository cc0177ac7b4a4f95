/** `neon status` and `neon logs` on a Neon that runs, hangs, fails and is stopped. */
import assert from "node:assert/strict";
import { programFile } from "../cli/control_plane/supervisor.ts";
import { runNeon, type TestNeon, testWithNeon } from "./harness.ts";
import { until } from "./support/waiting.ts";

/** Longest that a status may take when daemons hang: two rounds of a second, and a slow machine. */
const HUNG_STATUS_MS = 8000;

// deno-lint-ignore no-explicit-any
async function statusJson(neon: TestNeon): Promise<any> {
  return JSON.parse((await runNeon(neon.local.directory, ["status", "--json"])).stdout);
}

async function checkRunning(neon: TestNeon): Promise<void> {
  const { daemons, tenants: [tenant], endpoints: [main] } = await statusJson(neon);
  assert.equal(daemons.length, 6);
  for (const daemon of daemons) {
    assert.equal(daemon.status, "running");
    assert.ok(daemon.memory_bytes > 10e6 && daemon.uptime_seconds < 600, daemon.name);
  }
  assert.ok(daemons.find(({ name }: { name: string }) => name === "pageserver").disk_bytes > 1e6);
  const [root, branch] = tenant.branches[0].branch_name === "main"
    ? tenant.branches
    : tenant.branches.toReversed();
  assert.equal(branch.ancestor_timeline_id, root.timeline_id);
  assert.equal(branch.receive_lag_bytes, 0);
  assert.ok(root.logical_size_bytes > 10e6);
  assert.deepEqual([main.endpoint, main.status, main.error], ["main", "running", null]);
  assert.equal(main.pid, neon.postmasterPid("main"));
  assert.ok(main.memory_bytes > 1e6 && main.disk_bytes > 0);
  const text = await neon.run("status");
  assert.match(text, /\n main +0\/[0-9A-F]+ +\S.* main\n ┗━ dev +0\/[0-9A-F]+ +all/);
}

async function checkHung(neon: TestNeon): Promise<void> {
  const hung = ["pageserver", "safekeeper 2"];
  for (const name of hung) neon.signalRole(name, "SIGSTOP");
  try {
    const started = performance.now();
    const { code, stdout } = await runNeon(neon.local.directory, ["status"]);
    assert.ok(performance.now() - started < HUNG_STATUS_MS, "a status does not wait");
    assert.equal(code, 1);
    assert.match(stdout, / pageserver .* no answer\n/);
    assert.match(stdout, / safekeeper 2 .* no answer\n/);
    assert.match(stdout, /\n main +0\/[0-9A-F]+ +--- /); // the other safekeepers know it
  } finally {
    for (const name of hung) neon.signalRole(name, "SIGCONT");
  }
}

async function checkFailed(neon: TestNeon): Promise<void> {
  const mistyped = await runNeon(neon.local.directory, [
    ..."endpoint start mistyped --branch-name dev -c shared_bufers=1GB".split(" "),
  ]);
  assert.equal(
    mistyped.stderr,
    'error: Cannot start endpoint "mistyped": PostgreSQL says there is no setting ' +
      '"shared_bufers"; did you mean "shared_buffers"?\n',
  );
  const almost = await runNeon(neon.local.directory, ["endpoint", "start", "dve"]);
  assert.match(almost.stderr, /^there is no branch "dve": on main instead; or is it "dev"\?\n/);
  await neon.run("endpoint", "create", "broken", "--branch-name", "dev");
  const file = `${neon.local.directory}/compute/endpoints/broken/postgresql.conf`;
  Deno.mkdirSync(file.replace(/\/[^/]*$/, ""));
  Deno.writeTextFileSync(file, "shared_buffers = much\n");
  const broken = await runNeon(neon.local.directory, ["endpoint", "start", "broken"]);
  assert.equal(
    broken.stderr,
    'error: Cannot start endpoint "broken": PostgreSQL says invalid value for parameter ' +
      '"shared_buffers": "much"\n',
  );
  const text = await neon.run("status");
  assert.match(text, /\n broken +Primary .* (crashed|stopped)\n/);
  assert.match(text, /\n endpoint broken (crashed|did not start): .*\n/);
  assert.match(await neon.run("logs", "endpoint", "broken"), /shared_buffers.*"much"/);
}

/** With daemons dead: what does not work says so at once, or what it waits for. */
async function checkDead(neon: TestNeon): Promise<void> {
  neon.signalRole("pageserver", "SIGKILL");
  const start = await runNeon(neon.local.directory, ["endpoint", "start", "dev"]);
  assert.match(
    start.stderr,
    /^error: Cannot reach the pageserver at \S+: connection refused; "neon start" starts it$/m,
  );
  for (const id of [1, 2]) neon.signalRole(`safekeeper ${id}`, "SIGKILL");
  const sql = new Deno.Command(programFile("bin/neon"), {
    args: ["sql", "main", "--no-psql", "-c", "select pg_logical_emit_message(true, 'x', 'y')"],
    env: { NEON_REPO_DIR: neon.local.directory, NEON_DENO: Deno.execPath() },
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).spawn();
  const reader = sql.stderr.pipeThrough(new TextDecoderStream()).getReader();
  let said = "";
  while (!said.includes("\n")) said += (await reader.read()).value;
  const down = "pageserver, safekeeper 1, safekeeper 2";
  assert.equal(said, `${down} are stopped: what needs them waits until "neon start"\n`);
  await neon.run("start");
  assert.equal((await sql.status).success, true);
  await reader.cancel();
}

/** Follows the logs in a process of its own while `act` makes something to be shown. */
async function checkFollowed(neon: TestNeon, act: () => Promise<void>): Promise<void> {
  const child = new Deno.Command(programFile("bin/neon"), {
    args: ["logs", "-f", "-n", "1"],
    env: { NEON_REPO_DIR: neon.local.directory, NEON_DENO: Deno.execPath(), NO_COLOR: "1" },
    stdin: "null",
    stdout: "piped",
  }).spawn();
  let shown = "";
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  const readUntil = async (pattern: RegExp) => {
    while (!pattern.test(shown)) {
      const { done, value } = await reader.read();
      assert.ok(!done, `the command goes on until ${pattern} was shown: ${shown}`);
      shown += value;
    }
  };
  try {
    await readUntil(/\n/);
    await act();
    await readUntil(/endpoint main +\| .* LOG: {2}here it is\n/);
    // What a rotation does: the daemon begins a new file under the old name
    const { logFile } = neon.role("safekeeper 3");
    Deno.renameSync(logFile, `${logFile}.1`);
    await neon.run("safekeeper", "restart", "3");
    await readUntil(/safekeeper 3 +\| .* safekeeper 3 serves WAL/);
  } finally {
    child.kill("SIGINT");
    await reader.cancel();
    await child.status;
  }
}

testWithNeon("status and logs say how everything does", { safekeepers: 3 }, async (neon) => {
  const main = neon.connect(await neon.local.startEndpoint("main"));
  await main`create table t as select generate_series(1, 1000)`;
  await neon.local.createBranch("dev");
  await until(
    "the pageserver has what was committed",
    async () =>
      (await statusJson(neon)).tenants[0].branches
        .every((branch: Record<string, number>) => branch["receive_lag_bytes"] === 0),
  );
  await checkRunning(neon);
  await checkHung(neon);
  await checkFailed(neon);
  await checkDead(neon);
  await checkFollowed(neon, async () => {
    await main`do 'begin raise log ''here it is''; end'`;
  });

  const all = await neon.run("logs");
  const sources = new Set(all.split("\n").map((line) => line.split("|")[0]!.trim()));
  for (const source of ["pageserver", "safekeeper 1", "compute", "endpoint main"]) {
    assert.ok(sources.has(source), `${source} among ${[...sources]}`);
  }
  const json = (await neon.run("logs", "--json")).trimEnd().split("\n")
    .map((line) => JSON.parse(line));
  const latest = new Map<string, string>(); // PostgreSQL's processes overtake each other
  const times = json.map(({ source, time }) => {
    const before = latest.get(source) ?? "";
    latest.set(source, time > before ? time : before);
    return latest.get(source)!;
  });
  assert.deepEqual(times, times.toSorted(), "messages are in the order of time");

  await neon.closeClients();
  await neon.local.stop();
  const stopped = await runNeon(neon.local.directory, ["status"]);
  assert.equal(stopped.code, 1);
  assert.match(stopped.stdout, / pageserver +\S+ +--- +--- +--- +\S+ MB +stopped\n/);
  assert.match(stopped.stdout, /\n dev +--- /);
  assert.match(stopped.stderr, /neon start/);
});
