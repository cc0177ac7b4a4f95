/**
 * Directories that cannot be used: closed to PostgreSQL's user, mounted noexec, too small. Each is
 * one line that says what to do, before anything is made where that can be known. For root only,
 * whose PostgreSQL is another user, and who can mount.
 */
import assert from "node:assert/strict";
import { configOnFreePorts } from "../cli/local_neon.ts";
import { initEnvironment } from "../cli/control_plane/init.ts";
import { postgresUser } from "../cli/control_plane/host_user.ts";
import { silentProgress } from "../cli/control_plane/progress.ts";
import { programFile } from "../cli/control_plane/supervisor.ts";
import { SmallDisk } from "../libs/utils/small_disk_fixture.ts";
import { withNeon } from "./harness.ts";

const ignore = Deno.build.os !== "linux" || postgresUser() === undefined;

/** What a command that fails prints, which is one line. */
async function refusal(env: Record<string, string>, ...args: string[]): Promise<string> {
  const { code, stderr } = await new Deno.Command(programFile("bin/neon"), {
    args,
    env: { NEON_DENO: Deno.execPath(), NO_COLOR: "1", ...env },
    stdin: "null",
  }).output();
  const text = new TextDecoder().decode(stderr);
  assert.equal(code, 1, text);
  assert.match(text, /^error: [^\n]+\n$/);
  return text;
}

function inDirectory(name: string, test: (directory: string) => Promise<void>): void {
  Deno.test({
    name,
    ignore,
    async fn() {
      const directory = Deno.makeTempDirSync({ prefix: "neon-unusable-" });
      Deno.chmodSync(directory, 0o755);
      try {
        await test(directory);
      } finally {
        Deno.removeSync(directory, { recursive: true });
      }
    },
  });
}

/** A disk for the test, which goes without it where mounting is not allowed. */
async function disk(mebibytes: number, path: string, ...options: string[]) {
  const mounted = await SmallDisk.mount(mebibytes, path, ...options);
  if (mounted === undefined) console.log("not tested: mounting is not allowed here");
  return mounted;
}

inDirectory("init refuses directories that PostgreSQL's user cannot enter", async (directory) => {
  const closed = `${directory}/closed`;
  Deno.mkdirSync(closed, { mode: 0o700 });
  const why = `PostgreSQL runs as user "[a-z]+", who may not enter "${closed}"`;
  assert.match(
    await refusal({ NEON_REPO_DIR: `${closed}/.neon` }, "init"),
    new RegExp(`Cannot keep data in "${closed}/.neon": ${why}; set NEON_REPO_DIR to a directory`),
  );
  const cache = `${closed}/cache`;
  assert.match(
    await refusal({ NEON_REPO_DIR: `${directory}/.neon`, NEON_CACHE_DIR: cache }, "init"),
    new RegExp(`Cannot use the cache "${cache}": ${why}; set NEON_CACHE_DIR to a directory`),
  );
  assert.deepEqual([...Deno.readDirSync(closed)], []);
  assert.deepEqual([...Deno.readDirSync(directory)].map(({ name }) => name), ["closed"]);
});

inDirectory("init refuses a cache in which nothing can be run", async (directory) => {
  const cache = `${directory}/cache`;
  Deno.mkdirSync(cache);
  await using mounted = await disk(16, cache, "noexec"); // no room for a download
  if (mounted === undefined) return;
  assert.match(
    await refusal({ NEON_REPO_DIR: `${directory}/.neon`, NEON_CACHE_DIR: cache }, "init"),
    new RegExp(
      `Cannot run programs in "${cache}": its file system is mounted noexec; set NEON_CACHE_DIR`,
    ),
  );
  const binaries = `${cache}/bin`;
  const pgBin = async () =>
    await refusal({ NEON_REPO_DIR: `${directory}/.neon` }, "init", "--pg-bin", binaries);
  assert.match(await pgBin(), /there is no "postgres" in it/);
  Deno.mkdirSync(binaries);
  Deno.writeTextFileSync(`${binaries}/postgres`, "#!/bin/sh", { mode: 0o644 });
  assert.match(await pgBin(), /"postgres" in it is not executable/);
  Deno.chmodSync(`${binaries}/postgres`, 0o755);
  assert.match(await pgBin(), /its file system is mounted noexec; copy it to another one/);
  assert.deepEqual([...Deno.readDirSync(directory)].map(({ name }) => name), ["cache"]);
});

/** Less than the pages of an empty cluster, more than an endpoint needs without them. */
const COMPUTE_MEBIBYTES = 20;

inDirectory(
  "a local Neon lives on a noexec disk, and says what it has no room for",
  async (top) => {
    const repoDir = `${top}/.neon`;
    Deno.mkdirSync(repoDir);
    await using mounted = await disk(300, repoDir, "noexec");
    if (mounted === undefined) return;
    const config = configOnFreePorts(1, 17);
    await initEnvironment(repoDir, { force: "empty-dir-ok", config }, silentProgress);
    await using compute = await disk(COMPUTE_MEBIBYTES, `${repoDir}/compute`);
    assert.ok(compute !== undefined);
    await withNeon({ directory: repoDir }, async (neon) => {
      const env = { NEON_REPO_DIR: repoDir };
      Deno.chmodSync(top, 0o700);
      assert.match(
        await refusal(env, "endpoint", "start", "main"),
        new RegExp(
          `Cannot run PostgreSQL in "${repoDir}": PostgreSQL runs as user "[a-z]+", who may not ` +
            `enter "${top}"; let everybody enter it \\("chmod a\\+x"\\), or move`,
        ),
      );
      assert.deepEqual(await neon.local.listEndpoints(), []);
      Deno.chmodSync(top, 0o755);

      await neon.run("endpoint", "create", "main");
      assert.match(
        await refusal(env, "endpoint", "start", "main", "--eager"),
        /Cannot fetch all pages \(\d\d MB\) to ".*pgdata": No space left on device; free some space/,
      );
      const main = neon.connect(await neon.local.startEndpoint("main"));
      assert.equal((await main`select from pg_class limit 1`).length, 1);
    });
  },
);
