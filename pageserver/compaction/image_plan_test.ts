import assert from "node:assert/strict";
import fc from "fast-check";
import type { Lsn } from "../../libs/utils/lsn.ts";
import { KeyClass, makeKey } from "../repository/key.ts";
import { EntryKind, type LayerDescription } from "../repository/layer_format.ts";
import { ChainCounter, EXTENT_BLOCKS, extentsOf, isWorthALook, Sample } from "./image_plan.ts";

const OBJECT = makeKey(KeyClass.relation, 1663, 5, 16384, 0, 0);

/** One entry of a layer. */
interface Entry {
  readonly block: number;
  readonly kind: number;
}

/** Counts layers, newest first; entries in the order in which a layer has them. */
function count(
  blocks: number,
  layers: readonly Entry[][],
  bytesPerRecord: number,
  bytesPerInit = bytesPerRecord,
): ChainCounter {
  const chains = new ChainCounter();
  chains.begin({ object: OBJECT, first: 0, end: blocks });
  for (const layer of layers) {
    for (const { block, kind } of layer) chains.add(block, 8 * block + kind);
    chains.endLayer(bytesPerRecord, bytesPerInit);
  }
  return chains;
}

function everyBlock(blocks: number, kind: number): Entry[] {
  return Array.from({ length: blocks }, (_, block) => ({ block, kind }));
}

Deno.test("extentsOf() covers a fork with extents of neighbours", () => {
  const extents = [...extentsOf(OBJECT, 2 * EXTENT_BLOCKS + 3)];
  assert.deepEqual(extents.map(({ first, end }) => [first, end]), [
    [0, EXTENT_BLOCKS],
    [EXTENT_BLOCKS, 2 * EXTENT_BLOCKS],
    [2 * EXTENT_BLOCKS, 2 * EXTENT_BLOCKS + 3],
  ]);
  assert.deepEqual([...extentsOf(OBJECT, 0)], []);
});

Deno.test("decide() wants no images where nothing changed, or where they are there", () => {
  assert.equal(count(10, [], 100).decide(1, true), "none");
  const images = count(10, [everyBlock(10, EntryKind.image)], 8000);
  assert.equal(images.decide(1, true), "none");
  assert.equal(images.isComplete, true);
});

Deno.test("decide() wants images of what a load has filled, though it is in one layer", () => {
  const loaded = everyBlock(1000, EntryKind.initRecord);
  assert.equal(count(1000, [loaded], 7500).decide(3, false), "all");
});

Deno.test("decide() waits until thin changes lie in enough layers", () => {
  const layer = everyBlock(1000, EntryKind.record);
  const decisions = [1, 2, 3, 4].map((layers) =>
    count(1000, Array.from({ length: layers }, () => layer), 200).decide(3, false)
  );
  assert.deepEqual(decisions, ["none", "none", "all", "all"]);
});

Deno.test("decide() writes no image for a few small records, in however many layers", () => {
  const one = everyBlock(1000, EntryKind.record);
  assert.equal(count(1000, Array.from({ length: 9 }, () => one), 50).decide(3, false), "none");
  assert.equal(count(1000, Array.from({ length: 11 }, () => one), 50).decide(3, false), "all");
});

Deno.test("decide() wants only the changed pages where they are the lesser part", () => {
  const hot = Array.from({ length: 200 }, () => ({ block: 3, kind: EntryKind.record }));
  assert.equal(count(1000, [hot], 100).decide(3, false), "changed");
  assert.equal(
    count(1, [hot.map(({ kind }) => ({ block: 0, kind }))], 100).decide(3, false),
    "all",
  );
});

Deno.test("decide() tells records that rebuild a page from those that do not", () => {
  const loaded = everyBlock(1000, EntryKind.initRecord);
  const made = everyBlock(1000, EntryKind.record);
  assert.equal(count(1000, [made, loaded], 60, 7500).decide(3, false), "all");
  assert.equal(count(1000, [made, loaded], 7500, 60).decide(3, false), "all");
  assert.equal(count(1000, [made, loaded], 60, 60).decide(3, false), "none");
});

Deno.test("Sample keeps some of all numbers, evenly spread", () => {
  const sample = new Sample();
  assert.equal(sample.mean((value) => value), 0);
  const kept: number[] = [];
  for (let n = 0; n < 1000; n++) sample.add(n);
  sample.mean((value) => kept.push(value));
  assert.deepEqual(kept, Array.from({ length: 16 }, (_, i) => i * 64));
  sample.clear();
  sample.add(7);
  assert.equal(sample.mean((value) => value), 7);
});

Deno.test("a chain is what a read collects, and images are in proportion to it", () => {
  const blocks = 6;
  const entry = fc.record({
    block: fc.nat(blocks - 1),
    kind: fc.constantFrom(EntryKind.record, EntryKind.initRecord, EntryKind.image),
  });
  const layer = fc.array(entry, { maxLength: 20 })
    .map((entries) => entries.toSorted((a, b) => a.block - b.block));
  const property = fc.property(
    fc.array(layer, { maxLength: 6 }),
    fc.integer({ min: 20, max: 9000 }),
    fc.integer({ min: 1, max: 4 }),
    (layers, bytesPerRecord, threshold) => {
      const chains = count(blocks, layers, bytesPerRecord);
      let changed = 0;
      let records = 0;
      for (let block = 0; block < blocks; block++) {
        // Newest first, as a read goes
        const all = layers.flatMap((one) => one.filter((e) => e.block === block).toReversed());
        const base = all.findIndex(({ kind }) => kind !== EntryKind.record);
        const isImage = base >= 0 && all[base]!.kind === EntryKind.image;
        const chain = base < 0 ? all.length : isImage ? base : base + 1;
        assert.equal(chains.chainOf(block), chain);
        if (chain > 0) changed++;
        records += chain;
      }
      assert.equal(chains.changed, changed);
      const decision = chains.decide(threshold, false);
      const written = decision === "all" ? blocks : decision === "changed" ? changed : 0;
      assert.ok(written * 8192 <= 16 * records * bytesPerRecord, "at most 16 bytes for one");
      if (decision === "changed") assert.ok(changed * 2 < blocks);
      if (records * bytesPerRecord * 2 >= blocks * 8192) assert.notEqual(decision, "none");
    },
  );
  fc.assert(property, { numRuns: 500 });
});

Deno.test("isWorthALook() counts new delta layers and their bytes, and looks at none twice", () => {
  const key = makeKey(0, 1, 2, 3, 0, 0);
  const layer = (kind: "delta" | "image", lsnEnd: number, sizeBytes: number): LayerDescription => ({
    kind,
    inKeyOrder: false,
    first: key,
    last: key,
    lsnStart: (lsnEnd - 8) as Lsn,
    lsnEnd: lsnEnd as Lsn,
    generation: 1,
    sizeBytes,
  });
  const small = [40, 32, 24, 16].map((lsn) => layer("delta", lsn, 1000));
  const look = (layers: LayerDescription[], after: number) => isWorthALook(layers, after as Lsn, 3);
  assert.equal(look(small, 0), true);
  assert.equal(look(small, 16), true);
  assert.equal(look(small, 24), false);
  assert.equal(look([layer("delta", 40, 20_000_000), ...small], 32), true);
  assert.equal(look([layer("delta", 40, 20_000_000)], 40), false);
  assert.equal(look([layer("image", 40, 20_000_000), layer("delta", 40, 1000)], 0), false);
});
