import assert from "node:assert/strict";
import { Rmgr } from "../../libs/postgres/constants.ts";
import { pageLsn } from "../../libs/postgres/page.ts";
import { initPage } from "./page_items.ts";
import { cursorOn, newPage, reference, relationKey, u16, VERSION } from "./record_fixture.ts";
import { applyRecord } from "./redo.ts";
import type { PageTarget } from "./types.ts";

const PD_LOWER = 12;

/** One piece of a page difference. */
function fragment(offset: number, bytes: number[]): number[] {
  return [...u16(offset), ...u16(bytes.length), ...bytes];
}

function apply(page: PageTarget, data: number[]): void {
  const cursor = cursorOn({ rmid: Rmgr.GENERIC, info: 0, blocks: [reference(0, 4, 0, data)] });
  applyRecord(relationKey(4), page, cursor, VERSION);
}

function fullPage(): PageTarget {
  const page = newPage();
  initPage(page, 8);
  page.bytes.fill(0x77, 24);
  return page;
}

Deno.test("fragments go to their places, and what is then free space is zero", () => {
  const page = fullPage();
  apply(page, [
    ...fragment(PD_LOWER, [...u16(32), ...u16(8000)]),
    ...fragment(26, [1, 2, 3]),
    ...fragment(8191, [9]),
  ]);
  assert.deepEqual([...page.bytes.subarray(24, 33)], [0x77, 0x77, 1, 2, 3, 0x77, 0x77, 0x77, 0]);
  assert.ok(page.bytes.subarray(32, 8000).every((byte) => byte === 0));
  assert.ok(page.bytes.subarray(8000, 8191).every((byte) => byte === 0x77));
  assert.equal(page.bytes[8191], 9);
  assert.equal(pageLsn(page.view, 0), 0x2000);
});

Deno.test("a difference with nothing in it sets the LSN", () => {
  const page = fullPage();
  apply(page, fragment(0, []));
  assert.equal(pageLsn(page.view, 0), 0x2000);
});

Deno.test("differences that cannot be right are errors", () => {
  const fails = (data: number[], why: RegExp) =>
    assert.throws(() => apply(fullPage(), data), { name: "RedoError", message: why });
  fails(fragment(8190, [1, 2, 3]), /beyond the end of the page/);
  fails([...u16(100), ...u16(4), 1, 2], /ends inside a fragment$/);
  fails([...u16(100)], /inside a fragment's header/);
  fails(fragment(PD_LOWER, [...u16(9000), ...u16(100)]), /corrupted page pointers/);
  fails(fragment(PD_LOWER, [...u16(24), ...u16(9000)]), /corrupted page pointers/);
});
