/**
 * Least privilege of the running daemons. Each one's flags are read off its process and a probe is
 * run under them: what the daemon needs works, everything else is refused, by Deno. A daemon that
 * is sent where it may not go notes that in its log and lives on. Nothing listens beyond loopback.
 */
import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { computeClient } from "../cli/control_plane/clients.ts";
import { daemonEnvironment, MEMORY_FLAGS } from "../cli/control_plane/daemon_environment.ts";
import { commandUser, postgresUser } from "../cli/control_plane/host_user.ts";
import { allRoles } from "../cli/control_plane/lifecycle.ts";
import type { Role } from "../cli/control_plane/roles.ts";
import { daemonPid, programFile } from "../cli/control_plane/supervisor.ts";
import type { EndpointSpec } from "../compute/client.ts";
import { crc32AddonPath } from "../libs/utils/crc32c.ts";
import { type TestNeon, testWithNeon, withNeon } from "./harness.ts";
import { listeningAddresses } from "./support/listening.ts";
import type { Attempt } from "./support/permission_probe.ts";
import { processesIn } from "./support/processes.ts";
import { until } from "./support/waiting.ts";

const PROBE = programFile("tests/support/permission_probe.ts");
const RUMOUR = programFile("tests/support/rumour.ts");

/** The arguments of a running process. */
function commandLine(pid: number): string[] {
  return Deno.readTextFileSync(`/proc/${pid}/cmdline`).split("\0").slice(0, -1);
}

/** The permission flags that the daemon's process really has. */
function flagsOf(role: Role): string[] {
  const args = commandLine(daemonPid(role)!);
  const others = ["run", "--quiet", `--config=${programFile("deno.json")}`, MEMORY_FLAGS];
  const flags = args.slice(1, args.indexOf(role.main))
    .filter((arg) => !others.includes(arg));
  assert.deepEqual(flags, role.permissions, role.name);
  return flags;
}

/** Tries everything as the daemon would; what was not as expected. */
async function surprises(
  role: Role,
  expected: "allowed" | "denied",
  attempts: readonly Attempt[],
): Promise<string[]> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", ...flagsOf(role), PROBE, JSON.stringify(attempts)],
    cwd: role.directory,
    clearEnv: true,
    env: daemonEnvironment(role.environment ?? []),
  }).output();
  const text = new TextDecoder();
  assert.equal(code, 0, text.decode(stderr));
  const outcomes = JSON.parse(text.decode(stdout)) as string[];
  return attempts.flatMap((attempt, i) =>
    outcomes[i] === expected ? [] : [`${role.name}: ${attempt.join(" ")}: ${outcomes[i]}`]
  );
}

/** What each daemon has to reach, by its name. */
function needsOf(neon: TestNeon): Map<string, Attempt[]> {
  const { config } = neon.local.environment();
  const broker = config.broker.listen_addr;
  const services = config.safekeepers.map(({ pg_port }) => `127.0.0.1:${pg_port}`);
  const connect = (...addresses: string[]) =>
    addresses.map((address): Attempt => ["connect", address]);
  const stores: Attempt[] = [["env", "GRPC_TRACE"]];
  const addon: Attempt[] = [["ffi", crc32AddonPath()!]];
  const needs = new Map<string, Attempt[]>([
    ["storage_broker", stores],
    ["pageserver", [
      ...connect(broker, ...services),
      ...stores,
      // Where its worker is imported from
      ["read", programFile("pageserver/main.ts")],
      ["read", programFile("libs/utils/lsn.ts")],
      ...addon,
    ]],
    ["compute", [
      ...connect(config.pageservers[0]!.listen_pg_addr, ...services),
      ["run", neon.role("compute").settings["launcher_path"] as string],
      ...addon,
    ]],
  ]);
  for (const { id } of config.safekeepers) {
    const peers = config.safekeepers.filter((peer) => peer.id !== id)
      .flatMap(({ pg_port, http_port }) => [`127.0.0.1:${pg_port}`, `127.0.0.1:${http_port}`]);
    needs.set(`safekeeper ${id}`, [...connect(broker, ...peers), ...stores, ...addon]);
  }
  return needs;
}

