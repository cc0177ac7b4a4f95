/** A timeline's driver in process: group sync, feedback, removal of WAL, publishing. */
import assert from "node:assert/strict";
import type { SafekeeperTimelineInfo } from "../broker/client.ts";
import type { AcceptorMessage, AppendResponse } from "../libs/safekeeper_protocol/messages.ts";
import { Conflict, Unavailable } from "../libs/utils/errors.ts";
import { newTenantId, newTimelineId } from "../libs/utils/id.ts";
import type { Lsn } from "../libs/utils/lsn.ts";
import { BrokerPublisher } from "./broker_publisher.ts";
import { mergedHotStandby, type Receiver, standbyHorizon } from "./receivers.ts";
import { TEST_IDENTITY, TestWal, withDirectory } from "./safekeeper_fixture.ts";
import type { Proposer, Timeline } from "./timeline.ts";
import { Timelines } from "./timelines.ts";

const SEGMENT = TEST_IDENTITY.segmentSize;
const START = (2 * SEGMENT) as Lsn;
const FEEDBACK = {
  currentTimelineSize: 0,
  lastReceivedLsn: START,
  diskConsistentLsn: START,
  remoteConsistentLsn: START,
  replyTime: 0,
  shardNumber: 0,
  corruptionDetected: false,
};

class RecordingProposer implements Proposer {
  feedbackSeen = 0;
  readonly sent: AcceptorMessage[] = [];
  readonly failures: string[] = [];
  #waiting: (() => void) | undefined;

