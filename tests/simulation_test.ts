/**
 * A few thousand schedules of the simulated WAL service, and broken variants of it that the
 * simulator must catch. `deno task sim` runs as many more as wanted.
 */
import assert from "node:assert/strict";
import { simulate, trace } from "./simulation/simulate.ts";
import { loadVariant, VARIANTS } from "./simulation/variants.ts";

const SEEDS = 2000;
/** Variants that need more seeds are for `deno task sim --variants`. */
const VARIANT_SEEDS_MAX = 7000;

Deno.test("no schedule of the WAL service breaks a rule", () => {
  const { totals, failure } = simulate(1, SEEDS);
  assert.equal(failure?.error.message, undefined, `seed ${failure?.seed}`);
  assert.equal(totals.schedules, SEEDS);
  assert.ok(totals.commits > 3 * SEEDS, `${totals.commits} commits`);
  assert.ok(totals.elections > SEEDS, `${totals.elections} elections`);
  assert.ok(totals.crashes > SEEDS, `${totals.crashes} crashes`);
});

Deno.test("a schedule repeats exactly by its seed", () => {
  const story = () => {
    const told: string[] = [];
    trace(7, (text) => told.push(text));
    return told;
  };
  const first = story();
  assert.ok(first.length > 50);
  assert.deepEqual(story(), first);
});

Deno.test("the simulator catches each broken variant", async (t) => {
  const directory = Deno.makeTempDirSync();
  try {
    for (const variant of VARIANTS.filter(({ seeds }) => seeds <= VARIANT_SEEDS_MAX)) {
      await t.step(variant.name, async () => {
        const { failure } = (await loadVariant(directory, variant)).simulate(1, variant.seeds);
        assert.ok(failure !== undefined, `not caught within ${variant.seeds} seeds`);
      });
    }
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});
