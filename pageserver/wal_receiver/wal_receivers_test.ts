import assert from "node:assert/strict";
import { Rmgr } from "../../libs/postgres/constants.ts";
import { buildRecord, WalWriter } from "../../libs/postgres/wal/record_builder.ts";
import {
  queueKeepalive,
  readReceiverMessage,
  reserveXlogData,
} from "../../libs/pgwire/replication.ts";
import type { CopyBoth } from "../../libs/pgwire/copy_both.ts";
import { type PgServer, servePg } from "../../libs/pgwire/server.ts";
import { decodeFeedback } from "../../libs/safekeeper_protocol/feedback.ts";
import { formatLsn, type Lsn, parseLsn } from "../../libs/utils/lsn.ts";
import { HEAP, SYSTEM_ID, type TestCluster, VERSION, withCluster } from "../cluster_fixture.ts";
import { until } from "../../tests/support/waiting.ts";
import { SeededRandom } from "../../tests/load/random.ts";
import { LyingProxy } from "../../tests/fuzz/lying_proxy.ts";
import { mutated } from "../../tests/fuzz/mutations.ts";
import { StartOver } from "../start_over.ts";
import type { WalReceivers } from "./wal_receivers.ts";
import { streamWal } from "./wal_stream.ts";

/** A safekeeper that serves given WAL, and hangs up after `hangUpAfter` bytes if that is set. */
class FakeSafekeeper {
  readonly wal: WalWriter;
  readonly commands: string[] = [];
  readonly feedback: Lsn[] = [];
  /** Where the receiver was when it asked for what there is. */
  readonly asked: Lsn[] = [];
  hangUpAfter = Infinity;
  /** What it says that it has, if not what it has. */
  endOfWal: Lsn | undefined;
  readonly #acknowledged = Promise.withResolvers<void>();
  readonly #server: PgServer;
  #previous: Lsn;
  #copy: CopyBoth | undefined;

  constructor({ timeline }: TestCluster, port = 0) {
    const identity = { version: VERSION, systemId: SYSTEM_ID, segmentSize: 16 * 1024 * 1024 };
    this.wal = new WalWriter(timeline.lastRecordLsn, identity);
    this.#previous = timeline.prevRecordLsn;
    this.#server = servePg({
      hostname: "127.0.0.1",
      port,
      onConnection: async (session) => {
        const command = await session.nextQuery();
        if (command === undefined) return;
        this.commands.push(`${session.parameters.get("application_name")} ${command}`);
        const start = parseLsn(command.split(" ").at(-1)!);
        const copy = await session.beginCopyBoth(65536);
        this.#copy = copy;
        const bytes = this.wal.bytes().slice(start - this.wal.start);
        const part = bytes.subarray(0, this.hangUpAfter);
        for (let at = 0; at < part.length; at += 1000) {
          this.#queue(copy, (start + at) as Lsn, part.subarray(at, at + 1000));
        }
        queueKeepalive(copy, this.wal.end, 0n, true);
        await copy.flush();
        for (let done = part.length === bytes.length ? 0 : 1; done < 2;) {
          const reply = await copy.receive();
          if (reply === undefined) return;
          const message = readReceiverMessage(reply);
          if (message.kind === "status" && message.replyWanted) this.asked.push(message.written);
          if (message.kind !== "pageserverFeedback") continue;
          this.feedback.push(decodeFeedback(message.feedback).lastReceivedLsn);
          if (this.feedback.at(-1) === this.wal.end) this.#acknowledged.resolve();
          if (part.length < bytes.length) done++;
        }
      },
    });
  }

  #queue(copy: CopyBoth, from: Lsn, bytes: Uint8Array): void {
    const offset = reserveXlogData(copy, from, this.endOfWal ?? this.wal.end, 0n, bytes.length);
    copy.sendBytes.set(bytes, offset);
  }

  /** Sends what is between, to whoever is connected. */
  async send(from: Lsn, to: Lsn): Promise<void> {
    const { start } = this.wal;
    this.#queue(this.#copy!, from, this.wal.bytes().slice(from - start, to - start));
    await this.#copy!.flush();
  }

  append(count: number): void {
    for (let i = 0; i < count; i++) {
      this.#previous = this.wal.append(buildRecord({
        rmid: Rmgr.HEAP,
        info: 0x60,
        xid: 700,
        previous: this.#previous,
        main: new Uint8Array(8),
        blocks: [{ id: 0, tag: HEAP, block: 0 }],
      }));
    }
  }

  info({ timeline }: TestCluster, safekeeperId = 1) {
    const { tenantId, timelineId } = timeline;
    const zero = 0 as Lsn;
    return {
      safekeeperId,
      tenantId,
      timelineId,
      term: 1,
      lastLogTerm: 1,
      flushLsn: this.wal.end,
      commitLsn: this.wal.end,
      backupLsn: zero,
      remoteConsistentLsn: zero,
      peerHorizonLsn: zero,
      localStartLsn: zero,
      standbyHorizon: zero,
      safekeeperConnstr: `127.0.0.1:${this.#server.port}`,
      httpConnstr: "",
    };
  }

  /** Resolves when feedback has named the end of the WAL. */
  get acknowledged(): Promise<void> {
    return this.#acknowledged.promise;
  }

  get port(): number {
    return this.#server.port;
  }

  close(): Promise<void> {
    return this.#server.close();
  }
}

