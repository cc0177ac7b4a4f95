/**
 * Harmed, swapped, newer and missing files of the storage: what cannot be served is an error that
 * names the file, what does not need it is served, and with the file back everything is.
 */
import assert from "node:assert/strict";
import { pageserverClient } from "../cli/control_plane/clients.ts";
import { stopRole } from "../cli/control_plane/lifecycle.ts";
import { runInside } from "./bad_input/run_inside.ts";
import { type TestNeon, testWithNeon } from "./harness.ts";

const ROWS = 2000;

/** Runs `body` with a file changed; then it is as it was. */
async function withChanged(
  path: string,
  change: (bytes: Uint8Array<ArrayBuffer>) => Uint8Array,
  body: () => Promise<void>,
): Promise<void> {
  const before = Deno.readFileSync(path);
  Deno.writeFileSync(path, change(before.slice()));
  try {
    await body();
  } finally {
    Deno.writeFileSync(path, before);
  }
}

/** Every 512th byte is another one. */
function harmed(bytes: Uint8Array<ArrayBuffer>): Uint8Array {
  for (let i = 20; i < bytes.length; i += 512) bytes[i]! ^= 0xff;
  return bytes;
}

/** The version that a sealed file begins with, after its magic, is one of the future. */
function newer(bytes: Uint8Array<ArrayBuffer>): Uint8Array {
  new DataView(bytes.buffer).setUint32(4, 99, true);
  return bytes;
}

const text = (content: string) => () => new TextEncoder().encode(content);

/** Stops a daemon, runs `body`, starts everything. */
async function withStopped(neon: TestNeon, role: string, body: () => Promise<void>) {
  await stopRole(neon.role(role), "fast");
  try {
    await body();
  } finally {
    await neon.local.start();
  }
}

/** `neon start` refuses in one line. */
async function checkRefused(neon: TestNeon, says: RegExp): Promise<void> {
  const { code, stderr } = await runInside(neon.local.directory, ["start"]);
  assert.equal(code, 1, stderr);
  assert.match(stderr, /^error: Cannot .+\n$/);
  assert.match(stderr, says);
}

/** `neon start` says what is not served, and how to have it back; the daemon runs for the others. */
async function checkRefusedAlone(neon: TestNeon, role: string, says: RegExp): Promise<void> {
  await checkRefused(neon, says);
  await checkRefused(neon, /put a good copy/);
  const { stdout } = await runInside(neon.local.directory, ["status", "--json"]);
  const { daemons } = JSON.parse(stdout) as { daemons: { name: string; status: string }[] };
  assert.equal(daemons.find(({ name }) => name === role)?.status, "running");
  await stopRole(neon.role(role), "fast");
}

