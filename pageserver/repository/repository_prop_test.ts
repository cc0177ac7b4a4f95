/**
 * The repository against a naive model: lists of versions per timeline. Random batches, rollbacks,
 * flushes, image layers, rewritten delta layers, branches and crashes (the directory is copied as
 * it is at that moment and opened again; the WAL beyond diskConsistentLsn is received again), with
 * random reads at random LSNs in between.
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import { Corrupt, NotFound } from "../../libs/utils/errors.ts";
import { newTenantId, newTimelineId, type TenantId, type TimelineId } from "../../libs/utils/id.ts";
import { addLsn, type Lsn, minLsn } from "../../libs/utils/lsn.ts";
import {
  compareKeys,
  formatKey,
  isInherited,
  type Key,
  KeyClass,
  makeKey,
  relationSizeKey,
} from "./key.ts";
import { joinedText, makeTextImages, rewriteSome } from "../compaction/image_fixture.ts";
import { Reconstruction } from "./reconstruction.ts";
import type { Tenant } from "./tenant.ts";
import type { TenantManager } from "./tenant_manager.ts";
import {
  bytesOf,
  copyDirectory,
  importRoot,
  openManager,
  START_LSN,
  START_PREV_LSN,
  textOf,
} from "./repository_fixture.ts";
import type { Timeline } from "./timeline.ts";

interface Version {
  key: Key;
  lsn: Lsn;
  kind: "image" | "record" | "init" | "tombstone";
  text: string;
}

interface Batch {
  versions: Version[];
  lsn: Lsn;
  prev: Lsn;
}

interface ModelTimeline {
  id: TimelineId;
  ancestor: ModelTimeline | undefined;
  startLsn: Lsn;
  batches: Batch[];
  last: Lsn;
}

const PAGE_KEYS = [0, 1, 2].flatMap((block) =>
  [1, 2].map((rel) => makeKey(0, 1663, 5, rel, 0, block))
);
const VALUE_KEYS = [
  makeKey(0x02, 0, 0, 0, 0, 700),
  makeKey(0x61, 1663, 5, 1, 0, 0),
  makeKey(0x61, 1663, 5, 2, 0, 0),
  makeKey(0x62, 1, 2, 3, 4, 5),
  makeKey(0x64, 1663, 5, 0, 0, 0),
];
const CONFIG = { checkpoint_distance: 3000, checkpoint_timeout: "1h" };

/** All versions of a key that `timeline` sees at `lsn`, newest first. */
function modelHistory(timeline: ModelTimeline, key: Key, lsn: Lsn): Version[] {
  const own = timeline.batches.flatMap((batch) => batch.versions)
    .filter((version) => version.lsn <= lsn && compareKeys(version.key, key) === 0).reverse();
  if (timeline.ancestor === undefined) {
    const isRootPage = compareKeys(key, makeKey(0, 1663, 5, 1, 0, 0)) === 0;
    return isRootPage ? [...own, { key, lsn: START_LSN, kind: "image", text: "root" }] : own;
  }
  if (!isInherited(key.f1)) return own;
  return [...own, ...modelHistory(timeline.ancestor, key, minLsn(lsn, timeline.startLsn))];
}

function modelPage(timeline: ModelTimeline, key: Key, lsn: Lsn, after: number): string {
  const parts: string[] = [];
  for (const version of modelHistory(timeline, key, lsn)) {
    if (version.lsn <= after) return ["...", ...parts].join(" ");
    parts.unshift(version.text);
    if (version.kind !== "record") return parts.join(" ");
  }
  return parts.length === 0 ? "NotFound" : "Corrupt";
}

const into = new Reconstruction();

function realPage(timeline: Timeline, key: Key, lsn: Lsn, after: Lsn | undefined): string {
  const object = timeline.interner.intern(key.f1, key.f2, key.f3, key.f4, key.f5);
  try {
    timeline.collect(object, key.f6, lsn, into, after);
  } catch (thrown) {
    if (thrown instanceof NotFound) return "NotFound";
    if (thrown instanceof Corrupt && thrown.message.includes("missing image")) return "Corrupt";
    throw thrown;
  }
  return joinedText(into);
}

