import assert from "node:assert/strict";
import { Rmgr } from "../../libs/postgres/constants.ts";
import { maskPage } from "./masking.ts";
import { addItem, itemCount } from "./page_items.ts";
import { cursorOn, newPage, reference, relationKey, u16, u32, VERSION } from "./record_fixture.ts";
import { applyRecord } from "./redo.ts";
import { RedoError } from "./redo_error.ts";
import { addDeadTuple, initSpgistPage, PLACEHOLDER } from "./spgist_page.ts";
import type { PageTarget } from "./types.ts";

const ADD_LEAF = 0x10;
const MOVE_LEAFS = 0x20;
const ADD_NODE = 0x30;
const PICKSPLIT = 0x50;
const VACUUM_REDIRECT = 0x80;
const BUILDING = [...u32(0), 1, 0, 0, 0];
const RUNNING = [...u32(55), 0, 0, 0, 0];

type Blocks = ReturnType<typeof reference>[];

function apply(page: PageTarget, block: number, info: number, main: number[], blocks: Blocks) {
  const cursor = cursorOn({ rmid: Rmgr.SPGIST, info, main, blocks });
  applyRecord(relationKey(block), page, cursor, VERSION);
}

/** A leaf tuple of 24 bytes. */
function leaf(value: number): number[] {
  return [...u32(24 << 2), ...u16(0), 0, 0, 1, 0, value, 0, ...u32(value), ...u32(0), ...u32(0)];
}

/** An inner tuple without prefix and with two nodes. */
function inner(): number[] {
  const node = [...new Array<number>(6).fill(0), ...u16(8)];
  return [...u32(2 << 3), ...u16(24), 0, 0, ...node, ...node];
}

function leafPage(count: number): PageTarget {
  const page = newPage();
  initSpgistPage(page, true, false);
  for (let i = 1; i <= count; i++) addItem(page, i, Uint8Array.from(leaf(i)), 0, 24);
  return page;
}

/** States of the tuples, and the page's counts of redirections and placeholders. */
function states(page: PageTarget): { states: number[]; redirections: number; free: number } {
  const pointer = (i: number) => page.view.getUint32(24 + 4 * i, true) & 0x7fff;
  return {
    states: Array.from({ length: itemCount(page) }, (_, i) => page.bytes[pointer(i)]! & 3),
    redirections: page.view.getUint16(8186, true),
    free: page.view.getUint16(8188, true),
  };
}

Deno.test("leaves that move leave a redirection and placeholders, or in a build none", () => {
  const main = [...u16(2), 0, 0, 0, 0, ...u16(1), ...u16(0), 0, 0];
  const lists = [...[3, 1].flatMap(u16), ...[1, 2, 3].flatMap(u16)];
  const tuples = [1, 2, 3].flatMap(leaf);
  const blocks = [reference(0, 4), reference(1, 5), reference(2, 1)];
  const moved = leafPage(3);
  apply(moved, 4, MOVE_LEAFS, [...main, ...RUNNING, ...lists, ...tuples], blocks);
  assert.deepEqual(states(moved), { states: [3, 0, 1], redirections: 1, free: 1 });
  const at = moved.view.getUint32(24 + 8, true) & 0x7fff;
  assert.deepEqual([...moved.bytes.subarray(at + 6, at + 16)], [0, 0, 5, 0, 3, 0, ...u32(55)]);
  const building = leafPage(3);
  apply(building, 4, MOVE_LEAFS, [...main, ...BUILDING, ...lists, ...tuples], blocks);
  assert.deepEqual(states(building), { states: [3, 0, 3], redirections: 0, free: 2 });
});

Deno.test("a new leaf takes a placeholder's number, but nobody else's", () => {
  const page = leafPage(1);
  addDeadTuple(page, 2, PLACEHOLDER);
  const main = (
    number: number,
    head: number,
  ) => [0, 0, ...u16(number), ...u16(head), ...u16(0), ...u16(0), ...leaf(9)];
  apply(page, 4, ADD_LEAF, main(2, 1), [reference(0, 4)]);
  assert.deepEqual(states(page), { states: [0, 0], redirections: 0, free: 0 });
  const head = page.view.getUint32(24, true) & 0x7fff;
  assert.equal(page.view.getUint16(head + 4, true), 2, "the head leads to it");
  assert.throws(() => apply(page, 4, ADD_LEAF, main(2, 1), [reference(0, 4)]), {
    name: "RedoError",
    message: /tuple to be replaced is not a placeholder/,
  });
});

