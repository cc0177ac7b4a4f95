/**
 * The launcher's guard: it stops what runs in an endpoint's pgdata only when nobody has held the
 * host's lock for the limit, and leaves when the host was told to end.
 */
import assert from "node:assert/strict";

const LAUNCHER = `${import.meta.dirname}/neon_launch.sh`;
const QUIET = { stdin: "null", stdout: "null", stderr: "null" } as const;

interface Scene {
  readonly pidFile: string;
  /** Stands in for Postgres: a process that works in pgdata. */
  readonly postgres: Deno.ChildProcess;
  guard(): Deno.ChildProcess;
}

async function withScene(body: (scene: Scene) => Promise<void>): Promise<void> {
  const root = Deno.makeTempDirSync({ prefix: "guard_test_" });
  const pgdata = `${root}/endpoints/ep/pgdata`;
  Deno.mkdirSync(pgdata, { recursive: true });
  const postgres = new Deno.Command("sleep", { args: ["60"], cwd: pgdata, ...QUIET }).spawn();
  Deno.writeTextFileSync(`${pgdata}/postmaster.pid`, `${postgres.pid}\n${pgdata}\n`);
  const pidFile = `${root}/compute.pid`;
  Deno.writeTextFileSync(pidFile, "1\n");
  const args = ["guard", pidFile, `${root}/endpoints`, "1", "1"];
  try {
    await body({
      pidFile,
      postgres,
      guard: () => new Deno.Command(LAUNCHER, { args, ...QUIET }).spawn(),
    });
  } finally {
    try {
      postgres.kill("SIGKILL");
    } catch {
      // the guard was faster
    }
    await postgres.status;
    Deno.removeSync(root, { recursive: true });
  }
}

Deno.test("the guard stops Postgres when the host has been gone for the limit", async () => {
  await withScene(async ({ postgres, guard }) => {
    assert.equal((await guard().status).code, 0);
    assert.equal((await postgres.status).signal, "SIGQUIT");
  });
});

Deno.test("the guard leaves Postgres alone while the host lives", async () => {
  await withScene(async ({ pidFile, postgres, guard }) => {
    using host = Deno.openSync(pidFile, { read: true, write: true });
    assert.ok(host.tryLockSync(true));
    const watching = guard();
    await new Promise((resolve) => setTimeout(resolve, 2500));
    assert.equal((await guard().status).code, 0, "a second guard is not needed");
    Deno.writeTextFileSync(pidFile, "stopped\n", { append: true });
    assert.equal((await watching.status).code, 0);
    postgres.kill("SIGKILL");
    assert.equal((await postgres.status).signal, "SIGKILL", "it lived until now");
  });
});