/** The system under test and its model, driven by random numbers. */
class Pair {
  #copies: string[] = [];
  #serial = 0;
  /** Pages that got images. */
  imagePages = 0;
  /** Delta layers that were replaced by others in key order, and how many of these. */
  replaced = 0;
  rewritten = 0;
  /** Times that images were found to lie between the LSNs of a delta layer. */
  cuts = 0;
  readonly #models: ModelTimeline[] = [];

  constructor(
    private manager: TenantManager,
    private tenant: Tenant,
    private readonly tenantId: TenantId,
    private directory: string,
    root: Timeline,
  ) {
    this.#models.push({
      id: root.timelineId,
      ancestor: undefined,
      startLsn: START_LSN,
      batches: [],
      last: START_LSN,
    });
  }

  /** Any, but more often the root: what is made of layers depends on what they were. */
  #model(random: number): ModelTimeline {
    return this.#models[random % 2 === 0 ? 0 : (random >>> 1) % this.#models.length]!;
  }

  #version(random: number, lsn: Lsn): Version {
    const isValue = random % 3 === 0;
    const keys = isValue ? VALUE_KEYS : PAGE_KEYS;
    const key = keys[(random >>> 3) % keys.length]!;
    const kinds = isValue
      ? ["image", "image", "tombstone"] as const
      : ["record", "record", "init", "image"] as const;
    const isSize = key.f1 === KeyClass.relationSize;
    const kind = isSize && random % 8 > 0 ? "image" : kinds[(random >>> 7) % kinds.length]!;
    const text = isSize
      ? `${String.fromCharCode(random % 5)}\0\0\0`
      : `v${this.#serial++}${"-".repeat(random % 5 === 0 ? random % 900 : 0)}`;
    return { key, lsn, kind, text: kind === "tombstone" ? "" : text };
  }

  /** Both relations have blocks, so that there are images to be made. */
  sizes(): void {
    const model = this.#models[0]!;
    const lsn = addLsn(model.last, 8);
    const versions = [1, 2].map((rel): Version => ({
      key: relationSizeKey(1663, 5, rel, 0),
      lsn,
      kind: "image",
      text: "\x03\0\0\0",
    }));
    const timeline = this.tenant.timeline(model.id);
    this.#put(timeline, versions);
    timeline.advance(lsn, model.last);
    this.#note(model, { versions, lsn, prev: model.last });
  }

  #put(timeline: Timeline, versions: Version[]): void {
    for (const { key, lsn, kind, text } of versions) {
      const bytes = bytesOf(text);
      const object = timeline.interner.intern(key.f1, key.f2, key.f3, key.f4, key.f5);
      if (kind === "tombstone") timeline.putValue(key, lsn, null);
      else if (kind === "image") timeline.putImage(object, key.f6, lsn, bytes, 0, bytes.length);
      else {
        const blob = timeline.beginBlob(bytes, 0, bytes.length);
        timeline.putRecord(object, key.f6, lsn, blob, kind === "init");
      }
    }
  }

  batch(randoms: number[], which: number, abandon: boolean): void {
    const model = this.#model(which);
    const timeline = this.tenant.timeline(model.id);
    let lsn = model.last;
    const prev = lsn;
    const versions = randoms.map((random) => {
      if (random % 4 !== 0 || lsn === model.last) lsn = addLsn(lsn, 8 + 8 * (random % 30));
      return this.#version(random, lsn);
    });
    this.#put(timeline, versions);
    if (abandon) return timeline.rollback();
    if (lsn === model.last) lsn = addLsn(lsn, 8);
    timeline.advance(lsn, prev);
    this.#note(model, { versions, lsn, prev });
  }

  #note(model: ModelTimeline, batch: Batch): void {
    model.batches.push(batch);
    model.last = batch.lsn;
  }

  async flush(which: number): Promise<void> {
    const model = this.#model(which);
    assert.equal(await this.tenant.timeline(model.id).flush(), model.last);
  }

  /** Image layers change nothing that can be read. */
  async images(which: number, random: number): Promise<void> {
    const model = this.#model(which);
    // Else images are of what was flushed before
    for (let at: ModelTimeline | undefined = model; at && random % 5 > 0; at = at.ancestor) {
      await this.tenant.timeline(at.id).flush();
    }
    const timeline = this.tenant.timeline(model.id);
    const made = await makeTextImages(timeline, {
      force: random % 2 === 0,
      imageCreationThreshold: 1 + random % 3,
      targetBytes: 1 + random % 2000,
    });
    this.imagePages += made?.pages ?? 0;
  }

  /** Nor do delta layers that take the place of others. */
  async rewrite(which: number, random: number): Promise<void> {
    const model = this.#model(which);
    const timeline = this.tenant.timeline(model.id);
    if (random % 4 > 0) await timeline.flush();
    const done = await rewriteSome(timeline, {
      first: random % 5 > 0 ? 0 : (random >>> 1) % 3,
      count: random % 3 > 0 ? Infinity : 1 + (random >>> 3) % 4,
      targetBytes: 1 + (random >>> 5) % 2000,
    });
    this.replaced += done.replaced;
    this.rewritten += done.layers;
    const { visits, layers } = timeline.layers.finished;
    this.cuts += visits.length - layers.length;
  }

  async branch(which: number, random: number): Promise<void> {
    const ancestor = this.#model(which);
    const ends = [ancestor.startLsn, ...ancestor.batches.map((batch) => batch.lsn)];
    const startLsn = ends[random % ends.length]!;
    const id = newTimelineId();
    await this.tenant.createBranch(id, ancestor.id, startLsn);
    this.#models.push({ id, ancestor, startLsn, batches: [], last: startLsn });
  }

  /** Opens a copy of the directory, as after a crash, and receives the lost WAL again. */
  async crash(generation: number): Promise<void> {
    const copy = Deno.makeTempDirSync();
    this.#copies.push(copy);
    copyDirectory(this.directory, copy);
    await this.manager.shutdown();
    this.directory = copy;
    this.manager = openManager(copy);
    this.tenant = await this.manager.attach(this.tenantId, generation);
    for (const model of this.#models) {
      const timeline = this.tenant.timeline(model.id);
      const disk = timeline.lastRecordLsn;
      assert.equal(timeline.diskConsistentLsn, disk);
      const batch = model.batches.find((one) => one.lsn === disk);
      if (batch !== undefined) assert.equal(timeline.prevRecordLsn, batch.prev);
      else assert.equal(disk, model.startLsn);
      if (model.ancestor === undefined && batch === undefined) {
        assert.equal(timeline.prevRecordLsn, START_PREV_LSN);
      }
      for (const { versions, lsn, prev } of model.batches) {
        if (lsn <= disk) continue;
        this.#put(timeline, versions);
        timeline.advance(lsn, prev);
      }
    }
  }

  read(which: number, random: number): void {
    const model = this.#model(which);
    const timeline = this.tenant.timeline(model.id);
    const span = model.last - START_LSN;
    const lsn = addLsn(START_LSN, span === 0 ? 0 : random % (span + 1));
    const key = PAGE_KEYS[random % PAGE_KEYS.length]!;
    assert.equal(realPage(timeline, key, lsn, undefined), modelPage(model, key, lsn, -1));
    const after = addLsn(START_LSN, (random >>> 9) % (lsn - START_LSN + 1));
    // Only one who has a version may ask for what comes after it.
    if (!/^(NotFound|Corrupt)$/.test(modelPage(model, key, after, -1))) {
      const newer = realPage(timeline, key, lsn, after);
      const isWhole = into.hasImage && !into.continues; // of an image layer that came later
      const expected = modelPage(model, key, lsn, isWhole ? -1 : after);
      assert.equal(newer, expected);
    }
    const expected: string[] = [];
    for (const value of VALUE_KEYS) {
      const newest = modelHistory(model, value, lsn)[0];
      const text = newest === undefined || newest.kind === "tombstone" ? undefined : newest.text;
      assert.equal(textOf(timeline.getValue(value, lsn)), text);
      if (text !== undefined) expected.push(`${formatKey(value)}=${text}`);
    }
    const scanned: string[] = [];
    timeline.scan(makeKey(2, 0, 0, 0, 0, 0), makeKey(0x70, 0, 0, 0, 0, 0), lsn, (found, value) => {
      scanned.push(`${formatKey(found)}=${textOf(value)}`);
    });
    assert.deepEqual(scanned, expected);
  }

  async close(): Promise<void> {
    await this.manager.shutdown();
    for (const copy of this.#copies) Deno.removeSync(copy, { recursive: true });
  }
}

