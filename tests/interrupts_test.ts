/**
 * Ctrl-C and kill -9 in the middle of commands, at seeded moments: the same command again works,
 * and nothing half made is left.
 *
 * NEON_INTERRUPT_ROUNDS sets how often each command is interrupted (1 in a normal run, 15 in `deno
 * task test:soak`); NEON_TEST_SEED repeats a run.
 */
import assert from "node:assert/strict";
import { stringify } from "smol-toml";
import { programFile } from "../cli/control_plane/supervisor.ts";
import { configOnFreePorts } from "../cli/local_neon.ts";
import { loadConfig } from "../cli/control_plane/config.ts";
import { listTenantRecords, loadTenantRecord } from "../cli/control_plane/tenant_records.ts";
import { newTenantId } from "../libs/utils/id.ts";
import { runInside } from "./bad_input/run_inside.ts";
import { logTails } from "./harness.ts";
import { type SeededRandom, seededRandom } from "./load/random.ts";

const ROUNDS = Number(Deno.env.get("NEON_INTERRUPT_ROUNDS") ?? 1);
/** Moments come this soon after the start of the process; some commands have ended by then. */
const MOMENT_MS_MAX = 500;

/** A state directory, and commands on it. */
class Scene {
  readonly repoDir: string;
  readonly random: SeededRandom;

  constructor(repoDir: string, random: SeededRandom) {
    this.repoDir = repoDir;
    this.random = random;
  }

  /** Runs a command until a moment; whether it was interrupted. */
  async interrupt(args: readonly string[]): Promise<boolean> {
    const signal = this.random.pick(["SIGINT", "SIGKILL"] as const);
    const moment = this.random.between(0, MOMENT_MS_MAX);
    const child = new Deno.Command(programFile("bin/neon"), {
      args: [...args],
      env: { NEON_REPO_DIR: this.repoDir, NEON_DENO: Deno.execPath() },
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    const timer = setTimeout(() => child.kill(signal), moment);
    const status = await child.status;
    clearTimeout(timer);
    console.log(`${args.slice(0, 2).join(" ")}: ${signal} after ${moment} ms, ${status.code}`);
    return status.signal !== null;
  }

  /** A command that is interrupted works the next time; `again` accepts that it was done before. */
  async twice(args: readonly string[], again = /^$/): Promise<void> {
    await this.interrupt(args);
    const { code, stderr } = await runInside(this.repoDir, [...args]);
    assert.ok(code === 0 || again.test(stderr), `neon ${args.join(" ")}: ${stderr}`);
    this.checkNothingHalfMade();
  }

  /** What there is has a name: tenants, timelines, on the pageserver and on the safekeeper. */
  checkNothingHalfMade(): void {
    const { branch_name_mappings: branches } = loadConfig(this.repoDir);
    const named = new Map<string, string[]>();
    for (const [tenant, timeline] of Object.values(branches).flat()) {
      named.set(tenant, [...named.get(tenant) ?? [], timeline].sort());
    }
    const tenants = [...named.keys()].sort();
    assert.deepEqual(listTenantRecords(this.repoDir), tenants);
    assert.deepEqual(this.#names("creating"), []);
    assert.deepEqual(this.#names("pageserver_1/tenants"), tenants);
    for (const [tenant, timelines] of named) {
      const { timelines: recorded } = loadTenantRecord(this.repoDir, tenant as never);
      assert.deepEqual(Object.keys(recorded).sort(), timelines);
      assert.deepEqual(this.#names(`pageserver_1/tenants/${tenant}/timelines`), timelines);
      assert.deepEqual(this.#names(`safekeepers/sk1/${tenant}`), timelines);
    }
  }

  #names(directory: string): string[] {
    try {
      return [...Deno.readDirSync(`${this.repoDir}/${directory}`)].map(({ name }) => name).sort();
    } catch {
      return [];
    }
  }
}

async function round(scene: Scene, n: number): Promise<void> {
  const { repoDir, random } = scene;
  const branch = ["timeline", "branch", "--if-not-exists", "--branch-name", `b${n}`];
  await scene.twice(["start"]);
  await scene.twice(["tenant", "create", "--tenant-id", newTenantId()], /it exists already/);
  await scene.twice(branch);
  await scene.twice(["timeline", "create", "--branch-name", `root${n}`], /already names timeline/);
  await scene.twice(["endpoint", "create", `b${n}`, "--branch-name", `b${n}`], /exists already/);
  await scene.twice(["endpoint", "start", `b${n}`]);
  await scene.interrupt(["sql", `b${n}`, "--no-psql", "-c", "select pg_sleep(2)"]);
  const { stdout } = await runInside(repoDir, ["sql", `b${n}`, "--no-psql", "-c", "select 1"]);
  assert.match(stdout, /\(1 row\)/);
  await scene.interrupt(["page", "get", "pg_class", "0"]);
  if (random.between(0, 1) === 1) await scene.twice(["endpoint", "stop", `b${n}`]);
  await scene.twice(["stop"]);
}

Deno.test("an interrupted command works the next time, and leaves nothing half made", async () => {
  const random = seededRandom("interrupts");
  const parent = Deno.makeTempDirSync({ prefix: "neon-" });
  Deno.chmodSync(parent, 0o755);
  const scene = new Scene(`${parent}/.neon`, random);
  const { broker, compute, pageservers, safekeepers } = configOnFreePorts(1, 17);
  const ports = `${parent}/ports.toml`;
  Deno.writeTextFileSync(ports, stringify({ broker, compute, pageservers, safekeepers }));
  try {
    await scene.twice(["init", "--config", ports], /it is there already/);
    assert.deepEqual(
      [...Deno.readDirSync(parent)].map(({ name }) => name).sort(),
      [".neon", "ports.toml"],
    );
    assert.equal((await runInside(scene.repoDir, ["start"])).code, 0);
    const created = await runInside(scene.repoDir, ["tenant", "create", "--set-default"]);
    assert.equal(created.code, 0, created.stderr);
    for (let n = 0; n < ROUNDS; n++) await round(scene, n);
  } catch (thrown) {
    console.error(logTails(scene.repoDir));
    throw thrown;
  } finally {
    await runInside(scene.repoDir, ["stop", "-m", "immediate"]);
    Deno.removeSync(parent, { recursive: true });
  }
});
