/**
 * A safekeeper's files after it was stopped or power was lost behind every single write, sync,
 * rename and removal of a life with elections, truncations over segments and removal of WAL:
 * whatever survived of what was not synced, it opens, has kept each term that it answered with and
 * all WAL that it acknowledged, and goes on.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import type { AcceptorMessage } from "../libs/safekeeper_protocol/messages.ts";
import { highestCommonPoint } from "../libs/safekeeper_protocol/term_history.ts";
import { newTenantId, newTimelineId } from "../libs/utils/id.ts";
import { type Lsn, parseLsn } from "../libs/utils/lsn.ts";
import { atEveryStep } from "../tests/support/crash_points.ts";
import { FileRecorder } from "../tests/support/file_recorder.ts";
import { seededRandom } from "./acceptor_fixture.ts";
import { MEMORY_DIRECTORY, TEST_IDENTITY, TestWal, withDirectory } from "./safekeeper_fixture.ts";
import type { Proposer, Timeline } from "./timeline.ts";
import { Timelines } from "./timelines.ts";

const IDENTITY = { ...TEST_IDENTITY, segmentSize: 1048576 };
const START = parseLsn("0/2000028");
const PIECE_BYTES = 131072;
const tenantId = newTenantId();
const timelineId = newTimelineId();

const NEW_TIMELINE = {
  tenantId,
  timelineId,
  pgVersionNum: 170011,
  systemId: IDENTITY.systemId,
  walSegmentSize: IDENTITY.segmentSize,
  startLsn: START,
};

function newWal(): TestWal {
  return new TestWal(START, undefined, IDENTITY);
}

/** What must be there whatever happens, as of a number of notes. */
interface Promised {
  readonly notes: number;
  readonly term: number;
  /** Acknowledged, and cut by no election since. */
  readonly log: Uint8Array;
  /** The log that all of it is a part of; undefined while an election may cut it. */
  readonly whole: TestWal | undefined;
}

/** A proposer in this process; keeps what it was promised. */
class Life implements Proposer {
  feedbackSeen = 0;
  readonly promises: Promised[] = [];
  readonly #recorder: FileRecorder;
  #term = 0;
  #log: Uint8Array = new Uint8Array(0);
  #wal = newWal();
  #whole: TestWal | undefined;
  #sent = START;
  #answered: () => void = () => {};

  constructor(recorder: FileRecorder) {
    this.#recorder = recorder;
  }

  get end(): Lsn {
    return this.#wal.end;
  }

