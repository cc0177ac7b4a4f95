import assert from "node:assert/strict";
import { FORK_FSM, FORK_VM, Rmgr } from "../../libs/postgres/constants.ts";
import { pageFlags, pageLsn, pagePruneXid } from "../../libs/postgres/page.ts";
import { SlruKind } from "../../libs/postgres/slru.ts";
import { type PgVersion, pgVersion } from "../../libs/postgres/versions.ts";
import { Reconstruction } from "../repository/reconstruction.ts";
import { Heap2Info, HeapInfo } from "./heap_records.ts";
import { initPage, PD_ALL_VISIBLE, setPagePrunable } from "./page_items.ts";
import { reconstructPage } from "./reconstruct.ts";
import {
  cursorOn,
  type FixtureRecord,
  heapHistory,
  newPage,
  record,
  reference,
  relationKey,
  slruKey,
  u16,
  u32,
  VERSION,
} from "./record_fixture.ts";
import { applyRecord, initialises } from "./redo.ts";
import { RedoError } from "./redo_error.ts";
import { fsmBlocksAfterTruncate, vmBlocksAfterTruncate } from "./smgr.ts";
import type { PageTarget, RedoKey } from "./types.ts";

const HEAP_BLOCKS_PER_MAP_PAGE = 32672;

function apply(key: RedoKey, page: PageTarget, parts: FixtureRecord): void {
  applyRecord(key, page, cursorOn(parts), VERSION);
}

/** A map page on which every bit is set. */
function fullMap(): PageTarget {
  const page = newPage();
  initPage(page, 0);
  page.bytes.fill(0xff, 24);
  return page;
}

function deletion(block: number, mapBlock?: number): FixtureRecord {
  const blocks = [reference(0, block)];
  if (mapBlock !== undefined) blocks.push(reference(1, mapBlock, FORK_VM));
  return { rmid: Rmgr.HEAP, info: HeapInfo.DELETE, main: [...u32(9), ...u16(1), 0, 1], blocks };
}

Deno.test("a delete clears the heap block's two bits on the map page that its flags imply", () => {
  const page = fullMap();
  apply(relationKey(0, FORK_VM), page, deletion(5));
  assert.equal(page.bytes[25], 0xff & ~(3 << 2));
  assert.equal(page.bytes.filter((byte) => byte === 0xff).length, 8192 - 24 - 1);
  assert.equal(pageLsn(page.view, 0), 0, "without a reference the map page keeps its LSN");
});

Deno.test("a delete with the map page as reference 1 clears there and sets its LSN", () => {
  const page = fullMap();
  const block = HEAP_BLOCKS_PER_MAP_PAGE + 2;
  apply(relationKey(1, FORK_VM), page, deletion(block, 1));
  assert.equal(page.bytes[24], 0xff & ~(3 << 4));
  assert.equal(pageLsn(page.view, 0), 0x2000);
  const other = fullMap();
  apply(relationKey(0, FORK_VM), other, deletion(block, 1));
  assert.deepEqual(other.bytes, fullMap().bytes, "another page of the map is not touched");
});

Deno.test("VISIBLE on the heap page leaves nothing to prune", () => {
  const page = newPage();
  initPage(page, 0);
  setPagePrunable(page, 650);
  const blocks = [reference(0, 0, FORK_VM), reference(1, 3)];
  const visible = { rmid: Rmgr.HEAP2, info: Heap2Info.VISIBLE, main: [...u32(0), 3], blocks };
  apply(relationKey(3), page, visible);
  assert.equal(pageFlags(page.view, 0), PD_ALL_VISIBLE);
  assert.equal(pagePruneXid(page.view, 0), 0);
});

function update(flags: number, blocks: FixtureRecord["blocks"]): FixtureRecord {
  const main = [...u32(9), ...u16(1), 0, flags, ...u32(0), ...u16(1)];
  return { rmid: Rmgr.HEAP, info: HeapInfo.UPDATE, main, blocks: blocks ?? [] };
}

