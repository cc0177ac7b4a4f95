/** Layer files: many blocks, and every kind of harm to one. */
import assert from "node:assert/strict";
import { crc32c } from "../../libs/utils/crc32c.ts";
import { Corrupt, NotFound } from "../../libs/utils/errors.ts";
import type { TenantId, TimelineId } from "../../libs/utils/id.ts";
import { addLsn } from "../../libs/utils/lsn.ts";
import { seededRandom } from "../../tests/load/random.ts";
import { makeKey, relationSizeKey } from "./key.ts";
import { BLOB_HEADER_BYTES, CACHE_PAGE_BYTES, HEADER_BYTES } from "./layer_format.ts";
import { Reconstruction } from "./reconstruction.ts";
import {
  bytesOf,
  copyDirectory,
  openManager,
  putRecord,
  START_LSN,
  textOf,
  withTimeline,
} from "./repository_fixture.ts";
import type { Timeline } from "./timeline.ts";

const into = new Reconstruction();

/** Image and records of a page as text. */
function readPage(timeline: Timeline, rel: number, block: number): string {
  const object = timeline.interner.relation(1663, 5, rel, 0);
  timeline.collect(object, block, timeline.lastRecordLsn, into);
  const parts = into.hasImage ? [textOf(into.bytes.subarray(0, into.imageLength))] : [];
  for (let i = 0; i < into.recordCount; i++) {
    const offset = into.recordOffset[i]!;
    parts.push(textOf(into.bytes.subarray(offset, offset + into.recordLength[i]!)));
  }
  return parts.join(" ");
}

Deno.test("a layer of many blocks finds keys with long histories and many objects", async () => {
  await withTimeline(async ({ manager, timeline }) => {
    const hot = manager.interner.relation(1663, 5, 500, 0);
    const history = 3000; // about six index blocks
    let lsn = START_LSN;
    for (let i = 0; i < history; i++) {
      lsn = addLsn(lsn, 8);
      putRecord(timeline, hot, 3, lsn, `r${i}`, i === 0);
      if (i < 1200) {
        const object = manager.interner.relation(1663, 5, i, 1);
        putRecord(timeline, object, 0, lsn, `o${i}`, true);
        timeline.putValue(relationSizeKey(1663, 5, i, 1), lsn, bytesOf(`${i}`));
      }
      timeline.advance(lsn, addLsn(lsn, -8));
    }
    const all = Array.from({ length: history }, (_, i) => `r${i}`).join(" ");
    for (let round = 0; round < 2; round++) {
      assert.equal(readPage(timeline, 500, 3), all);
      for (const at of [1, 509, 510, 511, 512, 1000, 2999]) {
        timeline.collect(hot, 3, addLsn(START_LSN, 8 * at), into);
        assert.equal(into.recordCount, at);
      }
      for (const block of [0, 2, 4, 4294967295]) {
        assert.throws(() => timeline.collect(hot, block, lsn, into), NotFound);
      }
      for (let i = 0; i < 1200; i += 7) {
        timeline.collect(manager.interner.relation(1663, 5, i, 1), 0, lsn, into);
        assert.equal(textOf(into.bytes.subarray(0, into.length)), `o${i}`);
      }
      const rels: number[] = [];
      const from = relationSizeKey(1663, 5, 300, 0);
      timeline.scan(from, relationSizeKey(1663, 5, 1100, 0), addLsn(START_LSN, 8 * 1000), (key) => {
        rels.push(key.f4);
      });
      assert.deepEqual(rels, Array.from({ length: 700 }, (_, i) => 300 + i));
      await timeline.flush();
    }
  });
});

