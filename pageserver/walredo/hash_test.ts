import assert from "node:assert/strict";
import { Rmgr } from "../../libs/postgres/constants.ts";
import { pageLower, pageLsn } from "../../libs/postgres/page.ts";
import { pgVersion } from "../../libs/postgres/versions.ts";
import { getMeta, HashMeta, initHashMetapage, initHashPage, overflowPages } from "./hash_page.ts";
import { maskPage } from "./masking.ts";
import { addItem, getPointer, itemCount, pointerOffset } from "./page_items.ts";
import { cursorOn, newPage, reference, relationKey, u16, u32, VERSION } from "./record_fixture.ts";
import { applyRecord } from "./redo.ts";
import { RedoError } from "./redo_error.ts";
import type { PageTarget } from "./types.ts";

const INIT_META = 0x00;
const ADD_OVFL = 0x30;
const SPLIT_PAGE = 0x50;
const MOVE = 0x70;
const SQUEEZE = 0x80;
const VACUUM_PAGE = 0xc0;
const BUCKET = 0x02;
const DEAD_TUPLES = 0x80;
const FIRST_BITMAP_ENTRY = 24 + 444;

type Blocks = ReturnType<typeof reference>[];

function apply(
  page: PageTarget,
  block: number,
  info: number,
  main: number[],
  blocks: Blocks,
  version = VERSION,
): void {
  const cursor = cursorOn({ rmid: Rmgr.HASH, info, main, blocks });
  applyRecord(relationKey(block), page, cursor, version);
}

/** A bucket page with `count` tuples of 16 bytes, the n-th with hash value n. */
function bucketPage(count: number, flags = BUCKET): PageTarget {
  const page = newPage();
  initHashPage(page, 7, 1, flags);
  for (let number = 1; number <= count; number++) {
    addItem(page, number, Uint8Array.from(tuple(number)), 0, 16);
  }
  return page;
}

function tuple(value: number): number[] {
  return [...u32(0), ...u16(1), ...u16(16), ...u32(value), ...u32(0)];
}

function values(page: PageTarget): number[] {
  return Array.from(
    { length: itemCount(page) },
    (_, i) => page.view.getUint32(pointerOffset(getPointer(page, i + 1)) + 8, true),
  );
}

function metapage(): PageTarget {
  const page = newPage();
  initHashMetapage(page, 0, 400, 307);
  return page;
}

function f64(value: number): number[] {
  return [...new Uint8Array(Float64Array.of(value).buffer)];
}

Deno.test("a new hash index has the buckets that its tuples need, in whole allocation steps", () => {
  // tuples at 10 for each bucket; last bucket, high mask, splitpoint as PostgreSQL computes them
  const expected: [number, number, number, number][] = [
    [0, 1, 3, 1],
    [20, 1, 3, 1],
    [30, 3, 7, 2],
    [39, 3, 7, 2],
    [5120, 511, 1023, 9],
    [5130, 639, 1023, 10],
    [10240, 1023, 2047, 13],
    [10250, 1279, 2047, 14],
    [19540, 2047, 4095, 17],
    [1e12, 0x3fffffff, 0x7fffffff, 93],
  ];
  for (const [tuples, last, highMask, splitpoint] of expected) {
    const page = newPage();
    apply(page, 0, INIT_META, [...f64(tuples), ...u32(400), ...u16(10)], [reference(0, 0)]);
    assert.equal(getMeta(page, HashMeta.MAX_BUCKET), last, `${tuples} tuples`);
    assert.equal(getMeta(page, HashMeta.HIGH_MASK), highMask);
    assert.equal(getMeta(page, HashMeta.LOW_MASK), highMask >>> 1);
    assert.equal(getMeta(page, HashMeta.SPLITPOINT), splitpoint);
    assert.equal(overflowPages(page, splitpoint), 1);
    assert.equal(pageLower(page.view, 0), 24 + 4544);
  }
});

Deno.test("an overflow page that needs a new bitmap page counts for two on the metapage", () => {
  const blocks = [
    reference(0, 40, 0, u32(5)),
    reference(1, 39),
    reference(3, 41),
    reference(4, 0, 0, u32(32769)),
  ];
  const meta = metapage();
  const main = [...u16(4096), 0];
  apply(meta, 0, ADD_OVFL, main, blocks);
  assert.equal(getMeta(meta, HashMeta.FIRST_FREE), 32769);
  assert.equal(getMeta(meta, HashMeta.BITMAP_COUNT), 1);
  assert.equal(overflowPages(meta, 1), 3);
  assert.equal(meta.view.getUint32(FIRST_BITMAP_ENTRY, true), 41);
  const bitmap = newPage();
  apply(bitmap, 41, ADD_OVFL, main, blocks);
  assert.ok(bitmap.bytes.subarray(24, 24 + 4096).every((byte) => byte === 0xff));
  assert.equal(bitmap.bytes[24 + 4096], 0);
  const reused = metapage();
  apply(reused, 0, ADD_OVFL, [...u16(4096), 1], blocks);
  assert.equal(overflowPages(reused, 1), 1, "a page that was free is no new one");
});