Deno.test("an update's reference 2 stands for both heap blocks if it covers both", () => {
  const page = fullMap();
  const blocks = [reference(0, 1), reference(1, 6), reference(2, 0, FORK_VM)];
  apply(relationKey(0, FORK_VM), page, update(3, blocks));
  assert.equal(page.bytes[24], 0xff & ~(3 << 2));
  assert.equal(page.bytes[25], 0xff & ~(3 << 4));
});

Deno.test("an update's references 2 and 3 clear their own heap block each", () => {
  const far = HEAP_BLOCKS_PER_MAP_PAGE;
  const blocks = [
    reference(0, 0),
    reference(1, far),
    reference(2, 0, FORK_VM),
    reference(3, 1, FORK_VM),
  ];
  for (const mapBlock of [0, 1]) {
    const page = fullMap();
    apply(relationKey(mapBlock, FORK_VM), page, update(3, blocks));
    assert.equal(page.bytes[24], 0xfc);
    assert.equal(page.bytes[25], 0xff);
  }
  const old = fullMap();
  const onlyOld = [reference(0, 0), reference(1, 4), reference(3, 0, FORK_VM)];
  apply(relationKey(0, FORK_VM), old, update(3, onlyOld));
  assert.deepEqual([...old.bytes.subarray(24, 26)], [0xff, 0xfc]);
});

Deno.test("locking a row clears only the all-frozen bit", () => {
  const page = fullMap();
  const main = [...u32(9), ...u16(1), 0, 1];
  apply(relationKey(0, FORK_VM), page, {
    rmid: Rmgr.HEAP2,
    info: Heap2Info.LOCK_UPDATED,
    main,
    blocks: [reference(0, 0)],
  });
  assert.equal(page.bytes[24], 0xfd);
});

Deno.test("VISIBLE makes a new map page and ignores flags that are not bits of the map", () => {
  const page = newPage();
  const main = [...u32(9), 0x07];
  const blocks = [reference(0, 0, FORK_VM), reference(1, 2)];
  apply(relationKey(0, FORK_VM), page, { rmid: Rmgr.HEAP2, info: Heap2Info.VISIBLE, main, blocks });
  assert.equal(page.view.getUint16(12, true), 24, "pd_lower");
  assert.equal(page.bytes[24], 3 << 4);
  assert.equal(pageLsn(page.view, 0), 0x2000);
});

function truncation(heapBlocks: number): FixtureRecord {
  const main = [heapBlocks, 1663, 5, 16384, 7].flatMap(u32);
  return { rmid: Rmgr.SMGR, info: 0x20, main };
}

Deno.test("SMGR TRUNCATE clears the map's tail and empties the last free space page", () => {
  const map = fullMap();
  apply(relationKey(0, FORK_VM), map, truncation(6));
  assert.deepEqual([...map.bytes.subarray(24, 27)], [0xff, 0x0f, 0]);
  assert.equal(map.bytes[8191], 0);
  const untouched = fullMap();
  apply(relationKey(1, FORK_VM), untouched, truncation(6));
  assert.deepEqual(untouched.bytes, fullMap().bytes);
  assert.ok(initialises(cursorOn(truncation(6)), relationKey(2, FORK_FSM), VERSION));
  assert.ok(!initialises(cursorOn(truncation(6)), relationKey(1, FORK_FSM), VERSION));
  const space = fullMap();
  apply(relationKey(2, FORK_FSM), space, truncation(6));
  assert.ok(space.bytes.every((byte) => byte === 0));
});