Deno.test("entries() visits all versions of some blocks, over many index blocks", async () => {
  await withTimeline(async ({ manager, timeline }) => {
    const random = seededRandom("entries of a layer");
    const put: [rel: number, block: number][] = [];
    let lsn = START_LSN;
    for (let i = 0; i < 6000; i++) {
      const [rel, block] = [
        random.between(5, 9) * 2,
        random.between(0, 3) * random.between(0, 900),
      ];
      lsn = addLsn(lsn, 8);
      putRecord(timeline, manager.interner.relation(1663, 5, rel, 0), block, lsn, "", i % 9 === 0);
      put.push([rel, block]);
      if (i % 100 === 99) timeline.advance(lsn, addLsn(lsn, -8));
    }
    await timeline.flush();
    const reader = timeline.layers.finished.layers[0]!.reader();
    for (let n = 0; n < 300; n++) {
      const [rel, first] = [random.between(9, 19), random.between(0, 2800)];
      const end = first + random.between(0, 1) * random.between(0, 1200);
      const found: number[] = [];
      const key = makeKey(0, 1663, 5, rel, 0, first);
      assert.equal(reader.entries(key, end, (block) => found.push(block) === 0), false);
      const wanted = put.filter(([r, block]) => r === rel && block >= first && block < end);
      assert.deepEqual(found, wanted.map(([_, block]) => block).sort((a, b) => a - b));
      const isThere = reader.entries(key, end, () => true);
      assert.equal(isThere, wanted.length > 0);
    }
  });
});

Deno.test("scans pass over blocks of versions, and see each key as of their LSN", async () => {
  await withTimeline(async ({ timeline }) => {
    const puts = 4000; // growing relations: several index blocks of sizes of one of them
    const grows = (i: number) => i % 10 === 0 ? (i % 20 === 0 ? 1 : 9) : i < 3990 ? 5 : 6;
    let lsn = START_LSN;
    for (let i = 0; i < puts; i++) {
      lsn = addLsn(lsn, 8);
      timeline.putValue(relationSizeKey(1663, 5, grows(i), 0), lsn, bytesOf(`${i}`));
      timeline.advance(lsn, addLsn(lsn, -8));
    }
    for (let round = 0; round < 2; round++) {
      for (const at of [1, 2, 11, 600, 601, 2500, 3989, 3990, 3992, 4000]) {
        for (const [first, end] of [[0, 10], [5, 10], [2, 6], [6, 9], [0, 5]] as const) {
          const expected = new Map<number, string>();
          for (let i = 0; i < at; i++) expected.set(grows(i), `${i}`);
          const found: [number, string][] = [];
          const [from, to] = [first, end].map((rel) => relationSizeKey(1663, 5, rel, 0));
          timeline.scan(from!, to!, addLsn(START_LSN, 8 * at), (key, value) => {
            found.push([key.f4, textOf(value)!]);
          });
          const wanted = [...expected].filter(([rel]) => rel >= first && rel < end);
          assert.deepEqual(found, wanted.sort(([a], [b]) => a - b));
        }
      }
      await timeline.flush();
    }
  });
});

Deno.test("images that stay where they are equal those that are copied, in any order", async () => {
  await withTimeline(async ({ manager, timeline }) => {
    const object = manager.interner.relation(1663, 5, 700, 0);
    const pages = 300;
    const page = new Uint8Array(CACHE_PAGE_BYTES);
    const lsn = addLsn(START_LSN, 8);
    const lengthOf = (block: number) => block % 50 === 3 ? 20_000 : CACHE_PAGE_BYTES;
    for (let block = 0; block < pages; block++) {
      const image = new Uint8Array(lengthOf(block)).fill(block);
      timeline.putImage(object, block, lsn, image, 0, image.length);
    }
    timeline.advance(lsn, START_LSN);
    await timeline.flush();
    const pointing = new Reconstruction(true);
    let elsewhere = 0;
    const check = (block: number) => {
      timeline.collect(object, block, lsn, pointing);
      assert.equal(pointing.imageLsn, lsn);
      assert.equal(pointing.imageLength, lengthOf(block));
      if (pointing.isElsewhere) elsewhere++;
      if (pointing.isElsewhere && block % 3 === 0) {
        const { elsewhereBytes, elsewhereOffset: at } = pointing;
        page.set(elsewhereBytes.subarray(at, at + CACHE_PAGE_BYTES));
        assert.ok(page.every((byte) => byte === (block & 0xff)), `block ${block}`);
      }
      pointing.bringHome();
      const image = pointing.bytes.subarray(0, pointing.imageLength);
      assert.ok(image.every((byte) => byte === (block & 0xff)), `block ${block}`);
      timeline.collect(object, block, lsn, into);
      assert.ok(!into.isElsewhere && into.imageLength === lengthOf(block));
    };
    for (let n = 0; n < pages; n++) check(Math.imul(n, 7919) % pages); // far from each other
    for (let block = 0; block < pages; block++) check(block); // by the chunk
    assert.ok(elsewhere > pages, `${elsewhere} images in place`);
  });
});

