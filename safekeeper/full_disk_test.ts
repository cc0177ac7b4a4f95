/**
 * A safekeeper on a file system that is really full: a small one in memory, which only root can
 * mount. Appends are refused, nothing that was acknowledged is lost, votes still work, old WAL can
 * still be removed, and when there is space again it goes on.
 */
import assert from "node:assert/strict";
import type { AcceptorMessage } from "../libs/safekeeper_protocol/messages.ts";
import { highestCommonPoint } from "../libs/safekeeper_protocol/term_history.ts";
import { messageOf, Unavailable } from "../libs/utils/errors.ts";
import { newTenantId, newTimelineId } from "../libs/utils/id.ts";
import { type Lsn, parseLsn } from "../libs/utils/lsn.ts";
import { SmallDisk } from "../libs/utils/small_disk_fixture.ts";
import { TEST_IDENTITY, TestWal } from "./safekeeper_fixture.ts";
import type { Proposer, Timeline } from "./timeline.ts";
import { Timelines } from "./timelines.ts";

const START = parseLsn("0/2000000");
const DISK_MIB = 24;
const PIECE_BYTES = 131072;

/** A proposer in this process that writes one log. */
class Writer implements Proposer {
  feedbackSeen = 0;
  term = 0;
  end = START;
  acknowledged = START;
  #answered: () => void = () => {};

  send(message: AcceptorMessage): void {
    if (message.kind === "append" && message.term === this.term) {
      this.acknowledged = message.flushLsn;
    }
    this.#answered();
  }

  fail(): void {}

  /** Wins the next term, on what the safekeeper has. */
  elect(timeline: Timeline): void {
    const { state } = timeline.acceptor;
    this.term = state.term + 1;
    timeline.handle({ kind: "vote", generation: 0, term: this.term }, this);
    const { flushLsn } = timeline.acceptor;
    const before = state.termHistory.filter(({ lsn }) => lsn <= flushLsn);
    const termHistory = [...before, { term: this.term, lsn: flushLsn }];
    const startStreamingAt = highestCommonPoint(termHistory, before, flushLsn)!.lsn;
    const { term } = this;
    timeline.handle({ kind: "elected", generation: 0, term, startStreamingAt, termHistory }, this);
    this.end = flushLsn;
  }

  /** Writes a piece and waits until it is acknowledged up to a whole record. */
  async write(timeline: Timeline, wal: Uint8Array, commitLsn: Lsn): Promise<void> {
    const beginLsn = this.end;
    const endLsn = (beginLsn + wal.length) as Lsn;
    const range = { beginLsn, endLsn, commitLsn, truncateLsn: commitLsn };
    const answered = new Promise<void>((resolve) => this.#answered = resolve);
    timeline.handle({ kind: "append", generation: 0, term: this.term, ...range, wal }, this);
    this.end = endLsn;
    timeline.kick();
    await answered;
  }
}

const disk = await SmallDisk.mount(DISK_MIB);

Deno.test({
  name: "a full disk refuses appends, loses nothing, and goes on when there is space again",
  ignore: disk === undefined,
  fn: async () => {
    await using mounted = disk!;
    const { path } = mounted;
    const timelines = new Timelines(path, 1);
    const timeline = timelines.create({
      tenantId: newTenantId(),
      timelineId: newTimelineId(),
      pgVersionNum: 170011,
      systemId: TEST_IDENTITY.systemId,
      walSegmentSize: TEST_IDENTITY.segmentSize,
      startLsn: START,
    });
    const wal = new TestWal(START);
    while (wal.end < START + 2 * DISK_MIB * 1048576) wal.append(50, 9000);
    const bytes = wal.bytes();
    const piece = (from: Lsn) => bytes.subarray(from - START, from - START + PIECE_BYTES);
    const writer = new Writer();
    writer.elect(timeline);
    const fill = async () => {
      for (;;) await writer.write(timeline, piece(writer.end), writer.acknowledged);
    };
    await assert.rejects(fill(), (thrown) => {
      assert.ok(thrown instanceof Unavailable, messageOf(thrown));
      assert.match(thrown.message, /^Cannot write WAL at .*[Nn]o space left/);
      return true;
    });
    const full = writer.acknowledged;
    assert.ok(full - START > DISK_MIB * 1048576 * 0.6, `${full - START} bytes were written`);
    assert.equal(timeline.acceptor.flushLsn, full);

    // Another election works, and nothing else is taken
    writer.elect(timeline);
    assert.equal(writer.end, full);
    await assert.rejects(fill(), Unavailable);

    // The pageserver has it all: the first segment goes, though the disk is full
    writer.elect(timeline);
    await writer.write(timeline, new Uint8Array(0), full);
    timeline.takeFeedback({
      currentTimelineSize: 0,
      lastReceivedLsn: full,
      diskConsistentLsn: full,
      remoteConsistentLsn: full,
      replyTime: 0,
      shardNumber: 0,
      corruptionDetected: false,
    });
    timeline.removeOldWal();
    const before = writer.end;
    for (let i = 0; i < 20; i++) await writer.write(timeline, piece(writer.end), full);
    assert.ok(writer.acknowledged > before);
    timelines.close();

    const again = new Timelines(path, 1);
    const reopened = again.get(timeline.tenantId, timeline.timelineId);
    assert.equal(reopened.acceptor.flushLsn, writer.acknowledged);
    assert.equal(reopened.acceptor.state.term, writer.term);
    again.close();
  },
});