  send(message: AcceptorMessage): void {
    this.sent.push(message);
    this.#waiting?.();
  }
  fail(why: string): void {
    this.failures.push(why);
  }
  /** The next acknowledgement that reaches `lsn`. */
  async acknowledged(lsn: Lsn): Promise<AppendResponse> {
    for (;;) {
      const last = this.sent.at(-1);
      if (last?.kind === "append" && last.flushLsn >= lsn) return last;
      await new Promise<void>((resolve) => this.#waiting = resolve);
    }
  }
}

function create(timelines: Timelines): Timeline {
  return timelines.create({
    tenantId: newTenantId(),
    timelineId: newTimelineId(),
    pgVersionNum: 170011,
    systemId: TEST_IDENTITY.systemId,
    walSegmentSize: SEGMENT,
    startLsn: START,
  });
}

function elect(timeline: Timeline, proposer: Proposer): void {
  timeline.handle({ kind: "vote", generation: 0, term: 1 }, proposer);
  timeline.handle({
    kind: "elected",
    generation: 0,
    term: 1,
    startStreamingAt: START,
    termHistory: [{ term: 0, lsn: START }, { term: 1, lsn: START }],
  }, proposer);
}

function append(timeline: Timeline, proposer: Proposer, wal: Uint8Array, commitLsn = START): void {
  for (let at = 0; at === 0 || at < wal.length; at += 131072) {
    const part = wal.subarray(at, at + 131072);
    const beginLsn = timeline.acceptor.writeLsn;
    timeline.handle({
      kind: "append",
      generation: 0,
      term: 1,
      beginLsn,
      endLsn: (beginLsn + part.length) as Lsn,
      commitLsn,
      truncateLsn: commitLsn,
      wal: part,
    }, proposer);
  }
}

Deno.test("appends that arrive during a sync share the next one and its acknowledgement", async () => {
  await withDirectory(async (directory) => {
    const timelines = new Timelines(directory, 1);
    const timeline = create(timelines);
    const proposer = new RecordingProposer();
    elect(timeline, proposer);
    const wal = new TestWal(START);
    append(timeline, proposer, wal.append(1, 100));
    timeline.kick();
    const first = wal.end;
    for (let i = 0; i < 20; i++) {
      append(timeline, proposer, wal.append(1, 100));
      timeline.kick();
    }
    await proposer.acknowledged(wal.end);
    const flushed = proposer.sent.filter((message) => message.kind === "append").map((message) =>
      message.flushLsn
    );
    assert.deepEqual(flushed, [first, wal.end]);
    await timelines.close();
  });
});

Deno.test("WAL goes once pageserver, commit and peers are past it, and the state survives", async () => {
  await withDirectory(async (directory) => {
    const timelines = new Timelines(directory, 1);
    const timeline = create(timelines);
    const proposer = new RecordingProposer();
    timeline.proposers.add(proposer);
    elect(timeline, proposer);
    const wal = new TestWal(START);
    while (wal.end < START + 2 * SEGMENT) wal.append(100, 9000);
    append(timeline, proposer, wal.bytes());
    timeline.kick();
    await proposer.acknowledged(wal.end);
    const files = () =>
      [...Deno.readDirSync(timeline.directory)].filter((entry) => /^0/.test(entry.name)).length;
    assert.equal(files(), 3);
    await timeline.removeOldWal();
    timeline.takeFeedback({ ...FEEDBACK, remoteConsistentLsn: wal.end });
    await timeline.removeOldWal();
    assert.equal(files(), 3, "nothing is committed yet");
    append(timeline, proposer, new Uint8Array(0), wal.end);
    const answer = proposer.sent.at(-1) as AppendResponse;
    assert.equal(answer.feedback?.remoteConsistentLsn, wal.end);
    await timeline.removeOldWal();
    assert.equal(files(), 1);
    await timelines.close();
    assert.deepEqual(proposer.failures.length, 1);
    assert.throws(() => timeline.handle({ kind: "vote", generation: 0, term: 9 }, proposer), {
      name: "Unavailable",
    });

    const again = new Timelines(directory, 1);
    const reopened = again.get(timeline.tenantId, timeline.timelineId);
    assert.equal(reopened.acceptor.flushLsn, wal.end);
    assert.equal(reopened.acceptor.commitLsn, wal.end);
    assert.equal(reopened.acceptor.remoteConsistentLsn, wal.end);
    assert.equal(reopened.active, false);
    again.close();
  });
});

Deno.test("a full disk refuses the append, and the next election goes on", async () => {
  await withDirectory(async (directory) => {
    const timelines = new Timelines(directory, 1);
    const timeline = create(timelines);
    const proposer = new RecordingProposer();
    elect(timeline, proposer);
    const wal = new TestWal(START);
    const bytes = wal.append(1, 100);
    const path = `${timeline.directory}/000000010000000000000002.partial`;
    Deno.symlinkSync("/dev/full", path);
    assert.throws(() => append(timeline, proposer, bytes), Unavailable);
    Deno.removeSync(path);
    elect(timeline, proposer);
    append(timeline, proposer, bytes);
    timeline.kick();
    await proposer.acknowledged(wal.end);
    await timelines.close();
  });
});

Deno.test("create() is idempotent, refuses another start, and clears what a crash left", async () => {
  await withDirectory(async (directory) => {
    const timelines = new Timelines(directory, 1);
    const args = {
      tenantId: newTenantId(),
      timelineId: newTimelineId(),
      pgVersionNum: 170011,
      walSegmentSize: SEGMENT,
      startLsn: START,
    };
    const path = `${directory}/${args.tenantId}/${args.timelineId}`;
    Deno.mkdirSync(path, { recursive: true });
    Deno.writeTextFileSync(`${path}/000000010000000000000002.partial`, "old");
    assert.equal([...new Timelines(directory, 1).all()].length, 0);
    const timeline = timelines.create(args);
    const names = [...Deno.readDirSync(path)].map(({ name }) => name).sort();
    assert.deepEqual(names, ["safekeeper.control", "safekeeper.control.reserve"]);
    assert.equal(timelines.create(args), timeline);
    const other = (START + 8) as Lsn;
    assert.throws(() => timelines.create({ ...args, startLsn: other }), Conflict);
    assert.deepEqual(await timelines.deleteTenant(args.tenantId, false), [args.timelineId]);
    assert.throws(() => Deno.statSync(path), Deno.errors.NotFound);
    timelines.create(args);
    await timelines.close();
  });
});

Deno.test("what receivers report is merged: lowest valid xmin, lowest replica position", () => {
  const receiver = (xmin: number, appliedLsn: number, isPageserver = false): Receiver => ({
    name: "",
    sentLsn: START,
    appliedLsn: appliedLsn as Lsn,
    hotStandby: { time: xmin, xmin, catalogXmin: 0 },
    isPageserver,
    close() {},
  });
  const receivers = new Set([receiver(9, 100), receiver(0, 50, true), receiver(7, 80)]);
  assert.deepEqual(mergedHotStandby(receivers), { time: 9, xmin: 7, catalogXmin: 0 });
  assert.equal(standbyHorizon(receivers), 80);
  assert.equal(standbyHorizon([]), 0);
});

Deno.test("a change is published at once, and further ones together", async () => {
  await withDirectory(async (directory) => {
    const timelines = new Timelines(directory, 1);
    const published: SafekeeperTimelineInfo[] = [];
    let told = () => {};
    const sink = {
      publish(info: SafekeeperTimelineInfo) {
        published.push(info);
        told();
      },
    };
    const publisher = new BrokerPublisher(sink, {
      nodeId: 1,
      pgAddress: "127.0.0.1:5454",
      httpAddress: "127.0.0.1:7676",
    });
    timelines.onCommit = (timeline) => publisher.changed(timeline);
    const timeline = create(timelines);
    assert.equal(published.length, 1);
    const proposer = new RecordingProposer();
    elect(timeline, proposer);
    const wal = new TestWal(START);
    append(timeline, proposer, wal.append(3, 100));
    timeline.kick();
    await proposer.acknowledged(wal.end);
    for (const commit of [START + 136, wal.end]) {
      append(timeline, proposer, new Uint8Array(0), commit as Lsn);
    }
    const atOnce = published.length; // the first of the two as well, if the creation is long ago
    assert.ok(atOnce <= 2);
    await new Promise<void>((resolve) => told = resolve);
    assert.equal(published.length, atOnce + 1);
    assert.equal(published[atOnce]!.commitLsn, wal.end);
    assert.equal(published[atOnce]!.safekeeperConnstr, "127.0.0.1:5454");
    publisher.close();
    await timelines.close();
  });
});
