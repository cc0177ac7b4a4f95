import assert from "node:assert/strict";
import fc from "fast-check";
import { PAGE_SIZE } from "../../libs/postgres/constants.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import type { ObjectId } from "../repository/key_interner.ts";
import { PageCache } from "./page_cache.ts";

const object = (n: number) => n as ObjectId;

Deno.test("PageCache.find() gives the slot that was taken for a page", () => {
  const cache = new PageCache(4 * PAGE_SIZE);
  const pages = new Map<number, number>();
  const slot = cache.take(pages, object(7), 4_000_000_000);
  cache.validate(slot, 8 as Lsn, 16 as Lsn);
  assert.equal(cache.find(pages, object(7), 4_000_000_000), slot);
  assert.equal(cache.find(pages, object(8), 4_000_000_000), undefined);
  assert.deepEqual([cache.from[slot], cache.at[slot]], [8, 16]);
});

Deno.test("PageCache never gives one slot to two pages, and keeps what is used", () => {
  const step = fc.record({ owner: fc.nat(2), object: fc.nat(5), block: fc.nat(5) });
  fc.assert(fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
    const cache = new PageCache(8 * PAGE_SIZE);
    const owners = [
      new Map<number, number>(),
      new Map<number, number>(),
      new Map<number, number>(),
    ];
    for (const { owner, object: number, block } of steps) {
      const pages = owners[owner]!;
      const found = cache.find(pages, object(number), block);
      const slot = found ?? cache.take(pages, object(number), block);
      if (found !== undefined) {
        assert.equal(cache.view.getUint32(slot * PAGE_SIZE), owner * 100 + number * 10 + block);
      }
      cache.view.setUint32(slot * PAGE_SIZE, owner * 100 + number * 10 + block);
      const slots = owners.flatMap((map) => [...map.values()]);
      assert.equal(new Set(slots).size, slots.length);
      assert.ok(slots.length <= 8);
    }
  }));
});

Deno.test("PageCache.drop() frees a slot", () => {
  const cache = new PageCache(PAGE_SIZE);
  const pages = new Map<number, number>();
  const slot = cache.take(pages, object(1), 1);
  cache.drop(slot);
  assert.equal(cache.find(pages, object(1), 1), undefined);
  assert.equal(pages.size, 0);
});

Deno.test("PageCache.clear() frees all slots, and their memory", () => {
  const cache = new PageCache(4 * PAGE_SIZE);
  const pages = new Map<number, number>();
  for (let block = 0; block < 6; block++) cache.take(pages, object(1), block);
  const { bytes } = cache;
  cache.clear();
  assert.equal(pages.size, 0);
  assert.notEqual(cache.bytes, bytes);
  assert.equal(cache.view.buffer, cache.bytes.buffer);
  const slots = [0, 1, 2, 3].map((block) => cache.take(pages, object(2), block));
  assert.equal(new Set(slots).size, 4);
  assert.equal(pages.size, 4);
});

Deno.test("A page is worth a slot at the second request, or if many records make it", () => {
  const cache = new PageCache(PAGE_SIZE);
  assert.equal(cache.isWorthASlot(object(1), 1, 100), true);
  for (let block = 0; block < 1000; block++) {
    assert.equal(cache.isWorthASlot(object(1), block, 1), false);
  }
  assert.equal(cache.isWorthASlot(object(2), 1, 1), false);
  assert.equal(cache.isWorthASlot(object(1), 999, 1), true);
});
