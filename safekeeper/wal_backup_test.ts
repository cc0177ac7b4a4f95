/**
 * WAL goes to remote storage, leaves the disk, is served from there and comes back; with a
 * directory in the place of a bucket, and with one that fails.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import type { Backend } from "../libs/remote_storage/backend.ts";
import { LocalDirectory } from "../libs/remote_storage/local_directory.ts";
import { RemoteStorage } from "../libs/remote_storage/remote_storage.ts";
import { Conflict, Unavailable } from "../libs/utils/errors.ts";
import type { Lsn } from "../libs/utils/lsn.ts";
import { until } from "../tests/support/waiting.ts";
import { withDirectory } from "./safekeeper_fixture.ts";
import {
  EAGER,
  expectedWal,
  PREFIX,
  SEGMENT,
  START,
  TestSafekeeper,
  TestWriter,
} from "./wal_backup_fixture.ts";

const NEVER = { partialTimeoutMs: Infinity, offload: false, minResidentMs: 0, parallelUploads: 5 };

const name = (segment: number) =>
  `0000000100000000${segment.toString(16).padStart(8, "0")}`
    .toUpperCase();

/** Runs `body` with a directory for a safekeeper and a remote storage. */
function withStorage(
  body: (directory: string, storage: RemoteStorage, remote: string) => Promise<void>,
): Promise<void> {
  return withDirectory((root) => {
    const [directory, remote] = [`${root}/sk`, `${root}/remote`];
    Deno.mkdirSync(directory);
    return body(directory, new RemoteStorage(new LocalDirectory(remote, 0)), remote);
  });
}

/** Returns when nobody is connected any more. */
function alone(safekeeper: TestSafekeeper): Promise<unknown> {
  const { proposers, receivers } = safekeeper.timeline;
  return until("all have left", () => proposers.size === 0 && receivers.size === 0);
}

async function assertServes(safekeeper: TestSafekeeper, from = START): Promise<void> {
  const { commitLsn } = safekeeper.timeline.acceptor;
  const expected = expectedWal(commitLsn).bytes().subarray(from - START, commitLsn - START);
  assert.ok(Buffer.from(await safekeeper.stream(from)).equals(expected));
}

Deno.test("whole segments are uploaded as they are, removed, and served from there", async () => {
  await withStorage(async (directory, storage, remote) => {
    const safekeeper = new TestSafekeeper(directory, storage, NEVER);
    const writer = await TestWriter.elect(safekeeper.address);
    await writer.writeTo((12 * SEGMENT + 5000) as Lsn);
    assert.ok(safekeeper.timeline.active);
    await safekeeper.consumed();
    assert.equal(safekeeper.local()[0], name(3), "what is not backed up stays");
    const before = Deno.readFileSync(`${safekeeper.timeline.directory}/${name(3)}`);
    await safekeeper.backup.tick();
    assert.deepEqual(await safekeeper.remote(), [3, 4, 5, 6, 7, 8, 9, 10, 11].map(name));
    assert.equal(safekeeper.timeline.acceptor.backupLsn, 12 * SEGMENT);
    assert.ok(Buffer.from(Deno.readFileSync(`${remote}/${PREFIX}${name(3)}`)).equals(before));
    await safekeeper.consumed();
    assert.deepEqual(safekeeper.local(), [name(11), `${name(12)}.partial`]);
    await assertServes(safekeeper);
    await assertServes(safekeeper, (START + 3 * SEGMENT) as Lsn);
    await writer.writeTo((13 * SEGMENT) as Lsn);
    await safekeeper.close();
    const again = new TestSafekeeper(directory, storage, NEVER);
    assert.equal(again.timeline.acceptor.backupLsn, 12 * SEGMENT);
    await again.backup.tick();
    assert.equal(again.timeline.acceptor.backupLsn, 13 * SEGMENT, "the rest was committed");
    await assertServes(again);
    writer.close();
    await again.close();
  });
});

