/**
 * What tests/descriptors_test.ts runs with few file descriptors: a pageserver's timeline and a
 * safekeeper's, in one process, while there are none left and when there are some again.
 *
 *   descriptors_child.ts <directory>
 */
import assert from "node:assert/strict";
import { newTenantId, newTimelineId } from "../../libs/utils/id.ts";
import { configureLogging } from "../../libs/utils/log.ts";
import { parseLsn } from "../../libs/utils/lsn.ts";
import { checkContents, lsnOf, putNumbered } from "../../pageserver/repository/numbered_fixture.ts";
import { importRoot, openManager } from "../../pageserver/repository/repository_fixture.ts";
import type { Timeline } from "../../pageserver/repository/timeline.ts";
import { TEST_IDENTITY, TestWal } from "../../safekeeper/safekeeper_fixture.ts";
import type { Proposer } from "../../safekeeper/timeline.ts";
import { Timelines } from "../../safekeeper/timelines.ts";

/** Longer than it takes to find that no file can be opened. */
const WAIT_MS = 250;

/** Takes all descriptors that there are; disposed of, gives them back. */
function hog(): Disposable {
  const files: Deno.FsFile[] = [];
  try {
    for (;;) files.push(Deno.openSync("/dev/null"));
  } catch (thrown) {
    assert.equal((thrown as { code?: string }).code, "EMFILE");
  }
  return { [Symbol.dispose]: () => files.forEach((file) => file.close()) };
}

function ingest(timeline: Timeline, from: number, to: number): void {
  for (let n = from; n <= to; n++) putNumbered(timeline, n);
  timeline.advance(lsnOf(to), lsnOf(to - 1));
}

async function pageserver(directory: string): Promise<void> {
  const manager = openManager(directory);
  const tenant = await manager.attach(newTenantId(), 1);
  const timeline = await importRoot(tenant, manager);
  ingest(timeline, 1, 100);
  await timeline.flush();
  ingest(timeline, 101, 150);
  let flushed: Promise<unknown>;
  let isFlushed = false;
  {
    using _none = hog();
    flushed = timeline.flush().then(() => isFlushed = true);
    await new Promise((resolve) => setTimeout(resolve, WAIT_MS));
    assert.equal(isFlushed, false, "nothing can be made durable now");
    assert.equal(timeline.state, "Active");
  }
  await flushed;
  checkContents(timeline);
  assert.equal(timeline.diskConsistentLsn, lsnOf(150));
  ingest(timeline, 151, 200);
  await manager.shutdown();
}

async function safekeeper(directory: string): Promise<void> {
  const START = parseLsn("0/2000028");
  const identity = { ...TEST_IDENTITY, segmentSize: 1 << 20 };
  const timelines = new Timelines(directory, 1);
  const timeline = timelines.create({
    tenantId: newTenantId(),
    timelineId: newTimelineId(),
    pgVersionNum: 170011,
    systemId: identity.systemId,
    walSegmentSize: identity.segmentSize,
    startLsn: START,
  });
  const votes: number[] = [];
  const proposer: Proposer = {
    feedbackSeen: 0,
    send(message) {
      if (message.kind === "vote" && message.voteGiven) votes.push(message.term);
    },
    fail(why) {
      throw new Error(why);
    },
  };
  const wal = new TestWal(START, undefined, identity);
  const vote = (term: number) => timeline.handle({ kind: "vote", generation: 0, term }, proposer);
  const elect = (term: number) => {
    vote(term);
    const mine = timeline.acceptor.state.termHistory.filter((one) => one.lsn <= wal.end);
    const termHistory = [...mine, { term, lsn: timeline.acceptor.flushLsn }];
    const startStreamingAt = timeline.acceptor.flushLsn;
    timeline.handle(
      { kind: "elected", generation: 0, term, startStreamingAt, termHistory },
      proposer,
    );
  };
  const append = (term: number) => {
    for (let at = timeline.acceptor.writeLsn; at < wal.end; at = timeline.acceptor.writeLsn) {
      const bytes = wal.bytes(at).subarray(0, 131072);
      const range = { beginLsn: at, endLsn: (at + bytes.length) as typeof at };
      const known = { commitLsn: START, truncateLsn: START };
      const message = { kind: "append", generation: 0, term, ...range, ...known } as const;
      timeline.handle({ ...message, wal: bytes }, proposer);
    }
    timeline.kick();
  };
  elect(1);
  wal.append(20, 30_000);
  append(1);
  {
    using _none = hog();
    wal.append(60, 30_000); // over the end of the segment
    assert.throws(() => append(1), /Too many open files/);
    vote(2); // it syncs the segment that is full, whose descriptors serve the vote then
    using _rest = hog();
    assert.throws(() => vote(3), /Too many open files/);
  }
  assert.deepEqual(votes, [1, 2], "no vote that is not durable");
  elect(4);
  append(4);
  assert.equal(timeline.acceptor.writeLsn, wal.end);
  await timelines.close();
  const again = new Timelines(directory, 1);
  assert.equal([...again.all()][0]!.acceptor.flushLsn, wal.end);
  await again.close();
}

// As in a daemon, before anybody can take descriptors: Deno needs some of its own for these
configureLogging("error");
Deno.addSignalListener("SIGTERM", () => Deno.exit(0));
const directory = Deno.args[0]!;
for (const [name, part] of Object.entries({ pageserver, safekeeper })) {
  Deno.mkdirSync(`${directory}/${name}`);
  await part(`${directory}/${name}`);
}
console.log("went on");
