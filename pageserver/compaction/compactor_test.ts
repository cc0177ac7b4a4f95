/** The compactor with its worker, on a cluster whose WAL is made up. */
import assert from "node:assert/strict";
import { PAGE_SIZE, Rmgr, XactInfo } from "../../libs/postgres/constants.ts";
import { SlruKind } from "../../libs/postgres/slru.ts";
import { Unavailable } from "../../libs/utils/errors.ts";
import { newTimelineId } from "../../libs/utils/id.ts";
import { HEAP, type RecordSpec, type TestCluster, withCluster } from "../cluster_fixture.ts";
import type { ObjectId } from "../repository/key_interner.ts";
import { PageReader } from "../page_service/page_reader.ts";
import { HEAP_INIT_PAGE, HeapInfo } from "../walredo/heap_records.ts";
import { Compactor } from "./compactor.ts";

const WILL_INIT = 0x40;

/** A row at an offset of a block; the first one makes the page. */
function insert(block: number, offset: number, tupleBytes = 100, tag = HEAP): RecordSpec {
  const tuple = [3, 0, 0x02, 0x08, 24, 0, ...new Array<number>(tupleBytes).fill(0x61)];
  const isFirst = offset === 1;
  return {
    rmid: Rmgr.HEAP,
    info: HeapInfo.INSERT | (isFirst ? HEAP_INIT_PAGE : 0),
    main: Uint8Array.from([offset, 0, 0]),
    blocks: [{
      id: 0,
      tag,
      block,
      data: Uint8Array.from(tuple),
      ...(isFirst ? { flags: WILL_INIT } : {}),
    }],
  };
}

/** Rows on the first `blocks` blocks, on disk. */
async function insertRows(cluster: TestCluster, blocks: number): Promise<void> {
  for (let block = 0; block < blocks; block++) {
    await cluster.ingest(insert(block, 1), insert(block, 2), insert(block, 3));
  }
  await cluster.timeline.flush();
}

/** The page by a reader without anything cached, or the error. */
function readPage(cluster: TestCluster, block: number): Uint8Array | string {
  const { served, timeline } = cluster;
  const object = heapOf(cluster);
  const reader = new PageReader(1024 * 1024);
  served.cachedPages.clear();
  try {
    const page = reader.relationPage(served, HEAP, object, block, timeline.lastRecordLsn);
    return page.bytes.slice(page.offset, page.offset + PAGE_SIZE);
  } catch (thrown) {
    return (thrown as Error).message;
  }
}

function heapOf({ manager }: TestCluster): ObjectId {
  return manager.interner.relation(HEAP.spc, HEAP.db, HEAP.rel, HEAP.fork);
}

function imagesOf({ timeline }: TestCluster): number {
  return timeline.layerInfos().filter(({ kind }) => kind === "Image").length;
}

function filesOf({ directory, timeline }: TestCluster): string[] {
  const path = `${directory}/tenants/${timeline.tenantId}/timelines/${timeline.timelineId}`;
  return [...Deno.readDirSync(path)].map(({ name }) => name).sort();
}

Deno.test("a worker makes images of pages, and they are what the records give", () =>
  withCluster(async (cluster) => {
    const compactor = new Compactor(cluster);
    await insertRows(cluster, 3);
    const before = [0, 1, 2].map((block) => readPage(cluster, block));
    assert.ok(before.every((page) => typeof page !== "string"));
    const { images: made } = await compactor.compact(cluster.timeline, true);
    assert.deepEqual([made.layers, made.pages, made.failedPages], [1, 3, 0]);
    assert.equal(imagesOf(cluster), 2);
    for (const block of [0, 1, 2]) {
      const { hasImage, recordCount } = cluster.collect(HEAP, block);
      assert.deepEqual([hasImage, recordCount], [true, 0]);
      assert.deepEqual(readPage(cluster, block), before[block]);
    }
    const { images: again } = await compactor.compact(cluster.timeline, true);
    assert.deepEqual([again.layers, again.pages], [0, 0]);
    // A record after them goes on from the image
    await cluster.ingest(insert(1, 4));
    assert.deepEqual(cluster.collect(HEAP, 1).recordCount, 1);
    assert.notDeepEqual(readPage(cluster, 1), before[1]);
  }));