Deno.test("one safekeeper uploads for all, another one when it is away", async () => {
  await withStorage(async (directory, storage) => {
    const safekeepers = [1, 2].map((id) => {
      Deno.mkdirSync(`${directory}/${id}`);
      return new TestSafekeeper(`${directory}/${id}`, storage, NEVER, id);
    });
    const writers: TestWriter[] = [];
    for (const safekeeper of safekeepers) {
      const writer = await TestWriter.elect(safekeeper.address);
      await writer.writeTo((6 * SEGMENT + 100) as Lsn);
      writers.push(writer);
    }
    const tell = (from: number, to: number) => {
      const { commitLsn, backupLsn } = safekeepers[from]!.timeline.acceptor;
      const { timeline, nowMs } = safekeepers[to]!;
      const heard = { safekeeperId: from + 1, localStartLsn: START, commitLsn, backupLsn };
      timeline.peers.heard(heard, nowMs);
      timeline.backedUp(backupLsn);
    };
    const settled = () => safekeepers.map(({ timeline }) => timeline.acceptor.backupLsn > START);
    tell(0, 1);
    tell(1, 0);
    await Promise.all(safekeepers.map(({ backup }) => backup.tick()));
    const first = settled().indexOf(true);
    assert.equal(settled().filter((uploaded) => uploaded).length, 1, "one of them");
    tell(first, 1 - first);
    assert.deepEqual(settled(), [true, true]);
    await safekeepers[1 - first]!.consumed();
    assert.equal(safekeepers[1 - first]!.local().length, 2);
    for (const writer of writers) await writer.writeTo((8 * SEGMENT + 100) as Lsn);
    const other = safekeepers[1 - first]!;
    await other.backup.tick();
    assert.equal(other.timeline.acceptor.backupLsn, 6 * SEGMENT, "the first one is alive");
    other.nowMs += 10_000;
    await other.backup.tick();
    assert.equal(other.timeline.acceptor.backupLsn, 8 * SEGMENT);
    for (const writer of writers) writer.close();
    for (const safekeeper of safekeepers) await safekeeper.close();
  });
});

Deno.test("an idle timeline leaves the disk, and comes back for a writer and for a reader", async () => {
  await withStorage(async (directory, storage) => {
    const settings = { ...EAGER, partialTimeoutMs: 1000, minResidentMs: 3000 };
    let safekeeper = new TestSafekeeper(directory, storage, settings);
    let writer = await TestWriter.elect(safekeeper.address);
    await writer.writeTo((5 * SEGMENT + 5000) as Lsn);
    const tick = async (ms: number) => {
      safekeeper.nowMs += ms;
      await safekeeper.backup.tick();
    };
    await tick(0);
    assert.deepEqual(await safekeeper.remote(), [name(3), name(4)], "the rest is not due");
    await tick(1000);
    const [, , partial] = await safekeeper.remote();
    assert.match(partial!, new RegExp(`^${name(5)}_1_[0-9A-F]{16}_[0-9A-F]{16}_sk1.partial$`));
    await safekeeper.consumed();
    writer.close();
    await alone(safekeeper);
    await tick(0);
    await tick(2999);
    assert.ok(!safekeeper.timeline.isOffloaded);
    await tick(1);
    assert.ok(safekeeper.timeline.isOffloaded);
    assert.deepEqual(safekeeper.local(), []);

    await assertServes(safekeeper);
    assert.deepEqual(safekeeper.local(), [`${name(5)}.partial`], "a reader gets it back");
    await alone(safekeeper);
    await tick(0);
    await tick(3000);
    assert.ok(safekeeper.timeline.isOffloaded);
    await safekeeper.close();

    safekeeper = new TestSafekeeper(directory, storage, settings);
    assert.ok(safekeeper.timeline.isOffloaded, "also after a restart");
    writer = await TestWriter.elect(safekeeper.address);
    assert.ok(!safekeeper.timeline.isOffloaded);
    await writer.writeTo((6 * SEGMENT + 100) as Lsn);
    await tick(1000);
    await tick(1000);
    const now = await safekeeper.remote();
    assert.deepEqual(now.slice(0, 3), [3, 4, 5].map(name));
    assert.ok(now.length === 4 && now[3]!.startsWith(`${name(6)}_2_`), "older ones are deleted");
    await assertServes(safekeeper);
    writer.close();
    const { tenantId, timelineId } = safekeeper.timeline;
    assert.ok(await safekeeper.timelines.delete(tenantId, timelineId, true));
    assert.equal((await safekeeper.remote()).length, 4);
    await safekeeper.close();
    safekeeper = new TestSafekeeper(directory, storage, settings);
    await safekeeper.timelines.deleteTenant(tenantId, false);
    assert.deepEqual(await safekeeper.remote(), [], "a deleted timeline leaves nothing");
    await safekeeper.close();
  });
});

Deno.test("remote storage that comes later begins with the WAL that is still there", async () => {
  await withStorage(async (directory, storage) => {
    let safekeeper = new TestSafekeeper(directory, undefined);
    let writer = await TestWriter.elect(safekeeper.address);
    await writer.writeTo((6 * SEGMENT + 5000) as Lsn);
    await safekeeper.consumed();
    assert.deepEqual(safekeeper.local(), [`${name(6)}.partial`]);
    await assert.rejects(assertServes(safekeeper), /is not on this safekeeper/);
    writer.close();
    await safekeeper.close();

    safekeeper = new TestSafekeeper(directory, storage, NEVER);
    writer = await TestWriter.elect(safekeeper.address);
    await writer.writeTo((9 * SEGMENT + 5000) as Lsn);
    await safekeeper.backup.tick();
    await safekeeper.consumed();
    assert.deepEqual(await safekeeper.remote(), [6, 7, 8].map(name));
    assert.deepEqual(safekeeper.local(), [name(8), `${name(9)}.partial`]);
    await assertServes(safekeeper, (6 * SEGMENT) as Lsn);
    writer.close();
    await safekeeper.close();
  });
});

