/** WAL on disk: what a crash, a torn tail, a truncation, a full disk leave behind. */
import assert from "node:assert/strict";
import { pageHeaderFault } from "../libs/postgres/wal/page_header.ts";
import { Corrupt, Unavailable } from "../libs/utils/errors.ts";
import type { Lsn } from "../libs/utils/lsn.ts";
import { FileRecorder } from "../tests/support/file_recorder.ts";
import { MEMORY_DIRECTORY, TEST_IDENTITY, TestWal, withDirectory } from "./safekeeper_fixture.ts";
import { SpareSegment } from "./spare_segment.ts";
import { createSegment } from "./wal_segments.ts";
import { WalReader } from "./wal_reader.ts";
import { WalStorage } from "./wal_storage.ts";

const SEGMENT = TEST_IDENTITY.segmentSize;
const START = (SEGMENT + 3 * 8192 + 4000) as Lsn;

const CLUSTER = { ...TEST_IDENTITY, systemId: () => TEST_IDENTITY.systemId };

function open(directory: string, commitLsn = START, localStartLsn = START): WalStorage {
  return new WalStorage({ directory, ...CLUSTER, localStartLsn, commitLsn });
}

/** A fresh storage, ready to write. */
function create(directory: string, start = START): WalStorage {
  const storage = open(directory, start, start);
  storage.truncate(start);
  return storage;
}

function readBack(directory: string, from: Lsn, to: Lsn): Uint8Array {
  const reader = new WalReader(directory, CLUSTER.segmentSize);
  const found = new Uint8Array(to - from);
  for (let at = 0; at < found.length;) {
    const count = reader.read((from + at) as Lsn, found.subarray(at));
    assert.ok(count > 0, "WAL is there");
    at += count;
  }
  reader.close();
  return found;
}

function segmentFiles(directory: string): string[] {
  return [...Deno.readDirSync(directory)].map(({ name }) => name)
    .filter((name) => /^\d/.test(name)).sort();
}

/** Until the storage has seen that syncs are short. */
async function untilInPlace(storage: WalStorage): Promise<void> {
  while (storage.flushInPlace(performance.now()) === undefined) await storage.flush();
}

Deno.test("flushInPlace() does what flush() does where syncs are short, and nothing else", async () => {
  await withDirectory(async (directory) => {
    const storage = create(directory);
    const wal = new TestWal(START);
    storage.write(START, wal.append(1, 100));
    assert.equal(storage.flushInPlace(performance.now()), undefined, "nothing is known yet");
    assert.equal(storage.flushLsn, START);
    await untilInPlace(storage);
    assert.equal(storage.flushLsn, wal.end);
    const { end } = wal;
    const bytes = wal.append(1, 3000);
    storage.write(end, bytes.subarray(0, 1001));
    await untilInPlace(storage);
    assert.equal(storage.flushLsn, end);
    assert.equal(storage.dirty, false);
    storage.write(storage.writeLsn, bytes.subarray(1001));
    await untilInPlace(storage);
    assert.equal(storage.flushLsn, wal.end);
    // Much at once, and a new segment, are for a thread
    const before = storage.flushLsn;
    storage.write(before, wal.append(10, 10_000));
    assert.equal(storage.flushInPlace(performance.now()), undefined);
    assert.equal(storage.flushLsn, before);
    storage.write(storage.writeLsn, wal.append(200, 100_000));
    assert.equal(await storage.flush(), wal.end);
    assert.equal(segmentFiles(directory).length, 2);
    assert.deepEqual(readBack(directory, START, wal.end), wal.bytes());
    storage.close();
  }, MEMORY_DIRECTORY);
});

