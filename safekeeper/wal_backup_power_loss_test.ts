/**
 * A safekeeper's files, and those of remote storage on the same disk, after it was stopped or power
 * was lost behind the steps of a life in which WAL is uploaded, removed, offloaded, brought back,
 * and deleted at last: whatever was acknowledged is served, and what was left half done is done or
 * gone after the next round.
 *
 * NEON_CRASH_SHARE sets which share of the points is looked at (1 is all), NEON_TEST_SEED repeats a
 * run.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { LocalDirectory } from "../libs/remote_storage/local_directory.ts";
import { RemoteStorage } from "../libs/remote_storage/remote_storage.ts";
import { makeDirectory } from "../libs/utils/durable.ts";
import { ifThere } from "../libs/utils/if_there.ts";
import type { Lsn } from "../libs/utils/lsn.ts";
import { seededRandom } from "../tests/load/random.ts";
import { atEveryStep } from "../tests/support/crash_points.ts";
import { FileRecorder } from "../tests/support/file_recorder.ts";
import { until } from "../tests/support/waiting.ts";
import { MEMORY_DIRECTORY, withDirectory } from "./safekeeper_fixture.ts";
import { expectedWal, SEGMENT, START, TestSafekeeper, TestWriter } from "./wal_backup_fixture.ts";

const SHARE = Number(Deno.env.get("NEON_CRASH_SHARE") ?? 0.04);
/** Of so many points, one is followed by a whole round. */
const ROUND_EVERY = 4;

interface Promised {
  readonly notes: number;
  readonly acknowledged: Lsn;
  readonly term: number;
  readonly timeline: "there" | "deleting" | "deleted";
}

function open(directory: string): TestSafekeeper {
  const storage = new RemoteStorage(new LocalDirectory(`${directory}/remote`, 0));
  makeDirectory(`${directory}/sk`);
  return new TestSafekeeper(`${directory}/sk`, storage);
}

/** A writer has left, the pageserver has everything: the WAL goes to remote storage, all of it. */
async function rest(safekeeper: TestSafekeeper): Promise<void> {
  const { timeline, backup } = safekeeper;
  await until("all have left", () => timeline.proposers.size + timeline.receivers.size === 0);
  await backup.tick();
  await safekeeper.consumed();
  await backup.tick();
  assert.ok(timeline.isOffloaded);
}

async function live(directory: string, recorder: FileRecorder): Promise<Promised[]> {
  const promises: Promised[] = [];
  const safekeeper = open(directory);
  const { timelines, timeline } = safekeeper;
  const promise = (acknowledged: Lsn, state: Promised["timeline"] = "there") => {
    const { term } = timeline.acceptor;
    promises.push({ notes: recorder.notes.length, acknowledged, term, timeline: state });
  };
  promise(START);
  for (const segments of [1.3, 0.4]) {
    const writer = await TestWriter.elect(safekeeper.address);
    promise(writer.end);
    for (let i = 0; i < 2; i++) {
      await writer.writeTo((writer.end + SEGMENT * segments) as Lsn);
      promise(writer.end);
      await safekeeper.backup.tick();
      await safekeeper.consumed();
    }
    writer.close();
    await rest(safekeeper);
  }
  await timeline.available();
  const { tenantId, timelineId, acceptor: { flushLsn } } = timeline;
  promise(flushLsn, "deleting");
  await timelines.delete(tenantId, timelineId, false);
  promise(START, "deleted");
  await safekeeper.close();
  return promises;
}

/** One more round, after which everything is as if there had been no crash. */
async function converge(safekeeper: TestSafekeeper): Promise<void> {
  const { timeline } = safekeeper;
  const writer = await TestWriter.elect(safekeeper.address);
  await writer.writeTo((writer.end + SEGMENT) as Lsn);
  writer.close();
  await rest(safekeeper);
  assert.deepEqual(
    [...Deno.readDirSync(timeline.directory)].map(({ name }) => name).sort(),
    ["safekeeper.control", "safekeeper.control.reserve"],
  );
  const { flushLsn } = timeline.acceptor;
  const segments = Math.floor(flushLsn / SEGMENT) - Math.floor(START / SEGMENT);
  const remote = await safekeeper.remote();
  assert.equal(remote.length, segments + (flushLsn % SEGMENT === 0 ? 0 : 1), remote.join());
}

/** Opens what was left, and serves what was acknowledged; then it goes on, if `round`. */
async function check(directory: string, promised: Promised, round: boolean): Promise<Promised> {
  if (promised.timeline === "deleted") {
    const left = ifThere(() => [...Deno.readDirSync(`${directory}/sk`)]) ?? [];
    for (const { name } of left) {
      assert.deepEqual([...Deno.readDirSync(`${directory}/sk/${name}`)], [], "it is back");
    }
    return promised;
  }
  const safekeeper = open(directory);
  try {
    const { acceptor } = safekeeper.timeline;
    if (promised.timeline === "there") {
      assert.ok(acceptor.flushLsn >= promised.acknowledged, "WAL that was acknowledged is gone");
      assert.ok(acceptor.term >= promised.term, `term ${acceptor.term}`);
      const served = await safekeeper.stream();
      const expected = expectedWal(acceptor.commitLsn).bytes().subarray(0, served.length);
      assert.ok(Buffer.from(served).equals(expected), "WAL is not what was written");
      if (round) await converge(safekeeper);
    }
    const { flushLsn: acknowledged, term } = acceptor;
    return { ...promised, acknowledged, term };
  } finally {
    await safekeeper.close();
  }
}

Deno.test("power loss while WAL goes to remote storage and back loses nothing", async () => {
  await withDirectory(async (scratch) => {
    const root = `${scratch}/life`;
    Deno.mkdirSync(root);
    const recorder = new FileRecorder(root);
    const promises = await recorder.during(() => live(root, recorder));
    const random = seededRandom("wal backup power loss");
    const points = await atEveryStep(
      recorder.notes,
      {
        scratch,
        chance: () => random.next() < 0.5,
        isWanted: () => random.next() < SHARE,
        restartEvery: 2,
      },
      {
        check: (left, played) => {
          const promised = promises.findLast(({ notes }) => notes <= played) ?? promises[0]!;
          return check(left, promised, random.between(1, ROUND_EVERY) === 1);
        },
        recheck: (left, seen) => check(left, seen, true),
      },
    );
    console.log(`${points} crash points of ${recorder.notes.length} steps`);
    assert.ok(points > 0);
  }, MEMORY_DIRECTORY);
});
