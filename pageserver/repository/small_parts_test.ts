/**
 * Tests of the small parts: the memory index, sorting in slices, the layer map, waiters, the cache.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import { TimedOut, Unavailable } from "../../libs/utils/errors.ts";
import { toLsn } from "../../libs/utils/lsn.ts";
import { FileTable } from "./file_table.ts";
import { makeKey } from "./key.ts";
import type { ObjectId } from "./key_interner.ts";
import { CACHE_PAGE_BYTES, type LayerDescription } from "./layer_format.ts";
import { LayerMap } from "./layer_map.ts";
import { LsnWaiters } from "./lsn_waiters.ts";
import { MemoryIndex, NO_ENTRY } from "./memory_index.ts";
import { FilePageCache } from "./file_page_cache.ts";
import { sortInSlices } from "./sliced_sort.ts";
import { pause } from "./repository_fixture.ts";

function chainOf(index: MemoryIndex, object: number, block: number): number[] {
  const words: number[] = [];
  let entry = index.newest(object as ObjectId, block);
  while (entry !== NO_ENTRY) {
    words.push(index.word(entry));
    entry = index.previous(entry);
  }
  return words;
}

Deno.test("the memory index equals a map of lists, also after truncate()", () => {
  const puts = fc.array(
    fc.tuple(fc.integer({ min: 0, max: 40 }), fc.integer({ min: 0, max: 40 })),
    {
      maxLength: 600,
    },
  );
  fc.assert(fc.property(puts, fc.nat(600), (list, cut) => {
    const index = new MemoryIndex();
    const model = new Map<string, number[]>();
    const kept = Math.min(cut, list.length);
    for (const [i, [object, block]] of list.entries()) {
      index.put(object as ObjectId, block, i, i * 8);
      if (i < kept) {
        model.set(`${object}/${block}`, [i * 8, ...(model.get(`${object}/${block}`) ?? [])]);
      }
    }
    index.truncate(kept);
    assert.equal(index.entryCount, kept);
    for (const [object, block] of list) {
      assert.deepEqual(chainOf(index, object, block), model.get(`${object}/${block}`) ?? []);
    }
    assert.deepEqual(chainOf(index, 99, 0), []);
    index.put(5 as ObjectId, 5, 1000, 8000);
    assert.deepEqual(chainOf(index, 5, 5), [8000, ...(model.get("5/5") ?? [])]);
  }));
});

Deno.test("sortInSlices() sorts, with and without a comparison", async () => {
  for (const length of [0, 1, 1024, 1025, 8192, 8193, 50_000]) {
    const values = Float64Array.from({ length }, (_, i) => (i * 7919) % 10_007);
    const expected = values.toSorted();
    assert.deepEqual(await sortInSlices(values.slice(), pause), expected);
    const downward = await sortInSlices(values.slice(), pause, (a, b) => b - a);
    assert.deepEqual(downward, expected.toReversed());
  }
});

function layerAt(lsnStart: number, lsnEnd: number, from: number, to: number): LayerDescription {
  return {
    kind: "delta",
    inKeyOrder: false,
    first: makeKey(0, 1663, 5, 1, 0, from),
    last: makeKey(0, 1663, 5, 1, 0, to),
    lsnStart: toLsn(lsnStart),
    lsnEnd: toLsn(lsnEnd),
    generation: 1,
    sizeBytes: 0,
  };
}

Deno.test("the layer map puts images in front of the records that they follow, come as they may", () => {
  const before = layerAt(0, 10, 0, 100);
  const delta = layerAt(10, 20, 0, 100);
  const image: LayerDescription = { ...layerAt(19, 20, 10, 20), kind: "image" };
  const after = layerAt(20, 30, 0, 100);
  for (const order of [[before, delta, image, after], [after, image, delta, before]]) {
    const map = new LayerMap<LayerDescription>();
    for (const layer of order) map.insert(layer);
    assert.deepEqual(map.layers, [after, image, delta, before]);
  }
});

Deno.test("the layer map visits a delta layer in parts where images lie between its LSNs", () => {
  const map = new LayerMap<LayerDescription>();
  const image = (lsn: number, from: number, to: number): LayerDescription => ({
    ...layerAt(lsn - 1, lsn, from, to),
    kind: "image",
  });
  const old = layerAt(0, 10, 0, 100);
  const low = layerAt(10, 50, 0, 60);
  const high = layerAt(10, 50, 61, 100);
  const images = [image(10, 0, 100), image(20, 0, 70), image(40, 50, 55), image(50, 0, 100)];
  for (const layer of [high, ...images, old, low]) map.insert(layer);
  const parts = (layer: LayerDescription) =>
    map.visits.filter((visit) => visit.layer === layer).map((v) => [v.lsnStart, v.lsnEnd]);
  assert.deepEqual(parts(low), [[40, 50], [20, 40], [10, 20]]);
  assert.deepEqual(parts(high), [[20, 50], [10, 20]]);
  assert.deepEqual(parts(old), [[0, 10]]);
  for (const one of images) assert.deepEqual(parts(one), [[one.lsnStart, one.lsnEnd]]);
  const ends = map.visits.map(({ lsnEnd }) => lsnEnd);
  assert.deepEqual(ends, ends.toSorted((a, b) => b - a));
  map.visits.forEach(({ layer, lsnEnd }, i) => {
    const before = map.visits[i - 1];
    if (before?.lsnEnd === lsnEnd && before.layer.kind === "delta") {
      assert.equal(layer.kind, "delta", "images come first");
    }
  });
  map.remove(new Set([images[1]!, low]));
  assert.deepEqual(parts(high), [[10, 50]]);
  assert.deepEqual(parts(low), []);
});

Deno.test("the layer map offers the layers that can hold a key, newest first", () => {
  const map = new LayerMap<LayerDescription>();
  const old = layerAt(9, 10, 0, 100);
  const middle = layerAt(10, 20, 50, 60);
  const recent = layerAt(20, 30, 0, 55);
  for (const layer of [middle, recent, old]) map.insert(layer);
  const search = (block: number, lsn: number): LayerDescription[] => {
    const key = makeKey(0, 1663, 5, 1, 0, block);
    const found: LayerDescription[] = [];
    for (let i = map.next(0, key, toLsn(lsn)); i >= 0; i = map.next(i + 1, key, toLsn(lsn))) {
      found.push(map.visits[i]!.layer);
    }
    return found;
  };
  assert.deepEqual(search(52, 100), [recent, middle, old]);
  assert.deepEqual(search(52, 20), [middle, old]);
  assert.deepEqual(search(52, 21), [recent, middle, old]);
  assert.deepEqual(search(58, 100), [middle, old]);
  assert.deepEqual(search(99, 100), [old]);
  assert.deepEqual(search(101, 100), []);
  assert.deepEqual(search(1, 9), []);
  const end = makeKey(0x61, 0, 0, 0, 0, 0);
  assert.equal(map.nextInRange(0, makeKey(0, 1663, 5, 1, 0, 60), end, toLsn(100)), 1);
  assert.equal(map.nextInRange(0, end, end, toLsn(100)), -1);
});

Deno.test("waiters wake at their LSN, time out naming both, and can be aborted", async () => {
  const waiters = new LsnWaiters("timeline t");
  const current = () => toLsn(5);
  let woken = 0;
  const early = waiters.wait(toLsn(10), current, 60_000).then(() => woken++);
  const late = waiters.wait(toLsn(20), current, 60_000);
  waiters.reached(toLsn(9));
  await pause();
  assert.equal(woken, 0);
  waiters.reached(toLsn(10));
  await early;
  assert.equal(waiters.count, 1);
  waiters.fail(new Unavailable("closed"));
  await assert.rejects(late, Unavailable);
  await assert.rejects(
    waiters.wait(toLsn(0x20), current, 1),
    (thrown) => thrown instanceof TimedOut && /0\/20 .*0\/5/.test(thrown.message),
  );
  const abort = new AbortController();
  const aborted = waiters.wait(toLsn(20), current, 60_000, abort.signal);
  abort.abort(new Error("gone"));
  await assert.rejects(aborted, /gone/);
  assert.equal(waiters.count, 0);
});

Deno.test("the page cache gives the file's bytes however small it and the handle table are", () => {
  const directory = Deno.makeTempDirSync();
  const files = new FileTable(2);
  const cache = new FilePageCache(8 * CACHE_PAGE_BYTES, files);
  const pages = 300;
  const handles = [0, 1, 2, 3].map((n) => {
    const path = `${directory}/${n}`;
    const words = Uint32Array.from(
      { length: pages * CACHE_PAGE_BYTES / 4 },
      (_, i) => i * 31 + n * 7,
    );
    const bytes = new Uint8Array(words.buffer);
    Deno.writeFileSync(path, bytes);
    return { file: files.register(path), bytes };
  });
  // Of one file, values of one length one behind the other: some long enough to be read ahead
  const reads = fc.record({
    n: fc.nat(3),
    position: fc.nat(pages * CACHE_PAGE_BYTES),
    length: fc.integer({ min: 1, max: 2 * CACHE_PAGE_BYTES }),
    count: fc.oneof(fc.constant(1), fc.nat(40)),
  });
  const into = new Uint8Array(2 * CACHE_PAGE_BYTES);
  fc.assert(
    fc.property(reads, ({ n, position, length, count }) => {
      const { file, bytes } = handles[n]!;
      if (count === 0) cache.clear();
      for (let i = 0; i < count; i++) {
        const from = position + i * length;
        if (from + length > bytes.length) break;
        cache.readValue(file, from, length, pages, into, 0);
        const expected = bytes.subarray(from, from + length);
        assert.equal(Buffer.compare(into.subarray(0, length), expected), 0);
        assert.ok(files.openCount <= 2);
      }
    }),
    { numRuns: 500 },
  );
  assert.ok(cache.evictions > 0 && cache.hits > 0);
  const first = handles[0]!;
  // Pages one by one, which are read with their neighbours, of a part of the file
  fc.assert(fc.property(fc.nat(3), fc.nat(20), fc.nat(40), fc.nat(30), (n, start, count, at) => {
    const { file, bytes } = handles[n]!;
    const page = start + at % (count + 1);
    const offset = cache.page(file, page, start, start + count + 1);
    const expected = bytes.subarray(page * CACHE_PAGE_BYTES, (page + 1) * CACHE_PAGE_BYTES);
    const got = cache.bytes.subarray(offset, offset + CACHE_PAGE_BYTES);
    assert.equal(Buffer.compare(got, expected), 0);
    assert.equal(cache.page(file, page, start, start + count + 1), offset);
  }));
  cache.clear();
  const offset = cache.page(first.file, 0, 0, pages);
  assert.equal(cache.isVerified(offset), false);
  cache.markVerified(offset);
  assert.equal(cache.isVerified(cache.page(first.file, 0, 0, pages)), true);
  assert.throws(() => cache.valuePage(first.file, pages, pages, 1), /ends before/);
  assert.throws(() => cache.page(first.file, pages, 0, pages + 1), /ends before/);
  for (const { file } of handles) files.release(file);
  assert.equal(files.openCount, 0);
  Deno.removeSync(directory, { recursive: true });
});

Deno.test("rows of pages are read by the chunk, pages alone are not, however near", () => {
  const directory = Deno.makeTempDirSync();
  const files = new FileTable(2);
  const cache = new FilePageCache(8 * CACHE_PAGE_BYTES, files);
  const pages = 1000;
  const file = files.register(`${directory}/file`);
  Deno.writeFileSync(file.path, new Uint8Array(pages * CACHE_PAGE_BYTES));
  /** Whether more than was asked for lies behind it. */
  const byChunk = (page: number) => {
    const offset = cache.valuePage(file, page, pages, 1);
    return cache.valueEnd - offset > 2 * CACHE_PAGE_BYTES;
  };
  assert.deepEqual([0, 1, 2, 3, 4].map(byChunk), [false, false, false, true, true]);
  // By key, each somewhat behind the one before, as by an index
  for (let page = 100; page < 400; page += 30) assert.equal(byChunk(page), false, `page ${page}`);
  // One value across two pages
  assert.deepEqual([450, 451, 470, 471].map(byChunk), [false, false, false, false]);
  // Another process of the scan
  assert.deepEqual([500, 501, 502, 503].map(byChunk), [false, false, true, true]);
  assert.deepEqual([640, 641, 642, 135, 136, 137].map(byChunk), [
    false,
    false,
    true,
    false,
    false,
    true,
  ]);
  files.release(file);
  Deno.removeSync(directory, { recursive: true });
});