Deno.test("squeeze: the written page keeps its LSN from 17 on if nothing happens to it", () => {
  const main = [...u32(3), ...u32(5), ...u16(0), 1, 0];
  const blocks = [reference(1, 2), reference(2, 4), reference(5, 9, 0, u32(0))];
  for (const major of [14, 15, 16, 17, 18]) {
    const page = bucketPage(2);
    apply(page, 2, SQUEEZE, main, blocks, pgVersion(major));
    assert.equal(pageLsn(page.view, 0), major < 17 ? 0x2000 : 0, `version ${major}`);
    assert.deepEqual(values(page), [1, 2]);
  }
});

Deno.test("squeeze: moved tuples go to their numbers, and the chain skips the freed page", () => {
  const data = [...u16(1), ...u16(3), ...tuple(100), ...tuple(101)];
  const main = [...u32(2), ...u32(5), ...u16(2), 1, 1];
  const blocks = [reference(1, 2, 0, data), reference(2, 4), reference(4, 5)];
  const page = bucketPage(1);
  apply(page, 2, SQUEEZE, main, blocks);
  assert.deepEqual(values(page), [100, 1, 101]);
  assert.equal(page.view.getUint32(8192 - 12, true), 5);
  const freed = bucketPage(3);
  apply(freed, 4, SQUEEZE, main, blocks);
  assert.equal(itemCount(freed), 0);
  const next = bucketPage(1);
  apply(next, 5, SQUEEZE, main, blocks);
  assert.equal(next.view.getUint32(8192 - 16, true), 2);
});

Deno.test("the bucket's first page is named only to be locked", () => {
  for (const [info, size] of [[MOVE, 3], [SQUEEZE, 12], [0x90, 2]] as const) {
    const page = bucketPage(2);
    const before = page.bytes.slice();
    apply(page, 1, info, new Array<number>(size).fill(0), [reference(0, 1), reference(2, 3)]);
    assert.deepEqual(page.bytes, before);
  }
});

Deno.test("page vacuum reads its count in both widths", () => {
  const numbers = [2, 4].flatMap(u16);
  for (const count of [u32(2), [...u16(2), 1, 0]]) {
    const main = [...u32(9), ...count, ...numbers];
    const blocks = [reference(0, 1), reference(1, 0)];
    const page = bucketPage(5, BUCKET | DEAD_TUPLES);
    apply(page, 1, VACUUM_PAGE, main, blocks);
    assert.deepEqual(values(page), [1, 3, 5]);
    assert.equal(page.view.getUint16(8192 - 4, true), BUCKET);
    const meta = metapage();
    meta.view.setFloat64(24 + 8, 10, true);
    apply(meta, 0, VACUUM_PAGE, main, blocks);
    assert.equal(meta.view.getFloat64(24 + 8, true), 8);
  }
});

Deno.test("hash records that cannot be right are errors", () => {
  const fails = (
    page: PageTarget,
    info: number,
    main: number[],
    block: ReturnType<typeof reference>,
    why: RegExp,
  ) =>
    assert.throws(
      () => apply(page, block.block, info, main, [block]),
      (thrown) => thrown instanceof RedoError && why.test(thrown.message),
    );
  fails(newPage(), SPLIT_PAGE, [], reference(0, 1), /without its image/);
  fails(newPage(), 0xd0, [], reference(0, 1), /unknown opcode/);
  fails(newPage(), INIT_META, [1, 2], reference(0, 0), /too short/);
  fails(bucketPage(1), 0x20, u16(1), reference(1, 0), /not the metapage/);
  fails(newPage(), ADD_OVFL, [...u16(0xffff), 0], reference(3, 9), /larger than a page/);
  fails(newPage(), 0xa0, [], reference(0, 1), /not a hash page/);
  const vacuum = [...u32(9), ...u32(3), ...u16(1)];
  fails(bucketPage(3), VACUUM_PAGE, vacuum, reference(0, 1), /ends too early/);
  const tuples = [...u16(1), ...tuple(1), ...tuple(2)];
  fails(bucketPage(0), MOVE, [...u16(1), 0], reference(1, 2, 0, tuples), /more tuples/);
  fails(bucketPage(0), MOVE, [...u16(9), 0], reference(1, 2, 0, tuples), /fewer tuples/);
  const bit = [...u32(0), ...u32(0), ...u16(0), 0, 0];
  fails(bucketPage(0), SQUEEZE, bit, reference(5, 9, 0, u32(1 << 20)), /beyond its bitmap/);
});

Deno.test("hash masks: freed pages have no contents, bucket pages no dead items", () => {
  const freed = bucketPage(3, 0);
  maskPage(freed, Rmgr.HASH, 0, 1);
  assert.ok(freed.bytes.subarray(24).every((byte) => byte === 0));
  const [clean, dead] = [bucketPage(2), bucketPage(2, BUCKET | DEAD_TUPLES)];
  dead.view.setUint32(24, dead.view.getUint32(24, true) | (3 << 15), true);
  for (const page of [clean, dead]) maskPage(page, Rmgr.HASH, 0, 1);
  assert.deepEqual(clean.bytes, dead.bytes);
});
