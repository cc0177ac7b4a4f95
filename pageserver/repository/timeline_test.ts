import assert from "node:assert/strict";
import { AssertionFailed } from "../../libs/utils/assert.ts";
import { BadRequest, Conflict, Corrupt, NotFound, Unavailable } from "../../libs/utils/errors.ts";
import { newTimelineId } from "../../libs/utils/id.ts";
import { addLsn, type Lsn } from "../../libs/utils/lsn.ts";
import { databaseKey, makeKey, relationSizeKey } from "./key.ts";
import type { ObjectId } from "./key_interner.ts";
import { Reconstruction } from "./reconstruction.ts";
import {
  bytesOf,
  copyDirectory,
  openManager,
  pause,
  putRecord,
  START_LSN,
  START_PREV_LSN,
  textOf,
  withTimeline,
} from "./repository_fixture.ts";
import type { Timeline } from "./timeline.ts";

const into = new Reconstruction();

/** Image and records as text, oldest first; the caller's own page is "...". */
function page(timeline: Timeline, object: ObjectId, block: number, lsn: Lsn, after?: Lsn): string {
  timeline.collect(object, block, lsn, into, after);
  const parts: string[] = [];
  if (into.continues) parts.push("...");
  if (into.hasImage) parts.push(textOf(into.bytes.subarray(0, into.imageLength))!);
  for (let i = 0; i < into.recordCount; i++) {
    const offset = into.recordOffset[i]!;
    parts.push(textOf(into.bytes.subarray(offset, offset + into.recordLength[i]!))!);
  }
  return parts.join(" ");
}

function at(offset: number): Lsn {
  return addLsn(START_LSN, offset);
}

const FIRST_SIZE = relationSizeKey(0, 0, 0, 0);
const AFTER_SIZES = makeKey(0x62, 0, 0, 0, 0, 0);

function sizes(timeline: Timeline, lsn: Lsn): string[] {
  const found: string[] = [];
  timeline.scan(
    FIRST_SIZE,
    AFTER_SIZES,
    lsn,
    (key, value) => found.push(`${key.f4}=${textOf(value)}`),
  );
  return found;
}

Deno.test("reads see what advance() made visible, in memory and on disk alike", async () => {
  await withTimeline(async ({ manager, timeline }) => {
    const relation = manager.interner.relation(1663, 5, 1, 0);
    assert.equal(page(timeline, relation, 0, START_LSN), "root");
    putRecord(timeline, relation, 0, at(8), "a", false);
    assert.throws(() => page(timeline, relation, 0, at(8)), Unavailable);
    assert.equal(page(timeline, relation, 0, START_LSN), "root");
    timeline.advance(at(8), START_LSN);
    const blob = timeline.beginBlob(bytesOf("xx b xx"), 3, 1);
    timeline.putRecord(relation, 0, at(16), blob, false);
    timeline.putRecord(relation, 1, at(16), blob, true);
    timeline.advance(at(16), at(8));
    for (const where of ["memory", "disk"]) {
      assert.equal(page(timeline, relation, 0, START_LSN), "root", where);
      assert.equal(page(timeline, relation, 0, at(8)), "root a", where);
      assert.equal(page(timeline, relation, 0, at(15)), "root a", where);
      assert.equal(page(timeline, relation, 0, at(16)), "root a b", where);
      assert.equal(page(timeline, relation, 1, at(16)), "b", where);
      assert.equal(into.recordLsn[0], at(16));
      assert.equal(page(timeline, relation, 0, at(16), at(8)), "... b", where);
      assert.equal(page(timeline, relation, 0, at(16), at(16)), "...", where);
      assert.equal(page(timeline, relation, 1, at(16), at(8)), "b", where);
      assert.throws(() => page(timeline, relation, 1, at(15)), NotFound);
      assert.throws(() => page(timeline, relation, 0, addLsn(START_LSN, -8)), /begins at/);
      assert.equal(await timeline.flush(), at(16));
    }
    putRecord(timeline, relation, 2, at(24), "c", false);
    timeline.advance(at(24), at(16));
    assert.throws(
      () => page(timeline, relation, 2, at(24)),
      (thrown) => thrown instanceof Corrupt && /block 2 .*missing image/.test(thrown.message),
    );
  });
});

