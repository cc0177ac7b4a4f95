/**
 * kill -9 of a safekeeper with remote storage before each of its steps, again and again on one
 * directory: whatever was acknowledged is still served, and what a crash left half done is done or
 * gone after the next round.
 *
 * NEON_CRASH_MOMENTS sets how many crashes (15 in a normal run), NEON_TEST_SEED repeats a run.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { LocalDirectory } from "../libs/remote_storage/local_directory.ts";
import { RemoteStorage } from "../libs/remote_storage/remote_storage.ts";
import type { Lsn } from "../libs/utils/lsn.ts";
import { until } from "../tests/support/waiting.ts";
import { seededRandom } from "../tests/load/random.ts";
import { withDirectory } from "./safekeeper_fixture.ts";
import { expectedWal, SEGMENT, START, TestSafekeeper, TestWriter } from "./wal_backup_fixture.ts";

/** On one directory: WAL only grows, and all of it is compared after each crash. */
const CRASHES = 15;
const DIRECTORIES = Math.ceil(Number(Deno.env.get("NEON_CRASH_MOMENTS") ?? CRASHES) / CRASHES);
/** Within getting WAL back, within the first round, and about what four rounds take. */
const STEPS_MAX = [15, 80, 300];

interface Life {
  /** The last position that was acknowledged. */
  readonly acknowledged: number;
  readonly offloads: number;
  readonly last: string;
}

async function liveAndDie(directory: string, remote: string, steps: number): Promise<Life> {
  const child = await new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "-A",
      "--no-check",
      `${import.meta.dirname}/wal_backup_crash_child.ts`,
      directory,
      remote,
      String(steps),
    ],
    stderr: "inherit",
  }).output();
  assert.equal(child.signal, "SIGKILL", "the child only ends that way");
  const lines = new TextDecoder().decode(child.stdout).trimEnd().split("\n");
  const acknowledged = lines.filter((line) => line.startsWith("acknowledged")).at(-1);
  return {
    acknowledged: Number(acknowledged?.split(" ")[1] ?? 0),
    offloads: lines.filter((line) => line === "offloaded true").length,
    last: lines.at(-1)!,
  };
}

/** Serves everything that was acknowledged, as it was written. */
async function check(directory: string, storage: RemoteStorage, acknowledged: number) {
  const safekeeper = new TestSafekeeper(directory, storage);
  try {
    const { acceptor } = safekeeper.timeline;
    assert.ok(acceptor.flushLsn >= acknowledged, "WAL that was acknowledged is gone");
    const served = await safekeeper.stream();
    const expected = expectedWal(acceptor.commitLsn).bytes().subarray(0, served.length);
    assert.ok(Buffer.from(served).equals(expected), "WAL is not what was written");
  } finally {
    await safekeeper.close();
  }
}

/** One more round without a crash, after which everything is as if there had been none. */
async function assertConverges(directory: string, storage: RemoteStorage): Promise<void> {
  const safekeeper = new TestSafekeeper(directory, storage);
  const { timeline, backup } = safekeeper;
  const writer = await TestWriter.elect(safekeeper.address);
  await writer.writeTo((writer.end + SEGMENT) as Lsn);
  writer.close();
  await until("the writer has left", () => timeline.proposers.size === 0);
  await backup.tick();
  await safekeeper.consumed();
  await backup.tick();
  assert.ok(timeline.isOffloaded);
  assert.deepEqual(safekeeper.local(), []);
  assert.deepEqual(
    [...Deno.readDirSync(timeline.directory)].map(({ name }) => name).sort(),
    ["safekeeper.control", "safekeeper.control.reserve"],
  );
  const segments = Math.floor(timeline.acceptor.flushLsn / SEGMENT) - Math.floor(START / SEGMENT);
  const partials = timeline.acceptor.flushLsn % SEGMENT === 0 ? 0 : 1;
  const remote = await safekeeper.remote();
  assert.equal(remote.length, segments + partials, remote.join());
  await safekeeper.close();
}

async function crashAgainAndAgain(random: ReturnType<typeof seededRandom>): Promise<void> {
  await withDirectory(async (root) => {
    const [directory, remote] = [`${root}/sk`, `${root}/remote`];
    Deno.mkdirSync(directory);
    const storage = new RemoteStorage(new LocalDirectory(remote, 0));
    let acknowledged = 0;
    let offloads = 0;
    const deaths = new Map<string, number>();
    for (let crash = 0; crash < CRASHES; crash++) {
      const life = await liveAndDie(directory, remote, random.between(1, random.pick(STEPS_MAX)));
      acknowledged = Math.max(acknowledged, life.acknowledged);
      offloads += life.offloads;
      deaths.set(life.last, (deaths.get(life.last) ?? 0) + 1);
      await check(directory, storage, acknowledged);
    }
    await assertConverges(directory, storage);
    const written = `${acknowledged - START} bytes acknowledged, offloaded ${offloads} times;`;
    console.log(written, Object.fromEntries(deaths));
  });
}

Deno.test("nothing acknowledged is lost when a safekeeper is killed before any step", async () => {
  const random = seededRandom("wal backup crash test");
  for (let i = 0; i < DIRECTORIES; i++) await crashAgainAndAgain(random);
});
