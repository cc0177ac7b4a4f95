import assert from "node:assert/strict";
import { Rmgr } from "../../libs/postgres/constants.ts";
import { pageLower, pageLsn } from "../../libs/postgres/page.ts";
import { GIST_FOLLOW_RIGHT, GIST_LEAF, gistFlags, initGistPage } from "./gist_page.ts";
import { maskPage } from "./masking.ts";
import { itemCount } from "./page_items.ts";
import { cursorOn, newPage, reference, relationKey, u16, u32, VERSION } from "./record_fixture.ts";
import { applyRecord } from "./redo.ts";
import { RedoError } from "./redo_error.ts";
import type { PageTarget } from "./types.ts";

const UPDATE = 0x00;
const DELETE = 0x10;
const SPLIT = 0x30;
const DELETE_PAGE = 0x60;
const ASSIGN_LSN = 0x70;
const END = 0x2000;
const NSN = 8176;

type Blocks = ReturnType<typeof reference>[];

function apply(page: PageTarget, block: number, info: number, main: number[], blocks: Blocks) {
  const cursor = cursorOn({ rmid: Rmgr.GIST, info, main, blocks }, END);
  applyRecord(relationKey(block), page, cursor, VERSION);
}

/** An index tuple of 16 bytes. */
function tuple(value: number): number[] {
  return [0, 0, 1, 0, value, 0, ...u16(16), ...u32(value), ...u32(0)];
}

function somePage(count: number, flags = GIST_LEAF): PageTarget {
  const page = newPage();
  initGistPage(page, 5, flags);
  if (count === 0) return page;
  const data = Array.from({ length: count }, (_, i) => tuple(i + 1)).flat();
  apply(page, 3, UPDATE, [...u16(0), ...u16(count)], [reference(0, 3, 0, data)]);
  return page;
}

/** First bytes of the items' keys. */
function values(page: PageTarget): number[] {
  return Array.from(
    { length: itemCount(page) },
    (_, i) => page.bytes[(page.view.getUint32(24 + 4 * i, true) & 0x7fff) + 8]!,
  );
}

Deno.test("a GiST update deletes first and appends then; one for one stays in its place", () => {
  const page = somePage(4);
  const data = [...u16(1), ...u16(3), ...tuple(9)];
  apply(page, 3, UPDATE, [...u16(2), ...u16(1)], [reference(0, 3, 0, data)]);
  assert.deepEqual(values(page), [2, 4, 9]);
  const replacement = [...u16(2), ...tuple(8)];
  apply(page, 3, UPDATE, [...u16(1), ...u16(1)], [reference(0, 3, 0, replacement)]);
  assert.deepEqual(values(page), [2, 8, 9]);
});

Deno.test("linking a GiST split clears the left half's flag and sets its NSN", () => {
  for (const [info, id] of [[UPDATE, 1], [SPLIT, 0]] as const) {
    const page = somePage(1, GIST_LEAF | GIST_FOLLOW_RIGHT);
    apply(page, 7, info, new Array<number>(24).fill(0), [reference(id, 7)]);
    assert.equal(gistFlags(page), GIST_LEAF);
    assert.deepEqual([...page.bytes.subarray(NSN, NSN + 8)], [...u32(0), ...u32(END)]);
  }
});

Deno.test("an image of the left half is older than what its record does to it", () => {
  const image = somePage(2, GIST_LEAF | GIST_FOLLOW_RIGHT).bytes;
  for (const [id, expected] of [[1, GIST_LEAF], [0, GIST_LEAF | GIST_FOLLOW_RIGHT]] as const) {
    const page = newPage();
    const cursor = cursorOn({
      rmid: Rmgr.GIST,
      info: UPDATE,
      main: [0, 0, 0, 0],
      blocks: [{ ...reference(id, 7), image: { bytes: image, holeOffset: 0, info: 2 } }],
    }, END);
    applyRecord(relationKey(7), page, cursor, VERSION);
    assert.equal(gistFlags(page), expected);
    assert.equal(pageLsn(page.view, 0), END);
  }
});

function split(blocks: number[], leaf: number, mark: number): { main: number[]; blocks: Blocks } {
  const main = [...u32(77), ...u32(0), ...u32(0x33), ...u32(0x44), leaf, 0];
  main.push(...u16(blocks.length), mark, 0, 0, 0);
  const references = blocks.map((block, i) =>
    reference(i + 1, block, 0, [...u32(2), ...tuple(i + 1), ...tuple(i + 2)])
  );
  return { main, blocks: references };
}

