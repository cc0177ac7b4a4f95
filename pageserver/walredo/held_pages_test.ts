/** Held pages against a plain map of contents, in less memory than the pages need. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { PAGE_SIZE } from "../../libs/postgres/constants.ts";
import { type HeldPage, HeldPages, type PageSpill } from "./held_pages.ts";
import type { PageTarget, RedoKey } from "./types.ts";

const FRAMES = 8;

function key(number: number): RedoKey {
  const isSlru = number % 5 === 4;
  return {
    kind: isSlru ? "slru" : "relation",
    spc: 1663 + number % 2,
    db: 5 + number % 3,
    rel: 100 + number % 4,
    fork: Math.floor(number / 12) % 2,
    slruKind: number % 3,
    segno: Math.floor(number / 32),
    block: number,
  };
}

class MemorySpill implements PageSpill {
  readonly slots: Uint8Array[] = [];
  write(slot: number, { bytes, offset }: PageTarget): void {
    this.slots[slot] = bytes.slice(offset, offset + PAGE_SIZE);
  }
  read(slot: number, { bytes, offset }: PageTarget): void {
    bytes.set(this.slots[slot]!, offset);
  }
}

const fill = (page: HeldPage, value: number) =>
  page.target.bytes.fill(value, page.target.offset, page.target.offset + PAGE_SIZE);
const content = (page: HeldPage) => {
  const { bytes, offset } = page.target;
  assert.equal(bytes[offset], bytes[offset + PAGE_SIZE - 1]);
  return bytes[offset]!;
};

type Step = [kind: "set" | "delete" | "deleteRelation" | "deleteDatabase", number, number];
const steps = fc.array(
  fc.tuple(
    fc.constantFrom<Step[0]>(
      "set",
      "set",
      "set",
      "set",
      "delete",
      "deleteRelation",
      "deleteDatabase",
    ),
    fc.nat(60),
    fc.nat(255),
  ),
  { maxLength: 200 },
);

function apply(pages: HeldPages, model: Map<number, number>, [kind, number, value]: Step): void {
  const wanted = key(number);
  const { spc, db, rel } = wanted;
  const forget = (same: (other: RedoKey) => boolean) => {
    for (const other of [...model.keys()]) {
      if (key(other).kind === "relation" && same(key(other))) model.delete(other);
    }
  };
  if (kind === "set") {
    fill(pages.get(wanted) ?? pages.add(wanted), value);
    model.set(number, value);
  } else if (kind === "delete") {
    const page = pages.get(wanted);
    if (page !== undefined) pages.delete(page);
    model.delete(number);
  } else if (kind === "deleteRelation") {
    pages.deleteRelation(spc, db, rel);
    forget((other) => other.spc === spc && other.db === db && other.rel === rel);
  } else {
    pages.deleteDatabase(spc, db);
    forget((other) => other.spc === spc && other.db === db);
  }
}

Deno.test("HeldPages keeps every page in few frames, and none that was deleted", () => {
  fc.assert(fc.property(steps, (run) => {
    const spill = new MemorySpill();
    const pages = new HeldPages(FRAMES, spill);
    const model = new Map<number, number>();
    let most = 0;
    for (const step of run) {
      apply(pages, model, step);
      most = Math.max(most, model.size);
      const page = pages.get(key(step[1]));
      assert.equal(page === undefined ? undefined : content(page), model.get(step[1]));
    }
    const left = [...model].map(([number, value]) => `${number}: ${value}`).sort();
    const held: string[] = [];
    for (const page of pages) held.push(`${page.key.block}: ${content(page)}`);
    assert.deepEqual(held.sort(), left);
    for (const kind of [0, 1, 2]) {
      const slru = [...model.keys()].filter((number) =>
        key(number).kind === "slru" && number % 3 === kind
      );
      assert.equal([...pages.ofSlru(kind)].length, slru.length);
      pages.deleteSlru(kind);
      assert.deepEqual([...pages.ofSlru(kind)], []);
    }
    // At least what does not fit is outside, in slots that are used again.
    assert.ok(spill.slots.length <= most, "a slot for each page at most");
    if (most > FRAMES) assert.ok(spill.slots.length > 0);
  }));
});