Deno.test("add node links a parent on the old page, or on the new one", () => {
  for (const [parentOn, block] of [[0, 4], [1, 5]] as const) {
    const page = newPage();
    initSpgistPage(page, false, false);
    for (let i = 1; i <= 2; i++) addItem(page, i, Uint8Array.from(inner()), 0, 24);
    const main = [...u16(2), ...u16(3), 0, parentOn, ...u16(1), ...u16(1), 0, 0, ...RUNNING];
    apply(page, block, ADD_NODE, [...main, ...inner()], [reference(0, 4), reference(1, 5)]);
    const parent = page.view.getUint32(24, true) & 0x7fff;
    assert.deepEqual([...page.bytes.subarray(parent + 16, parent + 22)], [0, 0, 5, 0, 3, 0]);
    assert.deepEqual(states(page).states, parentOn === 0 ? [0, 1] : [0, 0, 0]);
  }
});

Deno.test("a pick-split during a build may empty its source page", () => {
  const page = leafPage(5);
  const flags = [0, 0, ...u16(0), ...u16(2), 1, 0, ...u16(1), 0, 0, 0, 0, ...u16(1), ...u16(0)];
  const lists = [...[1, 2].flatMap(u16), 0, 0];
  const main = [...flags, 0, 0, ...BUILDING, ...lists, ...inner(), ...leaf(1), ...leaf(2)];
  apply(page, 4, PICKSPLIT, main, [reference(0, 4), reference(2, 6), reference(3, 1)]);
  assert.deepEqual(states(page), { states: [0, 0], redirections: 0, free: 0 });
});

Deno.test("vacuum redirect records of both layouts name the same items", () => {
  for (const catalogFlag of [[], [0, 0]]) { // until 15, since 16
    const page = leafPage(1);
    for (let i = 2; i <= 4; i++) {
      addDeadTuple(page, i, PLACEHOLDER, { block: 9, item: 1, xid: 50 });
    }
    const main = [...u16(2), ...u16(4), ...u32(50), ...catalogFlag, ...[4, 2].flatMap(u16)];
    apply(page, 4, VACUUM_REDIRECT, main, [reference(0, 4)]);
    assert.deepEqual(states(page), { states: [0, 3, 1], redirections: 1, free: 1 });
  }
});

Deno.test("SP-GiST records that announce what they do not have are errors", () => {
  const cases: [number, number[]][] = [
    [ADD_LEAF, [0, 0, ...u16(4), ...u16(0), ...u16(0), ...u16(0), ...u32(99 << 2), ...u32(0)]],
    [ADD_LEAF, [0, 0, ...u16(9), ...u16(0), ...u16(0), ...u16(0), ...leaf(1)]],
    [MOVE_LEAFS, [...u16(500), 0, 0, 0, 0, ...u16(1), ...u16(0), 0, 0, ...RUNNING]],
    [VACUUM_REDIRECT, [...u16(1), ...u16(0), ...u32(5), 0, 0, ...u16(1)]],
    [VACUUM_REDIRECT, [...u16(0), ...u16(9), ...u32(5)]],
    [0x60, [...u16(0), ...u16(0), ...u16(700), ...u16(0), ...RUNNING]],
    [0x00, u32(0)],
  ];
  for (const [info, main] of cases) {
    assert.throws(() => apply(leafPage(3), 4, info, main, [reference(0, 4)]), RedoError);
  }
});

Deno.test("masking an SP-GiST page hides free space, and all is kept without pd_lower", () => {
  const page = leafPage(1);
  page.bytes[4000] = 7;
  maskPage(page, Rmgr.SPGIST, 0, 4);
  assert.equal(page.bytes[4000], 0);
  page.view.setUint16(12, 0, true);
  page.bytes[4000] = 7;
  maskPage(page, Rmgr.SPGIST, 0, 0);
  assert.equal(page.bytes[4000], 7);
});