/** What somebody in control of a daemon would like to do; `outside` is a directory of nobody. */
function temptations(neon: TestNeon, role: Role, outside: string): Attempt[] {
  const roles = allRoles(neon.local.environment());
  const others = roles.filter(({ name }) => name !== role.name);
  const launcher = neon.role("compute").settings["launcher_path"] as string;
  const binaries = neon.local.environment().config.postgres[0]!.bin_dir;
  const repoDir = neon.local.directory;
  const pgdata = `${repoDir}/compute/endpoints/main/pgdata`;
  const file = join(outside, "file");
  const port = role.listen[0]!.split(":")[1]!;
  const all: Attempt[] = [
    ...["/etc/passwd", "/proc/self/environ", file, `${repoDir}/config`, `${binaries}/postgres`]
      .map((path): Attempt => ["read", path]),
    ...["deno.json", "deno.lock", "cli/main.ts", "compute/main.ts"]
      .map((file): Attempt => ["read", programFile(file)]),
    ...[role.main, launcher]
      .map((path): Attempt => ["read", path]),
    ...others.map(({ settingsFile }): Attempt => ["read", settingsFile]),
    ...[repoDir, outside, "/", dirname(launcher)].map((path): Attempt => ["list", path]),
    ["stat", file],
    ...[repoDir, outside, programFile(""), dirname(launcher), "/tmp", "/dev/shm"]
      .map((path): Attempt => ["write", join(path, "probe")]),
    ...others.map(({ directory }): Attempt => ["write", join(directory, "probe")]),
    ["remove", file],
    ["link", file],
    ["symlink", file],
    ["rename", file],
    ["connect", "192.0.2.1:80"],
    ["connect", `localhost:${port}`],
    [
      "connect",
      neon.local.environment().config.compute.first_pg_port.toString().replace(
        /^/,
        "127.0.0.1:",
      ),
    ],
    ["connectUnix", `${dirname(pgdata)}/socket/.s.PGSQL.5432`],
    ["connectUnix", "/run/docker.sock"],
    ...["127.0.0.1:0", "0.0.0.0:0", `0.0.0.0:${port}`, `:::${port}`]
      .map((address): Attempt => ["listen", address]),
    ["listenUnix", join(outside, "probe.sock")],
    ...["/bin/sh", "/usr/bin/env", Deno.execPath(), `${binaries}/postgres`, join(outside, "launch")]
      .map((program): Attempt => ["run", program]),
    ["kill", String(Deno.pid)],
    ["kill", String(daemonPid(others[0]!)!)],
    ...["HOME", "PATH", "LD_PRELOAD", "AWS_SECRET_ACCESS_KEY", "https_proxy"]
      .map((name): Attempt => ["env", name]),
    ...["hostname", "networkInterfaces", "osRelease", "systemMemoryInfo", "loadavg", "uid"]
      .map((name): Attempt => ["sys", name]),
    ["ffi", "libc.so.6"],
    ["ffi", join(outside, "file")],
    ["import", `file://${outside}/module.ts`],
    ["import", "https://deno.land/std@0.200.0/version.ts"],
  ];
  const needed = needsOf(neon).get(role.name)!.map((attempt) => attempt.join(" "));
  const addresses = [...others.flatMap(({ listen }) => listen)]
    .map((address): Attempt => ["connect", address]);
  const runs: Attempt[] = [["run", launcher]];
  return [...all, ...addresses, ...runs].filter((attempt) => !needed.includes(attempt.join(" ")));
}

Deno.test("daemons may do what they must, and listen on loopback alone", async () => {
  const outside = Deno.makeTempDirSync({ prefix: "neon-outside-" });
  const remoteStorage = { local_path: `${outside}/remote` };
  try {
    await withNeon({ safekeepers: 2, remoteStorage }, (neon) => tryEverything(neon, outside));
  } finally {
    Deno.removeSync(outside, { recursive: true });
  }
});

