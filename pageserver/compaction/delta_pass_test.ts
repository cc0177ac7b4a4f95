/** Delta layers before and after they are rewritten: what reads find, and where it lies. */
import assert from "node:assert/strict";
import { Corrupt, NotFound } from "../../libs/utils/errors.ts";
import { addLsn, type Lsn } from "../../libs/utils/lsn.ts";
import { seededRandom } from "../../tests/load/random.ts";
import { compareKeys, makeKey, twophaseKey } from "../repository/key.ts";
import { KIND_MASK } from "../repository/layer_format.ts";
import { checkContents, lsnOf, putNumbered } from "../repository/numbered_fixture.ts";
import { Reconstruction } from "../repository/reconstruction.ts";
import {
  bytesOf,
  putRecord,
  START_LSN,
  textOf,
  withTimeline,
} from "../repository/repository_fixture.ts";
import type { Timeline } from "../repository/timeline.ts";
import { joinedText, makeTextImages, rewriteSome } from "./image_fixture.ts";

const into = new Reconstruction();
const RELATIONS = [11, 12, 13];
const BLOCKS = 40;
const VALUES = [1, 2, 3].map(twophaseKey);

function readPage(timeline: Timeline, rel: number, block: number, lsn: Lsn): string {
  try {
    timeline.collect(timeline.interner.relation(1663, 5, rel, 0), block, lsn, into);
  } catch (thrown) {
    if (thrown instanceof NotFound) return "none";
    throw thrown;
  }
  return joinedText(into);
}

/** Everything that can be read at an LSN. */
function contents(timeline: Timeline, lsn: Lsn): string[] {
  const pages = RELATIONS.flatMap((rel) =>
    Array.from({ length: BLOCKS }, (_, block) => readPage(timeline, rel, block, lsn))
  );
  const values = VALUES.map((key) => textOf(timeline.getValue(key, lsn)) ?? "none");
  const scanned: string[] = [];
  timeline.scan(makeKey(2, 0, 0, 0, 0, 0), makeKey(3, 0, 0, 0, 0, 0), lsn, (_, value) => {
    scanned.push(textOf(value)!);
  });
  return [...pages, ...values, ...scanned];
}

/** Records of one page or of several, short and long, values and deletions; in `flushes` layers. */
async function fill(timeline: Timeline, flushes: number): Promise<Lsn> {
  const random = seededRandom("rewritten layers");
  const object = (rel: number) => timeline.interner.relation(1663, 5, rel, 0);
  let lsn = START_LSN;
  const next = () => lsn = addLsn(lsn, 8);
  for (const rel of RELATIONS) {
    next();
    for (let block = 0; block < BLOCKS; block++) {
      putRecord(timeline, object(rel), block, lsn, `i${rel}.${block}`, true);
    }
  }
  for (let flush = 0; flush < flushes; flush++) {
    for (let n = 0; n < 400; n++) {
      next();
      const text = `r${flush}.${n}${"-".repeat(n % 50 === 0 ? 5000 : n % 7)}`;
      const blob = timeline.beginBlob(bytesOf(text), 0, text.length);
      for (let pages = random.between(1, 3); pages > 0; pages--) {
        const rel = RELATIONS[random.between(0, 2)]!;
        const block = random.between(0, BLOCKS - 1);
        timeline.putRecord(object(rel), block, lsn, blob, random.between(0, 9) === 0);
      }
      if (n % 11 === 0) {
        const isGone = random.between(0, 2) === 0;
        timeline.putValue(VALUES[random.between(0, 2)]!, lsn, isGone ? null : bytesOf(`v${lsn}`));
      }
    }
    timeline.advance(lsn, addLsn(lsn, -8));
    await timeline.flush();
  }
  return lsn;
}

function deltasOf(timeline: Timeline) {
  return timeline.layers.finished.layers.filter(({ kind }) => kind === "delta");
}