Deno.test("blocks read one behind the other are those read alone, with gaps and versions", async () => {
  await withTimeline(async ({ manager, timeline }) => {
    const blocks = 1300; // three index blocks
    const objects = [0, 1].map((fork) => manager.interner.relation(1663, 5, 800, fork));
    const versionsOf = (block: number) => block % 11 === 5 ? 0 : block % 7 === 3 ? 3 : 1;
    let lsn = START_LSN;
    for (let version = 0; version < 3; version++) {
      lsn = addLsn(lsn, 8);
      for (const object of objects) {
        for (let block = 0; block < blocks; block++) {
          if (version >= versionsOf(block)) continue;
          putRecord(timeline, object, block, lsn, `${object} ${block}.${version}`, version === 0);
        }
      }
      timeline.advance(lsn, addLsn(lsn, -8));
    }
    await timeline.flush();
    const read = (object: typeof objects[number], block: number, at: number) => {
      try {
        timeline.collect(object, block, addLsn(START_LSN, 8 * at), into);
      } catch (thrown) {
        assert.ok(thrown instanceof NotFound);
        return [];
      }
      return Array.from({ length: into.recordCount }, (_, i) => {
        const from = into.recordOffset[i]!;
        return textOf(into.bytes.subarray(from, from + into.recordLength[i]!));
      });
    };
    for (const at of [3, 1, 2]) {
      for (const object of objects) {
        for (let block = 0; block < blocks; block++) {
          const count = Math.min(versionsOf(block), at);
          const wanted = Array.from({ length: count }, (_, i) => `${object} ${block}.${i}`);
          assert.deepEqual(read(object, block, at), wanted, `block ${block} at ${at}`);
        }
      }
    }
  });
});

interface Small {
  directory: string;
  layerPath: string;
  tenantId: TenantId;
  timelineId: TimelineId;
  expected: string[];
}

const READS: ((timeline: Timeline) => string)[] = [
  (timeline) => readPage(timeline, 1, 0),
  (timeline) => readPage(timeline, 1, 1),
  (timeline) => textOf(timeline.getValue(relationSizeKey(1663, 5, 1, 0), timeline.lastRecordLsn))!,
  (timeline) => {
    const found: string[] = [];
    const [from, to] = [makeKey(0x61, 0, 0, 0, 0, 0), makeKey(0x62, 0, 0, 0, 0, 0)];
    timeline.scan(from, to, timeline.lastRecordLsn, (key, value) => {
      found.push(`${key.f4}=${textOf(value)}`);
    });
    return found.join(" ");
  },
];

/** Runs `work` with a closed directory that holds one small delta layer above the imported one. */
async function withSmallLayer(work: (small: Small) => Promise<void>): Promise<void> {
  const copy = Deno.makeTempDirSync();
  try {
    await withTimeline(async ({ directory, manager, tenant, timeline }) => {
      const relation = manager.interner.relation(1663, 5, 1, 0);
      putRecord(timeline, relation, 0, addLsn(START_LSN, 8), "first record", false);
      putRecord(timeline, relation, 0, addLsn(START_LSN, 16), "second record", false);
      putRecord(timeline, relation, 1, addLsn(START_LSN, 16), "other page", true);
      timeline.putValue(relationSizeKey(1663, 5, 1, 0), addLsn(START_LSN, 16), bytesOf("2"));
      timeline.putValue(relationSizeKey(1663, 5, 2, 0), addLsn(START_LSN, 16), null);
      timeline.advance(addLsn(START_LSN, 16), addLsn(START_LSN, 8));
      await timeline.flush();
      copyDirectory(directory, copy);
      const name = timeline.layerInfos()[0]!.fileName;
      const path = `tenants/${tenant.tenantId}/timelines/${timeline.timelineId}/${name}`;
      await work({
        directory: copy,
        layerPath: `${copy}/${path}`,
        tenantId: tenant.tenantId,
        timelineId: timeline.timelineId,
        expected: READS.map((read) => read(timeline)),
      });
    });
  } finally {
    Deno.removeSync(copy, { recursive: true });
  }
}

/** Opens the copy anew and says for each read: same, or the error. */
async function outcomes(small: Small): Promise<(true | Error)[]> {
  const manager = openManager(small.directory);
  const tenant = await manager.attach(small.tenantId, 1);
  const timeline = tenant.timeline(small.timelineId);
  const results = READS.map((read, i) => {
    try {
      assert.equal(read(timeline), small.expected[i], "a harmed layer never gives another value");
      return true;
    } catch (thrown) {
      if (thrown instanceof Corrupt) return thrown;
      throw thrown;
    }
  });
  await manager.shutdown();
  return results;
}

