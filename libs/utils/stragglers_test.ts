/** Which outcomes are waited for. */
import assert from "node:assert/strict";
import { TimedOut } from "./errors.ts";
import { settleWithoutStragglers } from "./stragglers.ts";

Deno.test("settleWithoutStragglers() leaves one that hangs once enough have answered", async () => {
  const never = new Promise<number>(() => {});
  const begun = performance.now();
  const outcomes = await settleWithoutStragglers(
    [Promise.resolve(1), never, Promise.resolve(3)],
    2,
    50,
  );
  assert.ok(performance.now() - begun >= 45);
  assert.deepEqual(outcomes.map(({ status }) => status), ["fulfilled", "rejected", "fulfilled"]);
  assert.ok(outcomes[1]!.status === "rejected" && outcomes[1]!.reason instanceof TimedOut);
});

Deno.test("settleWithoutStragglers() waits for all while too few have answered", async () => {
  const slow = Promise.withResolvers<number>();
  setTimeout(() => slow.reject(new Error("no")), 60);
  const all = [Promise.resolve(1), slow.promise, Promise.reject(new Error("down"))];
  const outcomes = await settleWithoutStragglers(all, 2, 10);
  assert.deepEqual(
    outcomes.map((outcome) => outcome.status === "rejected" ? outcome.reason.message : "good"),
    ["good", "no", "down"],
  );
  assert.deepEqual(await settleWithoutStragglers([], 0, 10), []);
});
