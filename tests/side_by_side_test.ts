/** Two local Neons on one machine, each with a block of ports of its own. */
import assert from "node:assert/strict";
import { isPortFree } from "../cli/control_plane/endpoint_records.ts";
import { type CommandResult, logTails, openSql, runNeon, Watchdog } from "./harness.ts";
import { listeningAddresses } from "./support/listening.ts";
import { processesIn } from "./support/processes.ts";

/** Ports that a base stands for in these tests: the last is that of a second endpoint. */
const OFFSETS = [0, 1, 2, 10, 11, 20, 21, 100, 101];
const APART = 200;
const BASE_MIN = 12_000;
const BASE_MAX = 29_000;

/** Two blocks of ports that nobody listens at now. */
function freeBases(): [number, number] {
  const isFree = (base: number) =>
    OFFSETS.every((offset) => isPortFree("127.0.0.1", base + offset));
  const [random] = crypto.getRandomValues(new Uint32Array(1));
  for (let base = BASE_MIN + random! % (BASE_MAX - BASE_MIN);; base += APART) {
    if (isFree(base) && isFree(base + APART)) return [base, base + APART];
  }
}

/** One of the two: its directory, and its commands. */
class Side {
  readonly repoDir: string;

  constructor(readonly directory: string, readonly base: number) {
    Deno.mkdirSync(directory);
    this.repoDir = `${directory}/.neon`;
  }

  run(...args: string[]): Promise<CommandResult> {
    return runNeon(this.repoDir, args, this.directory);
  }

  async must(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.run(...args);
    assert.equal(code, 0, `neon ${args.join(" ")}: ${stderr}`);
    return stdout;
  }

  /** A table that says whose it is, in the endpoint on the first port for endpoints. */
  async query(text: string): Promise<unknown[]> {
    const sql = openSql(this.base + 100);
    try {
      return [...await sql.unsafe(text)];
    } finally {
      await sql.end();
    }
  }
}

Deno.test("two local Neons live side by side", async () => {
  const top = Deno.makeTempDirSync({ prefix: "neon-sides-" });
  Deno.chmodSync(top, 0o755);
  const bases = freeBases();
  const sides = ["a", "b"].map((name, i) => new Side(`${top}/${name}`, bases[i]!));
  const [a, b] = sides as [Side, Side];
  await using _first = new Watchdog(a.repoDir);
  await using _second = new Watchdog(b.repoDir);
  try {
    await Promise.all(sides.map(async (side, i) => {
      await side.must("init", "--port-base", String(side.base));
      await side.must("start");
      await side.must("tenant", "create", "--set-default");
      await side.must("endpoint", "start", "main");
      await side.query(`create table whose as select ${i} as side`);
    }));
    for (const [i, side] of sides.entries()) {
      assert.deepEqual(await side.query("select side from whose"), [{ side: i }]);
      assert.deepEqual(
        listeningAddresses(processesIn(side.repoDir)),
        OFFSETS.slice(0, -1).map((offset) => `127.0.0.1:${side.base + offset}`).sort(),
      );
    }
    await refusesTakenPorts(new Side(`${top}/c`, a.base), a);

    await a.must("stop");
    assert.deepEqual(await b.query("select side from whose"), [{ side: 1 }]);
    await a.must("start");
    await refusesTakenEndpointPort(a);
    await a.must("endpoint", "start", "main");
    assert.deepEqual(await a.query("select side from whose"), [{ side: 0 }]);
  } catch (thrown) {
    for (const side of sides) console.error(logTails(side.repoDir));
    throw thrown;
  } finally {
    await Promise.all(sides.map((side) => side.run("stop", "-m", "immediate")));
    Deno.removeSync(top, { recursive: true });
  }
});

/** A third one with the ports of `other`, which runs, is told so, and starts nothing. */
async function refusesTakenPorts(third: Side, other: Side): Promise<void> {
  const refused = await third.run("init", "--port-base", "80");
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /^error: Cannot use port base 80: use one from 1024 to 65000\n$/);
  const initialised = await third.run("init", "--port-base", String(third.base));
  assert.equal(initialised.code, 0, initialised.stderr);
  assert.match(initialised.stderr, /ports are in use now .*--port-base/);
  const { code, stdout, stderr } = await third.run("start");
  assert.equal(code, 1);
  assert.equal(stdout, "");
  const [, pid] = new RegExp(
    `^error: Cannot start the local Neon in "${third.repoDir}": 127.0.0.1:${third.base} is in ` +
      `use by process (\\d+) \\(deno -D ${other.repoDir}/storage_broker\\) \\(and 6 more of its ` +
      `ports are taken\\); stop that, or change the ports in .neon/config\n$`,
  ).exec(stderr) ?? [];
  assert.ok(pid !== undefined, stderr);
  const pidFile = `${other.repoDir}/storage_broker/storage_broker.pid`;
  assert.equal(Deno.readTextFileSync(pidFile), `${pid}\n`);
  assert.deepEqual(processesIn(third.repoDir), []);
}

/** Whoever has the port of an endpoint is named, and what can be done. */
async function refusesTakenEndpointPort(side: Side): Promise<void> {
  using _taken = Deno.listen({ hostname: "127.0.0.1", port: side.base + 100 });
  const { code, stderr } = await side.run("endpoint", "start", "main");
  assert.equal(code, 1);
  assert.match(
    stderr,
    new RegExp(
      `^error: Cannot start endpoint "main": port ${side.base + 100} is in use by process ` +
        `${Deno.pid} \\(.*\\); stop that, or .*"neon endpoint create main --pg-port"\n$`,
    ),
  );
}