Deno.test("a page of pg_xact with many commits gets an image, and goes on from it", () =>
  withCluster(async (cluster) => {
    const { timeline, served } = cluster;
    const statuses = () => {
      const reader = new PageReader(1024 * 1024);
      served.cachedPages.clear();
      const page = reader.slruPage(served, SlruKind.CLOG, 0, 0, timeline.lastRecordLsn);
      return page.bytes.slice(page.offset, page.offset + PAGE_SIZE);
    };
    const end = (xid: number, info: number) =>
      cluster.ingest({
        rmid: Rmgr.XACT,
        info,
        xid,
        main: new Uint8Array(8),
      });
    const imported = statuses();
    for (let xid = 800; xid < 1100; xid++) {
      await end(xid, xid % 3 === 0 ? XactInfo.ABORT : XactInfo.COMMIT);
    }
    await timeline.flush();
    const before = statuses();
    assert.notDeepEqual(before, imported);
    assert.equal(cluster.collectSlru(SlruKind.CLOG, 0).recordCount, 300);
    // Without force: these records are many times as long as their page
    const { images } = await new Compactor(cluster).compact(timeline, false);
    assert.deepEqual([images.pages, images.failedPages], [1, 0]);
    const { hasImage, recordCount } = cluster.collectSlru(SlruKind.CLOG, 0);
    assert.deepEqual([hasImage, recordCount], [true, 0]);
    assert.deepEqual(statuses(), before);
    await end(1100, XactInfo.COMMIT);
    assert.equal(cluster.collectSlru(SlruKind.CLOG, 0).recordCount, 1);
    const after = statuses();
    assert.equal(after.findIndex((byte, at) => byte !== before[at]), 1100 / 4);
  }));

Deno.test("a branch gets images of what it changed, though its ancestor is in memory", () =>
  withCluster(async (cluster) => {
    const compactor = new Compactor(cluster);
    const { tenant, timeline: root } = cluster;
    await cluster.ingest(...[0, 1, 2].map((block) => insert(block, 1)));
    const branch = await tenant.createBranch(newTimelineId(), root.timelineId);
    cluster.follow(branch);
    await cluster.ingest(insert(1, 2), insert(1, 3));
    const page = readPage(cluster, 1);
    await branch.flush();
    const { images: made } = await compactor.compact(branch, true);
    assert.deepEqual([made.pages, made.failedPages], [1, 0]);
    assert.equal(root.diskConsistentLsn, branch.ancestorLsn);
    assert.deepEqual([cluster.collect(HEAP, 1).recordCount, readPage(cluster, 1)], [0, page]);
    assert.equal(cluster.collect(HEAP, 2).recordCount, 1);
  }));

Deno.test("a page that cannot be rebuilt gets no image, is told of, and others get theirs", () =>
  withCluster(async (cluster) => {
    const compactor = new Compactor(cluster);
    await insertRows(cluster, 3);
    await cluster.ingest(insert(1, 77)); // there is no room for such an item
    await cluster.timeline.flush();
    const error = readPage(cluster, 1);
    assert.match(String(error), /Cannot redo .*block 1/);
    const { images: made } = await compactor.compact(cluster.timeline, true);
    assert.deepEqual([made.pages, made.failedPages, made.firstFailure], [2, 1, error]);
    assert.equal(readPage(cluster, 1), error);
    assert.equal(typeof readPage(cluster, 2), "object");
    // It is not tried again before its extent changes
    const { images: again } = await compactor.compact(cluster.timeline, false);
    assert.deepEqual([again.pages, again.failedPages], [0, 0]);
  }));

Deno.test("harm to a layer is harm to what is in it alone", () =>
  withCluster(async (cluster) => {
    const compactor = new Compactor(cluster);
    const other = { ...HEAP, rel: 16385 };
    await cluster.ingest(insert(0, 1), insert(1, 1));
    await cluster.timeline.flush();
    const { timeline } = cluster;
    const harmed = timeline.layerInfos()[0]!;
    const path = `${cluster.directory}/tenants/${timeline.tenantId}/timelines/` +
      `${timeline.timelineId}/${harmed.fileName}`;
    Deno.truncateSync(path, 64);
    await cluster.ingest(insert(0, 1, 100, other), insert(0, 2, 100, other));
    await timeline.flush();
    const { images: made } = await compactor.compact(timeline, true);
    assert.equal(made.pages, 1);
    assert.ok(made.failedPages > 0);
    assert.match(made.firstFailure!, /Cannot read/);
    const { hasImage, recordCount } = cluster.collect(other, 0);
    assert.deepEqual([hasImage, recordCount], [true, 0]);
  }));