function withReceivers(
  body: (cluster: TestCluster, receivers: WalReceivers, sk: FakeSafekeeper) => Promise<void>,
): Promise<void> {
  return withCluster(async (cluster) => {
    const receivers = cluster.receivers();
    const safekeeper = new FakeSafekeeper(cluster);
    try {
      await body(cluster, receivers, safekeeper);
    } finally {
      await receivers.stop();
      await safekeeper.close();
    }
  });
}

Deno.test("WAL that the broker tells of is fetched, ingested and acknowledged", () =>
  withReceivers(async (cluster, receivers, safekeeper) => {
    safekeeper.append(200);
    receivers.onInfo(safekeeper.info(cluster));
    assert.match(receivers.sourceOf(cluster.timeline) ?? "", /^127\.0\.0\.1:/);
    await cluster.timeline.waitForLsn(safekeeper.wal.end, 5000);
    assert.equal(cluster.collect(HEAP, 0).recordCount, 200);
    assert.deepEqual(safekeeper.commands, [
      "pageserver-5 START_REPLICATION PHYSICAL 0/10000A0",
    ]);
    await safekeeper.acknowledged;
  }));

Deno.test("a connection that breaks in the middle of a record is made again where it stopped", () =>
  withReceivers(async (cluster, receivers, safekeeper) => {
    safekeeper.append(200);
    safekeeper.hangUpAfter = 5003;
    receivers.onInfo(safekeeper.info(cluster));
    await cluster.timeline.waitForLsn(safekeeper.wal.end, 10_000);
    assert.equal(cluster.collect(HEAP, 0).recordCount, 200);
    assert.ok(safekeeper.commands.length >= 3);
    assert.equal(new Set(safekeeper.commands).size, safekeeper.commands.length);
  }));

Deno.test("nothing is fetched of what is there, nor while it is paused", () =>
  withReceivers(async (cluster, receivers, safekeeper) => {
    const { tenantId, timelineId } = cluster.timeline;
    receivers.onInfo(safekeeper.info(cluster));
    assert.equal(receivers.sourceOf(cluster.timeline), undefined);
    await receivers.pause(tenantId, timelineId);
    safekeeper.append(3);
    receivers.onInfo(safekeeper.info(cluster));
    assert.equal(receivers.sourceOf(cluster.timeline), undefined);
    receivers.resume(tenantId, timelineId);
    await cluster.timeline.waitForLsn(safekeeper.wal.end, 5000);
    await receivers.forgetTenant(tenantId);
    safekeeper.append(3);
    receivers.onInfo(safekeeper.info(cluster));
    assert.equal(receivers.sourceOf(cluster.timeline), undefined);
  }));