Deno.test("rollback() takes back what was put since advance()", async () => {
  await withTimeline(async ({ manager, timeline }) => {
    const relation = manager.interner.relation(1663, 5, 1, 0);
    putRecord(timeline, relation, 0, at(8), "a", false);
    timeline.putValue(relationSizeKey(1663, 5, 1, 0), at(8), bytesOf("1"));
    timeline.advance(at(8), START_LSN);
    putRecord(timeline, relation, 0, at(16), "lost", false);
    timeline.putValue(relationSizeKey(1663, 5, 2, 0), at(24), bytesOf("9"));
    timeline.rollback();
    putRecord(timeline, relation, 0, at(16), "b", false);
    assert.throws(() => putRecord(timeline, relation, 0, at(8), "x", false), AssertionFailed);
    timeline.advance(at(24), at(16));
    for (let round = 0; round < 2; round++) {
      assert.equal(page(timeline, relation, 0, at(24)), "root a b");
      assert.deepEqual(sizes(timeline, at(24)), ["1=1"]);
      await timeline.flush();
    }
  });
});

Deno.test("scans see the newest values, without tombstones, over ancestors", async () => {
  await withTimeline(async ({ tenant, timeline }) => {
    const size = (rel: number) => relationSizeKey(1663, 5, rel, 0);
    const origin = makeKey(0x63, 0, 0, 0, 0, 1);
    for (const rel of [3, 1, 2]) timeline.putValue(size(rel), at(8), bytesOf(`${rel}0`));
    timeline.putValue(databaseKey(1663, 5), at(8), bytesOf("db"));
    timeline.putValue(origin, at(8), bytesOf("origin"));
    timeline.advance(at(8), START_LSN);
    await timeline.flush();
    timeline.putValue(size(2), at(16), null);
    timeline.advance(at(16), at(8));
    const child = await tenant.createBranch(newTimelineId(), timeline.timelineId);
    timeline.putValue(size(4), at(24), bytesOf("parent only"));
    timeline.advance(at(24), at(16));
    child.putValue(size(1), at(24), null);
    child.putValue(size(2), at(24), bytesOf("again"));
    child.advance(at(24), at(16));
    for (let round = 0; round < 2; round++) {
      assert.deepEqual(sizes(timeline, at(8)), ["1=10", "2=20", "3=30"]);
      assert.deepEqual(sizes(timeline, at(16)), ["1=10", "3=30"]);
      assert.deepEqual(sizes(timeline, at(24)), ["1=10", "3=30", "4=parent only"]);
      assert.deepEqual(sizes(child, at(16)), ["1=10", "3=30"]);
      assert.deepEqual(sizes(child, at(24)), ["2=again", "3=30"]);
      assert.equal(child.getValue(size(1), at(24)), undefined);
      assert.equal(textOf(child.getValue(size(1), at(16))), "10");
      assert.equal(textOf(child.getValue(databaseKey(1663, 5), at(24))), "db");
      assert.equal(child.getValue(databaseKey(1663, 6), at(24)), undefined);
      // Replication origins are not inherited.
      assert.equal(textOf(timeline.getValue(origin, at(24))), "origin");
      assert.equal(child.getValue(origin, at(24)), undefined);
      const seen: string[] = [];
      child.scan(
        origin,
        makeKey(0x64, 0, 0, 0, 0, 0),
        at(24),
        (_, value) => seen.push(textOf(value)!),
      );
      assert.deepEqual(seen, []);
      await Promise.all([timeline.flush(), child.flush()]);
    }
  });
});

Deno.test("a branch of a branch reads each part of its history where it is", async () => {
  await withTimeline(async ({ manager, tenant, timeline }) => {
    const relation = manager.interner.relation(1663, 5, 1, 0);
    const record = (to: Timeline, offset: number, text: string) => {
      putRecord(to, relation, 0, at(offset), text, false);
      to.advance(at(offset), to.lastRecordLsn);
    };
    record(timeline, 8, "p8");
    record(timeline, 16, "p16");
    const child = await tenant.createBranch(newTimelineId(), timeline.timelineId, at(15));
    assert.equal(child.startLsn, at(16)); // rounded up to 8
    assert.equal(child.prevRecordLsn, at(8));
    record(timeline, 24, "p24");
    record(child, 24, "c24");
    record(child, 32, "c32");
    const grandchild = await tenant.createBranch(newTimelineId(), child.timelineId, at(24));
    assert.equal(grandchild.prevRecordLsn, 0);
    record(grandchild, 40, "g40");
    for (let round = 0; round < 2; round++) {
      assert.equal(page(timeline, relation, 0, at(24)), "root p8 p16 p24");
      assert.equal(page(child, relation, 0, at(32)), "root p8 p16 c24 c32");
      assert.equal(page(grandchild, relation, 0, at(40)), "root p8 p16 c24 g40");
      assert.equal(page(grandchild, relation, 0, at(24)), "root p8 p16 c24");
      assert.equal(page(grandchild, relation, 0, at(8)), "root p8");
      assert.equal(page(grandchild, relation, 0, at(40), at(16)), "... c24 g40");
      assert.equal(page(grandchild, relation, 0, at(40), at(24)), "... g40");
      for (const one of [timeline, child, grandchild]) await one.flush();
    }
    const older = await tenant.createBranch(newTimelineId(), child.timelineId, at(16));
    assert.equal(page(older, relation, 0, at(16)), "root p8 p16");
  });
});

