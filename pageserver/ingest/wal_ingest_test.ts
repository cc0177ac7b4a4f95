import assert from "node:assert/strict";
import { Rmgr, XlogInfo } from "../../libs/postgres/constants.ts";
import { addLsn } from "../../libs/utils/lsn.ts";
import { HEAP, u32s, withCluster } from "../cluster_fixture.ts";
import { CHECKPOINT_KEY, KeyClass } from "../repository/key.ts";
import { HeapInfo } from "../walredo/heap_records.ts";
import { restoreTracker, WalIngest } from "./wal_ingest.ts";

const lock = (xid: number) => ({
  rmid: Rmgr.HEAP,
  info: HeapInfo.LOCK,
  xid,
  main: new Uint8Array(8),
  blocks: [{ id: 0, tag: HEAP, block: 0 }],
});

Deno.test("the checkpoint state is exact at the end of every record", () =>
  withCluster(async (cluster) => {
    const { served } = cluster;
    const start = cluster.timeline.lastRecordLsn;
    const first = await cluster.ingest(lock(700));
    const last = await cluster.ingest(lock(700), lock(705));
    const nextXid = (lsn: typeof first) => restoreTracker(served, lsn).checkPoint.nextXid;
    assert.deepEqual([start, first, addLsn(last, -1), last].map(nextXid), [700, 701, 701, 706]);
  }));

Deno.test("a transaction leaves its id, and the whole state only where more has changed", () =>
  withCluster(async (cluster) => {
    const { timeline } = cluster;
    const put: number[] = [];
    const putValue = timeline.putValue.bind(timeline);
    timeline.putValue = (key, lsn, bytes) => {
      if (key.f1 === KeyClass.control) put.push(key.f6);
      putValue(key, lsn, bytes);
    };
    const xids = Array.from({ length: 20 }, (_, i) => lock(700 + i));
    const nextOid = { rmid: Rmgr.XLOG, info: XlogInfo.NEXTOID, xid: 0, main: u32s(24576) };
    const last = await cluster.ingest(...xids, nextOid, lock(730));
    assert.deepEqual(put, [CHECKPOINT_KEY.f6, CHECKPOINT_KEY.f6], "once, and for the object id");
    const { checkPoint } = restoreTracker(cluster.served, last);
    assert.deepEqual([checkPoint.nextXid, checkPoint.nextOid], [731, 24576]);
    const branchId = "0123456789abcdef0123456789abcdef" as typeof timeline.timelineId;
    const branch = await cluster.tenant.createBranch(branchId, timeline.timelineId, last);
    cluster.follow(branch);
    const later = await cluster.ingest(lock(740));
    assert.equal(restoreTracker(cluster.served, later).checkPoint.nextXid, 741);
    assert.equal(restoreTracker(cluster.served, last).checkPoint.nextXid, 731);
  }));

Deno.test("many records in one feed all become visible, in batches", () =>
  withCluster(async (cluster) => {
    const { timeline } = cluster;
    const seen = new Set<number>();
    const advance = timeline.advance.bind(timeline);
    timeline.advance = (last, prev) => {
      seen.add(last);
      advance(last, prev);
    };
    const lsn = await cluster.ingest(...Array.from({ length: 450 }, () => lock(700)));
    assert.equal(timeline.lastRecordLsn, lsn);
    assert.ok(seen.size >= 5, `${seen.size} batches`);
    assert.equal(cluster.collect(HEAP, 0).recordCount, 450);
  }));

Deno.test("others get a turn after a millisecond of work, in however many feeds it came", () =>
  withCluster(async (cluster) => {
    const { timeline } = cluster;
    let nowMs = 0;
    const pausedAtMs: number[] = [];
    const pause = () => {
      pausedAtMs.push(nowMs);
      return cluster.pause();
    };
    const advance = timeline.advance.bind(timeline);
    timeline.advance = (last, prev) => {
      advance(last, prev);
      nowMs += 0.25;
    };
    cluster.follow(timeline, { now: () => nowMs, pause });
    for (let i = 0; i < 12; i++) await cluster.ingest(lock(700));
    assert.deepEqual(pausedAtMs, [1, 2, 3]);
  }));

Deno.test("after a damaged record nothing half done is left, and ingest can start anew", () =>
  withCluster(async (cluster) => {
    const { served, reader, now, pause, timeline } = cluster;
    const lsn = await cluster.ingest(lock(700));
    const made = { ...HEAP, rel: 20000 };
    const create = { rmid: Rmgr.SMGR, info: 0x10, main: u32s(HEAP.spc, HEAP.db, 20000, 0) };
    const broken = { rmid: Rmgr.SMGR, info: 0x10, main: u32s(1) };
    await assert.rejects(cluster.ingest(create, broken), /bytes of data/);
    assert.equal(timeline.lastRecordLsn, lsn);
    assert.equal(cluster.blocks(made), -1);
    cluster.follow(timeline);
    await cluster.ingest(create);
    assert.equal(cluster.blocks(made), 0);
    assert.equal(new WalIngest({ served, reader, now, pause }).fedLsn, timeline.lastRecordLsn);
  }));

Deno.test("a branch reads its ancestor's pages and goes its own way", () =>
  withCluster(async (cluster) => {
    const { tenant, timeline } = cluster;
    const at = await cluster.ingest(lock(700));
    await cluster.ingest(lock(701));
    const id = "0123456789abcdef0123456789abcdef" as typeof timeline.timelineId;
    const branch = await tenant.createBranch(id, timeline.timelineId, at);
    cluster.follow(branch);
    assert.equal(cluster.collect(HEAP, 0).recordCount, 1);
    assert.equal(cluster.blocks(HEAP), 3);
    await cluster.ingest({
      rmid: Rmgr.SMGR,
      info: 0x20,
      main: u32s(1, HEAP.spc, HEAP.db, HEAP.rel, 1),
    });
    assert.equal(cluster.blocks(HEAP), 1);
    assert.equal(cluster.served.version.major, 17);
    cluster.follow(timeline);
    assert.equal(cluster.blocks(HEAP), 3);
  }));
