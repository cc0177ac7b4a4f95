/**
 * Safekeepers that catch up from each other, without a compute: three in this process, over real
 * sockets, with a broker that hands on at once what they publish.
 */
import assert from "node:assert/strict";
import { highestCommonPoint } from "../libs/safekeeper_protocol/term_history.ts";
import { newTenantId, newTimelineId } from "../libs/utils/id.ts";
import { formatLsn, type Lsn, parseLsn } from "../libs/utils/lsn.ts";
import { safekeeperConfig } from "./config.ts";
import { SafekeeperClient, type TimelineStatus } from "./client.ts";
import { chooseDonor, DonorChoice, isAhead } from "./peer_recovery.ts";
import { type Safekeeper, startSafekeeper } from "./safekeeper.ts";
import { TestProposer, TestWal, withDirectory } from "./safekeeper_fixture.ts";

const START = parseLsn("0/2000028");
const WAIT_MS = 20_000;

class Cluster {
  readonly tenantId = newTenantId();
  readonly timelineId = newTimelineId();
  readonly running = new Map<number, Safekeeper>();
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  async start(id: number, create = false): Promise<Safekeeper> {
    const directory = `${this.#directory}/${id}`;
    Deno.mkdirSync(directory, { recursive: true });
    const config = safekeeperConfig.parse({
      id,
      listen_pg_addr: "127.0.0.1:0",
      listen_http_addr: "127.0.0.1:0",
      log_level: "error",
    });
    const safekeeper = startSafekeeper(directory, config, {
      publish: (info) => this.running.forEach((each) => each.heard(info)),
    });
    this.running.set(id, safekeeper);
    if (create) {
      await new SafekeeperClient(safekeeper.httpAddress).createTimeline({
        tenantId: this.tenantId,
        timelineId: this.timelineId,
        pgVersion: 170011,
        startLsn: START,
      });
    }
    return safekeeper;
  }

  async stop(id: number): Promise<void> {
    const safekeeper = this.running.get(id)!;
    this.running.delete(id);
    await safekeeper.close();
  }

  status(id: number): Promise<TimelineStatus> {
    const client = new SafekeeperClient(this.running.get(id)!.httpAddress);
    return client.timelineStatus(this.tenantId, this.timelineId);
  }

  /** Waits until the safekeeper's log ends there, and all of it is known to be committed. */
  async settles(id: number, lsn: Lsn): Promise<TimelineStatus> {
    const deadline = performance.now() + WAIT_MS;
    for (;;) {
      const status = await this.status(id);
      const wanted = formatLsn(lsn);
      if (status.flush_lsn === wanted && status.commit_lsn === wanted) return status;
      assert.ok(
        performance.now() < deadline,
        `safekeeper ${id} is at ${status.flush_lsn}, committed ${status.commit_lsn}`,
      );
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** Wins `term` on these safekeepers, cuts their logs at `from`, and writes `wal` behind. */
  async write(ids: number[], term: number, from: Lsn, wal: Uint8Array, commit: Lsn): Promise<void> {
    for (const id of ids) {
      const proposer = await TestProposer.connect(this.running.get(id)!.pgAddress);
      await proposer.greet(this.tenantId, this.timelineId);
      await proposer.send({ kind: "vote", generation: 0, term });
      const { termHistory: theirs, flushLsn } = await proposer.receive("vote");
      const termHistory = [...theirs.filter(({ lsn }) => lsn <= from), { term, lsn: from }];
      const startStreamingAt = highestCommonPoint(termHistory, theirs, flushLsn)!.lsn;
      assert.equal(startStreamingAt, from);
      await proposer.send({ kind: "elected", generation: 0, term, startStreamingAt, termHistory });
      for (let at = 0; at < wal.length; at += 131072) {
        const part = wal.subarray(at, at + 131072);
        const beginLsn = (from + at) as Lsn;
        const endLsn = (beginLsn + part.length) as Lsn;
        const range = { beginLsn, endLsn, commitLsn: commit, truncateLsn: START };
        await proposer.send({ kind: "append", generation: 0, term, ...range, wal: part });
      }
      while ((await proposer.receive("append")).flushLsn < from + wal.length);
      proposer.close();
    }
  }

  file(id: number): Uint8Array {
    const path = `${this.#directory}/${id}/${this.tenantId}/${this.timelineId}`;
    return Deno.readFileSync(`${path}/000000010000000000000002.partial`);
  }
}

async function withCluster(body: (cluster: Cluster) => Promise<void>): Promise<void> {
  await withDirectory(async (directory) => {
    const cluster = new Cluster(directory);
    try {
      for (const id of [1, 2, 3]) await cluster.start(id, true);
      await body(cluster);
    } finally {
      for (const id of [...cluster.running.keys()]) await cluster.stop(id);
    }
  });
}

Deno.test("a safekeeper that was away drops what the others do not have, and gets what it missed", async () => {
  await withCluster(async (cluster) => {
    const wal = new TestWal(START);
    const common = wal.append(20, 3000);
    await cluster.write([1, 2, 3], 1, START, common, START);
    const parted = wal.end;
    const other = new TestWal(START);
    other.append(20, 3000);
    // One writes on alone; then it is away, and the others go on without that
    await cluster.write([3], 2, parted, other.append(5, 500, 99), START);
    await cluster.stop(3);
    const more = wal.append(200, 4000);
    await cluster.write([1, 2], 3, parted, more, wal.end);
    await cluster.settles(1, wal.end);
    await cluster.start(3);
    const status = await cluster.settles(3, wal.end);
    assert.deepEqual(status.acceptor_state.term_history.map(({ term }) => term), [0, 1, 3]);
    assert.deepEqual(cluster.file(3), cluster.file(1));
  });
});

Deno.test("a donor has the newest last term, then the longest log, and promised nothing later", () => {
  const position = (safekeeperId: number, term: number, lastLogTerm: number, flush: number) => ({
    safekeeperId,
    term,
    lastLogTerm,
    flushLsn: flush as Lsn,
  });
  const mine = position(1, 5, 4, 100);
  assert.equal(chooseDonor(mine, [position(2, 5, 4, 200)]), undefined, "it voted in term 5");
  assert.equal(chooseDonor(mine, [position(2, 4, 4, 200)]), undefined, "we voted in term 5");
  const short = position(2, 6, 6, 50);
  const long = position(3, 6, 6, 60);
  assert.equal(chooseDonor(mine, [position(4, 5, 5, 900), short, long]), long);
  assert.ok(isAhead(long, mine) && !isAhead(mine, mine));

  const choice = new DonorChoice();
  assert.equal(choice.next(mine, [short, long]), long);
  choice.failed(3);
  assert.equal(choice.next(mine, [short, long]), short);
  choice.failed(2);
  assert.equal(choice.next(mine, [short, long]), long, "everybody had a turn");
  assert.equal(choice.next(mine, []), undefined);
});