Deno.test("sizes of the other forks after a truncation are PostgreSQL's", () => {
  const sizes = [0, 1, 4068, 4069, 4070, 4069 * 4069, 4069 * 4069 + 1];
  // The first leaf is block 2, behind the root and an inner page; there is one to 4069 leaves.
  const expected = [2, 3, 3, 3, 4, 4069 + 3, 4069 + 4];
  assert.deepEqual(sizes.map(fsmBlocksAfterTruncate), expected);
  const edge = HEAP_BLOCKS_PER_MAP_PAGE;
  assert.deepEqual([0, 1, edge, edge + 1].map(vmBlocksAfterTruncate), [0, 1, 1, 2]);
});

function createMultixact(id: number, first: number, members: number[]): FixtureRecord {
  const main = [id, first, members.length, ...members.flatMap((xid) => [xid, 5])].flatMap(u32);
  return { rmid: Rmgr.MULTIXACT, info: 0x20, main };
}

Deno.test("a multixact writes the next one's offset too, on the next page if need be", () => {
  const parts = createMultixact(2047, 100, [7, 8, 9]);
  const page = newPage();
  apply(slruKey(SlruKind.OFFSETS, 0), page, parts);
  assert.equal(page.view.getUint32(4 * 2047, true), 100);
  const next = newPage();
  apply(slruKey(SlruKind.OFFSETS, 1), next, parts);
  assert.equal(next.view.getUint32(0, true), 103);
  assert.ok(next.bytes.subarray(4).every((byte) => byte === 0));
  const wrapped = newPage();
  apply(slruKey(SlruKind.OFFSETS, 0), wrapped, createMultixact(0xffffffff, 0xffffffff, [7]));
  assert.equal(wrapped.view.getUint32(4, true), 1, "neither id 0 nor offset 0 exists");
});

Deno.test("a multixact's members go to their group on each of their pages", () => {
  const parts = createMultixact(1, 1635, [7, 8]);
  const page = newPage();
  apply(slruKey(SlruKind.MEMBERS, 0), page, parts);
  assert.equal(page.view.getUint32(408 * 20 + 4 + 12, true), 7);
  assert.equal(page.bytes[408 * 20 + 3], 5);
  const next = newPage();
  apply(slruKey(SlruKind.MEMBERS, 1), next, parts);
  assert.equal(next.view.getUint32(4, true), 8);
  assert.equal(next.bytes[0], 5);
});

Deno.test("a commit sets the bits of its transactions that are on the page", () => {
  const xinfo = 2;
  const subxacts = [32767, 32768, 32770];
  const main = [...u32(0), ...u32(0), ...u32(xinfo), ...[3, ...subxacts].flatMap(u32)];
  const parts = { rmid: Rmgr.XACT, info: 0x80, xid: 32766, main };
  const page = newPage();
  apply(slruKey(SlruKind.CLOG, 0), page, parts);
  assert.equal(page.bytes[8191], (1 << 4) | (1 << 6));
  const next = newPage();
  apply(slruKey(SlruKind.CLOG, 1), next, parts);
  assert.equal(next.bytes[0], 1 | (1 << 4));
  assert.ok(next.bytes.subarray(1).every((byte) => byte === 0));
});

Deno.test("a commit sets the time of its transactions that are on the page", () => {
  const subxacts = [818, 819, 821];
  const time = [0x11, 0x22];
  const main = [...time.flatMap(u32), ...u32(2), ...[3, ...subxacts].flatMap(u32)];
  const commit = { rmid: Rmgr.XACT, info: 0x80, xid: 817, main };
  const entries = (page: PageTarget) =>
    Array.from({ length: 819 }, (_, i) => i).filter((i) =>
      page.view.getUint32(10 * i, true) === 0x11 && page.view.getUint32(10 * i + 4, true) === 0x22
    );
  const pages = [newPage(), newPage()];
  for (const [at, page] of pages.entries()) apply(slruKey(SlruKind.COMMIT_TS, at), page, commit);
  assert.deepEqual(pages.map(entries), [[817, 818], [0, 2]]);
  const origin = [...u32(0x33), ...u32(0), ...u32(0x44), ...u32(0x55)];
  const replicated = [...time.flatMap(u32), ...u32(0x20), ...origin];
  const page = newPage();
  apply(slruKey(SlruKind.COMMIT_TS, 0), page, { ...commit, main: replicated });
  assert.equal(page.view.getUint32(8170, true), 0x44, "its own server's time");
  apply(slruKey(SlruKind.COMMIT_TS, 0), page, { ...commit, info: 0xa0 });
  assert.equal(page.view.getUint32(8170, true), 0x44, "an abort has no time");
  const zero = { rmid: Rmgr.COMMIT_TS, info: 0, main: [...u32(0), ...u32(0)] };
  apply(slruKey(SlruKind.COMMIT_TS, 0), page, zero);
  assert.ok(page.bytes.every((byte) => byte === 0));
});