Deno.test("tick() makes images of what is new, once in a period", () =>
  withCluster(async (cluster) => {
    const { manager, tenant, timeline } = cluster;
    await manager.setConfig(tenant.tenantId, {
      compaction_period: "1m",
      image_creation_threshold: 2,
    });
    let nowMs = 0;
    const compactor = new Compactor({ manager, now: () => nowMs });
    const passed = async (toMs: number) => {
      nowMs = toMs;
      compactor.tick();
      await compactor.idle();
      return imagesOf(cluster);
    };
    await insertRows(cluster, 3);
    assert.equal(await passed(0), 1, "the first look is a period after the start");
    assert.equal(await passed(60_000), 1, "one layer is not enough");
    for (let offset = 4; offset < 60; offset++) await cluster.ingest(insert(0, offset));
    await timeline.flush();
    assert.equal(await passed(61_000), 2);
    for (let round = 0; round < 2; round++) {
      await cluster.ingest(...[60, 61, 62].map((n) => insert(0, n + 3 * round, 20)));
      await timeline.flush();
    }
    assert.equal(await passed(62_000), 2, "not again within a period");
    await manager.setConfig(tenant.tenantId, { compaction_period: "0s" });
    assert.equal(await passed(1e9), 2, "never by itself");
  }));

Deno.test("a pass that fails leaves nothing, and the next one waits longer", () =>
  withCluster(async (cluster) => {
    const { manager, timeline } = cluster;
    let nowMs = 0;
    const compactor = new Compactor({ manager, now: () => nowMs });
    await insertRows(cluster, 3);
    const files = filesOf(cluster);
    // The sizes of relations are in it
    const layer = timeline.layerInfos().find(({ kind }) => kind === "Image")!.fileName;
    const path = `${cluster.directory}/tenants/${timeline.tenantId}/timelines/` +
      `${timeline.timelineId}/${layer}`;
    Deno.renameSync(path, `${cluster.directory}/away`);
    for (let failures = 1; failures <= 3; failures++) {
      await assert.rejects(compactor.compact(timeline, true), Unavailable);
      assert.ok(compactor.nextLookMs(timeline) === nowMs + 20_000 * 2 ** failures);
      nowMs += 1000;
    }
    Deno.renameSync(`${cluster.directory}/away`, path);
    assert.deepEqual(filesOf(cluster), files);
    assert.equal((await compactor.compact(timeline, true)).images.pages, 3);
    assert.equal(compactor.nextLookMs(timeline), nowMs + 20_000);
  }));

Deno.test("a timeline that is closed meanwhile stops its pass", () =>
  withCluster(async (cluster) => {
    const compactor = new Compactor(cluster);
    await insertRows(cluster, 3);
    const files = filesOf(cluster);
    const compacting = assert.rejects(compactor.compact(cluster.timeline, true), Unavailable);
    const { manager, tenant } = cluster;
    await manager.detach(tenant.tenantId);
    await compacting;
    assert.deepEqual(filesOf(cluster).filter((name) => name.endsWith("temp")), []);
    assert.ok(filesOf(cluster).length >= files.length);
  }));

Deno.test("a pass whose layers cannot be listed leaves no files", () =>
  withCluster(async (cluster) => {
    const { manager, tenant, timeline } = cluster;
    await manager.setConfig(tenant.tenantId, { compaction_target_size: 1 }); // a layer each
    const compactor = new Compactor(cluster);
    const tags = Array.from({ length: 30 }, (_, n) => ({ ...HEAP, rel: 20_000 + n }));
    await cluster.ingest(...tags.map((tag) => insert(0, 1, 1000, tag)));
    await timeline.flush();
    const files = filesOf(cluster);
    timeline.addLayers = () => Promise.reject(new Unavailable("the disk says no"));
    await assert.rejects(compactor.compact(timeline, true), /the disk says no/);
    assert.deepEqual(filesOf(cluster), files);
    delete (timeline as Partial<typeof timeline>).addLayers;
    assert.equal((await compactor.compact(timeline, true)).images.layers, tags.length);
  }));