Deno.test("another safekeeper is tried when one cannot be reached", () =>
  withReceivers(async (cluster, receivers, safekeeper) => {
    safekeeper.append(10);
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const gone = `127.0.0.1:${listener.addr.port}`;
    listener.close();
    const info = safekeeper.info(cluster);
    const ahead = (safekeeper.wal.end + 8) as Lsn;
    receivers.onInfo({ ...info, safekeeperId: 2, safekeeperConnstr: gone, commitLsn: ahead });
    receivers.onInfo(info);
    await cluster.timeline.waitForLsn(safekeeper.wal.end, 5000);
  }));

Deno.test("without a broker, a safekeeper that was restarted is found again", () =>
  withCluster(async (cluster) => {
    const receivers = cluster.receivers(false);
    const before = new FakeSafekeeper(cluster);
    before.append(10);
    receivers.onInfo(before.info(cluster)); // the last that was heard
    await cluster.timeline.waitForLsn(before.wal.end, 5000);
    const { port } = before;
    await before.close();
    const after = new FakeSafekeeper(cluster, port);
    try {
      after.append(10);
      await cluster.timeline.waitForLsn(after.wal.end, 5000);
    } finally {
      await receivers.stop();
      await after.close();
    }
  }));

/** Lies that are over soon: a safekeeper that falls silent is left after ten seconds. */
const SHORT_LIES = [1, 2, 4];

Deno.test("a safekeeper that lies brings nothing in, and does not keep out what others bring", async () => {
  const given = Deno.env.get("NEON_TEST_SEED");
  for (const seed of given === undefined ? SHORT_LIES : [Number(given)]) {
    const random = new SeededRandom(seed);
    await withReceivers(async (cluster, receivers, safekeeper) => {
      safekeeper.append(150);
      await using liar = new LyingProxy(safekeeper.port, random, 0.4, mutated);
      const info = safekeeper.info(cluster);
      const safekeeperConnstr = `127.0.0.1:${liar.port}`;
      const ahead = (safekeeper.wal.end + 8) as Lsn;
      const lying = { ...info, safekeeperId: 2, safekeeperConnstr, commitLsn: ahead };
      receivers.onInfo(lying);
      const { timeline } = cluster;
      const isHeard = () => liar.lies > 0 || timeline.lastRecordLsn === info.commitLsn;
      await until("the liar was heard", isHeard);
      const broker = setInterval(() => [lying, info].forEach((one) => receivers.onInfo(one)), 100);
      try {
        await timeline.waitForLsn(safekeeper.wal.end, 60_000);
      } finally {
        clearInterval(broker);
      }
      assert.equal(timeline.lastRecordLsn, safekeeper.wal.end);
      assert.equal(cluster.collect(HEAP, 0).recordCount, 150);
    });
  }
});

Deno.test("a safekeeper that accepts a connection and never says a word holds nobody up", () =>
  withReceivers(async (cluster, receivers, safekeeper) => {
    const mute = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    safekeeper.append(5);
    const info = safekeeper.info(cluster);
    const { tenantId, timelineId } = cluster.timeline;
    receivers.onInfo({ ...info, safekeeperConnstr: `127.0.0.1:${mute.addr.port}` });
    const connection = await mute.accept();
    await receivers.pause(tenantId, timelineId);
    receivers.onInfo(info);
    receivers.resume(tenantId, timelineId);
    await cluster.timeline.waitForLsn(safekeeper.wal.end, 5000);
    connection.close();
    mute.close();
  }));

