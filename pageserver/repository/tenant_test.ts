import assert from "node:assert/strict";
import { BadRequest, Conflict, Corrupt, NotFound, Unavailable } from "../../libs/utils/errors.ts";
import { newTenantId, newTimelineId } from "../../libs/utils/id.ts";
import { addLsn } from "../../libs/utils/lsn.ts";
import { databaseKey, type Key, KeyClass, makeKey } from "./key.ts";
import {
  bytesOf,
  openManager,
  START_LSN,
  START_PREV_LSN,
  textOf,
  withTimeline,
} from "./repository_fixture.ts";
import type { Timeline } from "./timeline.ts";

Deno.test("a tenant is served from attach() on, never under an older generation", async () => {
  const directory = Deno.makeTempDirSync();
  const id = newTenantId();
  let manager = openManager(directory);
  assert.throws(() => manager.tenant(id), NotFound);
  const tenant = await manager.attach(id, 3, { checkpoint_timeout: "1h" });
  assert.equal(await manager.attach(id, 3), tenant);
  await assert.rejects(manager.attach(id, 2), Conflict);
  assert.equal(await manager.attach(id, 5), tenant);
  assert.equal(tenant.generation, 5);
  await manager.shutdown();

  manager = openManager(directory);
  assert.deepEqual(manager.list().map((one) => [one.tenantId, one.generation, one.tenant]), [
    [id, 5, undefined],
  ]);
  assert.throws(() => manager.tenant(id), Unavailable);
  await assert.rejects(manager.attach(id, 4), Conflict);
  assert.deepEqual((await manager.attach(id, 6)).config, { checkpoint_timeout: "1h" });
  await manager.setConfig(id, { checkpoint_distance: 1000, other: "kept" });
  const wrong = [
    { checkpoint_timeout: 5 },
    { compaction_period: "often" },
    { compaction_target_size: 0 },
    { image_creation_threshold: "3" },
  ];
  for (const config of wrong) {
    await assert.rejects(async () => await manager.setConfig(id, config), BadRequest);
  }
  await manager.detach(id);
  assert.throws(() => manager.tenant(id), Unavailable);
  assert.deepEqual((await manager.attach(id, 6)).config, {
    checkpoint_distance: 1000,
    other: "kept",
  });
  await manager.delete(id);
  assert.throws(() => manager.tenant(id), NotFound);
  await manager.shutdown();
  assert.deepEqual(openManager(directory).list(), []);
  Deno.removeSync(directory, { recursive: true });
});

Deno.test("calls that wait for the end of a deletion find what it leaves", async () => {
  const directory = Deno.makeTempDirSync();
  const id = newTenantId();
  const manager = openManager(directory);
  const first = await manager.attach(id, 1, { checkpoint_timeout: "1h" });
  const [, again, ...others] = await Promise.allSettled([
    manager.delete(id),
    manager.attach(id, 1),
    manager.delete(id),
    manager.setConfig(id, {}),
    manager.detach(id),
  ]);
  assert.ok(again.status === "fulfilled" && again.value !== first);
  assert.equal(manager.tenant(id), again.value);
  assert.deepEqual(again.value.config, {});
  for (const other of others) {
    assert.ok(other.status === "rejected" && other.reason instanceof NotFound);
  }
  await manager.shutdown();
  Deno.removeSync(directory, { recursive: true });
});