Deno.test("rewritten layers say the same at every LSN, in the order of keys, each of others", () =>
  withTimeline(async ({ timeline }) => {
    const last = await fill(timeline, 3);
    const lsns = Array.from(
      { length: 25 },
      (_, i) => addLsn(START_LSN, 8 + Math.floor((last - START_LSN) / 8 * i / 25) * 8),
    );
    const at = [...lsns, last];
    const before = at.map((lsn) => contents(timeline, lsn));
    const bytes = deltasOf(timeline).reduce((sum, layer) => sum + layer.sizeBytes, 0);
    const done = await rewriteSome(timeline, { targetBytes: 20_000 });
    assert.ok(done.replaced === 3 && done.layers > 3, `3 became ${done.layers}`);
    assert.deepEqual(at.map((lsn) => contents(timeline, lsn)), before);
    const layers = deltasOf(timeline).toSorted((a, b) => compareKeys(a.first, b.first));
    assert.equal(layers.length, done.layers);
    layers.forEach((layer, i) => {
      assert.deepEqual([layer.lsnStart, layer.lsnEnd, layer.inKeyOrder], [START_LSN, last, true]);
      if (i > 0) assert.ok(compareKeys(layers[i - 1]!.last, layer.first) < 0);
    });
    // Records are stored with each page; those of 5000 bytes would be as much as all others
    const now = layers.reduce((sum, layer) => sum + layer.sizeBytes - 4 * 8192, 0);
    assert.ok(now < 2.5 * bytes, `${bytes} bytes became ${now}`);
    let behind = 0;
    let entries = 0;
    for (const layer of layers) {
      for (const rel of RELATIONS) {
        let position = 0;
        layer.reader().entries(makeKey(0, 1663, 5, rel, 0, 0), BLOCKS, (_, word) => {
          if (word - (word & KIND_MASK) > position) behind++;
          position = word - (word & KIND_MASK);
          entries++;
          return false;
        });
      }
    }
    assert.ok(entries > 2000 && behind / entries > 0.97, `${behind} of ${entries} lie in order`);
    // Once more, with what has come since
    putRecord(timeline, timeline.interner.relation(1663, 5, 11, 0), 1, addLsn(last, 8), "x", true);
    timeline.advance(addLsn(last, 8), last);
    await timeline.flush();
    assert.deepEqual(await rewriteSome(timeline), { replaced: layers.length + 1, layers: 1 });
    assert.equal(readPage(timeline, 11, 1, addLsn(last, 8)), "x");
    assert.deepEqual(at.map((lsn) => contents(timeline, lsn)), before);
  }));

Deno.test("images between the LSNs of a rewritten layer end the chains of records there", () =>
  withTimeline(async ({ timeline }) => {
    let n = 0;
    const ingest = async (last: number) => {
      while (n < last) putNumbered(timeline, ++n);
      timeline.advance(lsnOf(n), lsnOf(n - 1));
      await timeline.flush();
    };
    await ingest(100);
    await makeTextImages(timeline, { targetBytes: 40 });
    await ingest(120);
    await ingest(140);
    await makeTextImages(timeline);
    await ingest(160);
    const relation = timeline.interner.relation(1663, 5, 77, 0);
    const chains = () =>
      Array.from({ length: 160 }, (_, i) => {
        timeline.collect(relation, (i + 1) % 13, lsnOf(i + 1), into);
        return [into.hasImage, into.imageLsn, into.recordCount];
      });
    const before = chains();
    assert.ok(before.filter(([hasImage]) => hasImage).length > 20);
    await rewriteSome(timeline);
    assert.equal(deltasOf(timeline).length, 1);
    assert.deepEqual(chains(), before);
    checkContents(timeline);
    // Images that come later take nothing from it either
    await makeTextImages(timeline);
    await ingest(180);
    checkContents(timeline);
  }));

Deno.test("values of which few fit into memory are rewritten, and one that does not alone", () =>
  withTimeline(async ({ timeline }) => {
    const object = timeline.interner.relation(1663, 5, 7, 0);
    const mebibyte = new Uint8Array(1 << 20);
    const lengths = Array.from(
      { length: 80 },
      (_, n) => n === 44 ? 33 << 20 : n % 9 === 0 ? 1 << 20 : 9,
    );
    const blockOf = (n: number) => (n * 37) % 80;
    let lsn = START_LSN;
    lengths.forEach((length, n) => {
      lsn = addLsn(lsn, 8);
      const bytes = length > mebibyte.length ? new Uint8Array(length) : mebibyte;
      bytes[0] = n;
      timeline.putImage(object, blockOf(n), lsn, bytes, 0, length);
    });
    timeline.advance(lsn, START_LSN);
    await timeline.flush();
    assert.equal((await rewriteSome(timeline, { targetBytes: 3 << 20 })).replaced, 1);
    assert.ok(deltasOf(timeline).length > 2);
    lengths.forEach((length, n) => {
      timeline.collect(object, blockOf(n), lsn, into);
      assert.deepEqual([into.imageLength, into.bytes[0]], [length, n]);
    });
  }));

Deno.test("a harmed value keeps a layer from being replaced, and no new file is left", () =>
  withTimeline(async ({ timeline, directory }) => {
    await fill(timeline, 2);
    const path = `${directory}/tenants/${timeline.tenantId}/timelines/${timeline.timelineId}`;
    const files = () => [...Deno.readDirSync(path)].map(({ name }) => name).sort();
    const before = files();
    const [harmed, other] = deltasOf(timeline);
    using file = Deno.openSync(harmed!.file.path, { read: true, write: true });
    const byte = new Uint8Array(1);
    file.seekSync(9000, Deno.SeekMode.Start);
    file.readSync(byte);
    byte[0]! ^= 1;
    file.seekSync(9000, Deno.SeekMode.Start);
    file.writeSync(byte);
    const rewriting = rewriteSome(timeline, { targetBytes: 10_000 });
    await assert.rejects(rewriting, (thrown) => {
      assert.ok(thrown instanceof Corrupt && thrown.message.includes(harmed!.file.path));
      return true;
    });
    assert.deepEqual(files(), before);
    assert.ok(deltasOf(timeline).includes(other!));
  }));
