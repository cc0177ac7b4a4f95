import assert from "node:assert/strict";
import { BusySyncs } from "./busy_syncs.ts";

Deno.test("BusySyncs counts who synced within the last 20 ms, each once", () => {
  const busy = new BusySyncs<string>();
  assert.equal(busy.note("a", 0), 1);
  assert.equal(busy.note("a", 1), 1);
  assert.equal(busy.note("b", 10), 2);
  assert.equal(busy.note("c", 15), 3);
  assert.equal(busy.note("a", 21), 3);
  assert.equal(busy.note("a", 33), 2, "b has rested");
  assert.equal(busy.note("b", 60), 1, "a and c, too");
});
