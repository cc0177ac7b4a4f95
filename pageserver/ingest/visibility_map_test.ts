import assert from "node:assert/strict";
import { Rmgr } from "../../libs/postgres/constants.ts";
import { HEAP, type RecordSpec, withCluster } from "../cluster_fixture.ts";
import { Heap2Info, HeapInfo } from "../walredo/heap_records.ts";

const MAP = { ...HEAP, fork: 2 };

/** Main data of `length` bytes with `flags` at `at`. */
function main(length: number, at: number, flags: number): Uint8Array {
  const bytes = new Uint8Array(length);
  bytes[at] = flags;
  return bytes;
}

const HEAP_PAGE = { id: 0, tag: HEAP, block: 1 };
const CLEARING: [string, RecordSpec][] = [
  ["insert", { rmid: Rmgr.HEAP, info: HeapInfo.INSERT, main: main(3, 2, 1) }],
  ["delete", { rmid: Rmgr.HEAP, info: HeapInfo.DELETE, main: main(8, 7, 1) }],
  ["lock", { rmid: Rmgr.HEAP, info: HeapInfo.LOCK, main: main(8, 7, 1) }],
  ["multi-insert", { rmid: Rmgr.HEAP2, info: Heap2Info.MULTI_INSERT, main: main(4, 0, 1) }],
  ["lock-updated", { rmid: Rmgr.HEAP2, info: Heap2Info.LOCK_UPDATED, main: main(8, 7, 1) }],
  ["update, old page", { rmid: Rmgr.HEAP, info: HeapInfo.UPDATE, main: main(14, 7, 1) }],
  ["update, new page", { rmid: Rmgr.HEAP, info: HeapInfo.UPDATE, main: main(14, 7, 2) }],
  ["hot update", { rmid: Rmgr.HEAP, info: HeapInfo.HOT_UPDATE, main: main(14, 7, 1) }],
];

for (const [name, spec] of CLEARING) {
  Deno.test(`${name}: the flag alone puts the record against the map page`, () =>
    withCluster(async (cluster) => {
      await cluster.ingest({ ...spec, blocks: [HEAP_PAGE] });
      assert.equal(cluster.collect(MAP, 0).recordCount, 1);
    }));

  Deno.test(`${name}: without the flag the map page is left alone`, () =>
    withCluster(async (cluster) => {
      const cleared = { ...spec, main: new Uint8Array(spec.main!.length) };
      await cluster.ingest({ ...cleared, blocks: [HEAP_PAGE] });
      assert.equal(cluster.collect(MAP, 0).recordCount, 0);
    }));

  Deno.test(`${name}: a map page that is referenced gets the record once`, () =>
    withCluster(async (cluster) => {
      await cluster.ingest({ ...spec, blocks: [HEAP_PAGE, { id: 3, tag: MAP, block: 0 }] });
      assert.equal(cluster.collect(MAP, 0).recordCount, 1);
    }));
}

Deno.test("an update across pages clears the bits of both, in one record", () =>
  withCluster(async (cluster) => {
    await cluster.ingest({
      rmid: Rmgr.HEAP,
      info: HeapInfo.UPDATE,
      main: main(14, 7, 3),
      blocks: [HEAP_PAGE, { id: 1, tag: HEAP, block: 2 }],
    });
    assert.equal(cluster.collect(MAP, 0).recordCount, 1);
  }));

Deno.test("a map page that does not exist is not made by clearing", () =>
  withCluster(async (cluster) => {
    const plain = { ...HEAP, rel: 16385 };
    await cluster.ingest({
      rmid: Rmgr.HEAP,
      info: HeapInfo.DELETE,
      main: main(8, 7, 1),
      blocks: [{ id: 0, tag: plain, block: 0 }],
    });
    assert.equal(cluster.blocks({ ...plain, fork: 2 }), -1);
  }));
