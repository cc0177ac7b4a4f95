import assert from "node:assert/strict";
import fc from "fast-check";
import { PAGE_SIZE, Rmgr } from "../../libs/postgres/constants.ts";
import { pageLsn, setPageLsn } from "../../libs/postgres/page.ts";
import { initPage } from "./page_items.ts";
import { cursorOn, newPage, reference, relationKey, u16, VERSION } from "./record_fixture.ts";
import { applyRecord } from "./redo.ts";
import { RedoError } from "./redo_error.ts";
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

/** The difference of two pages as fragments, here one for each run of bytes that differ. */
function difference(before: Uint8Array, after: Uint8Array): number[] {
  const data: number[] = [];
  for (let at = 0; at < PAGE_SIZE; at++) {
    if (before[at] === after[at]) continue;
    let end = at + 1;
    while (end < PAGE_SIZE && before[end] !== after[end]) end++;
    data.push(...fragment(at, [...after.subarray(at, end)]));
    at = end;
  }
  return data;
}

const change = fc.tuple(fc.nat(PAGE_SIZE - 1), fc.uint8Array({ maxLength: 60 }));
const pages = fc.record({
  lower: fc.integer({ min: 24, max: 4000 }),
  upper: fc.integer({ min: 4000, max: PAGE_SIZE }),
  changes: fc.array(change, { maxLength: 8 }),
  cut: fc.double({ min: 0, max: 1, noNaN: true }),
});

Deno.test("the difference of two pages makes the one into the other; a part of it, or an error", () => {
  fc.assert(
    fc.property(pages, ({ lower, upper, changes, cut }) => {
      const page = fullPage();
      const after = fullPage();
      for (const [at, bytes] of changes) after.bytes.set(bytes.subarray(0, PAGE_SIZE - at), at);
      after.view.setUint16(PD_LOWER, lower, true);
      after.view.setUint16(PD_LOWER + 2, upper, true);
      after.bytes.fill(0, lower, upper);
      const data = difference(page.bytes, after.bytes);
      apply(page, data);
      setPageLsn(after.view, 0, 0, 0x2000);
      assert.deepEqual(page.bytes, after.bytes);
      try {
        apply(fullPage(), data.slice(0, Math.max(1, Math.ceil(cut * data.length))));
      } catch (thrown) {
        assert.ok(thrown instanceof RedoError, String(thrown));
      }
    }),
    { numRuns: 300 },
  );
});