async function safekeeperRefuses(neon: TestNeon, directory: string, timeline: string) {
  const control = `${timeline}/safekeeper.control`;
  await withStopped(neon, "safekeeper 1", async () => {
    const start = (says: RegExp) => () => checkRefused(neon, says);
    const alone = (says: RegExp) => () => checkRefusedAlone(neon, "safekeeper 1", says);
    await withChanged(control, harmed, alone(/safekeeper.control".*checksum/));
    await withChanged(control, newer, alone(/safekeeper.control": format version 99 is newer/));
    await withChanged(
      `${directory}/safekeeper.id`,
      text("2\n"),
      start(/it belongs to safekeeper 2/),
    );
    await withChanged(`${directory}/safekeeper.toml`, text("id = = 1"), start(/safekeeper.toml"/));
    const tenant = timeline.slice(0, timeline.lastIndexOf("/"));
    const other = `${directory}/${"a".repeat(32)}`;
    Deno.renameSync(tenant, other);
    await checkRefusedAlone(neon, "safekeeper 1", /Cannot serve 4 timelines.*safekeeper.control"/);
    Deno.renameSync(other, tenant);
    Deno.renameSync(directory, `${directory}.away`);
    await checkRefused(neon, /safekeepers\/sk1" is gone.*put it back/);
    Deno.renameSync(`${directory}.away`, directory);
  });
}

async function pageserverRefuses(neon: TestNeon, directory: string, tenant: string) {
  await withStopped(neon, "pageserver", async () => {
    const config = `${directory}/tenants/${tenant}/config`;
    const alone = (says: RegExp) => () => checkRefusedAlone(neon, "pageserver", says);
    await withChanged(config, harmed, alone(/\/config".*checksum/));
    await withChanged(config, newer, alone(/\/config": format version 99/));
    const settings = `${directory}/pageserver.toml`;
    await withChanged(settings, text("colour = 1"), () => checkRefused(neon, /"colour"/));
    Deno.renameSync(directory, `${directory}.away`);
    await checkRefused(neon, /pageserver_1" is gone.*put it back/);
    Deno.renameSync(`${directory}.away`, directory);
  });
}

/** A second daemon on a directory that is in use. */
async function secondRefuses(neon: TestNeon): Promise<void> {
  const role = neon.role("pageserver");
  const { code, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", ...role.permissions, role.main, "-D", role.directory],
    stdout: "null",
  }).output();
  assert.equal(code, 1);
  assert.match(
    new TextDecoder().decode(stderr),
    /error: Cannot start on ".*pageserver.pid": process \d+ is running on it\n$/,
  );
}

async function countRows(neon: TestNeon, endpoint: string): Promise<number> {
  const sql = neon.connect(await neon.local.startEndpoint(endpoint));
  const [row] = await sql`select count(*)::int as rows, max(length(filler)) from t`;
  return row!["rows"] as number;
}

testWithNeon("harmed storage is an error that names the file", {}, async (neon) => {
  const { tenantId, timelineId } = neon.tenant;
  const sql = neon.connect(await neon.local.startEndpoint("main"));
  await sql`create table t(key int primary key, filler text)`;
  await sql`insert into t select g, repeat('x', 500) from generate_series(1, ${ROWS}::int) g`;
  const dev = await neon.local.createBranch("dev");
  const onDev = neon.connect(await neon.local.startEndpoint("dev"));
  await onDev`update t set filler = repeat('y', 500)`;
  await neon.closeClients();
  for (const name of ["main", "dev"]) await neon.local.stopEndpoint(name);
  // All that was written has arrived when a branch of it can be made
  for (const [name, ancestorBranch] of [["m2", "main"], ["d2", "dev"]] as const) {
    await neon.local.createBranch(name, { ancestorBranch });
  }
  const pageserver = pageserverClient(neon.local.environment());
  for (const id of [timelineId, dev.timelineId]) await pageserver.checkpoint(tenantId, id);

  const safekeeper = `${neon.local.directory}/safekeepers/sk1`;
  await safekeeperRefuses(neon, safekeeper, `${safekeeper}/${tenantId}/${timelineId}`);
  const storage = `${neon.local.directory}/pageserver_1`;
  await pageserverRefuses(neon, storage, tenantId);
  await secondRefuses(neon);

  const ofDev = `${storage}/tenants/${tenantId}/timelines/${dev.timelineId}`;
  await withStopped(
    neon,
    "pageserver",
    () =>
      withChanged(`${ofDev}/index_part`, harmed, async () => {
        await neon.local.start();
        await assert.rejects(countRows(neon, "dev"), /index_part/);
        assert.equal(await countRows(neon, "main"), ROWS);
        await stopRole(neon.role("pageserver"), "fast");
      }),
  );
  const layers = [...Deno.readDirSync(ofDev)].filter(({ name }) => name !== "index_part");
  const layer = layers[0]!.name;
  await withStopped(neon, "pageserver", () =>
    withChanged(`${ofDev}/${layer}`, harmed, async () => {
      await neon.local.start();
      await assert.rejects(countRows(neon, "dev"), new RegExp(layer));
      const { stderr } = await runInside(neon.local.directory, [
        ...["page", "get", "1664/0/1262", "0", "--branch", "dev"],
      ]);
      assert.match(stderr, new RegExp(`^error: .*${layer}.*\n$`));
      assert.equal(await countRows(neon, "main"), ROWS);
      await neon.local.stopEndpoint("dev", "immediate");
      await stopRole(neon.role("pageserver"), "fast");
    }));
  assert.equal(await countRows(neon, "dev"), ROWS);
});