Deno.test("flush() reports the end of the last whole record, not of the bytes", async () => {
  await withDirectory(async (directory) => {
    const storage = create(directory);
    const wal = new TestWal(START);
    const first = wal.append(3, 100);
    const firstEnd = wal.end;
    storage.write(START, first);
    const second = wal.append(1, 3000);
    storage.write(firstEnd, second.subarray(0, 1001));
    assert.equal(storage.flushLsn, START);
    assert.equal(await storage.flush(), firstEnd);
    assert.equal(storage.writeLsn, firstEnd + 1001);
    assert.equal(storage.dirty, false);
    storage.write((firstEnd + 1001) as Lsn, second.subarray(1001));
    assert.equal(storage.dirty, true);
    assert.equal(storage.flushSync(), wal.end);
    storage.close();
  });
});

Deno.test("a segment begins with page headers where the timeline starts inside it", async () => {
  await withDirectory((directory) => {
    const storage = create(directory);
    storage.write(START, new TestWal(START).append(1, 10));
    const head = readBack(directory, SEGMENT as Lsn, START);
    const view = new DataView(head.buffer);
    const page = START - START % 8192;
    assert.equal(
      pageHeaderFault(view, 0, TEST_IDENTITY.version, SEGMENT as Lsn, SEGMENT),
      undefined,
    );
    const offset = page - SEGMENT;
    assert.equal(
      pageHeaderFault(view, offset, TEST_IDENTITY.version, page as Lsn, SEGMENT),
      undefined,
    );
    assert.ok(head.subarray(40, offset).every((byte) => byte === 0));
    storage.close();
  });
});

Deno.test("reopening finds the end over segments, and drops a torn tail", async () => {
  await withDirectory((directory) => {
    const storage = create(directory);
    const wal = new TestWal(START);
    for (let at: number = START; at < START + SEGMENT + 100_000;) {
      const bytes = wal.append(10, 9000);
      storage.write(at as Lsn, bytes);
      at += bytes.length;
    }
    const whole = wal.end;
    const torn = wal.append(1, 20_000);
    torn.fill(0, 12_000, 13_000); // a page that did not make it to the disk
    assert.deepEqual(segmentFiles(directory), [
      "000000010000000000000001.partial", // full, but no flush has synced it
      "000000010000000000000002.partial",
    ]);
    assert.throws(() => storage.write(whole, torn), Corrupt);
    storage.close();

    const again = open(directory);
    assert.deepEqual(segmentFiles(directory), [
      "000000010000000000000001",
      "000000010000000000000002.partial",
    ]);
    assert.equal(again.flushLsn, whole);
    assert.throws(() => again.write(whole, torn.subarray(0, 10)), Unavailable);
    again.truncate(whole);
    assert.deepEqual(readBack(directory, START, whole), wal.bytes().subarray(0, whole - START));
    assert.ok(readBack(directory, whole, (whole + 30_000) as Lsn).every((byte) => byte === 0));
    again.close();
  });
});

Deno.test("truncate() cuts across segments and the WAL goes on with other bytes", async () => {
  await withDirectory(async (directory) => {
    const storage = create(directory);
    const wal = new TestWal(START);
    storage.write(START, wal.append(2, 100));
    const cut = wal.end;
    const stale = wal.append(2500, 9000);
    storage.write(cut, stale);
    const flushing = storage.flush(); // overtaken by the truncation: must report nothing
    storage.truncate(cut);
    assert.equal(await flushing, cut);
    assert.equal(storage.flushLsn, cut);
    assert.deepEqual(segmentFiles(directory), ["000000010000000000000001.partial"]);
    const other = new TestWal(cut, START);
    storage.write(cut, other.append(5, 50, 99));
    await storage.flush();
    storage.close();
    const again = new WalStorage({
      directory,
      ...CLUSTER,
      localStartLsn: START,
      commitLsn: START,
      joinLsns: [START, cut],
    });
    assert.equal(again.flushLsn, other.end, "found behind a record with a foreign link, too");
    again.close();
  });
});