Deno.test("creating is idempotent, and refuses other parameters and impossible LSNs", async () => {
  await withTimeline(async ({ tenant, timeline }) => {
    timeline.advance(at(64), at(32));
    const id = newTimelineId();
    const [first, second] = await Promise.all([
      tenant.createBranch(id, timeline.timelineId, at(32)),
      tenant.createBranch(id, timeline.timelineId, at(32)),
    ]);
    assert.equal(first, second);
    assert.equal(await tenant.createBranch(id, timeline.timelineId), first);
    await assert.rejects(tenant.createBranch(id, timeline.timelineId, at(40)), Conflict);
    await assert.rejects(tenant.createBranch(timeline.timelineId, id), Conflict);
    await assert.rejects(
      tenant.createBranch(newTimelineId(), timeline.timelineId, at(72)),
      BadRequest,
    );
    await assert.rejects(tenant.createBranch(newTimelineId(), id, START_LSN), BadRequest);
    await assert.rejects(tenant.createBranch(newTimelineId(), newTimelineId()), NotFound);
    assert.throws(() => tenant.importTimeline(id, 17), Conflict);
    await assert.rejects(tenant.deleteTimeline(timeline.timelineId), Conflict);
    await tenant.deleteTimeline(id);
    await assert.rejects(tenant.deleteTimeline(id), NotFound);
    assert.throws(() => first.getValue(databaseKey(1, 1), START_LSN), Unavailable);
    await tenant.deleteTimeline(timeline.timelineId);
    assert.equal(tenant.timelines.size, 0);
  });
});

Deno.test("the open layer is frozen and flushed by size and by age, and on request", async () => {
  await withTimeline(async ({ clock, manager, timeline }) => {
    const relation = manager.interner.relation(1663, 5, 1, 0);
    const kinds = () => timeline.layerInfos().map((layer) => layer.kind).join(" ");
    putRecord(timeline, relation, 0, at(8), "a", false);
    timeline.advance(at(8), START_LSN);
    assert.equal(kinds(), "Open Image");
    putRecord(timeline, relation, 0, at(16), "b".repeat(2000), false);
    timeline.advance(at(16), at(8));
    assert.equal(kinds(), "Frozen Image");
    assert.equal(await timeline.flush(), at(16));
    assert.equal(kinds(), "Delta Image");
    putRecord(timeline, relation, 0, at(24), "c", false);
    timeline.advance(at(24), at(16));
    manager.tick();
    assert.equal(kinds(), "Open Delta Image");
    clock.nowMs += 5000;
    manager.tick();
    assert.equal(kinds(), "Frozen Delta Image");
    await timeline.waitForRoom();
    assert.equal(await timeline.flush(), at(24));
    // Records that change nothing here still move diskConsistentLsn.
    timeline.advance(at(4000), at(24));
    assert.equal(await timeline.flush(), at(4000));
    assert.equal(kinds(), "Delta Delta Image");
    assert.equal(timeline.state, "Active");
  }, { checkpoint_distance: 2000, checkpoint_timeout: "5s" });
});

