/**
 * A timeline on a file system that is really full: puts are refused and rolled back, flushes fail,
 * reads go on; when there is space again, everything that was put is put again, and kept.
 */
import assert from "node:assert/strict";
import { newTenantId } from "../../libs/utils/id.ts";
import { addLsn, type Lsn } from "../../libs/utils/lsn.ts";
import { SmallDisk } from "../../libs/utils/small_disk_fixture.ts";
import { bytesOf, importRoot, openManager, START_LSN } from "./repository_fixture.ts";
import { Reconstruction } from "./reconstruction.ts";
import type { Timeline } from "./timeline.ts";
import type { TenantManager } from "./tenant_manager.ts";

const DISK_MIB = 8;
/** Not a divisor of the write buffer, so that some straddle its end. */
const PAGE_BYTES = 7_001;

const disk = await SmallDisk.mount(DISK_MIB);

const lsnOf = (block: number): Lsn => addLsn(START_LSN, 8 * (block + 1));

/** Page `block`, made visible. */
function putPage(timeline: Timeline, manager: TenantManager, block: number): void {
  const page = bytesOf(`page ${block} `.padEnd(PAGE_BYTES, "x"));
  const object = manager.interner.relation(1663, 5, 2, 0);
  timeline.putImage(object, block, lsnOf(block), page, 0, page.length);
  timeline.advance(lsnOf(block), START_LSN);
}

function checkPages(timeline: Timeline, manager: TenantManager, count: number): void {
  const found = new Reconstruction();
  const object = manager.interner.relation(1663, 5, 2, 0);
  for (let block = 0; block < count; block++) {
    found.begin();
    timeline.collect(object, block, timeline.lastRecordLsn, found);
    const page = new TextDecoder().decode(found.bytes.subarray(0, found.imageLength));
    assert.equal(page, `page ${block} `.padEnd(PAGE_BYTES, "x"));
  }
}

Deno.test({
  name: "a timeline on a full disk loses nothing, and goes on when there is space again",
  ignore: disk === undefined,
  fn: async () => {
    await using mounted = disk!;
    const manager = openManager(mounted.path);
    const tenant = await manager.attach(newTenantId(), 1);
    const timeline = await importRoot(tenant, manager);
    let pages = 0;
    for (; pages < 100; pages++) putPage(timeline, manager, pages);
    mounted.fill();
    assert.throws(() => {
      for (;; pages++) putPage(timeline, manager, pages);
    }, /No space left/);
    assert.ok(pages > 120, `${pages} pages had room in the buffer`);
    for (let again = 0; again < 3; again++) {
      timeline.rollback();
      assert.throws(() => putPage(timeline, manager, pages), /No space left/);
    }
    timeline.rollback();
    for (let again = 0; again < 3; again++) {
      await assert.rejects(timeline.flush(), /No space left/);
      putPage(timeline, manager, pages++); // the next layer has room in memory
    }
    assert.equal(timeline.state, "Active");
    assert.equal(timeline.diskConsistentLsn, START_LSN);
    checkPages(timeline, manager, pages);

    mounted.free();
    for (const end = pages + 300; pages < end; pages++) putPage(timeline, manager, pages);
    checkPages(timeline, manager, pages);
    assert.equal(await timeline.flush(), lsnOf(pages - 1));
    checkPages(timeline, manager, pages);
    await manager.shutdown();

    const reopened = openManager(mounted.path);
    const { timelines } = await reopened.attach(tenant.tenantId, 2);
    checkPages(timelines.get(timeline.timelineId)!, reopened, pages);
    await reopened.shutdown();
  },
});