Deno.test("an import is there after finish(); abort() or a crash leave nothing", async () => {
  await withTimeline(async ({ directory, manager, tenant }) => {
    const id = newTimelineId();
    const aborted = tenant.importTimeline(id, 17);
    aborted.putValue(databaseKey(1663, 5), bytesOf("x"));
    assert.throws(() => tenant.importTimeline(id, 17), Conflict);
    await assert.rejects(tenant.createBranch(id, [...tenant.timelines.keys()][0]!), Conflict);
    aborted.abort();
    const importer = tenant.importTimeline(id, 16);
    const database = makeKey(KeyClass.database, 1663, 0, 0, 0, 0);
    const page = new Uint8Array(8192).fill(7);
    for (let db = 9; db >= 1; db--) {
      importer.putValue({ ...database, f3: db }, bytesOf(`${db}`));
      importer.putImage(manager.interner.relation(1663, db, 1259, 0), db, page, 0, 8192);
    }
    const timeline = await importer.finish(START_LSN, START_PREV_LSN);
    assert.equal(timeline, tenant.timeline(id));
    assert.deepEqual(
      [timeline.pgVersion, timeline.lastRecordLsn, timeline.prevRecordLsn, timeline.initdbLsn],
      [16, START_LSN, START_PREV_LSN, START_LSN],
    );
    const seen: string[] = [];
    timeline.scan(database, { ...database, f1: 0x65 }, START_LSN, (_, value) => {
      seen.push(textOf(value)!);
    });
    assert.deepEqual(seen, ["1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    tenant.importTimeline(newTimelineId(), 17).putValue(database, bytesOf("unfinished"));
    const after = openManager(directory);
    const again = await after.attach(tenant.tenantId, 1);
    assert.equal(again.timelines.size, 2);
    const timelines = `${directory}/tenants/${tenant.tenantId}/timelines`;
    assert.equal([...Deno.readDirSync(timelines)].length, 2);
    await after.shutdown();
  });
});

Deno.test("a timeline whose state is harmed is broken, with its children", async () => {
  await withTimeline(async ({ directory, manager, tenant, timeline }) => {
    const [child, grandchild] = [newTimelineId(), newTimelineId()];
    await tenant.createBranch(child, timeline.timelineId);
    await tenant.createBranch(grandchild, child);
    await manager.detach(tenant.tenantId);
    const path = `${directory}/tenants/${tenant.tenantId}/timelines/${child}/index_part`;
    const bytes = Deno.readFileSync(path);
    bytes[20]! ^= 1;
    Deno.writeFileSync(path, bytes);
    const again = await manager.attach(tenant.tenantId, 1);
    assert.equal(again.timeline(timeline.timelineId).lastRecordLsn, START_LSN);
    assert.throws(
      () => again.timeline(child),
      (thrown) => thrown instanceof Corrupt && thrown.message.includes(path),
    );
    assert.throws(() => again.timeline(grandchild), Corrupt);
    await assert.rejects(again.createBranch(child, timeline.timelineId), Conflict);
    await assert.rejects(again.deleteTimeline(timeline.timelineId), Conflict);
    await assert.rejects(again.deleteTimeline(child), Conflict);
    await again.deleteTimeline(grandchild);
    await again.deleteTimeline(child);
    await again.deleteTimeline(timeline.timelineId);
  });
});

Deno.test("a tenant whose configuration cannot be read is refused alone", async () => {
  await withTimeline(async ({ directory, manager, tenant, timeline }) => {
    const other = newTenantId();
    await manager.attach(other, 1);
    await timeline.flush();
    await manager.shutdown();
    const path = `${directory}/tenants/${tenant.tenantId}/config`;
    const good = Deno.readFileSync(path);
    Deno.mkdirSync(`${directory}/tenants/lost+found`);
    const damages: [(bytes: Uint8Array) => Uint8Array | undefined, RegExp][] = [
      [(bytes) => (bytes[20]! ^= 1, bytes), /checksum mismatch/],
      [(bytes) => bytes.subarray(0, 9), /config/],
      [() => new Uint8Array(0), /config/],
      [() => undefined, /its config file is missing/],
    ];
    for (const [damage, why] of damages) {
      const bytes = damage(good.slice());
      if (bytes === undefined) Deno.removeSync(path);
      else Deno.writeFileSync(path, bytes);
      const again = openManager(directory);
      const refused = (thrown: unknown) =>
        thrown instanceof Unavailable && why.test(thrown.message) &&
        /put a good copy of the file back and run "neon start"/.test(thrown.message);
      assert.throws(() => again.tenant(tenant.tenantId), refused);
      await assert.rejects(again.attach(tenant.tenantId, 9), refused);
      await assert.rejects(async () => await again.setConfig(tenant.tenantId, {}), refused);
      await assert.rejects(async () => await again.detach(tenant.tenantId), refused);
      const { problem } = again.list().find(({ tenantId }) => tenantId === tenant.tenantId)!;
      assert.match(problem!, why);
      assert.equal((await again.attach(other, 2)).generation, 2);
      await again.shutdown();
      if (bytes === undefined) Deno.writeFileSync(path, good);
    }
    Deno.writeFileSync(path, new Uint8Array(3));
    const again = openManager(directory);
    Deno.writeFileSync(path, good); // put back while it runs
    const back = await again.attach(tenant.tenantId, 9);
    assert.equal(back.timeline(timeline.timelineId).lastRecordLsn, START_LSN);
    await again.shutdown();
    Deno.writeFileSync(path, new Uint8Array(3));
    const last = openManager(directory);
    await last.delete(tenant.tenantId);
    assert.deepEqual(last.list().map(({ tenantId }) => tenantId), [other]);
  });
});

/** Puts a value and makes it visible. */
function putOne(timeline: Timeline, key: Key): void {
  timeline.putValue(key, addLsn(START_LSN, 8), bytesOf("x"));
  timeline.advance(addLsn(START_LSN, 8), START_LSN);
}

Deno.test("a flush that fails to write is tried again, and ingest goes on meanwhile", async () => {
  await withTimeline(async ({ directory, tenant, timeline }) => {
    const key = databaseKey(1663, 5);
    putOne(timeline, key);
    const path = `${directory}/tenants/${tenant.tenantId}/timelines/${timeline.timelineId}`;
    Deno.symlinkSync("/dev/full", `${path}/index_part.___temp`);
    await assert.rejects(timeline.flush(), /Unavailable: .*a flush failed: No space left/);
    assert.equal(timeline.state, "Active");
    assert.equal(timeline.diskConsistentLsn, START_LSN);
    timeline.putValue(key, addLsn(START_LSN, 16), bytesOf("y"));
    timeline.advance(addLsn(START_LSN, 16), START_LSN);
    await assert.rejects(timeline.flush(), Unavailable);
    assert.equal(textOf(timeline.getValue(key, addLsn(START_LSN, 8))), "x");
    Deno.removeSync(`${path}/index_part.___temp`);
    timeline.tick();
    assert.equal(await timeline.flush(), addLsn(START_LSN, 16));
    assert.equal(timeline.layerInfos().length, 3, "each layer is listed once");
    assert.equal(textOf(timeline.getValue(key, addLsn(START_LSN, 8))), "x");
    assert.equal(textOf(timeline.getValue(key, addLsn(START_LSN, 16))), "y");
  });
});

/** Does `work` while the sync number `nth` (from 1) fails. */
async function withFailingSync(nth: number, work: () => Promise<unknown>): Promise<void> {
  const { prototype } = Deno.FsFile;
  const { sync } = prototype;
  let count = 0;
  prototype.sync = function () {
    if (++count === nth) return Promise.reject(new Error("Input/output error (os error 5)"));
    return sync.call(this);
  };
  try {
    await work();
  } finally {
    prototype.sync = sync;
  }
}

Deno.test("after a failed sync of a layer a timeline takes no changes until it starts over", async () => {
  await withTimeline(async ({ clock, timeline }) => {
    const key = databaseKey(1663, 5);
    const lsn = addLsn(START_LSN, 8);
    // Of the layer's file, then of its name
    for (const nth of [1, 2]) {
      putOne(timeline, key);
      await withFailingSync(nth, () => assert.rejects(timeline.flush(), /: .*a flush failed/));
      assert.equal(timeline.state, "Broken");
      assert.match(timeline.problem!, /a flush failed: Input.output error/);
      assert.equal(timeline.diskConsistentLsn, START_LSN);
      assert.equal(textOf(timeline.getValue(key, lsn)), "x");
      const later = addLsn(START_LSN, 16);
      assert.throws(() => timeline.putValue(key, later, bytesOf("y")), Unavailable);
      assert.throws(() => timeline.advance(later, START_LSN), Unavailable);
      await assert.rejects(timeline.flush(), Unavailable);
      assert.ok(!timeline.isStartOverDue, "there is a pause");
      clock.nowMs += 1000 * nth;
      assert.ok(timeline.isStartOverDue);
      timeline.startOver();
      assert.deepEqual([timeline.state, timeline.problem], ["Active", undefined]);
      assert.deepEqual([timeline.lastRecordLsn, timeline.prevRecordLsn], [
        START_LSN,
        START_PREV_LSN,
      ]);
      assert.equal(timeline.layerInfos().length, 1);
    }
    putOne(timeline, key);
    assert.equal(await timeline.flush(), lsn);
    assert.equal(textOf(timeline.getValue(key, lsn)), "x");
  });
});

Deno.test("after a failed sync of its list a timeline writes another one, and drops nothing", async () => {
  await withTimeline(async ({ clock, timeline }) => {
    const key = databaseKey(1663, 5);
    const lsn = addLsn(START_LSN, 8);
    putOne(timeline, key);
    // The list's name, behind the layer, its name and the list; then the next list, and its name
    for (const nth of [4, 1, 2]) {
      await withFailingSync(nth, () => assert.rejects(timeline.flush(), /Input.output error/));
      assert.deepEqual([timeline.state, timeline.diskConsistentLsn], ["Active", START_LSN]);
      assert.match(timeline.problem!, /Input.output error/);
      await assert.rejects(timeline.flush(), /Input.output error/, "there is a pause");
      clock.nowMs += 60_000;
    }
    timeline.tick();
    assert.equal(await timeline.flush(), lsn);
    assert.equal(timeline.problem, undefined);
    assert.equal(textOf(timeline.getValue(key, lsn)), "x");
  });
});
