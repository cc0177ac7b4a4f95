import assert from "node:assert/strict";
import { Rmgr } from "../../libs/postgres/constants.ts";
import { HEAP, u32s, withCluster } from "../cluster_fixture.ts";

const CREATE = 0x10;
const TRUNCATE = 0x20;
const MAP = { ...HEAP, fork: 2 };

function truncate(blocks: number, flags: number) {
  const main = u32s(blocks, HEAP.spc, HEAP.db, HEAP.rel, flags);
  return { rmid: Rmgr.SMGR, info: TRUNCATE, main };
}

Deno.test("CREATE makes an empty fork, and leaves one that exists alone", () =>
  withCluster(async (cluster) => {
    const create = (rel: number, fork: number) => ({
      rmid: Rmgr.SMGR,
      info: CREATE,
      main: u32s(HEAP.spc, HEAP.db, rel, fork),
    });
    await cluster.ingest(create(20000, 3), create(HEAP.rel, 0));
    assert.equal(cluster.blocks({ ...HEAP, rel: 20000, fork: 3 }), 0);
    assert.equal(cluster.blocks(HEAP), 3);
  }));

Deno.test("TRUNCATE cuts the heap, and the record goes to the map page that is cut", () =>
  withCluster(async (cluster) => {
    await cluster.ingest(truncate(1, 7));
    assert.equal(cluster.blocks(HEAP), 1);
    assert.equal(cluster.blocks(MAP), 1);
    assert.equal(cluster.collect(MAP, 0).recordCount, 1);
    assert.equal(cluster.blocks({ ...HEAP, fork: 1 }), -1);
  }));

Deno.test("TRUNCATE to nothing removes the map pages whole", () =>
  withCluster(async (cluster) => {
    await cluster.ingest(truncate(0, 7));
    assert.equal(cluster.blocks(HEAP), 0);
    assert.equal(cluster.blocks(MAP), 0);
  }));

Deno.test("TRUNCATE looks at its flags and never extends", () =>
  withCluster(async (cluster) => {
    await cluster.ingest(truncate(1, 2), truncate(100, 7));
    assert.equal(cluster.blocks(HEAP), 3);
  }));

Deno.test("a block that was cut off and comes back has no old content", () =>
  withCluster(async (cluster) => {
    const before = cluster.timeline.lastRecordLsn;
    await cluster.ingest(truncate(1, 1), {
      rmid: Rmgr.HEAP,
      info: 0x80,
      main: new Uint8Array(3),
      blocks: [{ id: 0, tag: HEAP, block: 2, flags: 0x40 }],
    });
    assert.equal(cluster.blocks(HEAP), 3);
    assert.ok(cluster.collect(HEAP, 1).bytes.subarray(0, 8192).every((byte) => byte === 0));
    assert.equal(cluster.collect(HEAP, 2).hasImage, false);
    const object = cluster.manager.interner.relation(HEAP.spc, HEAP.db, HEAP.rel, 0);
    const old = cluster.reader.relationPage(cluster.served, HEAP, object, 1, before);
    assert.equal(old.bytes[old.offset], 2);
  }));
