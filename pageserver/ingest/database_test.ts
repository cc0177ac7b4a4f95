import assert from "node:assert/strict";
import { Rmgr } from "../../libs/postgres/constants.ts";
import { HEAP, type TestCluster, u32s, withCluster } from "../cluster_fixture.ts";
import { relmapKey } from "../repository/key.ts";

const FILE_COPY = 0x00;
const WAL_LOG = 0x10;
const DROP = 0x20;
/** The first resource manager id that extensions may take: never one of ours. */
const CUSTOM_RMGR = 128;

function databases(cluster: TestCluster): string {
  return cluster.served.relations.databases(cluster.timeline.lastRecordLsn)
    .map(({ spc, db, hasRelmap }) => `${spc}/${db}${hasRelmap ? "+" : ""}`).join(" ");
}

const record = (info: number, ...words: number[]) => ({
  rmid: Rmgr.DBASE,
  info,
  main: u32s(...words),
});

Deno.test("CREATE by file copy copies every page and the relation map as of the record", () =>
  withCluster(async (cluster) => {
    // In the same batch as the copy: it must be in it.
    const extended = {
      rmid: Rmgr.SMGR,
      info: 0x10,
      main: u32s(HEAP.spc, HEAP.db, 20000, 0),
    };
    await cluster.ingest(extended, record(FILE_COPY, 77, 1663, 5, 1663));
    assert.equal(databases(cluster), "1663/1 1663/5+ 1663/77+");
    assert.equal(cluster.blocks({ ...HEAP, db: 77, rel: 20000 }), 0);
    assert.equal(cluster.blocks({ ...HEAP, db: 77 }), 3);
    assert.equal(cluster.blocks({ ...HEAP, db: 77, fork: 2 }), 1);
    const copied = cluster.collect({ ...HEAP, db: 77 }, 1);
    assert.deepEqual([copied.hasImage, copied.bytes[0]], [true, 2]);
    const { timeline } = cluster;
    assert.equal(timeline.getValue(relmapKey(1663, 77), timeline.lastRecordLsn)?.[0], 9);
  }));

Deno.test("CREATE by file copy goes on past a page that redo cannot build", () =>
  withCluster(async (cluster) => {
    const extension = { rmid: CUSTOM_RMGR, info: 0, blocks: [{ id: 0, tag: HEAP, block: 1 }] };
    await cluster.ingest(extension, record(FILE_COPY, 77, 1663, 5, 1663));
    const { served, reader, timeline } = cluster;
    const copy = { ...HEAP, db: 77 };
    const object = cluster.manager.interner.relation(copy.spc, copy.db, copy.rel, copy.fork);
    const read = (block: number) =>
      reader.relationPage(served, copy, object, block, timeline.lastRecordLsn);
    assert.throws(() => read(1), /Cannot redo Database .* the page that this one was copied from/);
    for (const block of [0, 2]) {
      const { bytes, offset } = read(block);
      assert.equal(bytes[offset], block + 1);
    }
    await cluster.ingest(record(WAL_LOG, 78, 1663));
    assert.equal(databases(cluster), "1663/1 1663/5+ 1663/77+ 1663/78", "it has not stopped");
  }));

Deno.test("CREATE by WAL makes the directory, its relation map follows", () =>
  withCluster(async (cluster) => {
    await cluster.ingest(record(WAL_LOG, 78, 1663));
    assert.equal(databases(cluster), "1663/1 1663/5+ 1663/78");
    const map = new Uint8Array(12 + 524).fill(6);
    map.set(u32s(78, 1663, 524));
    await cluster.ingest({ rmid: Rmgr.RELMAP, info: 0, main: map });
    assert.equal(databases(cluster), "1663/1 1663/5+ 1663/78+");
    const { timeline } = cluster;
    assert.equal(timeline.getValue(relmapKey(1663, 78), timeline.lastRecordLsn)?.length, 524);
  }));

Deno.test("DROP removes the directory and its relations, and nothing else", () =>
  withCluster(async (cluster) => {
    await cluster.ingest(
      record(FILE_COPY, 77, 1663, 5, 1663),
      record(DROP, 5, 2, 1663, 9999),
    );
    assert.equal(databases(cluster), "1663/1 1663/77+");
    const left: string[] = [];
    cluster.served.relations.forEachRelation(cluster.timeline.lastRecordLsn, (tag) => {
      left.push(`${tag.db}/${tag.rel}/${tag.fork}`);
    });
    assert.deepEqual(left, ["77/16384/0", "77/16384/2", "77/16385/0"]);
  }));
