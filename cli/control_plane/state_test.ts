import assert from "node:assert/strict";
import { join } from "node:path";
import { parse } from "smol-toml";
import type { StorageLocation } from "../../libs/remote_storage/location.ts";
import { newTenantId, newTimelineId } from "../../libs/utils/id.ts";
import {
  branchName,
  branchTimeline,
  configPath,
  defaultConfig,
  loadConfig,
  mapBranch,
  storeConfig,
} from "./config.ts";
import {
  checkEndpointName,
  type EndpointRecord,
  listEndpointRecords,
  loadEndpointRecord,
  nextFreePort,
  removeEndpointRecord,
  storeEndpointRecord,
} from "./endpoint_records.ts";
import { changeConfig, displayPath, tenantOf, timelineOfBranch } from "./environment.ts";
import { archiveName } from "./initdb_cache.ts";
import { withDirectoryLock } from "./repo_dir.ts";
import { safekeeperRole, writeSettings } from "./roles.ts";
import { parseSettings, settingsWithoutEffect } from "./tenant_settings.ts";
import {
  listTenantRecords,
  loadTenantRecord,
  raiseGeneration,
  recordTimeline,
  storeTenantRecord,
  timelinePgVersion,
} from "./tenant_records.ts";

function inTemporaryDirectory(
  name: string,
  test: (directory: string) => void | Promise<void>,
): void {
  Deno.test(name, async () => {
    const directory = Deno.makeTempDirSync({ prefix: "neon-state-" });
    try {
      await test(directory);
    } finally {
      Deno.removeSync(directory, { recursive: true });
    }
  });
}

inTemporaryDirectory("loadConfig() gives back what storeConfig() wrote", (directory) => {
  const config = defaultConfig(3, 17);
  const tenant = newTenantId();
  config.default_tenant_id = tenant;
  config.postgres.push({ version: 17, bin_dir: "/somewhere/bin" });
  mapBranch(config, tenant, "main", newTimelineId());
  mapBranch(config, tenant, 'odd "name"', newTimelineId());
  mapBranch(config, newTenantId(), "main", newTimelineId());
  storeConfig(directory, config);
  assert.deepEqual(
    JSON.parse(JSON.stringify(loadConfig(directory))),
    JSON.parse(JSON.stringify(config)),
  );
});

inTemporaryDirectory("loadConfig() says what to do when there is no local Neon", (directory) => {
  assert.throws(() => loadConfig(directory), /run "neon init" first/);
});

inTemporaryDirectory("loadConfig() refuses a format that it does not know", (directory) => {
  Deno.writeTextFileSync(configPath(directory), "format_version = 99\n");
  assert.throws(
    () => loadConfig(directory),
    /its format version 99 is newer than .* \(1\); use the neon that wrote it/,
  );
  Deno.writeTextFileSync(configPath(directory), "format_version = = 1\n");
  assert.throws(() => loadConfig(directory), /Cannot use .*line 1.*mend it/);
});

Deno.test("mapBranch() keeps a name unique within a tenant", () => {
  const config = defaultConfig(1, 17);
  const [tenant, other] = [newTenantId(), newTenantId()];
  const [first, second] = [newTimelineId(), newTimelineId()];
  mapBranch(config, tenant, "constructor", first);
  mapBranch(config, tenant, "constructor", first);
  mapBranch(config, other, "constructor", second);
  assert.throws(() => mapBranch(config, tenant, "constructor", second), /already names timeline/);
  assert.equal(branchTimeline(config, tenant, "constructor"), first);
  assert.equal(branchTimeline(config, other, "constructor"), second);
  assert.equal(branchTimeline(config, tenant, "toString"), undefined);
  assert.equal(branchName(config, other, second), "constructor");
  assert.equal(branchName(config, other, first), undefined);
});

