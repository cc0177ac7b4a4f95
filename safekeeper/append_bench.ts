/**
 * Cost of a commit at one safekeeper: append over a socket, durable write, acknowledgement; the
 * daemon runs as a process of its own. `deno bench -A safekeeper/append_bench.ts`
 */
import { newTenantId, newTimelineId } from "../libs/utils/id.ts";
import type { Lsn } from "../libs/utils/lsn.ts";
import { Daemon, TestProposer, TestWal, writeConfig } from "./safekeeper_fixture.ts";

const START = 0x2000000 as Lsn;
/** Record payload of a small transaction. */
const COMMIT_BYTES = 400;
const BULK_BYTES = 120_000;

const directory = Deno.makeTempDirSync({ prefix: "safekeeper_bench_" });
writeConfig(directory);
const daemon = await Daemon.start(directory);
globalThis.addEventListener("unload", () => {
  daemon.end("SIGKILL");
  Deno.removeSync(directory, { recursive: true });
});

/** An elected proposer on a timeline of its own. */
class Stream {
  #at = START;
  readonly #wal = new TestWal(START);
  #proposer!: TestProposer;

  static async open(): Promise<Stream> {
    const stream = new Stream();
    const [tenantId, timelineId] = [newTenantId(), newTimelineId()];
    await daemon.http.createTimeline({ tenantId, timelineId, pgVersion: 17, startLsn: START });
    const proposer = stream.#proposer = await TestProposer.connect(daemon.pg);
    await proposer.greet(tenantId, timelineId);
    await proposer.send({ kind: "vote", generation: 0, term: 1 });
    const { termHistory } = await proposer.receive("vote");
    await proposer.send({
      kind: "elected",
      generation: 0,
      term: 1,
      startStreamingAt: START,
      termHistory: [...termHistory, { term: 1, lsn: START }],
    });
    return stream;
  }

  /** The next records of the WAL. */
  next(mainBytes: number): Uint8Array {
    return this.#wal.append(1, mainBytes);
  }

  /** Sends WAL and waits until it is acknowledged. */
  async commit(wal: Uint8Array): Promise<void> {
    const end = (this.#at + wal.length) as Lsn;
    await this.#proposer.send({
      kind: "append",
      generation: 0,
      term: 1,
      beginLsn: this.#at,
      endLsn: end,
      commitLsn: this.#at,
      truncateLsn: START,
      wal,
    });
    this.#at = end;
    while ((await this.#proposer.receive("append")).flushLsn < end);
  }
}

const small = await Stream.open();
Deno.bench("append and acknowledge a commit", async (b) => {
  const wal = small.next(COMMIT_BYTES);
  b.start();
  await small.commit(wal);
  b.end();
});

const bulk = await Stream.open();
Deno.bench("append and acknowledge 120 kB", async (b) => {
  const wal = bulk.next(BULK_BYTES);
  b.start();
  await bulk.commit(wal);
  b.end();
});
