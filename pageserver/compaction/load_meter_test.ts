import assert from "node:assert/strict";
import { LoadMeter } from "./load_meter.ts";

Deno.test("compaction takes half of a processor at rest, a fifth beside reads or transactions", () => {
  const meter = new LoadMeter();
  const rests = [
    { reads: 90_000, walBytes: 1e9 }, // of before
    { reads: 90_100, walBytes: 1e9 + 50_000 }, // a hundred transactions in this second
    { reads: 90_100, walBytes: 1e9 + 1_050_000 }, // two thousand
    { reads: 90_200, walBytes: 1e9 + 1_050_000 },
    { reads: 99_000, walBytes: 1e9 + 1_050_000 },
    { reads: 99_000, walBytes: 5e8 }, // a timeline was deleted
  ].map((done, second) => {
    meter.look(done, 1000 * second);
    return meter.rest;
  });
  assert.deepEqual(rests, [1, 1, 4, 1, 4, 1]);
});