Deno.test("a crash in the middle of a truncation leaves a usable WAL", async () => {
  await withDirectory((directory) => {
    const storage = create(directory);
    const wal = new TestWal(START);
    storage.write(START, wal.append(2, 100));
    const cut = wal.end;
    storage.write(cut, wal.append(3, 9000));
    storage.flushSync();
    storage.close();
    Deno.truncateSync(`${directory}/000000010000000000000001.partial`, cut - SEGMENT);
    Deno.writeTextFileSync(`${directory}/waltmp`, "half made");
    const again = open(directory);
    assert.equal(again.flushLsn, cut);
    again.truncate(cut);
    again.write(cut, new TestWal(cut, START).append(1, 100));
    assert.equal(Deno.statSync(`${directory}/000000010000000000000001.partial`).size, SEGMENT);
    assert.throws(() => Deno.statSync(`${directory}/waltmp`), Deno.errors.NotFound);
    again.close();
  });
});

Deno.test("records that end at a page or a segment boundary survive a restart", async () => {
  for (const boundary of [SEGMENT + 4 * 8192, 2 * SEGMENT]) {
    await withDirectory((directory) => {
      const start = (boundary - 2000) as Lsn;
      const storage = create(directory, start);
      const wal = new TestWal(start);
      // A record is 24 bytes of header, 5 of main data header (or 2 below 256), and the data.
      storage.write(start, wal.append(1, 2000 - 24 - 5));
      assert.equal(wal.end, boundary);
      assert.equal(storage.flushSync(), boundary);
      storage.close();
      const again = open(directory, start, start);
      assert.equal(again.flushLsn, boundary);
      again.truncate(boundary as Lsn);
      again.write(boundary as Lsn, wal.append(2, 100));
      assert.equal(again.flushSync(), wal.end);
      again.close();
      const third = open(directory, boundary as Lsn, start);
      assert.equal(third.flushLsn, wal.end);
      third.close();
    });
  }
});

Deno.test("a full disk refuses the append and the storage works again after a truncation", async () => {
  await withDirectory((directory) => {
    const storage = create(directory);
    const wal = new TestWal(START);
    const bytes = wal.append(2, 100);
    const path = `${directory}/000000010000000000000001.partial`;
    Deno.symlinkSync("/dev/full", path);
    assert.throws(() => storage.write(START, bytes), Unavailable);
    assert.equal(storage.writeLsn, START);
    Deno.removeSync(path);
    assert.throws(() => storage.write(START, bytes), Unavailable, "unclean until truncated");
    storage.truncate(START);
    storage.write(START, bytes);
    assert.equal(storage.flushSync(), wal.end);
    storage.close();
  });
});

/** Runs `run` on files of which the next sync fails, like on a disk with a bad sector. */
async function withFailingSync(run: () => void | Promise<void>): Promise<void> {
  const { prototype } = Deno.FsFile;
  const { syncDataSync, syncSync, syncData, sync } = prototype;
  let left = 1;
  const fail = () => {
    if (left-- > 0) throw new Error("Input/output error (os error 5)");
  };
  prototype.syncDataSync = function () {
    fail();
    syncDataSync.call(this);
  };
  prototype.syncSync = function () {
    fail();
    syncSync.call(this);
  };
  prototype.syncData = async function () {
    fail();
    await syncData.call(this);
  };
  prototype.sync = async function () {
    fail();
    await sync.call(this);
  };
  try {
    await run();
    assert.ok(left <= 0, "a sync has failed");
  } finally {
    Object.assign(prototype, { syncDataSync, syncSync, syncData, sync });
  }
}