Deno.test("frozen layers are searched newest first; ingest waits for room", async () => {
  await withTimeline(async ({ manager, timeline }) => {
    const relation = manager.interner.relation(1663, 5, 1, 0);
    for (const [offset, text] of [[8, "a"], [16, "b"], [24, "c"]] as const) {
      putRecord(timeline, relation, 0, at(offset), text, text !== "c");
      timeline.advance(at(offset), timeline.lastRecordLsn);
    }
    assert.deepEqual(timeline.layerInfos().map((layer) => layer.kind), [
      "Frozen",
      "Frozen",
      "Frozen",
      "Image",
    ]);
    assert.equal(page(timeline, relation, 0, at(24)), "b c");
    assert.equal(page(timeline, relation, 0, at(8)), "a");
    await timeline.waitForRoom();
    assert.deepEqual(timeline.layerInfos().filter((layer) => layer.kind === "Frozen"), []);
    assert.equal(page(timeline, relation, 0, at(24)), "b c");
  }, { checkpoint_distance: 1 });
});

Deno.test("flush() inside a batch waits for the batch's end", async () => {
  await withTimeline(async ({ manager, timeline }) => {
    const relation = manager.interner.relation(1663, 5, 1, 0);
    putRecord(timeline, relation, 0, at(8), "a", false);
    timeline.advance(at(8), START_LSN);
    putRecord(timeline, relation, 0, at(16), "b", false);
    const flushed = timeline.flush();
    await pause();
    assert.equal(timeline.diskConsistentLsn, START_LSN);
    timeline.advance(at(16), at(8));
    assert.equal(await flushed, at(16));
  });
});

Deno.test("waitForLsn() waits for the timeline and for its ancestors' branch points", async () => {
  await withTimeline(async ({ directory, manager, tenant, timeline }) => {
    const relation = manager.interner.relation(1663, 5, 1, 0);
    putRecord(timeline, relation, 0, at(16), "a", false);
    timeline.advance(at(16), START_LSN);
    const id = newTimelineId();
    const child = await tenant.createBranch(id, timeline.timelineId);
    putRecord(child, relation, 0, at(24), "b", false);
    child.advance(at(24), at(16));
    await child.flush();
    // A crash: the ancestor has not flushed, so it has to receive its WAL again.
    const copy = Deno.makeTempDirSync();
    copyDirectory(directory, copy);
    const after = openManager(copy);
    const again = await after.attach(tenant.tenantId, 2);
    const ancestor = again.timeline(timeline.timelineId);
    const reopened = again.timeline(id);
    assert.equal(ancestor.lastRecordLsn, START_LSN);
    assert.equal(ancestor.prevRecordLsn, START_PREV_LSN);
    assert.equal(reopened.lastRecordLsn, at(24));
    const object = after.interner.relation(1663, 5, 1, 0);
    assert.throws(() => page(reopened, object, 0, at(24)), Unavailable);
    assert.equal(page(reopened, object, 0, at(24), at(16)), "... b");
    await assert.rejects(reopened.waitForLsn(at(24), 1), /Cannot reach .* it is at 0\/1500000/);
    await reopened.waitForLsn(START_LSN, 1);
    const waiting = reopened.waitForLsn(at(24), 60_000);
    assert.equal(ancestor.waiterCount, 1);
    putRecord(ancestor, object, 0, at(16), "a", false);
    ancestor.advance(at(16), START_LSN);
    await waiting;
    assert.equal(page(reopened, object, 0, at(24)), "root a b");
    const never = ancestor.waitForLsn(at(800), 60_000);
    await Promise.all([assert.rejects(never, Unavailable), after.shutdown()]);
    Deno.removeSync(copy, { recursive: true });
  });
});

Deno.test("values larger than the write buffer are read back", async () => {
  await withTimeline(async ({ manager, timeline }) => {
    const relation = manager.interner.relation(1663, 5, 1, 0);
    const large = new Uint8Array(3_000_001);
    for (let i = 0; i < large.length; i++) large[i] = (i * 31) >>> 4;
    timeline.putImage(relation, 7, at(8), large, 0, large.length);
    timeline.putImage(relation, 8, at(8), large, 5, 1_048_576);
    timeline.putImage(relation, 9, at(8), large, 0, 0);
    timeline.advance(at(8), START_LSN);
    for (let round = 0; round < 2; round++) {
      timeline.collect(relation, 7, at(8), into);
      assert.deepEqual(into.bytes.subarray(0, into.imageLength), large);
      timeline.collect(relation, 8, at(8), into);
      assert.deepEqual(into.bytes.subarray(0, into.imageLength), large.subarray(5, 1_048_581));
      timeline.collect(relation, 9, at(8), into);
      assert.equal(into.imageLength, 0);
      assert.ok(into.hasImage);
      await timeline.flush();
    }
  });
});
