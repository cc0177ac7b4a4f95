import assert from "node:assert/strict";
import { BKPBLOCK_WILL_INIT, Rmgr } from "../../libs/postgres/constants.ts";
import { HEAP, u32s, withCluster } from "../cluster_fixture.ts";
import { Heap2Info, HeapInfo } from "../walredo/heap_records.ts";

const LOCK = { rmid: Rmgr.HEAP, info: HeapInfo.LOCK, main: new Uint8Array(8) };

Deno.test("a record goes to each block that it references, by fork and not by position", () =>
  withCluster(async (cluster) => {
    const other = { ...HEAP, rel: 16385 };
    await cluster.ingest({
      ...LOCK,
      blocks: [{ id: 0, tag: HEAP, block: 1 }, { id: 3, tag: other, block: 0 }],
    });
    assert.deepEqual(
      [[HEAP, 0], [HEAP, 1], [HEAP, 2], [other, 0]].map(([tag, block]) =>
        cluster.collect(tag as typeof HEAP, block as number).recordCount
      ),
      [0, 1, 0, 1],
    );
  }));

Deno.test("a reference beyond the end extends the relation, gaps become zero pages", () =>
  withCluster(async (cluster) => {
    await cluster.ingest({
      ...LOCK,
      blocks: [
        { id: 0, tag: HEAP, block: 6, flags: BKPBLOCK_WILL_INIT },
        { id: 1, tag: HEAP, block: 4, flags: BKPBLOCK_WILL_INIT },
      ],
    });
    assert.equal(cluster.blocks(HEAP), 7);
    for (const gap of [3, 5]) {
      const { hasImage, bytes, recordCount } = cluster.collect(HEAP, gap);
      assert.deepEqual([hasImage, recordCount], [true, 0]);
      assert.ok(bytes.subarray(0, 8192).every((byte) => byte === 0));
    }
    for (const block of [4, 6]) {
      const { hasImage, recordCount } = cluster.collect(HEAP, block);
      assert.deepEqual([hasImage, recordCount], [false, 1]);
    }
  }));

Deno.test("a reference to an unknown relation creates it", () =>
  withCluster(async (cluster) => {
    const made = { ...HEAP, rel: 20000 };
    const before = cluster.timeline.lastRecordLsn;
    await cluster.ingest({
      ...LOCK,
      blocks: [{ id: 0, tag: made, block: 0, flags: BKPBLOCK_WILL_INIT }],
    });
    assert.equal(cluster.blocks(made), 1);
    const object = cluster.manager.interner.relation(made.spc, made.db, made.rel, made.fork);
    assert.equal(cluster.served.relations.blocksAt(object, before), -1);
  }));

Deno.test("the first bit set on a visibility map page makes the page", () =>
  withCluster(async (cluster) => {
    const map = { ...HEAP, rel: 16385, fork: 2 };
    await cluster.ingest({
      rmid: Rmgr.HEAP2,
      info: Heap2Info.VISIBLE,
      main: Uint8Array.from([...u32s(0), 3]),
      blocks: [{ id: 0, tag: map, block: 0 }, { id: 1, tag: { ...map, fork: 0 }, block: 0 }],
    });
    const lsn = cluster.timeline.lastRecordLsn;
    const object = cluster.manager.interner.relation(map.spc, map.db, map.rel, map.fork);
    const { bytes, offset } = cluster.reader.relationPage(cluster.served, map, object, 0, lsn);
    assert.equal(bytes[offset + 24], 3);
  }));

Deno.test("records of an unknown resource manager are kept", () =>
  withCluster(async (cluster) => {
    await cluster.ingest({
      rmid: 200,
      info: 0x10,
      main: new Uint8Array(5),
      blocks: [{ id: 0, tag: HEAP, block: 0 }],
    });
    assert.equal(cluster.collect(HEAP, 0).recordCount, 1);
  }));
