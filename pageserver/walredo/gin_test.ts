import assert from "node:assert/strict";
import fc from "fast-check";
import { Rmgr } from "../../libs/postgres/constants.ts";
import { pageLower, pageLsn, pagePruneXid, setPageLower } from "../../libs/postgres/page.ts";
import {
  entryTuple,
  fillGinPage,
  fillInner,
  fillLeaf,
  ginRecord,
  leafActions,
  listBytes,
  metaUpdate,
  tidBytes,
} from "./gin_fixture.ts";
import {
  GIN_COMPRESSED,
  GIN_DATA,
  GIN_DELETED,
  GIN_LEAF,
  GIN_LIST,
  GIN_LIST_FULLROW,
  ginCount,
  ginFlags,
  initGinPage,
  setGinCount,
  setGinFlags,
} from "./gin_page.ts";
import { itemCount } from "./page_items.ts";
import {
  cursorOn,
  type FixtureRecord,
  newPage,
  reference,
  relationKey,
  u16,
  u32,
  VERSION,
} from "./record_fixture.ts";
import { applyRecord } from "./redo.ts";
import type { PageTarget } from "./types.ts";

const NO_BLOCK = 0xffffffff;
const [DELETE, INSERT, REPLACE, ADD_ITEMS] = [1, 2, 3, 4];
const DATA_LEAF = u16(3);

function apply(page: PageTarget, parts: FixtureRecord): void {
  applyRecord(relationKey(0), page, cursorOn(parts), VERSION);
}

function pageOf(kind: Parameters<typeof fillGinPage>[1]): PageTarget {
  const page = newPage();
  fillGinPage(page, kind);
  return page;
}

/** The data area of a posting tree page. */
function dataOf(page: PageTarget): number[] {
  return [...page.bytes.subarray(32, pageLower(page.view, 0))];
}

const addItems = (segment: number, tids: number[]) => [
  segment,
  ADD_ITEMS!,
  ...u16(tids.length),
  ...tids.flatMap((tid) => tidBytes(Math.floor(tid / 2048), tid % 2048)),
];

Deno.test("actions on a leaf's lists count segments as they were", () => {
  const page = newPage();
  fillLeaf(page, [listBytes(1, 2), listBytes(100, 101), listBytes(200), listBytes(5000)]);
  const actions = leafActions(
    [0, INSERT!, ...listBytes(0x10000001)],
    [1, REPLACE!, ...listBytes(90, 103)],
    [2, DELETE!],
    addItems(3, [4999, 7000]),
    [4, INSERT!, ...listBytes(9001)],
  );
  apply(page, ginRecord(0x20, DATA_LEAF, 0, actions));
  const lists = [[0x10000001], [1, 2], [90, 103], [4999, 5000, 7000], [9001]];
  assert.deepEqual(dataOf(page), lists.flatMap((tids) => listBytes(...tids)));
  assert.equal(pageLsn(page.view, 0), 0x2000);
});

Deno.test("a leaf after any actions is what a list of lists would be", () => {
  const list = fc.uniqueArray(fc.integer({ min: 1, max: 2000 }), { minLength: 1, maxLength: 30 })
    .map((tids) => tids.sort((a, b) => a - b));
  const change = fc.tuple(fc.constantFrom(0, DELETE, INSERT, REPLACE, ADD_ITEMS), list);
  fc.assert(fc.property(fc.array(fc.tuple(list, change), { maxLength: 12 }), (segments) => {
    const page = newPage();
    fillLeaf(page, segments.map(([tids]) => listBytes(...tids)));
    const actions: number[][] = [];
    const expected: number[][] = [];
    segments.forEach(([tids, [kind, other]], segment) => {
      if (kind === INSERT) expected.push(other);
      if (kind === ADD_ITEMS) {
        expected.push([...new Set([...tids, ...other])].sort((a, b) => a - b));
        actions.push(addItems(segment, other));
      } else if (kind !== DELETE) expected.push(kind === REPLACE ? other : tids);
      if (kind === DELETE) actions.push([segment, kind]);
      if (kind === INSERT || kind === REPLACE) {
        actions.push([segment, kind, ...listBytes(...other)]);
      }
    });
    apply(page, ginRecord(0x90, [], 0, leafActions(...actions)));
    assert.deepEqual(dataOf(page), expected.flatMap((tids) => listBytes(...tids)));
  }));
});

Deno.test("a leaf from before 9.4 becomes one list first", () => {
  const page = newPage();
  initGinPage(page, GIN_DATA | GIN_LEAF);
  page.bytes.set([7, 9, 2049].flatMap((tid) => tidBytes(tid >> 11, tid & 2047)), 32);
  setGinCount(page, 3);
  setPageLower(page.view, 0, 24);
  apply(page, ginRecord(0x20, DATA_LEAF, 0, leafActions(addItems(0, [8]))));
  assert.deepEqual(dataOf(page), listBytes(7, 8, 9, 2049));
  assert.equal(ginFlags(page), GIN_DATA | GIN_LEAF | GIN_COMPRESSED);
  assert.equal(ginCount(page), 0);
  const empty = newPage();
  initGinPage(empty, GIN_DATA | GIN_LEAF);
  apply(empty, ginRecord(0x20, DATA_LEAF, 0, leafActions([0, INSERT!, ...listBytes(5)])));
  assert.deepEqual(dataOf(empty), listBytes(5));
});

