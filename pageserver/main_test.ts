import assert from "node:assert/strict";
import { join } from "node:path";
import { crc32AddonPath } from "../libs/utils/crc32c.ts";
import { newTenantId, newTimelineId } from "../libs/utils/id.ts";
import { livePid } from "../libs/utils/pid_file.ts";
import { PageserverClient } from "./client.ts";
import { clusterTar } from "./cluster_fixture.ts";
import { freePort } from "../tests/support/free_port.ts";

const ROOT = join(import.meta.dirname!, "..");

/** Starts the daemon with no more permissions than it needs. */
function start(directory: string): Deno.ChildProcess {
  return new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--no-prompt",
      "--cached-only",
      `--config=${join(ROOT, "deno.json")}`,
      "--allow-net=127.0.0.1",
      `--allow-read=${directory}`,
      `--allow-write=${directory}`,
      `--allow-ffi=${crc32AddonPath()}`,
      "--allow-env=GRPC_*,grpc_proxy,http_proxy,https_proxy,no_grpc_proxy,no_proxy",
      join(ROOT, "pageserver/main.ts"),
      "-D",
      directory,
    ],
    stdout: "null",
    stderr: "piped",
  }).spawn();
}

/** Polls until the daemon answers; fails with its output if it has ended. */
async function ready(client: PageserverClient, daemon: Deno.ChildProcess): Promise<void> {
  let ended = false;
  daemon.status.then(() => ended = true);
  for (;;) {
    try {
      await client.status();
      return;
    } catch {
      if (ended) throw new Error(new TextDecoder().decode(await daemon.stderr.bytes()));
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

Deno.test("the daemon keeps what it was given, and stops on SIGTERM", async () => {
  const directory = Deno.makeTempDirSync({ prefix: "pageserver-main-" });
  const http = `127.0.0.1:${freePort()}`;
  Deno.writeTextFileSync(
    join(directory, "pageserver.toml"),
    `id = 3\nlisten_pg_addr = "127.0.0.1:${freePort()}"\nlisten_http_addr = "${http}"\n` +
      `broker_endpoint = "http://127.0.0.1:${freePort()}"\n`,
  );
  const client = new PageserverClient(http);
  const [tenant, timeline] = [newTenantId(), newTimelineId()];
  const first = start(directory);
  await ready(client, first);
  assert.equal(livePid(join(directory, "pageserver.pid")), first.pid);
  const second = start(directory);
  assert.equal((await second.status).success, false);
  assert.match(
    new TextDecoder().decode(await second.stderr.bytes()),
    /process \d+ is running on it/,
  );
  await client.attach(tenant, 1);
  const tar = ReadableStream.from(clusterTar()) as ReadableStream<Uint8Array<ArrayBuffer>>;
  const info = await client.importBasebackup(tenant, timeline, 17, tar);
  first.kill("SIGTERM");
  assert.equal((await first.status).code, 0);
  await first.stderr.cancel();

  const third = start(directory);
  await ready(client, third);
  assert.deepEqual(await client.tenants(), []); // nothing is served before it is attached
  await client.attach(tenant, 2);
  assert.deepEqual(await client.timeline(tenant, timeline), info);
  third.kill("SIGQUIT");
  await third.status;
  await third.stderr.cancel();
  Deno.removeSync(directory, { recursive: true });
});