Deno.test("a safekeeper is not taken for silent while its WAL waits for our disk", () =>
  withReceivers(async (cluster, _, safekeeper) => {
    const { served, timeline, reader, pause } = cluster;
    safekeeper.append(5);
    const looked = Promise.withResolvers<void>();
    let isStuck = false; // for a minute, by the clock
    const { waitForRoom } = timeline;
    timeline.waitForRoom = () => {
      timeline.waitForRoom = waitForRoom;
      isStuck = true;
      return looked.promise;
    };
    const stopping = new AbortController();
    const streaming = streamWal({
      served,
      reader,
      safekeeper: `127.0.0.1:${safekeeper.port}`,
      pageserverId: 5,
      token: undefined,
      signal: stopping.signal,
      now: () => {
        if (!isStuck) return performance.now();
        isStuck = false;
        looked.resolve();
        return performance.now() + 60_000;
      },
      unixNow: () => 0,
      pause,
    });
    await Promise.race([safekeeper.acknowledged, streaming]); // that would throw
    assert.equal(timeline.lastRecordLsn, safekeeper.wal.end);
    stopping.abort();
    await streaming;
  }));

Deno.test("a timeline of which a sync failed begins again at what is on disk", () =>
  withReceivers(async (cluster, receivers, safekeeper) => {
    const { timeline, manager } = cluster;
    const startOver = new StartOver(manager, receivers);
    const before = timeline.lastRecordLsn;
    safekeeper.append(80);
    receivers.onInfo(safekeeper.info(cluster));
    await timeline.waitForLsn(safekeeper.wal.end, 5000);
    const { prototype } = Deno.FsFile;
    const { sync } = prototype;
    prototype.sync = () => Promise.reject(new Error("Input/output error (os error 5)"));
    try {
      await assert.rejects(timeline.flush(), /Input.output error/);
    } finally {
      prototype.sync = sync;
    }
    assert.deepEqual([timeline.state, timeline.diskConsistentLsn], ["Broken", before]);
    assert.equal(cluster.collect(HEAP, 0).recordCount, 80, "it can be read");
    safekeeper.append(20);
    receivers.onInfo(safekeeper.info(cluster));
    const commands = safekeeper.commands.length;
    await until("the pause is over", () => timeline.isStartOverDue);
    await startOver.tick();
    assert.equal(timeline.state, "Active");
    await timeline.waitForLsn(safekeeper.wal.end, 5000);
    assert.ok(
      safekeeper.commands.slice(commands).includes(
        `pageserver-5 START_REPLICATION PHYSICAL ${formatLsn(before)}`,
      ),
    );
    assert.equal(cluster.collect(HEAP, 0).recordCount, 100);
    assert.equal(await timeline.flush(), safekeeper.wal.end);
    assert.equal(cluster.collect(HEAP, 0).recordCount, 100);
  }));

Deno.test("a safekeeper is asked once for what is waited for, and again behind less", () =>
  withReceivers(async (cluster, receivers, safekeeper) => {
    const { timeline } = cluster;
    safekeeper.append(5);
    receivers.onInfo(safekeeper.info(cluster));
    await safekeeper.acknowledged;
    const first = safekeeper.wal.end;
    assert.deepEqual(safekeeper.asked, [], "nobody has waited");
    safekeeper.append(5);
    const second = safekeeper.wal.end;
    safekeeper.append(5);
    const third = safekeeper.wal.end;
    const waiting = [second, third, third].map((lsn) => timeline.waitForLsn(lsn, 10_000));
    await until("it was asked", () => safekeeper.asked.length > 0);
    await safekeeper.send(first, second);
    await until("it was asked again", () => safekeeper.asked.length > 1);
    await safekeeper.send(second, third);
    await Promise.all(waiting);
    await until("all was acknowledged", () => safekeeper.feedback.at(-1) === third);
    assert.deepEqual(safekeeper.asked, [first, second]);
  }));

Deno.test("WAL beyond what its sender says it has is not taken", () =>
  withReceivers(async (cluster, receivers, safekeeper) => {
    safekeeper.append(5);
    safekeeper.endOfWal = (safekeeper.wal.end - 8) as Lsn;
    receivers.onInfo(safekeeper.info(cluster));
    await until("it was tried twice", () => safekeeper.commands.length > 1);
    assert.equal(cluster.timeline.lastRecordLsn, safekeeper.wal.start);
  }));