Deno.test("a flipped byte in a layer is an error that names it, or changes no value", async () => {
  await withSmallLayer(async (small) => {
    const intact = Deno.readFileSync(small.layerPath);
    assert.deepEqual(await outcomes(small), [true, true, true, true]);
    let errors = 0;
    let unharmed = 0;
    for (let at = 0; at < intact.length; at++) {
      // Every byte of every structure; of the zeros behind them a sample.
      if (at % 8192 > 450 && at % 509 !== 0) continue;
      const harmed = intact.slice();
      harmed[at]! ^= 1 << (at % 8);
      Deno.writeFileSync(small.layerPath, harmed);
      const results = await outcomes(small);
      for (const result of results) {
        if (result !== true) assert.ok(result.message.includes(small.layerPath), result.message);
      }
      if (results.some((result) => result !== true)) errors++;
      else unharmed++;
      // A harmed value harms only those who read it.
      if (at >= 64 && at < 8192) assert.ok(results.some((result) => result === true));
    }
    assert.ok(errors > 400 && unharmed > 0, `${errors} errors, ${unharmed} unharmed`);
  });
});

Deno.test("a missing or shortened layer is an error of the reads that need it", async () => {
  await withSmallLayer(async (small) => {
    const intact = Deno.readFileSync(small.layerPath);
    const allFail = async () => {
      const results = await outcomes(small);
      assert.ok(results.every((result) => result !== true));
    };
    Deno.removeSync(small.layerPath);
    await allFail();
    for (const length of [0, 10, 8192, intact.length - 8192, intact.length - 1]) {
      Deno.writeFileSync(small.layerPath, intact.subarray(0, length));
      await allFail();
    }
    Deno.writeFileSync(small.layerPath, intact);
    assert.deepEqual(await outcomes(small), [true, true, true, true]);
    const manager = openManager(small.directory);
    const timeline = (await manager.attach(small.tenantId, 1)).timeline(small.timelineId);
    Deno.removeSync(small.layerPath);
    // What is below the layer does not need it.
    timeline.collect(manager.interner.relation(1663, 5, 1, 0), 0, START_LSN, into);
    assert.equal(textOf(into.bytes.subarray(0, into.length)), "root");
    await manager.shutdown();
  });
});

/** The layer as version `version` has it, with its checksums; blobs as version 1 has them. */
function asVersion(layer: Uint8Array, version: number): Uint8Array {
  const bytes = layer.slice();
  const view = new DataView(bytes.buffer);
  const trailer = bytes.length - CACHE_PAGE_BYTES;
  view.setUint32(4, version, true);
  view.setUint32(40, crc32c(bytes.subarray(0, 40)), true);
  view.setUint32(trailer + 8, version, true);
  view.setUint32(trailer, crc32c(bytes.subarray(trailer + 4)), true);
  for (let at = HEADER_BYTES; view.getUint32(at, true) > 0;) {
    const length = view.getUint32(at, true);
    const end = at + BLOB_HEADER_BYTES + length;
    view.setUint32(at + 4, crc32c(bytes.subarray(at + BLOB_HEADER_BYTES, end), length), true);
    at = Math.ceil(end / 8) * 8;
  }
  return bytes;
}

Deno.test("a layer of version 1 is read, one of a version that is not known is refused", async () => {
  await withSmallLayer(async (small) => {
    const intact = Deno.readFileSync(small.layerPath);
    const old = asVersion(intact, 1);
    assert.notDeepEqual(old.subarray(HEADER_BYTES, 200), intact.subarray(HEADER_BYTES, 200));
    Deno.writeFileSync(small.layerPath, old);
    assert.deepEqual(await outcomes(small), [true, true, true, true]);
    old[HEADER_BYTES + BLOB_HEADER_BYTES]! ^= 1;
    Deno.writeFileSync(small.layerPath, old);
    assert.ok((await outcomes(small)).some((result) => result !== true));
    Deno.writeFileSync(small.layerPath, asVersion(intact, 3));
    for (const result of await outcomes(small)) assert.match(String(result), /format version 3/);
  });
});