inTemporaryDirectory("changeConfig() applies changes to what others wrote", async (directory) => {
  const config = defaultConfig(1, 17);
  storeConfig(directory, config);
  const env = { repoDir: directory, config };
  const tenant = newTenantId();
  await Promise.all(
    Array.from(
      { length: 20 },
      (_, i) => changeConfig(env, (now) => mapBranch(now, tenant, `b${i}`, newTimelineId())),
    ),
  );
  assert.equal(Object.keys(loadConfig(directory).branch_name_mappings).length, 20);
});

inTemporaryDirectory("withDirectoryLock() lets one change happen at a time", async (directory) => {
  const order: string[] = [];
  const change = (name: string) =>
    withDirectoryLock(directory, async () => {
      order.push(`${name} begins`);
      await new Promise((resolve) => setTimeout(resolve, 5));
      order.push(`${name} ends`);
    });
  await Promise.all([change("a"), change("b"), change("c")]);
  for (let i = 0; i < order.length; i += 2) {
    assert.equal(order[i]!.split(" ")[0], order[i + 1]!.split(" ")[0]);
  }
});

Deno.test("tenantOf() and timelineOfBranch() say what there is instead", () => {
  const config = defaultConfig(1, 17);
  const env = { repoDir: "/nowhere", config };
  assert.throws(() => tenantOf(env, undefined), /--tenant-id/);
  const tenant = newTenantId();
  mapBranch(config, tenant, "main", newTimelineId());
  mapBranch(config, tenant, "dev", newTimelineId());
  assert.equal(
    tenantOf({ ...env, config: { ...config, default_tenant_id: tenant } }, undefined),
    tenant,
  );
  assert.throws(() => timelineOfBranch(env, tenant, "prod"), /it has dev, main/);
});

inTemporaryDirectory("withDirectoryLock() waits for others, but not forever", async (directory) => {
  using other = Deno.openSync(directory, { read: true });
  other.lockSync(true);
  await assert.rejects(
    withDirectoryLock(directory, () => {}, 30),
    /^TimedOut: Cannot lock .*: another neon command has held it for 0.03 s/,
  );
  const late = withDirectoryLock(directory, () => "done");
  other.unlockSync();
  assert.equal(await late, "done");
});

inTemporaryDirectory("raiseGeneration() never gives a number twice", (directory) => {
  const tenant = newTenantId();
  const timeline = newTimelineId();
  storeTenantRecord(directory, tenant, { generation: 1, pg_version: 17, timelines: {} });
  recordTimeline(directory, tenant, timeline, { pg_version: 15, safekeepers: [1, 2] });
  assert.equal(raiseGeneration(directory, tenant), 2);
  assert.equal(raiseGeneration(directory, tenant), 3);
  assert.deepEqual(loadTenantRecord(directory, tenant), {
    generation: 3,
    pg_version: 17,
    timelines: { [timeline]: { pg_version: 15, safekeepers: [1, 2] } },
  });
  assert.equal(timelinePgVersion(directory, tenant, timeline), 15);
  assert.throws(
    () => timelinePgVersion(directory, tenant, newTimelineId()),
    /Cannot find timeline/,
  );
  assert.deepEqual(listTenantRecords(directory), [tenant]);
  assert.throws(() => loadTenantRecord(directory, newTenantId()), /neon tenant list/);
});

function endpoint(name: string, port: number): EndpointRecord {
  return {
    endpoint_id: name,
    tenant_id: newTenantId(),
    timeline_id: newTimelineId(),
    mode: "Primary",
    pg_port: port,
    pg_version: 17,
  };
}

inTemporaryDirectory("endpoint definitions are listed by name and can be removed", (directory) => {
  assert.deepEqual(listEndpointRecords(directory), []);
  const [b, a] = [endpoint("b", 55433), endpoint("a", 55432)];
  storeEndpointRecord(directory, b);
  storeEndpointRecord(directory, a);
  assert.deepEqual(listEndpointRecords(directory), [a, b]);
  removeEndpointRecord(directory, "a");
  assert.equal(loadEndpointRecord(directory, "a"), undefined);
  Deno.writeTextFileSync(join(directory, "endpoints/b/endpoint.json"), "{");
  assert.throws(
    () => loadEndpointRecord(directory, "b"),
    /Cannot use ".*endpoint.json": it is not JSON/,
  );
});