Deno.test("pages of a GiST split lead to each other, the last one where the old page led", () => {
  const expected = [[8, GIST_LEAF | GIST_FOLLOW_RIGHT], [9, GIST_LEAF | GIST_FOLLOW_RIGHT]]
    .concat([[77, GIST_LEAF]]);
  [3, 8, 9].forEach((block, i) => {
    const page = newPage();
    const { main, blocks } = split([3, 8, 9], 1, 1);
    apply(page, block, SPLIT, main, blocks);
    assert.deepEqual([page.view.getUint32(NSN + 8, true), gistFlags(page)], expected[i]);
    assert.deepEqual(values(page), [i + 1, i + 2]);
    assert.deepEqual([...page.bytes.subarray(NSN, NSN + 8)], [...u32(0x44), ...u32(0x33)]);
  });
  const unmarked = newPage();
  const parts = split([3, 8], 1, 0);
  apply(unmarked, 3, SPLIT, parts.main, parts.blocks);
  assert.equal(gistFlags(unmarked), GIST_LEAF);
});

Deno.test("a split GiST root has no right link, is no leaf and leaves nothing to follow", () => {
  const expected = [[0xffffffff, 0], [8, GIST_LEAF], [77, GIST_LEAF]];
  [0, 4, 8].forEach((block, i) => {
    const page = newPage();
    const { main, blocks } = split([0, 4, 8], 1, 1);
    apply(page, block, SPLIT, main, blocks);
    assert.deepEqual([page.view.getUint32(NSN + 8, true), gistFlags(page)], expected[i]);
  });
});

Deno.test("GiST delete records of both layouts name the same items", () => {
  for (const catalogFlag of [[], [0, 0]]) { // until 15, since 16
    const page = somePage(5);
    const main = [...u32(1), ...u16(3), ...catalogFlag, ...[1, 2, 4].flatMap(u16)];
    apply(page, 3, DELETE, main, [reference(0, 3)]);
    assert.deepEqual(values(page), [3, 5]);
    assert.equal(gistFlags(page), GIST_LEAF, "as the server leaves it, not as gistxlog.c does");
  }
});

Deno.test("a deleted GiST page keeps the transaction that deleted it", () => {
  const page = somePage(0);
  const main = [...u32(0x55), ...u32(1), ...u16(2)];
  apply(page, 3, DELETE_PAGE, main, [reference(0, 3), reference(1, 0)]);
  assert.equal(pageLower(page.view, 0), 32);
  assert.deepEqual([...page.bytes.subarray(24, 32)], [...u32(0x55), ...u32(1)]);
  const parent = somePage(3, 0);
  apply(parent, 0, DELETE_PAGE, main, [reference(0, 3), reference(1, 0)]);
  assert.deepEqual(values(parent), [1, 3]);
});

Deno.test("a record that assigns an LSN has no pages", () => {
  const page = somePage(2);
  const before = page.bytes.slice();
  apply(page, 3, ASSIGN_LSN, u32(0), []);
  assert.deepEqual(page.bytes, before);
});

Deno.test("GiST records that announce what they do not have are errors", () => {
  const cases: [number, number[], Blocks][] = [
    [UPDATE, [...u16(0), ...u16(2)], [reference(0, 3, 0, tuple(1))]],
    [UPDATE, [...u16(9), ...u16(0)], [reference(0, 3, 0, u16(1))]],
    [UPDATE, [...u16(0), ...u16(1)], [reference(0, 3, 0, tuple(1).slice(0, 12))]],
    [DELETE, [...u32(1), ...u16(40)], [reference(0, 3)]],
    [SPLIT, split([4, 3], 1, 1).main, [reference(1, 3, 0, u32(1))]],
    [SPLIT, split([3], 1, 1).main, [reference(1, 3, 0, u32(1))]],
    [0x40, [], [reference(0, 3)]],
  ];
  for (const [info, main, blocks] of cases) {
    assert.throws(() => apply(somePage(2), 3, info, main, blocks), RedoError);
  }
});

Deno.test("masking a GiST page hides NSN, follow-right, garbage and dead items of leaves", () => {
  const [a, b] = [somePage(2), somePage(2, GIST_LEAF | GIST_FOLLOW_RIGHT)];
  b.view.setUint32(NSN + 4, 99, true);
  b.view.setUint32(24, b.view.getUint32(24, true) | (3 << 15), true);
  for (const page of [a, b]) maskPage(page, Rmgr.GIST, 0, 3);
  assert.deepEqual(a.bytes, b.bytes);
});
