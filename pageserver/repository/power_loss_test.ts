/**
 * A pageserver's files after the process was stopped or power was lost behind every single step of
 * a life with an import, flushes, image layers, rewritten delta layers, branches, deletions,
 * settings, generations and restarts: what was promised is there, what was not finished is gone,
 * and it goes on.
 */
import assert from "node:assert/strict";
import { Conflict } from "../../libs/utils/errors.ts";
import { newTenantId, newTimelineId, type TimelineId } from "../../libs/utils/id.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import { seededRandom } from "../../tests/load/random.ts";
import { makeTextImages, rewriteSome } from "../compaction/image_fixture.ts";
import { atEveryStep } from "../../tests/support/crash_points.ts";
import { FileRecorder } from "../../tests/support/file_recorder.ts";
import { checkContents, lsnOf, putNumbered, recordAt } from "./numbered_fixture.ts";
import { bytesOf, openManager, START_LSN, START_PREV_LSN } from "./repository_fixture.ts";
import type { Tenant } from "./tenant.ts";
import type { TenantManager } from "./tenant_manager.ts";
import type { Timeline } from "./timeline.ts";

const tenantId = newTenantId();
const rootId = newTimelineId();
const [branchId, lateBranchId, deletedId] = [newTimelineId(), newTimelineId(), newTimelineId()];

/** What must be there whatever happens. */
interface Promised {
  /** Undefined: the tenant is not there. */
  generation: number | undefined;
  distance: number;
  /** Up to which LSN each timeline is durable. */
  readonly durable: Map<TimelineId, Lsn>;
  /** What is being changed: it may be as before, or as it will be. */
  readonly changing: Set<TimelineId | "tenant">;
}

function copyOf(promised: Promised): Promised {
  const { durable, changing } = promised;
  return { ...promised, durable: new Map(durable), changing: new Set(changing) };
}

/** Keeps what was promised when. */
class Promises {
  readonly all: { readonly notes: number; readonly promised: Promised }[] = [];
  readonly now: Promised = {
    generation: undefined,
    distance: 900,
    durable: new Map(),
    changing: new Set(),
  };
  readonly #recorder: FileRecorder;

  constructor(recorder: FileRecorder) {
    this.#recorder = recorder;
    this.note();
  }