Deno.test("a timeline that ends with its segment comes back as well", async () => {
  await withStorage(async (directory, storage) => {
    const safekeeper = new TestSafekeeper(directory, storage);
    const writer = await TestWriter.elect(safekeeper.address);
    await writer.writeTo((4 * SEGMENT) as Lsn);
    assert.equal(writer.end, 4 * SEGMENT);
    writer.close();
    await alone(safekeeper);
    await safekeeper.consumed();
    for (let i = 0; i < 2; i++) await safekeeper.backup.tick();
    assert.ok(safekeeper.timeline.isOffloaded);
    await assertServes(safekeeper);
    await safekeeper.close();
  });
});

Deno.test("WAL that is not what was uploaded does not come back", async () => {
  await withStorage(async (directory, storage, remote) => {
    let safekeeper = new TestSafekeeper(directory, storage);
    const writer = await TestWriter.elect(safekeeper.address);
    await writer.writeTo((4 * SEGMENT + 5000) as Lsn);
    writer.close();
    await alone(safekeeper);
    await safekeeper.consumed();
    await safekeeper.backup.tick();
    await safekeeper.backup.tick();
    assert.ok(safekeeper.timeline.isOffloaded);
    const [, partial] = await safekeeper.remote();
    const path = `${remote}/${PREFIX}${partial}`;
    const good = Deno.readFileSync(path);
    for (const bad of [good.slice(1), good.with(3000, good[3000]! ^ 1)]) {
      Deno.writeFileSync(path, bad);
      await assert.rejects(safekeeper.timeline.available(), /is not what was uploaded/);
      await assert.rejects(TestWriter.elect(safekeeper.address), /is not what was uploaded/);
    }
    assert.ok(safekeeper.timeline.isOffloaded);
    await safekeeper.close();
    safekeeper = new TestSafekeeper(directory, undefined);
    await assert.rejects(
      safekeeper.timeline.available(),
      /remote storage, which is not configured/,
    );
    await safekeeper.close();
    Deno.writeFileSync(path, good);
    safekeeper = new TestSafekeeper(directory, storage);
    await assertServes(safekeeper);
    await safekeeper.close();
  });
});

Deno.test("while remote storage fails WAL stays, and goes when it works again", async () => {
  await withStorage(async (directory, _storage, remote) => {
    const real = new LocalDirectory(remote, 0);
    let broken = true;
    const failing: Backend = {
      name: "failing",
      keysMax: 10,
      put(key, source, signal) {
        if (broken && key.endsWith("4")) return Promise.reject(new Unavailable("not now"));
        return real.put(key, source, signal);
      },
      get: (...args) => real.get(...args),
      list: (prefix, after) => real.list(prefix, after),
      remove: (keys) => real.remove(keys),
    };
    const storage = new RemoteStorage(failing, { attempts: 2 });
    const safekeeper = new TestSafekeeper(directory, storage, EAGER);
    const writer = await TestWriter.elect(safekeeper.address);
    await writer.writeTo((6 * SEGMENT + 100) as Lsn);
    await safekeeper.backup.tick();
    assert.equal(safekeeper.timeline.acceptor.backupLsn, 4 * SEGMENT);
    await safekeeper.consumed();
    assert.equal(safekeeper.local()[0], name(3), "the one that ends at the horizon is kept");
    broken = false;
    await safekeeper.backup.tick();
    assert.equal(safekeeper.timeline.acceptor.backupLsn, 6 * SEGMENT);
    await safekeeper.consumed();
    assert.deepEqual(safekeeper.local(), [name(5), `${name(6)}.partial`]);
    await assertServes(safekeeper);
    writer.close();
    await safekeeper.close();
  });
});

Deno.test("a timeline is not made anew before its deletion has ended, however often it is asked", async () => {
  await withStorage(async (directory, storage) => {
    const safekeeper = new TestSafekeeper(directory, storage, NEVER);
    const { timelines, timeline: { tenantId, timelineId, directory: path } } = safekeeper;
    const make = () =>
      timelines.create({
        tenantId,
        timelineId,
        pgVersionNum: 170011,
        walSegmentSize: SEGMENT,
        startLsn: START,
      });
    const deletions = [1, 2].map(() => timelines.delete(tenantId, timelineId, false));
    assert.throws(make, Conflict);
    assert.deepEqual(await Promise.all(deletions), [true, false]);
    assert.equal(timelines.find(tenantId, timelineId), undefined);
    assert.equal(make(), timelines.find(tenantId, timelineId));
    assert.ok(Deno.statSync(path).isDirectory);
    await safekeeper.close();
  });
});
