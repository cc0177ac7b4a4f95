import assert from "node:assert/strict";
import { Rmgr } from "../../libs/postgres/constants.ts";
import { pageLower, pageLsn, pageUpper, setPageLower } from "../../libs/postgres/page.ts";
import {
  BRIN_REGULAR_PAGE,
  BRIN_REVMAP_PAGE,
  brinPageType,
  initBrinMetapage,
  initBrinPage,
} from "./brin_page.ts";
import { maskPage } from "./masking.ts";
import { getPointer, itemCount, pointerOffset } from "./page_items.ts";
import { cursorOn, newPage, reference, relationKey, u16, u32, VERSION } from "./record_fixture.ts";
import { applyRecord } from "./redo.ts";
import { RedoError } from "./redo_error.ts";
import type { PageTarget } from "./types.ts";

const INSERT = 0x10;
const UPDATE = 0x20;
const SAMEPAGE_UPDATE = 0x30;
const REVMAP_EXTEND = 0x40;
const DESUMMARIZE = 0x50;
const INIT_PAGE = 0x80;

type Blocks = ReturnType<typeof reference>[];

function apply(
  page: PageTarget,
  block: number,
  info: number,
  main: number[],
  blocks: Blocks,
): void {
  const cursor = cursorOn({ rmid: Rmgr.BRIN, info, main, blocks });
  applyRecord(relationKey(block), page, cursor, VERSION);
}

function pageOf(type: number): PageTarget {
  const page = newPage();
  initBrinPage(page, type);
  return page;
}

function summary(fill: number, size = 16): number[] {
  return new Array<number>(size).fill(fill);
}

/** A page with `count` summaries, the n-th filled with n. */
function regularPage(count: number): PageTarget {
  const page = newPage();
  for (let number = 1; number <= count; number++) {
    const info = INSERT | (number === 1 ? INIT_PAGE : 0);
    const block = reference(0, 2, 0, summary(number));
    apply(page, 2, info, [...u32(0), ...u32(1), ...u16(number)], [block]);
  }
  return page;
}

function firstByte(page: PageTarget, number: number): number {
  return page.bytes[pointerOffset(getPointer(page, number))]!;
}

Deno.test("a range's entry is the tid of its summary, on the revmap page that holds it", () => {
  const page = pageOf(BRIN_REVMAP_PAGE);
  const blocks = [reference(0, 0x12345, 0, summary(1)), reference(1, 3)];
  // Ranges of 4 blocks, 1360 on each page: block 5460 is in the sixth range of the second page.
  apply(page, 3, INSERT, [...u32(5460), ...u32(4), ...u16(9)], blocks);
  const at = 24 + 6 * 5;
  assert.equal(page.view.getUint16(at, true), 1);
  assert.equal(page.view.getUint16(at + 2, true), 0x2345);
  assert.equal(page.view.getUint16(at + 4, true), 9);
  assert.equal(pageLsn(page.view, 0), 0x2000);
  const out = [reference(0, 3), reference(1, 0x12345)];
  apply(page, 3, DESUMMARIZE, [...u32(4), ...u32(5463), ...u16(9)], out);
  assert.deepEqual([...page.bytes.subarray(at, at + 6)], [255, 255, 255, 255, 0, 0]);
});

Deno.test("a summary that goes leaves the numbers of the others, and comes back in its place", () => {
  const page = regularPage(3);
  const upper = pageUpper(page.view, 0);
  const remove = (number: number) =>
    apply(page, 2, DESUMMARIZE, [...u32(1), ...u32(0), ...u16(number)], [reference(1, 2)]);
  remove(1);
  assert.equal(itemCount(page), 3);
  assert.equal(getPointer(page, 1), 0);
  assert.deepEqual([firstByte(page, 2), firstByte(page, 3)], [2, 3]);
  assert.equal(pageUpper(page.view, 0), upper + 16);
  remove(3);
  assert.equal(itemCount(page), 2);
  const block = reference(0, 2, 0, summary(7, 24));
  apply(page, 2, UPDATE, [...u16(1), 0, 0, ...u32(0), ...u32(1), ...u16(1)], [block]);
  assert.deepEqual([firstByte(page, 1), firstByte(page, 2)], [7, 2]);
  assert.throws(() => remove(9), RedoError);
});