Deno.test("an aborted prepared transaction is the one in the data, not the record's", () => {
  const main = [...u32(0), ...u32(0), ...u32(0x10), ...u32(9)];
  const page = newPage();
  apply(slruKey(SlruKind.CLOG, 0), page, { rmid: Rmgr.XACT, info: 0xc0, xid: 0, main });
  assert.equal(page.bytes[2], 2 << 2);
});

Deno.test("zero page records make exactly the page they name, in both widths", () => {
  const widths: [PgVersion, number[]][] = [
    [pgVersion(16), u32(33)],
    [VERSION, [...u32(33), ...u32(0)]],
  ];
  for (const [version, main] of widths) {
    const cursor = cursorOn({ rmid: Rmgr.CLOG, info: 0, main });
    assert.ok(initialises(cursor, slruKey(SlruKind.CLOG, 33), version));
    assert.ok(!initialises(cursor, slruKey(SlruKind.CLOG, 32), version));
    assert.ok(!initialises(cursor, slruKey(SlruKind.OFFSETS, 33), version));
  }
});

Deno.test("applyRecord() names page, record and reason when it cannot", () => {
  const custom = { rmid: 133, info: 0x20, blocks: [reference(0, 7)] };
  assert.throws(() => apply(relationKey(7), newPage(), custom), {
    name: "RedoError",
    message: "Cannot redo custom133 UNKNOWN (20) ending at 0/2000 on 1663/5/16384 block 7: " +
      "redo of this resource manager is not supported",
  });
  assert.throws(() => apply(relationKey(5), newPage(), deletion(5)), {
    name: "RedoError",
    message: "Cannot redo Heap DELETE ending at 0/2000 on 1663/5/16384 block 5: " +
      "item 1 of a page with 0 items",
  });
});

Deno.test("FPI_FOR_HINT without an image changes nothing; FPI without one is an error", () => {
  const page = fullMap();
  const blocks = [reference(0, 0)];
  apply(relationKey(0), page, { rmid: Rmgr.XLOG, info: 0xa0, blocks });
  assert.deepEqual(page.bytes, fullMap().bytes);
  const fpi = { rmid: Rmgr.XLOG, info: 0xb0, blocks };
  assert.throws(() => apply(relationKey(0), page, fpi), RedoError);
});

Deno.test("reconstructPage() needs an image, a first record or the caller's page to begin with", () => {
  const found = new Reconstruction();
  found.begin();
  const page = newPage();
  const build = () => reconstructPage(found, relationKey(0), page, VERSION);
  assert.throws(build, /no image and no records/);
  const bytes = record(deletion(0));
  found.bytes.set(bytes, found.reserve(bytes.length));
  found.addRecord(0, bytes.length, 0x2000 as typeof found.imageLsn);
  assert.throws(build, /no image before the record ending at 0\/2000/);
  reconstructPage(heapHistory(1), relationKey(0), page, VERSION);
  found.continues = true;
  build();
  assert.equal(pageLsn(page.view, 0), 0x2000);
  assert.equal(page.view.getUint32(8192 - 128 + 4, true), 9, "xmax of the only tuple");
});