Deno.test("after a failed sync the WAL ends where it was durable, and goes on after a truncation", async () => {
  for (const way of ["flush", "flushInPlace", "flushSync", "a full segment"]) {
    await withDirectory(async (directory) => {
      const storage = create(directory);
      const wal = new TestWal(START);
      storage.write(START, wal.append(2, 100));
      const durable = storage.flushSync();
      if (way === "flushInPlace") await untilInPlace(storage);
      storage.write(durable, wal.append(way === "a full segment" ? 1000 : 1, 10_000));
      await withFailingSync(async () => {
        const end = storage.writeLsn;
        if (way === "flush") await assert.rejects(storage.flush(), Unavailable);
        if (way === "flushInPlace") {
          assert.throws(() => storage.flushInPlace(performance.now()), Unavailable);
        }
        if (way === "flushSync") assert.throws(() => storage.flushSync(), Unavailable);
        if (way === "a full segment") {
          storage.write(end, wal.append(1000, 10_000));
          await assert.rejects(storage.flush(), Unavailable);
        }
        // The disk works again: nothing that was written before counts for that
        assert.equal(await storage.flush(), durable);
        assert.equal(storage.flushSync(), durable);
      });
      assert.equal(storage.writeLsn, durable);
      const again = new TestWal(durable, START).append(1, 300);
      assert.throws(() => storage.write(durable, again), Unavailable);
      storage.truncate(durable);
      storage.write(durable, again);
      assert.equal(await storage.flush(), durable + again.length);
      assert.deepEqual(readBack(directory, durable, storage.flushLsn), again);
      storage.close();
    }, MEMORY_DIRECTORY);
  }
});

Deno.test("opening writes anew what is not known to be durable, before it is synced", async () => {
  await withDirectory(async (directory) => {
    const storage = create(directory);
    const wal = new TestWal(START);
    const bytes = wal.append(1700, 10_000); // over two segments
    storage.write(START, bytes);
    storage.close();
    const recorder = new FileRecorder(directory);
    const again = await recorder.during(() => open(directory));
    const { notes } = recorder;
    const isWritten = (handle: number) =>
      notes.some((note) => note.kind === "write" && note.handle === handle);
    const lastSync = notes.findLastIndex((note) =>
      note.kind === "syncBegin" && isWritten(note.handle)
    );
    const written = notes.slice(0, lastSync)
      .reduce((sum, note) => sum + (note.kind === "write" ? note.bytes.length : 0), 0);
    assert.equal(written, bytes.length);
    assert.equal(again.flushLsn, wal.end);
    assert.deepEqual(readBack(directory, START, wal.end), bytes);
    again.close();
  });
});

Deno.test("removeBelow() keeps the segment that holds the horizon", async () => {
  await withDirectory(async (directory) => {
    const storage = create(directory);
    const wal = new TestWal(START);
    const boundary = (3 * SEGMENT) as Lsn;
    while (wal.end <= boundary) wal.append(100, 9000);
    const commitLsn = wal.end;
    wal.append(1000, 9000);
    storage.write(START, wal.bytes());
    storage.flushSync();
    assert.equal(await storage.removeBelow(boundary), 1);
    assert.equal(await storage.removeBelow((boundary + 8) as Lsn), 1);
    assert.equal(await storage.removeBelow((boundary + 8) as Lsn), 0);
    storage.close();
    assert.throws(() => open(directory, (2 * SEGMENT) as Lsn), Corrupt);
    const again = open(directory, commitLsn);
    assert.equal(again.flushLsn, wal.end);
    again.close();
  });
});

Deno.test("a segment made ahead is taken over without holes, and only once", async () => {
  await withDirectory(async (directory) => {
    const spare = new SpareSegment(directory, SEGMENT);
    assert.equal(spare.take(), undefined);
    await spare.prepare();
    const path = spare.take()!;
    assert.equal(spare.take(), undefined);
    const identity = { ...TEST_IDENTITY, segmentSize: SEGMENT };
    createSegment(directory, 1, identity, START, path).close();
    assert.deepEqual(segmentFiles(directory), ["000000010000000000000001.partial"]);
    const { size, blocks } = Deno.statSync(`${directory}/000000010000000000000001.partial`);
    assert.deepEqual([size, blocks! * 512 >= SEGMENT], [SEGMENT, true]);
    const storage = create(directory);
    const wal = new TestWal(START);
    storage.write(START, wal.append(3, 100));
    assert.equal(storage.flushSync(), wal.end);
    storage.close();
    assert.equal(open(directory).flushLsn, wal.end);
  });
});