inTemporaryDirectory("remote storage comes to the safekeepers' settings, and goes", (directory) => {
  const config = defaultConfig(1, 17);
  const write = (remote_storage?: StorageLocation) => {
    const chosen = remote_storage === undefined ? config : { ...config, remote_storage };
    const env = { repoDir: directory, config: chosen };
    const role = safekeeperRole(env, config.safekeepers[0]!);
    writeSettings(role);
    return { role, settings: structuredClone(parse(Deno.readTextFileSync(role.settingsFile))) };
  };
  const { role } = write();
  Deno.writeTextFileSync(role.settingsFile, "enable_offload = true\n", { append: true });
  const local = write({ local_path: join(directory, "a", "b") });
  const path = join(directory, "a", "b", "safekeepers");
  assert.deepEqual(local.settings["remote_storage"], { local_path: path });
  assert.ok(Deno.statSync(path).isDirectory);
  assert.ok(local.role.permissions.some((flag) => flag.endsWith(`,${path}`)));
  const bucket = { bucket_name: "wal", bucket_region: "x", endpoint: "http://127.0.0.1:9000" };
  const remote = write(bucket);
  assert.deepEqual(remote.settings["remote_storage"], {
    ...bucket,
    prefix_in_bucket: "safekeepers",
  });
  assert.ok(remote.role.permissions.some((flag) => flag.endsWith(",127.0.0.1:9000")));
  assert.ok(remote.role.environment?.includes("AWS_SECRET_ACCESS_KEY"));
  const { settings } = write();
  assert.equal(settings["remote_storage"], undefined);
  assert.equal(settings["enable_offload"], true, "other settings stay");
});

Deno.test("checkEndpointName() refuses what cannot be a directory name", () => {
  for (const name of ["main", "ep-main", "a_b-c", "1"]) checkEndpointName(name);
  for (const name of ["", "../x", "a/b", ".", ".x", "-x", "a b", "x".repeat(64)]) {
    assert.throws(() => checkEndpointName(name), /Cannot name an endpoint/);
  }
});

Deno.test("nextFreePort() skips ports of other endpoints and ports in use", () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr as Deno.NetAddr;
  const next = nextFreePort([endpoint("a", port + 1)], port);
  assert.ok(next > port + 1);
});

inTemporaryDirectory("clusters of other programs have other names in the cache", (directory) => {
  const names = ["one", "two"].map((name) => {
    const binDir = join(directory, name);
    Deno.mkdirSync(binDir);
    Deno.writeTextFileSync(join(binDir, "postgres"), name);
    return archiveName({ binDir, version: "17.10" });
  });
  assert.notEqual(names[0], names[1]);
  assert.equal(archiveName({ binDir: join(directory, "one"), version: "17.10" }), names[0]);
  Deno.writeTextFileSync(join(directory, "one", "postgres"), "built anew");
  assert.notEqual(archiveName({ binDir: join(directory, "one"), version: "17.10" }), names[0]);
  assert.match(names[0]!, /^17\.10-v\d+-[0-9a-f]{12}\.tar$/);
});

Deno.test("displayPath() is relative below the current directory only", () => {
  assert.equal(displayPath(join(Deno.cwd(), ".neon")), ".neon");
  assert.equal(displayPath("/somewhere/else"), "/somewhere/else");
});

Deno.test("parseSettings() knows Neon's settings and their types", () => {
  const settings = parseSettings(["checkpoint_distance:1048576", "gc_period:10 m"]);
  assert.deepEqual(settings, { checkpoint_distance: 1048576, gc_period: "10 m" });
  assert.deepEqual(settingsWithoutEffect(settings), ["gc_period"]);
  assert.throws(() => parseSettings(["gc_perjod:1"]), /no such setting; did you mean "gc_period"/);
  assert.throws(() => parseSettings(["what:1"]), /no such setting; there are .*gc_period/);
  assert.throws(() => parseSettings(["gc_period"]), /expected the form key:value/);
});
