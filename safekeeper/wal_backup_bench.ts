/**
 * How fast a safekeeper puts WAL into remote storage, and what that costs the commits meanwhile:
 * the daemon, s3rver where it is a bucket, and the committing proposer are processes of their own.
 *
 *   deno run -A safekeeper/wal_backup_bench.ts [segments]
 */
import { TEST_BUCKET, TEST_CREDENTIALS, TestS3 } from "../libs/remote_storage/s3_server_fixture.ts";
import { WAL_SEGMENT_SIZE } from "../libs/postgres/constants.ts";
import { newTenantId, newTimelineId } from "../libs/utils/id.ts";
import { type Lsn, parseLsn } from "../libs/utils/lsn.ts";
import { Daemon, TestProposer, TestWal, writeConfig } from "./safekeeper_fixture.ts";

const START = 0x2000000 as Lsn;
const COMMITS = 1500;
const COMMIT_BYTES = 400;
const FILL_BYTES = 120_000;

/** A proposer that commits, and notes how long each commit took. */
class Committer {
  readonly #proposer: TestProposer;
  readonly #wal: TestWal;
  readonly #term: number;
  latenciesMs: number[] = [];

  private constructor(proposer: TestProposer, wal: TestWal, term: number) {
    this.#proposer = proposer;
    this.#wal = wal;
    this.#term = term;
  }

  static async elect(daemon: Daemon, ids: Ids, wal: TestWal): Promise<Committer> {
    const proposer = await TestProposer.connect(daemon.pg);
    const { term: before } = await proposer.greet(ids.tenantId, ids.timelineId);
    const term = before + 1;
    await proposer.send({ kind: "vote", generation: 0, term });
    const { termHistory, flushLsn } = await proposer.receive("vote");
    await proposer.send({
      kind: "elected",
      generation: 0,
      term,
      startStreamingAt: flushLsn,
      termHistory: [...termHistory, { term, lsn: flushLsn }],
    });
    return new Committer(proposer, wal, term);
  }

  async commit(mainBytes: number): Promise<void> {
    const beginLsn = this.#wal.end;
    const wal = this.#wal.append(1, mainBytes);
    const endLsn = this.#wal.end;
    const begun = performance.now();
    await this.#proposer.send({
      kind: "append",
      generation: 0,
      term: this.#term,
      beginLsn,
      endLsn,
      commitLsn: beginLsn,
      truncateLsn: START,
      wal,
    });
    while ((await this.#proposer.receive("append")).flushLsn < endLsn);
    this.latenciesMs.push(performance.now() - begun);
  }

  close(): void {
    this.#proposer.close();
  }
}

type Ids = Readonly<
  { tenantId: ReturnType<typeof newTenantId>; timelineId: ReturnType<typeof newTimelineId> }
>;

function percentiles(latenciesMs: number[]): string {
  const sorted = latenciesMs.toSorted((a, b) => a - b);
  const at = (part: number) => sorted[Math.floor((sorted.length - 1) * part)]!.toFixed(2);
  return `p50 ${at(0.5)}  p99 ${at(0.99)}  worst ${at(1)} ms of ${sorted.length} commits`;
}

async function measure(what: string, remoteStorage: string, segments: number): Promise<void> {
  const directory = Deno.makeTempDirSync({ prefix: "safekeeper_bench_" });
  const config = `${directory}/safekeeper.toml`;
  writeConfig(directory);
  const ids = { tenantId: newTenantId(), timelineId: newTimelineId() };
  const wal = new TestWal(START);
  let daemon = await Daemon.start(directory, ["-A"]);
  await daemon.http.createTimeline({ ...ids, pgVersion: 17, startLsn: START });
  let committer = await Committer.elect(daemon, ids, wal);
  while (wal.end < START + segments * WAL_SEGMENT_SIZE) await committer.commit(FILL_BYTES);
  committer.latenciesMs = [];
  for (let i = 0; i < COMMITS; i++) await committer.commit(COMMIT_BYTES);
  console.log(`${what}: before         ${percentiles(committer.latenciesMs)}`);
  committer.close();
  await daemon.end("SIGTERM");

  const end = wal.end - wal.end % WAL_SEGMENT_SIZE;
  Deno.writeTextFileSync(config, `remote_storage = ${remoteStorage}\n`, { append: true });
  daemon = await Daemon.start(directory, ["-A"]);
  committer = await Committer.elect(daemon, ids, wal);
  const backedUp = async () =>
    parseLsn((await daemon.http.timelineStatus(ids.tenantId, ids.timelineId)).backup_lsn);
  // Uploads begin with the first housekeeping: the clock starts when something is there.
  let first = START;
  while (first === START) first = await backedUp();
  const begun = performance.now();
  let lsn = first;
  while (lsn < end) {
    for (let i = 0; i < 5; i++) await committer.commit(COMMIT_BYTES);
    lsn = await backedUp();
  }
  const megabytes = (lsn - first) / 1e6;
  const seconds = (performance.now() - begun) / 1000;
  console.log(`${what}: while uploading ${percentiles(committer.latenciesMs)}`);
  console.log(`${what}: ${megabytes.toFixed(0)} MB at ${(megabytes / seconds).toFixed(0)} MB/s`);
  committer.close();
  await daemon.end("SIGKILL");
  Deno.removeSync(directory, { recursive: true });
}

async function serveS3(): Promise<never> {
  const s3 = await TestS3.start();
  Deno.addSignalListener("SIGTERM", async () => {
    await s3[Symbol.asyncDispose]();
    Deno.exit(0);
  });
  console.log(s3.directEndpoint);
  return new Promise(() => {});
}

if (Deno.args[0] === "serve-s3") await serveS3();
const segments = Number(Deno.args[0] ?? 40);
const target = Deno.makeTempDirSync({ prefix: "wal_target_" });
await measure("directory", `{local_path = "${target}"}`, segments);
Deno.removeSync(target, { recursive: true });
for (const [name, value] of Object.entries(TEST_CREDENTIALS)) Deno.env.set(name, value);
const server = new Deno.Command(Deno.execPath(), {
  args: ["run", "-A", import.meta.filename!, "serve-s3"],
  stdout: "piped",
}).spawn();
const reader = server.stdout.pipeThrough(new TextDecoderStream()).getReader();
const endpoint = (await reader.read()).value!.trim();
await measure(
  "bucket",
  `{bucket_name = "${TEST_BUCKET}", bucket_region = "x", endpoint = "${endpoint}"}`,
  segments,
);
server.kill("SIGTERM");
await server.status;
Deno.exit(0);
