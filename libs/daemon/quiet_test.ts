import assert from "node:assert/strict";
import { QuietTimes } from "./quiet.ts";

const MIB = 1024 * 1024;

/** Looks until something is due, at most `most` times: what, after how many. */
function nextDue(times: QuietTimes, heapBytes: number, most = 200): [string, looks: number] {
  for (let look = 1; look <= most; look++) {
    const due = times.look(0.001, heapBytes);
    if (due !== "nothing") return [due, look];
  }
  return ["nothing", most];
}

Deno.test("a collection is due some looks after a start, rest a minute after it, each once", () => {
  const times = new QuietTimes();
  assert.deepEqual(nextDue(times, 20 * MIB), ["collection", 5]);
  times.collected(15 * MIB);
  assert.deepEqual(nextDue(times, 16 * MIB), ["rest", 55]);
  times.collected(15 * MIB);
  assert.deepEqual(nextDue(times, 16 * MIB), ["nothing", 200]);
});

Deno.test("work puts quiet times off, and is a reason for the next ones", () => {
  const times = new QuietTimes();
  for (let i = 0; i < 200; i++) assert.equal(times.look(i % 5 === 0 ? 0.5 : 0, MIB), "nothing");
  assert.deepEqual(nextDue(times, MIB), ["collection", 1]);
  times.collected(MIB);
  assert.equal(times.look(0.02, MIB), "nothing");
  assert.deepEqual(nextDue(times, MIB), ["collection", 5]);
  times.collected(MIB);
  assert.deepEqual(nextDue(times, MIB), ["rest", 55]);
});

Deno.test("a heap that grows without work is collected, too", () => {
  const times = new QuietTimes();
  for (let i = 0; i < 60; i++) times.look(0, 15 * MIB);
  times.collected(15 * MIB);
  assert.deepEqual(nextDue(times, 19 * MIB), ["nothing", 200]);
  assert.deepEqual(nextDue(times, 20 * MIB), ["collection", 1]);
});
