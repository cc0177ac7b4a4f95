import assert from "node:assert/strict";
import fc from "fast-check";
import type { Lsn } from "../../libs/utils/lsn.ts";
import { makeKey } from "../repository/key.ts";
import type { LayerDescription } from "../repository/layer_format.ts";
import { scatteredLayers, stackedLayers } from "./delta_plan.ts";

const MIB = 1024 * 1024;
const key = makeKey(0, 1663, 5, 1, 0, 0);

/** A layer; runs are numbered from the oldest. */
function layer(
  run: number,
  mebibytes: number,
  inKeyOrder = false,
  kind: "delta" | "image" = "delta",
): LayerDescription {
  return {
    kind,
    inKeyOrder,
    first: key,
    last: key,
    lsnStart: (run * 100) as Lsn,
    lsnEnd: (run * 100 + 100) as Lsn,
    generation: 1,
    sizeBytes: mebibytes * MIB,
  };
}

/** One flushed layer of each size, given and returned oldest first. */
function flushed(sizes: readonly number[]): LayerDescription[] {
  return sizes.map((size, run) => layer(run, size)).toReversed();
}

const sizesOf = (layers: readonly LayerDescription[]) => layers.map((one) => one.sizeBytes / MIB);

Deno.test("stackedLayers() waits for as many runs as the threshold says, and takes them all", () => {
  assert.deepEqual(stackedLayers(flushed([1, 1, 1]), 4), []);
  assert.deepEqual(sizesOf(stackedLayers(flushed([1, 2, 3, 4]), 4)), [1, 2, 3, 4]);
  assert.deepEqual(stackedLayers([], 4), []);
});

Deno.test("stackedLayers() never takes one run alone, whatever the threshold is", () => {
  assert.deepEqual(stackedLayers(flushed([5]), 1), []);
  assert.deepEqual(sizesOf(stackedLayers(flushed([5, 5]), 1)), [5, 5]);
});

Deno.test("stackedLayers() counts the layers of one rewrite once, and images not at all", () => {
  const run = [layer(0, 40, true), layer(0, 40, true), layer(0, 40, true)];
  const newer = [layer(2, 60), layer(1, 2, false, "image"), layer(1, 60)];
  assert.deepEqual(stackedLayers([...newer, ...run], 4), []);
  assert.equal(stackedLayers([...newer, ...run], 3).length, 5);
});

Deno.test("stackedLayers() leaves out runs that are larger than all newer ones together", () => {
  assert.deepEqual(stackedLayers(flushed([1000, 100, 100, 100]), 4), []);
  assert.deepEqual(sizesOf(stackedLayers(flushed([1000, 100, 100, 100, 100]), 4)), [
    ...[100, 100, 100, 100],
  ]);
  // A small newest one does not keep the others from being taken
  assert.deepEqual(sizesOf(stackedLayers(flushed([100, 100, 100, 1]), 3)), [100, 100, 100]);
});

Deno.test("stackedLayers() takes fewer runs where more would be too much at once", () => {
  const runs = [0, 1, 2, 3, 4].map((run) => layer(run, 1000, true)).toReversed();
  assert.deepEqual(sizesOf(stackedLayers(runs, 10)), [1000, 1000, 1000]);
  assert.deepEqual(stackedLayers([layer(1, 2000, true), layer(0, 2000, true)], 2), []);
});

Deno.test("stackedLayers() puts large runs in order first, some at a time", () => {
  const sizes = [250, 250, 250, 250];
  const first = stackedLayers(flushed(sizes), 4);
  assert.deepEqual(first.map((one) => one.lsnStart), [200, 300]);
  const rest = [layer(2, 500, true), layer(1, 250), layer(0, 250)];
  assert.equal(stackedLayers(rest, 3).length, 3);
  assert.deepEqual(sizesOf(stackedLayers(flushed([700, 700]), 2)), [700]);
});

Deno.test("scatteredLayers() takes neighbours that reads in order would jump about in", () => {
  const layers = flushed([8, 8, 8, 8]);
  const reads = (counts: Record<number, number>) => (one: LayerDescription) =>
    counts[one.lsnStart / 100] ?? 0;
  assert.deepEqual(scatteredLayers(layers, () => 0), []);
  assert.deepEqual(scatteredLayers(layers, () => 1000), [], "one read for each 8 KiB");
  assert.equal(scatteredLayers(layers, () => 1024).length, 4);
  const two = scatteredLayers(layers, reads({ 1: 5000, 2: 5000 }));
  assert.deepEqual(two.map((one) => one.lsnStart), [100, 200]);
  const newest = scatteredLayers(layers, reads({ 0: 5000, 1: 5000, 3: 5000 }));
  assert.deepEqual(newest.map((one) => one.lsnStart), [300]);
  assert.deepEqual(scatteredLayers([layer(0, 1)], () => 999), [], "too few for all that");
  assert.deepEqual(scatteredLayers([layer(0, 8, true)], () => 5000), [], "in order already");
});

Deno.test("whatever comes, runs stay few and a byte is not written often", () => {
  const sizes = fc.array(fc.integer({ min: 1, max: 300 }), { minLength: 20, maxLength: 150 });
  const property = fc.property(sizes, fc.integer({ min: 2, max: 12 }), (flushes, threshold) => {
    let layers: LayerDescription[] = [];
    let written = 0;
    let total = 0;
    flushes.forEach((size, run) => {
      layers = [layer(run, size), ...layers];
      total += size;
      for (;;) {
        const group = stackedLayers(layers, threshold);
        if (group.length === 0) break;
        const at = layers.indexOf(group.at(-1)!);
        assert.deepEqual(layers.slice(at, at + group.length).toReversed(), group, "neighbours");
        const sum = sizesOf(group).reduce((a, b) => a + b, 0);
        assert.ok(sum <= 3072);
        const [oldest, newest] = [group[0]!, group.at(-1)!];
        const made = { ...oldest, lsnEnd: newest.lsnEnd, inKeyOrder: true, sizeBytes: sum * MIB };
        layers.splice(at, group.length, made);
        written += sum;
      }
      const large = layers.filter((one) => one.sizeBytes > 256 * MIB).length;
      assert.ok(layers.length - large <= 4 * threshold, `${layers.length} runs`);
    });
    const times = Math.log2(total) + 2;
    assert.ok(written <= times * total, `${written} MiB written of ${total}`);
  });
  fc.assert(property, { numRuns: 100 });
});
