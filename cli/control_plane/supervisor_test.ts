import assert from "node:assert/strict";
import { livePid } from "../../libs/utils/pid_file.ts";
import { brokerPermissions } from "./permissions.ts";
import {
  type Daemon,
  daemonPid,
  isServing,
  programFile,
  startDaemon,
  stopDaemon,
} from "./supervisor.ts";
import { freePort } from "../../tests/support/free_port.ts";

/** A storage broker, the smallest of the daemons, in a directory of its own. */
async function withBroker(test: (daemon: Daemon) => Promise<void>): Promise<void> {
  const directory = Deno.makeTempDirSync({ prefix: "neon-supervisor-" });
  const listen = [`127.0.0.1:${freePort()}`, `127.0.0.1:${freePort()}`];
  Deno.writeTextFileSync(
    `${directory}/storage_broker.toml`,
    `listen_addr = "${listen[0]}"\nhttp_listen_addr = "${listen[1]}"\n`,
  );
  const daemon: Daemon = {
    name: "storage_broker",
    directory,
    pidFile: `${directory}/storage_broker.pid`,
    logFile: `${directory}/storage_broker.log`,
    listen,
    statusUrl: `http://${listen[1]}/status`,
    main: programFile("broker/main.ts"),
    permissions: brokerPermissions({ directory, listen }),
  };
  try {
    await test(daemon);
  } finally {
    await stopDaemon(daemon, "immediate");
    Deno.removeSync(directory, { recursive: true });
  }
}

Deno.test("startDaemon() starts once, however often it is asked", async () => {
  await withBroker(async (daemon) => {
    const [first, second] = await Promise.all([startDaemon(daemon), startDaemon(daemon)]);
    assert.equal(first.pid, second.pid);
    assert.equal([first, second].filter((started) => started.already).length, 1);
    assert.equal(daemonPid(daemon), first.pid);
    assert.equal(await isServing(daemon), true);
    assert.equal(await stopDaemon(daemon, "fast"), first.pid);
    assert.equal(await stopDaemon(daemon, "fast"), undefined);
    assert.equal(livePid(daemon.pidFile), undefined);
  });
});

Deno.test("startDaemon() starts after kill -9 left a stale pid file", async () => {
  await withBroker(async (daemon) => {
    const { pid } = await startDaemon(daemon);
    Deno.kill(pid, "SIGKILL");
    while (daemonPid(daemon) !== undefined) await new Promise((resolve) => setTimeout(resolve, 5));
    assert.equal(Deno.readTextFileSync(daemon.pidFile).trim(), String(pid));
    const again = await startDaemon(daemon);
    assert.notEqual(again.pid, pid);
    assert.equal(again.already, false);
  });
});

Deno.test("startDaemon() says in one line why a daemon refuses to start", async () => {
  await withBroker(async (daemon) => {
    Deno.writeTextFileSync(`${daemon.directory}/storage_broker.toml`, "listen_addr = 5\n");
    await assert.rejects(
      startDaemon(daemon),
      /: Cannot start storage_broker: Cannot use ".*\/storage_broker.toml": [^\n]*listen_addr$/,
    );
  });
});

Deno.test("startDaemon() shows the end of the log of a daemon that dies", async () => {
  await withBroker(async (daemon) => {
    await assert.rejects(
      startDaemon({ ...daemon, main: `${daemon.directory}/main.ts` }),
      /Cannot start storage_broker: it ended with exit code 1; .*storage_broker.log.* says:\n[^]*main.ts/,
    );
  });
});

Deno.test("startDaemon() names the process that has the port", async () => {
  await withBroker(async (daemon) => {
    const port = Number(daemon.listen[0]!.split(":")[1]);
    using _listener = Deno.listen({ hostname: "127.0.0.1", port });
    await assert.rejects(
      startDaemon(daemon),
      new RegExp(`127.0.0.1:${port} is in use by process ${Deno.pid} \\(`),
    );
  });
});