async function tryEverything(neon: TestNeon, outside: string): Promise<void> {
  const remote = `${outside}/remote`;
  const main = await neon.local.startEndpoint("main");
  const replica = await neon.local.startEndpoint("replica", { mode: "Replica", branch: "main" });
  const listening = [
    ...allRoles(neon.local.environment()).flatMap(({ listen }) => listen),
    ...[main, replica].map(({ port }) => `127.0.0.1:${port}`),
  ];
  assert.deepEqual(listeningAddresses(processesIn(neon.local.directory)), listening.sort());
  Deno.writeTextFileSync(`${outside}/file`, "a secret");
  Deno.writeTextFileSync(`${outside}/module.ts`, "export default 1;");
  const launcher = neon.role("compute").settings["launcher_path"] as string;
  Deno.copyFileSync(launcher, `${outside}/launch`);
  const found: string[] = [];
  for (const role of allRoles(neon.local.environment())) {
    const own: Attempt[] = [
      ["list", role.directory],
      ["read", role.settingsFile],
      ["write", join(role.directory, "probe")],
      ["remove", join(role.directory, "probe")],
      ...role.listen.map((address): Attempt => ["connect", address]),
      ...needsOf(neon).get(role.name)!,
    ];
    const stored = join(remote, "safekeepers", "probe");
    const backup: Attempt[] = [["write", stored], ["remove", stored]];
    const isBackedUp = role.name.startsWith("safekeeper");
    found.push(
      ...await surprises(role, "allowed", [...own, ...(isBackedUp ? backup : [])]),
      ...await surprises(role, "denied", [
        ...temptations(neon, role, outside),
        ...(isBackedUp ? [] : backup),
        ["write", join(remote, "probe")],
      ]),
    );
  }
  assert.deepEqual(found, []);
  assert.equal(Deno.readTextFileSync(`${outside}/file`), "a secret");
}

/** Where nobody may go: notes who comes all the same. */
class Forbidden implements Disposable {
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  visits = 0;

  constructor() {
    this.#count();
  }

  async #count(): Promise<void> {
    for await (const visitor of this.#listener) {
      this.visits++;
      visitor.close();
    }
  }

  get address(): { host: string; port: number } {
    return { host: "127.0.0.1", port: (this.#listener.addr as Deno.NetAddr).port };
  }

  [Symbol.dispose](): void {
    this.#listener.close();
  }
}

testWithNeon("a daemon that is sent where it may not go says so and lives on", {
  safekeepers: 2,
}, async (neon) => {
  using forbidden = new Forbidden();
  const { host, port } = forbidden.address;
  const { config } = neon.local.environment();
  const { tenantId, timelineId } = neon.tenant;
  const { uid, gid } = commandUser(postgresUser());
  const roles = allRoles(neon.local.environment());
  const before = roles.map(daemonPid);
  const says = (name: string, what: RegExp) =>
    what.test(Deno.readTextFileSync(neon.role(name).logFile));
  const refusal = `this process may not connect to ${host}:${port}`;

  // The broker tells of a safekeeper that is ahead of all others
  const rumour = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", `--config=${programFile("deno.json")}`]
      .concat(RUMOUR, config.broker.listen_addr, tenantId, timelineId, `${host}:${port}`),
    stdout: "null",
  }).spawn();
  try {
    for (const name of ["pageserver", "safekeeper 1", "safekeeper 2"]) {
      const what = new RegExp(`WARNING.*${timelineId}.*${refusal}`);
      await until(`${name} says why it did not go there`, () => says(name, what));
    }
  } finally {
    rumour.kill("SIGKILL");
    await rumour.status;
  }

  // The API tells the compute host of another pageserver
  const main = await neon.local.startEndpoint("main");
  await neon.connect(main)`create table t as select 1 as n`;
  const compute = computeClient(neon.local.environment());
  const [pageHost, pagePort] = config.pageservers[0]!.listen_pg_addr.split(":");
  const spec: EndpointSpec = {
    endpoint_id: "astray",
    tenant_id: tenantId,
    timeline_id: timelineId,
    mode: "Replica",
    pg_version: 17,
    pg_port: main.port + 1,
    pg_bin_dir: config.postgres[0]!.bin_dir,
    pageserver: { host: pageHost!, port: Number(pagePort) },
    safekeepers: config.safekeepers.map(({ id, pg_port }) => ({ id, host, pg_port })),
    ...(uid === undefined || gid === undefined ? {} : { postgres_user: { uid, gid } }),
  };
  await assert.rejects(
    compute.startEndpoint({ ...spec, pageserver: { host, port } }),
    new RegExp(refusal),
  );
  assert.ok(says("compute", new RegExp(`ERROR.*astray.*${refusal}`)));
  await assert.rejects(
    compute.startEndpoint({ ...spec, pg_port: port }),
    new RegExp(`^Conflict: .*port ${port} is in use by another process$`),
  );

  assert.equal(forbidden.visits, 0);
  assert.deepEqual(roles.map(daemonPid), before, "no daemon has ended");
  assert.deepEqual([...await neon.connect(main)`select n from t`], [{ n: 1 }]);
});