  #promise(): void {
    this.promises.push({
      notes: this.#recorder.notes.length,
      term: this.#term,
      log: this.#log,
      whole: this.#whole,
    });
  }

  send(message: AcceptorMessage): void {
    if (message.kind === "vote") this.#term = message.term;
    if (message.kind === "append") {
      this.#log = this.#wal.bytes().slice(0, message.flushLsn - START);
    }
    this.#promise();
    if (message.kind === "append" && message.flushLsn === this.#wal.end) this.#answered();
  }

  fail(why: string): void {
    throw new Error(why);
  }

  /** Wins the next term with a log that is ours up to `from`. */
  elect(timeline: Timeline, from: Lsn, wal: TestWal): void {
    const { state, flushLsn } = timeline.acceptor;
    const term = state.term + 1;
    timeline.handle({ kind: "vote", generation: 0, term }, this);
    // From here on what lies behind may go
    this.#log = this.#log.subarray(0, Math.min(this.#log.length, from - START));
    this.#whole = undefined;
    this.#promise();
    const before = state.termHistory.filter(({ lsn }) => lsn <= from);
    const termHistory = [...before, { term, lsn: from }];
    const mine = state.termHistory.filter(({ lsn }) => lsn <= flushLsn);
    const startStreamingAt = highestCommonPoint(termHistory, mine, flushLsn)!.lsn;
    timeline.handle({ kind: "elected", generation: 0, term, startStreamingAt, termHistory }, this);
    this.#wal = this.#whole = wal;
    this.#sent = startStreamingAt;
    this.#promise();
  }

  /** Sends all of the log, and waits until it is acknowledged. */
  async write(timeline: Timeline, commitLsn: Lsn): Promise<void> {
    const bytes = this.#wal.bytes();
    const answered = new Promise<void>((resolve) => this.#answered = resolve);
    do {
      const at = this.#sent - START;
      const wal = bytes.subarray(at, at + PIECE_BYTES);
      const beginLsn = this.#sent;
      const endLsn = (beginLsn + wal.length) as Lsn;
      const range = { beginLsn, endLsn, commitLsn, truncateLsn: commitLsn };
      timeline.handle({ kind: "append", generation: 0, term: this.#term, ...range, wal }, this);
      this.#sent = endLsn;
      timeline.kick();
    } while (this.#sent < this.#wal.end);
    await answered;
  }
}

const FEEDBACK = {
  currentTimelineSize: 0,
  lastReceivedLsn: START,
  diskConsistentLsn: START,
  replyTime: 0,
  shardNumber: 0,
  corruptionDetected: false,
};

/** The life; returns its promises. */
async function live(directory: string, recorder: FileRecorder): Promise<Promised[]> {
  const timelines = new Timelines(directory, 1);
  const timeline = timelines.create(NEW_TIMELINE);
  const life = new Life(recorder);
  const first = newWal();
  first.append(10, 3000);
  life.elect(timeline, START, first);
  await life.write(timeline, START);
  const parted = first.end;
  for (let i = 0; i < 3; i++) {
    first.append(5, 90_000); // over a segment's end
    await life.write(timeline, START);
  }
  // The next proposer does not know the last segments
  const second = newWal();
  second.append(10, 3000);
  assert.equal(second.end, parted);
  second.append(20, 700, 99);
  life.elect(timeline, parted, second);
  await life.write(timeline, START);
  for (let i = 0; i < 3; i++) {
    second.append(8, 60_000, 50);
    await life.write(timeline, parted);
  }
  await life.write(timeline, second.end);
  timeline.takeFeedback({ ...FEEDBACK, remoteConsistentLsn: parted });
  timeline.removeOldWal();
  life.elect(timeline, second.end, second);
  second.append(3, 1000);
  await life.write(timeline, second.end);
  await timelines.close();
  return life.promises;
}

/** Fails if the timeline's log does not begin with `log`, as far as it was not removed. */
function compare(timeline: Timeline, log: Uint8Array): void {
  const reader = timeline.reader();
  for (let at = 0; at < log.length;) {
    const found = new Uint8Array(Math.min(PIECE_BYTES, log.length - at));
    const count = reader.read((START + at) as Lsn, found);
    if (count === 0) { // that segment was removed: the pageserver has it
      at = IDENTITY.segmentSize - START % IDENTITY.segmentSize;
      assert.ok(at <= timeline.acceptor.commitLsn - START);
      continue;
    }
    const isSame = Buffer.compare(found.subarray(0, count), log.subarray(at, at + count)) === 0;
    assert.ok(isSame, `other bytes behind ${at}`);
    at += count;
  }
  reader.close();
}

/**
 * Opens what was left and looks whether the promise was kept; then it must go on. Returns what it
 * has told to the next proposer.
 */
function check(directory: string, promised: Promised | undefined): Promised {
  const timelines = new Timelines(directory, 1);
  try {
    const found = timelines.find(tenantId, timelineId);
    if (found === undefined) assert.equal(promised, undefined, "the timeline was there");
    const timeline = found ?? timelines.create(NEW_TIMELINE);
    const { flushLsn, commitLsn, state } = timeline.acceptor;
    assert.ok(state.term >= (promised?.term ?? 0), `term ${state.term}`);
    assert.ok(commitLsn <= flushLsn);
    const { log, whole } = promised ?? { log: new Uint8Array(0), whole: undefined };
    assert.ok(flushLsn - START >= log.length, `the log ends at ${flushLsn - START}`);
    compare(timeline, log);
    if (whole !== undefined) compare(timeline, whole.bytes().subarray(0, flushLsn - START));
    const life = new Life(new FileRecorder(directory));
    const wal = new TestWal(flushLsn, undefined, IDENTITY);
    const bytes = wal.append(2, 100);
    life.elect(timeline, flushLsn, wal);
    timeline.handle({
      kind: "append",
      generation: 0,
      term: state.term + 1,
      beginLsn: flushLsn,
      endLsn: wal.end,
      commitLsn,
      truncateLsn: commitLsn,
      wal: bytes,
    }, life);
    const told = whole?.bytes().slice(0, flushLsn - START) ?? log;
    return { notes: 0, term: state.term + 1, log: told, whole };
  } finally {
    timelines.close().catch(() => {}); // ends after the check, on files that may be gone by then
  }
}

Deno.test("power loss behind any step on the files loses nothing that was promised", async () => {
  await withDirectory(async (directory) => {
    const root = `${directory}/life`;
    Deno.mkdirSync(root);
    const recorder = new FileRecorder(root);
    const promises = await recorder.during(() => live(root, recorder));
    const random = seededRandom(11);
    const points = await atEveryStep(
      recorder.notes,
      { scratch: directory, chance: () => random() < 0.5, restartEvery: 2 },
      {
        check: (left, played) => check(left, promises.findLast(({ notes }) => notes <= played)),
        recheck: check,
      },
    );
    console.log(`${points} crash points`);
    assert.ok(points > 500);
  }, MEMORY_DIRECTORY);
});