Deno.test("actions that do not match the page are errors", () => {
  const check = (why: RegExp, actions: number[], kind: "leaf" | "inner" | "entry" = "leaf") =>
    assert.throws(() => apply(pageOf(kind), ginRecord(0x20, DATA_LEAF, 0, actions)), why);
  check(/out of order/, leafActions([1, DELETE!], [0, DELETE!]));
  check(/no posting list/, leafActions([2, DELETE!]));
  check(/no posting list/, leafActions([3, INSERT!, ...listBytes(5)]));
  check(/no posting list/, leafActions([2, REPLACE!, ...listBytes(5)]));
  check(/reaches beyond/, leafActions([0, REPLACE!, ...listBytes(1, 2, 3).slice(0, 9)]));
  check(/tids end too early/, leafActions([0, ADD_ITEMS!, ...u16(2), ...tidBytes(0, 5)]));
  check(/unknown action 9/, leafActions([0, 9]));
  check(/end too early/, u16(3));
  check(/wrong level/, leafActions(), "inner");
  check(/not a page of a posting tree/, leafActions(), "entry");
  const lists = Array.from({ length: 60 }, (_, i) => listBytes(...sparse(i * 1e6, 40)));
  const page = newPage();
  fillLeaf(page, lists);
  const more = leafActions([0, INSERT!, ...sparseList(9e9, 900)]);
  assert.throws(() => apply(page, ginRecord(0x20, DATA_LEAF, 0, more)), /do not fit on the page/);
});

const sparse = (from: number, count: number) =>
  Array.from({ length: count }, (_, i) => from + 1 + 20_480 * i);
const sparseList = (from: number, count: number) => listBytes(...sparse(from, count));

Deno.test("a split child's left half goes before the item that now leads to the right half", () => {
  const page = newPage();
  fillInner(page, [70, 71, 72]);
  const main = [...u16(1), ...tidBytes(71, 0).slice(0, 4), ...tidBytes(90, 0).slice(0, 4)];
  const item = [...tidBytes(71, 0).slice(0, 4), ...tidBytes(5, 5)];
  apply(page, ginRecord(0x20, main, 0, [...u16(2), ...item]));
  const blocks = [0, 1, 2, 3].map((i) => page.view.getUint16(32 + 10 * i + 2, true));
  assert.deepEqual(blocks, [70, 71, 90, 72]);
  assert.deepEqual([...page.bytes.subarray(42, 52)], item);
  assert.equal(ginCount(page), 4);
  assert.equal(pageLower(page.view, 0), 32 + 40);
  const full = newPage();
  fillInner(full, Array.from({ length: 815 }, (_, i) => i));
  const record = ginRecord(0x20, main, 0, [...u16(2), ...item]);
  assert.throws(() => apply(full, record), /no room for a posting item/);
  assert.throws(
    () => apply(page, ginRecord(0x20, main, 0, [...u16(5), ...item])),
    /posting item 5 of a page with 4/,
  );
});

Deno.test("deleting a page touches it, its parent and its left sibling", () => {
  const main = [...u16(2), 0, 0, ...u32(77), ...u32(4711)];
  const deleted = pageOf("leaf");
  apply(deleted, ginRecord(0x50, main, 0));
  assert.ok(ginFlags(deleted) & GIN_DELETED);
  assert.equal(pagePruneXid(deleted.view, 0), 4711);
  const parent = newPage();
  fillInner(parent, [70, 71, 72]);
  apply(parent, ginRecord(0x50, main, 1));
  assert.equal(ginCount(parent), 2);
  assert.deepEqual([34, 44].map((at) => parent.view.getUint16(at, true)), [70, 72]);
  assert.equal(pageLower(parent.view, 0), 32 + 20);
  const left = pageOf("leaf");
  apply(left, ginRecord(0x50, main, 2));
  assert.equal(left.view.getUint32(8184, true), 77);
  assert.throws(() => apply(pageOf("leaf"), ginRecord(0x50, main, 3)), /no reference 3/);
});

