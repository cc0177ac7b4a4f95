import assert from "node:assert/strict";
import { fstatSync } from "node:fs";
import { setImmediate } from "node:timers/promises";
import fc from "fast-check";
import { FileTable, type LayerFile } from "./file_table.ts";
import { CACHE_PAGE_BYTES } from "./layer_format.ts";
import { FilePageCache } from "./file_page_cache.ts";
import { Postponed } from "./postponed.ts";

const PAGES = 1200;

/** A file whose pages tell which they are. */
function makeFile(files: FileTable, path: string, n: number): LayerFile {
  const words = new Uint32Array(PAGES * CACHE_PAGE_BYTES / 4);
  for (let page = 0; page < PAGES; page++) {
    words.fill(wordOf(n, page), page * 2048, (page + 1) * 2048);
  }
  Deno.writeFileSync(path, new Uint8Array(words.buffer));
  return files.register(path);
}

function wordOf(n: number, page: number): number {
  return n * 100_000 + page;
}

function check(cache: FilePageCache, file: LayerFile, n: number, page: number): void {
  const offset = cache.valuePage(file, page, PAGES, 1);
  for (let at = 0; at < CACHE_PAGE_BYTES; at += 1024) {
    assert.equal(cache.valueView.getUint32(offset + at, true), wordOf(n, page), `page ${page}`);
  }
}

/** Lets reads by other threads end. */
async function settled(files: FileTable): Promise<void> {
  while (files.readCount > 0) await setImmediate();
}

Deno.test("behind a scan chunks are read by others: it has read itself only the first ones", async () => {
  const directory = Deno.makeTempDirSync();
  const files = new FileTable(2);
  const cache = new FilePageCache(8 * CACHE_PAGE_BYTES, files, true);
  const file = makeFile(files, `${directory}/0`, 0);
  for (let page = 0; page < PAGES; page++) {
    check(cache, file, 0, page);
    if (page % 32 === 0) await settled(files);
  }
  assert.ok(cache.misses <= 6, `${cache.misses} misses`);
  const before = cache.misses;
  check(cache, file, 0, PAGES - 1);
  assert.equal(cache.misses, before);
  cache.forgetScans();
  check(cache, file, 0, PAGES - 1);
  assert.equal(cache.misses, before + 1);
  files.release(file);
  Deno.removeSync(directory, { recursive: true });
});

Deno.test("who does not wait for others reads the right pages himself", async () => {
  const directory = Deno.makeTempDirSync();
  const files = new FileTable(2);
  const cache = new FilePageCache(8 * CACHE_PAGE_BYTES, files, true);
  const made = [0, 1, 2].map((n) => makeFile(files, `${directory}/${n}`, n));
  const run = fc.record({
    n: fc.nat(2),
    start: fc.nat(PAGES - 1),
    count: fc.integer({ min: 1, max: 300 }),
    turn: fc.constantFrom("none", "one", "all", "forget"),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(run, { maxLength: 8 }), async (runs) => {
      for (const { n, start, count, turn } of runs) {
        for (let page = start; page < Math.min(start + count, PAGES); page++) {
          check(cache, made[n]!, n, page);
        }
        if (turn === "one") await setImmediate();
        if (turn === "all") await settled(files);
        if (turn === "forget") cache.forgetScans();
        assert.ok(files.openCount <= 2);
      }
      if (runs.length === 0) cache.clear();
    }),
    { numRuns: 100 },
  );
  for (const file of made) files.release(file);
  await settled(files);
  Deno.removeSync(directory, { recursive: true });
});

Deno.test("a scan may read as many files side by side as there are runs of layers", async () => {
  const directory = Deno.makeTempDirSync();
  const files = new FileTable(16);
  const cache = new FilePageCache(8 * CACHE_PAGE_BYTES, files, true);
  const path = `${directory}/0`;
  const runs = [
    makeFile(files, path, 0),
    ...Array.from({ length: 10 }, () => files.register(path)),
  ];
  for (let page = 0; page < PAGES; page++) {
    for (const file of runs) check(cache, file, 0, page);
    if (page % 8 === 0) await setImmediate();
  }
  const chunks = Math.ceil(PAGES / 64);
  // Each chunk once, or now and then a second time; not once for each page
  assert.ok(cache.misses <= 2 * runs.length * chunks, `${cache.misses} misses`);
  for (const file of runs) files.release(file);
  await settled(files);
  Deno.removeSync(directory, { recursive: true });
});

Deno.test("who may wait is told when the page that he needs has come", async () => {
  const directory = Deno.makeTempDirSync();
  const files = new FileTable(2);
  const cache = new FilePageCache(8 * CACHE_PAGE_BYTES, files, true);
  const file = makeFile(files, `${directory}/0`, 0);
  let postponed = 0;
  for (let page = 0; page < PAGES; page++) {
    cache.mayPostpone = true;
    try {
      check(cache, file, 0, page);
    } catch (thrown) {
      if (!(thrown instanceof Postponed)) throw thrown;
      postponed++;
      await thrown.ready;
      page--;
    }
  }
  assert.ok(postponed > 0);
  // Four pages until it was a scan, and their chunk: all others were brought by other threads
  assert.equal(cache.misses, 4);
  files.release(file);
  await settled(files);
  Deno.removeSync(directory, { recursive: true });
});

Deno.test("who needs single pages where a scan has been has nothing read behind them", async () => {
  const directory = Deno.makeTempDirSync();
  const files = new FileTable(2);
  const cache = new FilePageCache(8 * CACHE_PAGE_BYTES, files, true);
  const file = makeFile(files, `${directory}/0`, 0);
  for (let page = 0; page < 130; page++) {
    check(cache, file, 0, page);
    await settled(files);
  }
  const before = cache.misses;
  // In chunks that were read for the scan; the same page again, and a value across two
  for (const page of [200, 240, 240, 241, 210, 205]) check(cache, file, 0, page);
  assert.equal(cache.misses, before);
  assert.equal(files.readCount, 0);
  for (const page of [900, 901, 1000, 1001, 910, 911]) check(cache, file, 0, page);
  assert.equal(cache.misses, before + 6);
  // A row is another process of the scan
  for (const page of [220, 221, 222, 223]) check(cache, file, 0, page);
  assert.ok(files.readCount > 0);
  for (const page of [950, 951, 952, 953, 954, 955]) check(cache, file, 0, page);
  assert.equal(cache.misses, before + 9);
  await settled(files);
  files.release(file);
  Deno.removeSync(directory, { recursive: true });
});

Deno.test("a file that is let go while it is read from is closed after that", async () => {
  const directory = Deno.makeTempDirSync();
  const files = new FileTable(2);
  const file = makeFile(files, `${directory}/0`, 7);
  const into = new Uint8Array(2 * CACHE_PAGE_BYTES);
  files.readExactly(file, 0, 1, into, 0);
  const { descriptor } = file;
  const length = CACHE_PAGE_BYTES;
  const read = (position: number, at: number) =>
    new Promise<boolean>((resolve) => files.readLater(file, position, length, into, at, resolve));
  const both = [read(0, 0), read((PAGES - 1) * length, length), read(PAGES * length - 8, 0)];
  files.release(file);
  assert.equal(files.openCount, 0);
  assert.ok(fstatSync(descriptor).isFile());
  assert.deepEqual(await Promise.all(both), [true, true, false]);
  assert.equal(new DataView(into.buffer).getUint32(length, true), wordOf(7, PAGES - 1));
  assert.equal(files.readCount, 0);
  assert.throws(() => fstatSync(descriptor), /EBADF|bad file/i);
  Deno.removeSync(directory, { recursive: true });
});
