/** WAL waits behind what was just sent, not for long and not when there is much. */
import assert from "node:assert/strict";
import { GATHER_BYTES, GATHER_MS, Gathering } from "./gathering.ts";

Deno.test("WAL waits for the rest of the time, unless there is much of it", async () => {
  const over = Promise.withResolvers<number>();
  const gathering = new Gathering(() => over.resolve(performance.now()));
  const now = performance.now();
  assert.ok(!gathering.waits(2, 100, now), "the first goes at once");
  assert.ok(gathering.waits(2, 100, now));
  assert.ok(!gathering.waits(0, 100, now + 1), "each safekeeper has its own time");
  assert.ok(gathering.waits(2, GATHER_BYTES - 1, now + GATHER_MS - 0.5));
  assert.ok(!gathering.waits(2, GATHER_BYTES, now + 2));
  assert.ok(gathering.waits(2, 100, now + GATHER_MS), "its time begins anew with each message");
  assert.ok(!gathering.waits(2, 100, now + 2 + GATHER_MS));
  assert.ok(await over.promise - now > GATHER_MS - 2, "and then somebody is told");
});

Deno.test("nobody is told after the stop", async () => {
  const gathering = new Gathering(() => assert.fail("told"));
  const now = performance.now();
  gathering.waits(0, 100, now);
  assert.ok(gathering.waits(0, 100, now));
  gathering.stop();
  await new Promise((resolve) => setTimeout(resolve, GATHER_MS + 5));
});