interface Step {
  kind: "batch" | "abandon" | "flush" | "images" | "rewrite" | "branch" | "crash";
  which: number;
  randoms: number[];
}

const random = fc.nat(0x7fffffff);

function stepOf(weight: number, kind: Step["kind"], count: { min: number; max: number }) {
  const randoms = fc.array(random, { minLength: count.min, maxLength: count.max });
  const arbitrary = fc.record<Step>({ kind: fc.constant(kind), which: random, randoms });
  return { weight, arbitrary };
}

const anyStep = fc.oneof(
  stepOf(10, "batch", { min: 0, max: 12 }),
  stepOf(1, "abandon", { min: 0, max: 12 }),
  stepOf(3, "flush", { min: 0, max: 0 }),
  stepOf(3, "images", { min: 1, max: 1 }),
  stepOf(3, "rewrite", { min: 1, max: 1 }),
  stepOf(2, "branch", { min: 1, max: 1 }),
  stepOf(1, "crash", { min: 0, max: 0 }),
);

Deno.test("the repository equals the model through flushes, compactions, branches and crashes", async () => {
  let imagePages = 0;
  let replaced = 0;
  let rewritten = 0;
  let cuts = 0;
  const run = async (
    steps: { kind: string; which: number; randoms: number[] }[],
    reads: number[],
  ) => {
    const directory = Deno.makeTempDirSync();
    const manager = openManager(directory);
    const tenantId = newTenantId();
    const tenant = await manager.attach(tenantId, 1, CONFIG);
    const pair = new Pair(manager, tenant, tenantId, directory, await importRoot(tenant, manager));
    let generation = 1;
    try {
      pair.sizes();
      for (const { kind, which, randoms } of steps) {
        if (kind === "batch") pair.batch(randoms, which, false);
        if (kind === "abandon") pair.batch(randoms, which, true);
        if (kind === "flush") await pair.flush(which);
        if (kind === "images") await pair.images(which, randoms[0]!);
        if (kind === "rewrite") await pair.rewrite(which, randoms[0]!);
        if (kind === "branch") await pair.branch(which, randoms[0]!);
        if (kind === "crash") await pair.crash(++generation);
        for (const read of reads) pair.read(read, read);
      }
      imagePages += pair.imagePages;
      replaced += pair.replaced;
      rewritten += pair.rewritten;
      cuts += pair.cuts;
    } finally {
      await pair.close();
      Deno.removeSync(directory, { recursive: true });
    }
  };
  const steps = fc.array(anyStep, { minLength: 5, maxLength: 40 });
  const reads = fc.array(random, { minLength: 3, maxLength: 8 });
  await fc.assert(fc.asyncProperty(steps, reads, run), { numRuns: 80, endOnFailure: false });
  assert.ok(imagePages > 10, `${imagePages} images`);
  const what = `${replaced} layers became ${rewritten}, cut ${cuts} times`;
  console.log(what);
  assert.ok(replaced > 30 && rewritten > 30, what);
});