Deno.test("an update elsewhere takes the old summary from the old page", () => {
  const page = regularPage(2);
  const blocks = [reference(0, 5, 0, summary(9)), reference(1, 1), reference(2, 2)];
  apply(page, 2, UPDATE | INIT_PAGE, [...u16(2), 0, 0, ...u32(0), ...u32(1), ...u16(1)], blocks);
  assert.equal(itemCount(page), 1);
  const made = newPage();
  apply(made, 5, UPDATE | INIT_PAGE, [...u16(2), 0, 0, ...u32(0), ...u32(1), ...u16(1)], blocks);
  assert.equal(brinPageType(made), BRIN_REGULAR_PAGE);
  assert.equal(firstByte(made, 1), 9);
});

Deno.test("an update on the same page may change the size", () => {
  const page = regularPage(3);
  apply(page, 2, SAMEPAGE_UPDATE, u16(2), [reference(0, 2, 0, summary(8, 40))]);
  assert.deepEqual([1, 2, 3].map((number) => firstByte(page, number)), [1, 8, 3]);
});

Deno.test("revmap extension repairs the metapage's pd_lower and makes a page", () => {
  const meta = newPage();
  initBrinMetapage(meta, 128, 1);
  setPageLower(meta.view, 0, 24);
  const blocks = [reference(0, 0), reference(1, 6)];
  apply(meta, 0, REVMAP_EXTEND, u32(6), blocks);
  assert.equal(pageLower(meta.view, 0), 40);
  assert.deepEqual([32, 36].map((at) => meta.view.getUint32(at, true)), [128, 6]);
  const page = regularPage(3);
  apply(page, 6, REVMAP_EXTEND, u32(6), blocks);
  const expected = pageOf(BRIN_REVMAP_PAGE);
  assert.deepEqual(page.bytes.subarray(8), expected.bytes.subarray(8));
});

Deno.test("BRIN records that cannot be right are errors", () => {
  const fails = (page: PageTarget, info: number, main: number[], block: Blocks[number]) =>
    assert.throws(() => apply(page, block.block, info, main, [block]), RedoError);
  const insertion = [...u32(0), ...u32(0), ...u16(1)];
  fails(pageOf(BRIN_REVMAP_PAGE), INSERT, insertion, reference(1, 3)); // 0 blocks per range
  fails(regularPage(1), INSERT, [...u32(0), ...u32(1), ...u16(1)], reference(1, 3));
  fails(regularPage(2), INSERT, [...u32(0), ...u32(1), ...u16(1)], reference(0, 2, 0, summary(1)));
  fails(regularPage(1), REVMAP_EXTEND, u32(1), reference(0, 0));
  fails(regularPage(1), DESUMMARIZE, u32(1), reference(1, 2));
  fails(regularPage(1), 0x60, [], reference(0, 2));
  fails(newPage(), INSERT, [...u32(0), ...u32(1), ...u16(1)], reference(1, 2));
});

Deno.test("BRIN masks: a page that is being emptied; not the contents of a revmap page", () => {
  const [quiet, emptied] = [regularPage(1), regularPage(1)];
  emptied.view.setUint16(8192 - 4, 1, true);
  emptied.bytes[4000] = 9;
  for (const page of [quiet, emptied]) maskPage(page, Rmgr.BRIN, 0, 2);
  assert.deepEqual(quiet.bytes, emptied.bytes);
  const map = pageOf(BRIN_REVMAP_PAGE);
  map.bytes[4000] = 9;
  maskPage(map, Rmgr.BRIN, 0, 1);
  assert.equal(map.bytes[4000], 9);
});
