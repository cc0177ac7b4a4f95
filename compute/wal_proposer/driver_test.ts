/**
 * The proposer's driver against real safekeepers in this process, over real sockets, with WAL made
 * of real records: election, commit, one that was down and must be caught up, losing the term,
 * resuming.
 */
import assert from "node:assert/strict";
import type { InfoSink } from "../../safekeeper/broker_publisher.ts";
import { SafekeeperClient } from "../../safekeeper/client.ts";
import { safekeeperConfig } from "../../safekeeper/config.ts";
import { type Safekeeper, startSafekeeper } from "../../safekeeper/safekeeper.ts";
import { TEST_IDENTITY, TestWal, withDirectory } from "../../safekeeper/safekeeper_fixture.ts";
import { parseAddress } from "../../libs/utils/address.ts";
import { newTenantId, newTimelineId } from "../../libs/utils/id.ts";
import { formatLsn, type Lsn, parseLsn } from "../../libs/utils/lsn.ts";
import { WalProposer, type WalProposerOptions } from "./driver.ts";

const START = parseLsn("0/2000028");
const WAIT_MS = 10_000;
const NO_BROKER: InfoSink = { publish() {} };

class Cluster {
  readonly tenantId = newTenantId();
  readonly timelineId = newTimelineId();
  readonly #directory: string;
  readonly #running = new Map<number, Safekeeper>();
  readonly #ports = new Map<number, [string, string]>();

  constructor(directory: string) {
    this.#directory = directory;
  }

  async start(id: number): Promise<void> {
    const directory = `${this.#directory}/${id}`;
    Deno.mkdirSync(directory, { recursive: true });
    const [pg, http] = this.#ports.get(id) ?? ["127.0.0.1:0", "127.0.0.1:0"];
    const safekeeper = startSafekeeper(
      directory,
      safekeeperConfig.parse({
        id,
        listen_pg_addr: pg,
        listen_http_addr: http,
        log_level: "error",
      }),
      NO_BROKER,
    );
    this.#running.set(id, safekeeper);
    if (this.#ports.has(id)) return;
    this.#ports.set(id, [safekeeper.pgAddress, safekeeper.httpAddress]);
    await new SafekeeperClient(safekeeper.httpAddress).createTimeline({
      tenantId: this.tenantId,
      timelineId: this.timelineId,
      pgVersion: 170011,
      startLsn: START,
    });
  }

  async stop(id: number): Promise<void> {
    await this.#running.get(id)?.close();
    this.#running.delete(id);
  }

  async close(): Promise<void> {
    for (const id of [...this.#running.keys()]) await this.stop(id);
  }

  propose(options: Partial<WalProposerOptions> = {}): WalProposer {
    const proposer = new WalProposer({
      tenantId: this.tenantId,
      timelineId: this.timelineId,
      pgVersionNum: 170000,
      walSegmentSize: TEST_IDENTITY.segmentSize,
      safekeepers: [...this.#ports].map(([id, [pg]]) => ({
        id,
        host: "127.0.0.1",
        pgPort: parseAddress(pg).port,
      })),
      onDeposed: () => {},
      ...options,
    });
    proposer.start();
    return proposer;
  }

  async flushLsn(id: number): Promise<string> {
    const client = new SafekeeperClient(this.#ports.get(id)![1]);
    return (await client.timelineStatus(this.tenantId, this.timelineId)).flush_lsn;
  }

  async reaches(id: number, lsn: Lsn): Promise<void> {
    const deadline = performance.now() + WAIT_MS;
    while (await this.flushLsn(id) !== formatLsn(lsn)) {
      assert.ok(performance.now() < deadline, `safekeeper ${id} reaches ${formatLsn(lsn)}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
}

async function withCluster(body: (cluster: Cluster) => Promise<void>): Promise<void> {
  await withDirectory(async (directory) => {
    const cluster = new Cluster(directory);
    try {
      for (const id of [1, 2, 3]) await cluster.start(id);
      await body(cluster);
    } finally {
      await cluster.close();
    }
  });
}

/** Hands over WAL as the replication stream does. */
function write(proposer: WalProposer, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; at += 100_000) {
    proposer.append(proposer.endLsn, bytes.subarray(at, at + 100_000));
  }
  proposer.pump();
}

Deno.test("WAL is committed by a quorum, and one that was down is caught up", async () => {
  await withCluster(async (cluster) => {
    await cluster.stop(3);
    const first = cluster.propose();
    const { startLsn, term } = await first.elected(WAIT_MS);
    assert.deepEqual([startLsn, term], [START, 1]);
    const wal = new TestWal(START);
    write(first, wal.append(40, 20_000));
    await first.committed(wal.end, WAIT_MS);
    await first.stop();

    await cluster.start(3); // it has nothing, and the next proposer starts behind all of that
    const second = cluster.propose();
    const next = await second.elected(WAIT_MS);
    assert.deepEqual([next.startLsn, next.term], [wal.end, 2]);
    await cluster.reaches(3, wal.end);
    write(second, wal.append(3, 100));
    await second.committed(wal.end, WAIT_MS);
    for (const id of [1, 2, 3]) await cluster.reaches(id, wal.end);
    await second.stop();
  });
});

Deno.test("a second proposer deposes the first", async () => {
  await withCluster(async (cluster) => {
    const deposed = Promise.withResolvers<string>();
    const first = cluster.propose({ onDeposed: deposed.resolve });
    await first.elected(WAIT_MS);
    const wal = new TestWal(START);
    write(first, wal.append(1, 1000));
    await first.committed(wal.end, WAIT_MS);
    const second = cluster.propose();
    assert.equal((await second.elected(WAIT_MS)).startLsn, wal.end);
    const lost = new TestWal(wal.end);
    write(first, lost.append(1, 1000));
    assert.match(await deposed.promise, /has seen term 2/);
    await first.stop();
    await second.stop();
  });
});

Deno.test("a resumed proposer goes on under its own term", async () => {
  await withCluster(async (cluster) => {
    const first = cluster.propose();
    const won = await first.elected(WAIT_MS);
    const wal = new TestWal(START);
    const head = wal.append(2, 3000);
    write(first, head);
    await first.committed(wal.end, WAIT_MS);
    await first.stop();

    const middle = wal.end;
    wal.append(2, 3000);
    const second = cluster.propose({
      resume: { ...won, endLsnMax: wal.end, streamFrom: START },
    });
    write(second, wal.bytes(START));
    await second.committed(wal.end, WAIT_MS);
    assert.equal(second.term, 1);
    assert.ok(middle < wal.end);
    await second.stop();
  });
});

Deno.test("elected() says what each safekeeper answered when there is no quorum", async () => {
  await withCluster(async (cluster) => {
    await cluster.stop(1);
    await cluster.stop(2);
    const proposer = cluster.propose();
    await assert.rejects(
      proposer.elected(300),
      /Cannot win an election within 0.3 s \(safekeeper 1: .*refused.*; safekeeper 2: .*refused/s,
    );
    await proposer.stop();
  });
});