  note(): void {
    this.all.push({ notes: this.#recorder.notes.length, promised: copyOf(this.now) });
  }

  async change<T>(what: TimelineId | "tenant", work: () => Promise<T>): Promise<T> {
    this.now.changing.add(what);
    this.note();
    const done = await work();
    this.now.changing.delete(what);
    return done;
  }

  durable(timeline: Timeline): void {
    this.now.durable.set(timeline.timelineId, timeline.diskConsistentLsn);
    this.note();
  }

  /** As of that many notes. */
  at(notes: number): Promised {
    return this.all.findLast((one) => one.notes <= notes)!.promised;
  }
}

/** Ingests records up to number `last`, with flushes beside it and one at the end. */
async function ingest(timeline: Timeline, last: number, promises: Promises): Promise<void> {
  for (let n = recordAt(timeline.lastRecordLsn) + 1; n <= last; n++) {
    putNumbered(timeline, n);
    if (n % 7 !== 0 && n !== last) continue;
    timeline.advance(lsnOf(n), lsnOf(n - 1));
    await timeline.waitForRoom();
    promises.durable(timeline);
  }
  await timeline.flush();
  promises.durable(timeline);
}

/** Makes images of all pages, with WAL coming in meanwhile. */
async function makeImages(timeline: Timeline): Promise<void> {
  const made = makeTextImages(timeline);
  const n = recordAt(timeline.lastRecordLsn) + 1;
  putNumbered(timeline, n);
  timeline.advance(lsnOf(n), lsnOf(n - 1));
  await timeline.flush();
  assert.deepEqual([(await made)?.pages, (await made)?.failedPages], [13, 0]);
  assert.ok(
    timeline.layerInfos().some(({ kind, lsnEnd }) => kind === "Image" && lsnEnd > START_LSN),
  );
}

/** Puts delta layers in key order in the place of all, with WAL coming in meanwhile. */
async function rewrite(timeline: Timeline): Promise<void> {
  const before = timeline.layerInfos().filter(({ kind }) => kind === "Delta").length;
  const rewriting = rewriteSome(timeline, { targetBytes: 600 });
  const n = recordAt(timeline.lastRecordLsn) + 1;
  putNumbered(timeline, n);
  timeline.advance(lsnOf(n), lsnOf(n - 1));
  await timeline.flush();
  const { replaced, layers } = await rewriting;
  assert.ok(replaced >= before && before > 1 && layers > 1, `${replaced} became ${layers}`);
  checkContents(timeline);
}

async function attach(
  manager: TenantManager,
  generation: number,
  promises: Promises,
): Promise<Tenant> {
  const tenant = await promises.change(
    "tenant",
    () => manager.attach(tenantId, generation, { checkpoint_distance: promises.now.distance }),
  );
  promises.now.generation = generation;
  promises.note();
  return tenant;
}

async function live(directory: string, promises: Promises): Promise<void> {
  const first = openManager(directory);
  const tenant = await attach(first, 1, promises);
  const root = await promises.change(rootId, () => {
    const importer = tenant.importTimeline(rootId, 17);
    importer.putImage(first.interner.relation(1663, 5, 1, 0), 0, bytesOf("root"), 0, 4);
    return importer.finish(START_LSN, START_PREV_LSN);
  });
  promises.durable(root);
  await ingest(root, 150, promises);
  await makeImages(root);
  await rewrite(root);
  for (const id of [branchId, deletedId]) {
    const branch = await promises.change(id, () => tenant.createBranch(id, rootId));
    promises.durable(branch);
    await ingest(branch, 200, promises);
    await makeImages(branch);
  }
  await ingest(root, 165, promises);
  await rewrite(root); // the branches read what it replaces
  await promises.change(deletedId, async () => {
    await tenant.deleteTimeline(deletedId);
    promises.now.durable.delete(deletedId);
  });
  promises.note();
  await promises.change("tenant", async () => {
    await first.setConfig(tenantId, { checkpoint_distance: 700 });
    promises.now.distance = 700;
  });
  promises.note();
  putNumbered(root, recordAt(root.lastRecordLsn) + 1); // of a batch that never ends
  await first.detach(tenantId);
  await attach(first, 3, promises);
  await first.shutdown();

  const second = openManager(directory);
  const again = await attach(second, 4, promises);
  await ingest(again.timeline(rootId), 220, promises);
  const late = await promises.change(
    lateBranchId,
    () => again.createBranch(lateBranchId, branchId, lsnOf(180)),
  );
  promises.durable(late);
  await promises.change("tenant", async () => {
    await second.delete(tenantId);
    promises.now.generation = undefined;
    promises.now.durable.clear();
  });
  promises.note();
  await second.shutdown();
}

/** Every file below the tenants, but for those of layers that are open. */
function filesBelow(directory: string): string[] {
  return [...Deno.readDirSync(directory)].flatMap(({ name, isDirectory }) =>
    isDirectory
      ? filesBelow(`${directory}/${name}`).map((below) => `${name}/${below}`)
      : name.startsWith("open-")
      ? []
      : [name]
  );
}

function filesOf(tenant: Tenant): string[] {
  const files = [...tenant.timelines].flatMap(([id, timeline]) => {
    const layers = timeline.layerInfos().map(({ fileName }) => fileName);
    return ["index_part", ...layers.filter((name) => name !== "")].map((name) => `${id}/${name}`);
  });
  return ["config", ...files.map((name) => `timelines/${name}`)].map((name) =>
    `${tenantId}/${name}`
  );
}

/** Opens what was left, looks whether promises were kept, and goes on; returns new promises. */
async function check(directory: string, promised: Promised): Promise<Promised> {
  const manager = openManager(directory);
  try {
    const summary = manager.list()[0];
    const isChanging = promised.changing.has("tenant");
    if (promised.generation === undefined) {
      if (!isChanging) assert.equal(summary, undefined, "a tenant is there");
    } else if (!isChanging) {
      assert.ok(summary !== undefined, "the tenant is gone");
      assert.ok(summary.generation >= promised.generation);
      assert.equal(summary.config["checkpoint_distance"], promised.distance);
    }
    const isThere = summary !== undefined && promised.generation !== undefined;
    const config = isThere ? undefined : { checkpoint_distance: 900 };
    const tenant = await manager.attach(tenantId, (promised.generation ?? 0) + 2, config);
    const seen: Promised = {
      generation: tenant.generation,
      distance: Number(tenant.config["checkpoint_distance"]),
      durable: new Map(),
      changing: new Set(),
    };
    assert.deepEqual([...tenant.broken.values()], []);
    assert.deepEqual(filesBelow(`${directory}/tenants`).sort(), filesOf(tenant).sort());
    for (const [id, lsn] of isThere ? promised.durable : []) {
      const timeline = tenant.timelines.get(id);
      if (timeline === undefined) {
        assert.ok(promised.changing.has(id), `timeline ${id} is gone`);
      } else assert.ok(timeline.diskConsistentLsn >= lsn, `${id} lost what was flushed`);
    }
    for (const [id, timeline] of tenant.timelines) {
      const isKnown = promised.durable.has(id) || promised.changing.has(id) || isChanging;
      assert.ok(isKnown, `timeline ${id} is back`);
      checkContents(timeline);
      seen.durable.set(id, timeline.diskConsistentLsn);
    }
    const root = tenant.timelines.get(rootId);
    if (root === undefined) return seen;
    const last = recordAt(root.lastRecordLsn);
    for (let n = last + 1; n <= last + 20; n++) putNumbered(root, n);
    root.advance(lsnOf(last + 20), lsnOf(last + 19));
    checkContents(root);
    return seen;
  } finally {
    for (const { tenant } of manager.list()) {
      for (const timeline of tenant?.timelines.values() ?? []) await timeline.close();
    }
    await manager.shutdown();
  }
}

/**
 * Ingests up to record `last` while syncs of the timeline's files fail, beginning again whenever
 * one of a layer has, and rewriting layers meanwhile; returns how often it began again.
 */
async function ingestWithFailures(
  timeline: Timeline,
  last: number,
  clock: { nowMs: number },
  promises: Promises,
): Promise<number> {
  let startedOver = 0;
  let rewritten = 0;
  while (timeline.diskConsistentLsn < lsnOf(last)) {
    clock.nowMs += 70_000;
    if (timeline.isStartOverDue) {
      const durable = timeline.diskConsistentLsn;
      timeline.startOver();
      startedOver++;
      assert.equal(timeline.lastRecordLsn, durable);
    }
    checkContents(timeline);
    const next = recordAt(timeline.lastRecordLsn) + 1;
    try {
      for (let n = next; n < Math.min(next + 11, last + 1); n++) putNumbered(timeline, n);
      const end = Math.min(next + 10, last);
      if (end >= next) timeline.advance(lsnOf(end), lsnOf(end - 1));
      if (end === last || end % 4 === 0) await timeline.flush();
      else await timeline.waitForRoom();
    } catch (thrown) {
      assert.match(String(thrown), /Cannot change timeline .* a flush failed: Input.output error/);
      assert.match(timeline.problem!, /Input.output error/);
    }
    promises.durable(timeline);
    if (last - recordAt(timeline.lastRecordLsn) < 40) await tryToRewrite(timeline);
    if (timeline.layerInfos().some(({ fileName }) => fileName.endsWith("-k"))) rewritten++;
  }
  assert.ok(rewritten > 0, "layers were replaced, failures or not");
  return startedOver;
}

/** Rewrites the delta layers, or leaves that to a flush to come, or finds that it cannot be. */
async function tryToRewrite(timeline: Timeline): Promise<void> {
  try {
    await rewriteSome(timeline);
  } catch (thrown) {
    // What has been asked for before waits to be listed
    if (!(thrown instanceof Conflict)) assert.match(String(thrown), /Input.output error/);
  }
}

Deno.test("what a failed sync covered is made anew, and power loss takes nothing that was promised", async () => {
  const scratch = Deno.makeTempDirSync({ dir: "/dev/shm" });
  const random = seededRandom("pageserver failed syncs");
  try {
    const root = `${scratch}/life`;
    Deno.mkdirSync(root);
    const recorder = new FileRecorder(root);
    const promises = new Promises(recorder);
    let failed = 0;
    let wellInARow = 0;
    await recorder.during(async () => {
      const clock = { nowMs: 0 };
      const manager = openManager(root, clock);
      const tenant = await attach(manager, 1, promises);
      const timeline = await promises.change(rootId, () => {
        const importer = tenant.importTimeline(rootId, 17);
        importer.putImage(manager.interner.relation(1663, 5, 1, 0), 0, bytesOf("root"), 0, 4);
        return importer.finish(START_LSN, START_PREV_LSN);
      });
      promises.durable(timeline);
      recorder.failsSync = (path) => {
        if (!path.includes(rootId)) return false;
        const fails = random.next() < 0.3 || wellInARow === 4;
        if (fails) failed++;
        wellInARow = fails ? 0 : wellInARow + 1;
        return fails;
      };
      const startedOver = await ingestWithFailures(timeline, 260, clock, promises);
      recorder.failsSync = () => false;
      console.log(`${failed} failed syncs, ${startedOver} times begun again`);
      assert.ok(failed > 5 && startedOver > 0);
      checkContents(timeline);
      await manager.shutdown();
    });
    const points = await atEveryStep(
      recorder.notes,
      { scratch, chance: () => random.between(0, 1) === 1, restartEvery: 10 },
      { check: (left, played) => check(left, promises.at(played)), recheck: check },
    );
    console.log(`${points} crash points`);
  } finally {
    Deno.removeSync(scratch, { recursive: true });
  }
});

Deno.test("power loss behind any step on a pageserver's files loses nothing that was promised", async () => {
  const scratch = Deno.makeTempDirSync({ dir: "/dev/shm" });
  try {
    const root = `${scratch}/life`;
    Deno.mkdirSync(root);
    const recorder = new FileRecorder(root);
    const promises = new Promises(recorder);
    await recorder.during(() => live(root, promises));
    const random = seededRandom("pageserver power loss");
    const points = await atEveryStep(
      recorder.notes,
      { scratch, chance: () => random.between(0, 1) === 1, restartEvery: 3 },
      {
        check: (left, played) => check(left, promises.at(played)),
        recheck: check,
      },
    );
    console.log(`${points} crash points`);
    assert.ok(points > 500);
  } finally {
    Deno.removeSync(scratch, { recursive: true });
  }
});
