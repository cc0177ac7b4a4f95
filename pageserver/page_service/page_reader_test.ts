import assert from "node:assert/strict";
import { PAGE_SIZE, Rmgr } from "../../libs/postgres/constants.ts";
import { HEAP, type RecordSpec, withCluster } from "../cluster_fixture.ts";
import { HEAP_INIT_PAGE, HeapInfo } from "../walredo/heap_records.ts";

const WILL_INIT = 0x40;

/** A row at an offset of block 0; the first one makes the page. */
function insert(offset: number): RecordSpec {
  const isFirst = offset === 1;
  const data = Uint8Array.from([3, 0, 0x02, 0x08, 24, 0, ...new Array<number>(100).fill(offset)]);
  return {
    rmid: Rmgr.HEAP,
    info: HeapInfo.INSERT | (isFirst ? HEAP_INIT_PAGE : 0),
    main: Uint8Array.from([offset, 0, 0]),
    blocks: [{ id: 0, tag: HEAP, block: 0, data, ...(isFirst ? { flags: WILL_INIT } : {}) }],
  };
}

Deno.test("pages are what they were after a reader and the layers' cache have forgotten them", () =>
  withCluster(async (cluster) => {
    const { served, reader, manager, timeline } = cluster;
    const object = manager.interner.relation(HEAP.spc, HEAP.db, HEAP.rel, HEAP.fork);
    const read = () => {
      const page = reader.relationPage(served, HEAP, object, 0, timeline.lastRecordLsn);
      return page.bytes.slice(page.offset, page.offset + PAGE_SIZE);
    };
    await cluster.ingest(insert(1), insert(2));
    await timeline.flush();
    const before = [read(), read(), read()]; // at the second request it gets a slot
    assert.ok(served.cachedPages.size > 0);
    reader.forgetPages();
    manager.forgetPages();
    assert.equal(served.cachedPages.size, 0);
    assert.deepEqual([read(), read(), read()], before);
    reader.forgetLast();
    manager.forgetScans();
    assert.deepEqual([read(), read()], [before[0], before[0]]);
    reader.forgetPages();
    await cluster.ingest(insert(3));
    const after = read();
    assert.notDeepEqual(after, before[0]);
    reader.forgetPages();
    manager.forgetPages();
    assert.deepEqual(read(), after);
  }));