/** Rows all over the blocks, in as many layers as `flushes`; block 0 has the first of each. */
async function scatterRows(cluster: TestCluster, blocks: number, flushes: number): Promise<void> {
  await insertRows(cluster, blocks);
  for (let flush = 1; flush < flushes; flush++) {
    for (let n = 0; n < blocks; n++) await cluster.ingest(insert((n * 7) % blocks, 3 + flush, 4));
    await cluster.timeline.flush();
  }
}

function deltasOf({ timeline }: TestCluster): string[] {
  return timeline.layerInfos().filter(({ kind }) => kind === "Delta").map((one) => one.fileName);
}

Deno.test("a worker puts delta layers in order, reads go on meanwhile, and the old files go", () =>
  withCluster(async (cluster) => {
    const { manager, tenant, timeline } = cluster;
    await manager.setConfig(tenant.tenantId, {
      compaction_period: "1m",
      compaction_threshold: 5,
      compaction_target_size: 4096,
      image_creation_threshold: 1000,
    });
    let nowMs = 0;
    const compactor = new Compactor({ manager, now: () => nowMs });
    const blocks = 20;
    await scatterRows(cluster, blocks, 4);
    const branch = await tenant.createBranch(newTimelineId(), timeline.timelineId);
    await cluster.ingest(insert(3, 7, 4));
    await timeline.flush();
    compactor.tick(); // begins to count
    const lsns = [branch.ancestorLsn, timeline.lastRecordLsn];
    const read = () => {
      const found: (Uint8Array | string)[] = [];
      for (let block = 0; block < blocks; block++) found.push(readPage(cluster, block));
      const chains = lsns.map((lsn) => cluster.timeline.explain(heapOf(cluster), 3, lsn).length);
      return [found, chains, branch.explain(heapOf(cluster), 3, branch.lastRecordLsn).length];
    };
    const before = read();
    const old = deltasOf(cluster);
    assert.equal(old.length, 5);
    nowMs = 60_000;
    compactor.tick();
    let isDone = false;
    const idle = compactor.idle().then(() => isDone = true);
    let rounds = 0;
    for (; !isDone; rounds++) {
      assert.deepEqual(read(), before);
      await cluster.pause();
    }
    await idle;
    assert.ok(rounds > 1);
    assert.deepEqual(read(), before);
    const made = deltasOf(cluster);
    assert.ok(made.length > 1 && made.every((name) => name.endsWith("-k")), made.join("\n"));
    assert.deepEqual(old.filter((name) => filesOf(cluster).includes(name)), []);
    assert.deepEqual(made.filter((name) => !filesOf(cluster).includes(name)), []);
    // Again there is nothing to be done
    const { deltas } = await compactor.compact(timeline, false);
    assert.deepEqual([deltas.replaced, deltas.failure], [0, undefined]);
    assert.deepEqual(deltasOf(cluster), made);
  }));

Deno.test("delta layers that cannot be rewritten stay, and image layers are made anyhow", () =>
  withCluster(async (cluster) => {
    const { manager, tenant, timeline } = cluster;
    await manager.setConfig(tenant.tenantId, { compaction_threshold: 3 });
    let nowMs = 0;
    const compactor = new Compactor({ manager, now: () => nowMs });
    await scatterRows(cluster, 3, 3);
    const old = deltasOf(cluster);
    const path = `${cluster.directory}/tenants/${timeline.tenantId}/timelines/` +
      `${timeline.timelineId}/${old[0]}`;
    using file = Deno.openSync(path, { read: true, write: true });
    file.seekSync(70, Deno.SeekMode.Start); // in the checksum of the first value
    file.writeSync(Uint8Array.of(1, 2));
    const { images, deltas } = await compactor.compact(timeline, true);
    assert.ok(images.pages > 0);
    assert.match(
      deltas.failure!,
      /Cannot read the value at 64 of .*: checksum mismatch/,
    );
    assert.deepEqual(deltasOf(cluster), old);
    assert.deepEqual(filesOf(cluster).filter((name) => name.endsWith("temp")), []);
    // It is due, and waits
    nowMs = 20_000;
    compactor.tick();
    await compactor.idle();
    assert.equal(compactor.nextLookMs(timeline), 20_000);
    nowMs = 40_000;
    compactor.tick();
    await compactor.idle();
    assert.equal(compactor.nextLookMs(timeline), 60_000, "it was tried again");
  }));