Deno.test("an entry replaces the one at its place, or gets in between", () => {
  const page = pageOf("entry");
  const leaf = u16(2);
  apply(page, ginRecord(0x20, leaf, 0, [...u16(3), 1, 0, ...entryTuple(900, 7)]));
  assert.equal(itemCount(page), 40);
  apply(page, ginRecord(0x20, leaf, 0, [...u16(41), 0, 0, ...entryTuple(901, 7)]));
  assert.equal(itemCount(page), 41);
  const short = [...u16(3), 0, 0, ...entryTuple(900, 7).slice(0, 12)];
  assert.throws(() => apply(page, ginRecord(0x20, leaf, 0, short)), /end too early/);
  assert.throws(() => apply(page, ginRecord(0x20, leaf, 0)), /ends too early/);
  const inner = [...u16(0), ...tidBytes(1, 0).slice(0, 4), ...tidBytes(0x20001, 0).slice(0, 4)];
  setGinFlags(page, 0);
  apply(page, ginRecord(0x20, inner, 0, [...u16(41), 0, 0, ...entryTuple(902, 7)]));
  const moved = page.view.getUint32(24 + 4 * 41, true) & 0x7fff;
  assert.deepEqual([...page.bytes.subarray(moved, moved + 6)], tidBytes(0x20001, 0));
  setGinFlags(page, 0x40);
  apply(page, ginRecord(0x20, inner, 1));
  assert.equal(ginFlags(page), 0, "the child's split is complete");
  assert.throws(() => apply(page, ginRecord(0x20, leaf, 1)), /no such reference/);
});

Deno.test("the pending list: tuples in its tail, a new tail, its first pages, none of it", () => {
  const tuples = [...entryTuple(1, 1), ...entryTuple(2, 2)];
  const tail = newPage();
  initGinPage(tail, GIN_LIST);
  apply(tail, ginRecord(0x60, metaUpdate(NO_BLOCK, NO_BLOCK, 2), 1, tuples));
  assert.deepEqual([itemCount(tail), ginCount(tail)], [2, 1]);
  apply(tail, ginRecord(0x60, metaUpdate(5, 88, 0), 1));
  assert.equal(tail.view.getUint32(8184, true), 88);
  const none = ginRecord(0x60, metaUpdate(NO_BLOCK, NO_BLOCK, 0), 1);
  assert.throws(() => apply(tail, none), /no tail/);
  const meta = newPage();
  apply(meta, ginRecord(0x60, metaUpdate(5, 88, 0), 0));
  assert.deepEqual([...meta.bytes.subarray(24, 80)], Array.from({ length: 56 }, (_, i) => i));
  assert.equal(pageLower(meta.view, 0), 80);
  for (const [right, flags, count] of [[NO_BLOCK, GIN_LIST | GIN_LIST_FULLROW, 1], [9, 16, 0]]) {
    const page = newPage();
    apply(page, ginRecord(0x70, [...u32(right!), ...u32(2)], 0, tuples));
    assert.deepEqual([ginFlags(page), ginCount(page), itemCount(page)], [flags, count, 2]);
    assert.equal(page.view.getUint32(8184, true), right);
  }
  const gone = pageOf("list");
  const main = [...new Array<number>(56).fill(1), ...u32(1), ...u32(0)];
  apply(gone, ginRecord(0x80, main, 1));
  assert.deepEqual([ginFlags(gone), itemCount(gone)], [GIN_DELETED, 0]);
  assert.throws(() => apply(gone, ginRecord(0x80, main, 2)), /no reference 2/);
});

Deno.test("splits and entry vacuum need their images; a new posting tree its lists", () => {
  const split = (flags: number) => [...new Array<number>(24).fill(0), ...u16(flags), 0, 0];
  assert.throws(() => apply(pageOf("entry"), ginRecord(0x30, split(2), 0)), /without the image/);
  assert.throws(() => apply(pageOf("entry"), ginRecord(0x30, split(2), 3)), /has no child/);
  const child = pageOf("entry");
  setGinFlags(child, 0x42);
  apply(child, ginRecord(0x30, split(0), 3));
  assert.equal(ginFlags(child), 2);
  assert.throws(() => apply(pageOf("entry"), ginRecord(0x40, [], 0)), /without its image/);
  assert.throws(() => apply(newPage(), ginRecord(0x10, u32(40), 0)), /end too early/);
  const huge = [...u32(8161), ...new Array<number>(8161).fill(1)];
  assert.throws(() => apply(newPage(), ginRecord(0x10, huge, 0)), /too much data/);
  const page = newPage();
  apply(page, ginRecord(0x10, [...u32(8), ...listBytes(5)], 0));
  assert.deepEqual(dataOf(page), listBytes(5));
  assert.throws(() => apply(newPage(), ginRecord(0x50, split(0), 0)), /not a GIN page/);
  assert.throws(() => apply(pageOf("leaf"), ginRecord(0xa0, [], 0)), /unknown opcode 0xa0/);
  const unnamed = { rmid: Rmgr.GIN, info: 0x20, main: u16(3), blocks: [reference(0, 9)] };
  const before = page.bytes.slice();
  apply(page, unnamed);
  assert.deepEqual(page.bytes, before, "a record about another page does nothing here");
});
