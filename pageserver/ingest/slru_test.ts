import assert from "node:assert/strict";
import { Rmgr } from "../../libs/postgres/constants.ts";
import { SlruKind } from "../../libs/postgres/slru.ts";
import { ClogInfo, MultiXactInfo } from "../../libs/postgres/wal/small_records.ts";
import { type TestCluster, u32s, withCluster } from "../cluster_fixture.ts";

const clogZero = (page: number) => ({
  rmid: Rmgr.CLOG,
  info: ClogInfo.ZEROPAGE,
  main: u32s(page, 0),
});
const offsetsZero = (page: number) => ({
  rmid: Rmgr.MULTIXACT,
  info: MultiXactInfo.ZERO_OFFSETS_PAGE,
  main: u32s(page, 0),
});

function create(multi: number, first: number, members: number[]) {
  const main = u32s(multi, first, members.length, ...members.flatMap((xid) => [xid, 0]));
  return { rmid: Rmgr.MULTIXACT, info: MultiXactInfo.CREATE_ID, main };
}

function segments(cluster: TestCluster, kind: number): string {
  return cluster.served.relations.slruSegments(kind, cluster.timeline.lastRecordLsn)
    .map(({ segment, blocks }) => `${segment}:${blocks}`).join(" ");
}

Deno.test("CLOG ZEROPAGE makes a page, and a segment where it is the first", () =>
  withCluster(async (cluster) => {
    await cluster.ingest(clogZero(1), clogZero(34));
    assert.equal(segments(cluster, SlruKind.CLOG), "0:2 1:3");
    assert.equal(cluster.collectSlru(SlruKind.CLOG, 1).recordCount, 1);
    assert.equal(cluster.collectSlru(SlruKind.CLOG, 33).hasImage, true);
  }));

Deno.test("CLOG TRUNCATE drops whole segments before the cutoff", () =>
  withCluster(async (cluster) => {
    // A transaction far ahead, so that the newest page is behind the cutoff.
    const far = { rmid: Rmgr.XACT, info: 0x20, xid: 100 * 32768, main: new Uint8Array(8) };
    const truncate = (page: number) => ({
      rmid: Rmgr.CLOG,
      info: ClogInfo.TRUNCATE,
      main: u32s(page, 0, page * 32768, 1),
    });
    await cluster.ingest(clogZero(32), clogZero(64), clogZero(100), far, truncate(63));
    assert.equal(segments(cluster, SlruKind.CLOG), "1:1 2:1 3:5");
    await cluster.ingest(truncate(64));
    assert.equal(segments(cluster, SlruKind.CLOG), "2:1 3:5");
  }));

Deno.test("CLOG TRUNCATE beyond the newest page does nothing (apparent wraparound)", () =>
  withCluster(async (cluster) => {
    await cluster.ingest({
      rmid: Rmgr.CLOG,
      info: ClogInfo.TRUNCATE,
      main: u32s(64, 0, 64 * 32768, 1),
    });
    assert.equal(segments(cluster, SlruKind.CLOG), "0:1");
  }));

Deno.test("CREATE_ID goes to its offsets page and to each page of members", () =>
  withCluster(async (cluster) => {
    await cluster.ingest(
      { rmid: Rmgr.MULTIXACT, info: MultiXactInfo.ZERO_MEMBERS_PAGE, main: u32s(1, 0) },
      create(1, 1634, [600, 601, 602, 603]),
    );
    assert.equal(cluster.collectSlru(SlruKind.OFFSETS, 0).recordCount, 1);
    assert.equal(cluster.collectSlru(SlruKind.MEMBERS, 0).recordCount, 1);
    assert.equal(cluster.collectSlru(SlruKind.MEMBERS, 1).recordCount, 2);
  }));

function nextOffset(cluster: TestCluster, page: number, entry: number): number {
  const { bytes, offset, view } = cluster.reader.slruPage(
    cluster.served,
    SlruKind.OFFSETS,
    Math.floor(page / 32),
    page % 32,
    cluster.timeline.lastRecordLsn,
  );
  assert.equal(bytes.length % 8192, 0);
  return view.getUint32(offset + 4 * entry, true);
}

Deno.test("the last id of a page makes the next page, and its later ZERO does not wipe it", () =>
  withCluster(async (cluster) => {
    await cluster.ingest(create(2047, 10, [600, 601]));
    assert.equal(nextOffset(cluster, 0, 2047), 10);
    assert.equal(nextOffset(cluster, 1, 0), 12);
    await cluster.ingest(offsetsZero(1));
    assert.equal(nextOffset(cluster, 1, 0), 12);
    assert.equal(segments(cluster, SlruKind.OFFSETS), "0:2");
  }));

Deno.test("an id whose page nothing has made makes it, and the next page does not wipe it", () =>
  withCluster(async (cluster) => {
    await cluster.ingest(create(2048, 10, [600, 601]), offsetsZero(2));
    assert.deepEqual([0, 1].map((entry) => nextOffset(cluster, 1, entry)), [10, 12]);
    assert.equal(segments(cluster, SlruKind.OFFSETS), "0:3");
  }));

Deno.test("the next page that was made before is kept, as newer releases write it", () =>
  withCluster(async (cluster) => {
    await cluster.ingest(offsetsZero(1), create(2047, 10, [600, 601]));
    assert.equal(nextOffset(cluster, 1, 0), 12);
  }));

Deno.test("TRUNCATE_ID drops member segments one by one, around the end of the numbers", () =>
  withCluster(async (cluster) => {
    const last = Math.floor(0xffffffff / 1636 / 32);
    const zero = (segment: number) => ({
      rmid: Rmgr.MULTIXACT,
      info: MultiXactInfo.ZERO_MEMBERS_PAGE,
      main: u32s(segment * 32, 0),
    });
    await cluster.ingest(zero(last - 1), zero(last), zero(1), {
      rmid: Rmgr.MULTIXACT,
      info: MultiXactInfo.TRUNCATE_ID,
      main: u32s(5, 1, 2, (last - 1) * 32 * 1636, 32 * 1636),
    });
    assert.equal(segments(cluster, SlruKind.MEMBERS), "1:1");
  }));
