/**
 * No file descriptors left: daemons turn some away and go on when there are some again; a
 * pageserver's flush waits, a safekeeper refuses, and nothing is lost.
 */
import assert from "node:assert/strict";
import { connect } from "node:net";
import { BrokerClient, type SafekeeperTimelineInfo } from "../broker/client.ts";
import { PgClient } from "../libs/pgwire/client.ts";
import { newTenantId, newTimelineId } from "../libs/utils/id.ts";
import { toLsn } from "../libs/utils/lsn.ts";
import { until } from "./support/waiting.ts";
import { freePort } from "./support/free_port.ts";

/** A daemon has about thirty when it begins. */
const DESCRIPTORS = 64;
const CROWD = 100;
const ROOT = `${import.meta.dirname}/../`;

/** Runs a script with few descriptors. */
function run(script: string, args: readonly string[], stdout: "piped" | "null"): Deno.ChildProcess {
  const limited = `ulimit -n ${DESCRIPTORS}; exec "$@"`;
  const deno = [Deno.execPath(), "run", "--quiet", "--no-check", "-A", ROOT + script, ...args];
  return new Deno.Command("sh", {
    args: ["-c", limited, "sh", ...deno],
    stdout,
    stderr: stdout === "piped" ? "inherit" : "null",
  }).spawn();
}

Deno.test("a flush waits for file descriptors, and votes and WAL that need some are refused", async () => {
  const directory = Deno.makeTempDirSync();
  const child = run("tests/support/descriptors_child.ts", [directory], "piped");
  const { stdout } = await child.output();
  assert.equal(new TextDecoder().decode(stdout), "went on\n");
  Deno.removeSync(directory, { recursive: true });
});

interface DaemonKind {
  readonly role: string;
  readonly file: string;
  settings(port: number, http: number): string;
  /** Whether its main port answers again; throws if it does not. */
  mainPort(port: number): Promise<void>;
}

const SOME_INFO: SafekeeperTimelineInfo = {
  safekeeperId: 1,
  tenantId: newTenantId(),
  timelineId: newTimelineId(),
  term: 1,
  lastLogTerm: 1,
  flushLsn: toLsn(8),
  commitLsn: toLsn(8),
  backupLsn: toLsn(8),
  remoteConsistentLsn: toLsn(8),
  peerHorizonLsn: toLsn(8),
  localStartLsn: toLsn(8),
  standbyHorizon: toLsn(8),
  safekeeperConnstr: "127.0.0.1:1",
  httpConnstr: "127.0.0.1:1",
};

async function answersQueries(port: number): Promise<void> {
  const client = await PgClient.connect({ hostname: "127.0.0.1", port }, { user: "test" });
  await assert.rejects(client.query("nonsense"), /nonsense/);
  client.close();
}

/** gRPC does so by itself, as soon as the broker has noticed that it accepts nothing more. */
async function hears(port: number): Promise<void> {
  const [subscriber, publisher] = [0, 1].map(() => new BrokerClient(`127.0.0.1:${port}`));
  let heard = 0;
  subscriber!.subscribeAll(() => heard++);
  const repeat = setInterval(() => publisher!.publish(SOME_INFO), 20);
  await until("what is published is heard", () => heard > 0);
  clearInterval(repeat);
  subscriber!.close();
  publisher!.close();
}

const node = (port: number, http: number) =>
  `id = 7\nlisten_pg_addr = "127.0.0.1:${port}"\nlisten_http_addr = "127.0.0.1:${http}"\n` +
  'broker_endpoint = "http://127.0.0.1:1"\n';

const KINDS: readonly DaemonKind[] = [
  { role: "safekeeper", file: "safekeeper", settings: node, mainPort: answersQueries },
  { role: "pageserver", file: "pageserver", settings: node, mainPort: answersQueries },
  {
    role: "broker",
    file: "storage_broker",
    settings: (port, http) =>
      `listen_addr = "127.0.0.1:${port}"\nhttp_listen_addr = "127.0.0.1:${http}"\n`,
    mainPort: hears,
  },
];

async function answers(http: number): Promise<boolean> {
  try {
    const headers = { connection: "close" };
    const answer = await fetch(`http://127.0.0.1:${http}/v1/status`, { headers });
    await answer.body?.cancel();
    return answer.ok;
  } catch {
    return false;
  }
}

function descriptorsOf({ pid }: Deno.ChildProcess): number {
  return [...Deno.readDirSync(`/proc/${pid}/fd`)].length;
}

/** More connections than there are descriptors, until the daemon has none left; then they go. */
async function crowd(daemon: Deno.ChildProcess, port: number, isFull: () => Promise<boolean>) {
  const sockets = Array.from({ length: CROWD }, () => connect({ host: "127.0.0.1", port }));
  let refused = 0;
  for (const socket of sockets) {
    socket.on("error", () => {});
    socket.on("close", () => refused++);
  }
  await until("the daemon is full", async () => refused > 0 || await isFull());
  for (const socket of sockets) socket.destroy();
  await until("all are gone", () => refused === CROWD);
  await until("it has descriptors again", () => descriptorsOf(daemon) < DESCRIPTORS - 10);
}

for (const { role, file, settings, mainPort } of KINDS) {
  const name = `a ${role} without file descriptors goes on when there are some again`;
  // grpc-js keeps its DNS and backoff timers beyond close()
  const sanitize = { sanitizeOps: false, sanitizeResources: false };
  Deno.test({ name, ...sanitize }, async () => {
    const directory = Deno.makeTempDirSync();
    const [port, http] = [freePort(), freePort()];
    Deno.writeTextFileSync(`${directory}/${file}.toml`, settings(port, http));
    const daemon = run(`${role}/main.ts`, ["-D", directory], "null");
    let ended = false;
    daemon.status.then(() => ended = true);
    await until("it serves", () => answers(http));
    for (const crowded of [port, http]) {
      await crowd(daemon, crowded, () => Promise.resolve(descriptorsOf(daemon) >= DESCRIPTORS - 1));
      assert.equal(ended, false, "it has ended");
      await until("HTTP is answered", () => answers(http));
      await mainPort(port);
    }
    daemon.kill("SIGTERM");
    assert.equal((await daemon.status).code, 0);
    Deno.removeSync(directory, { recursive: true });
  });
}
