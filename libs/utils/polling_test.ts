import assert from "node:assert/strict";
import { poll, retry } from "./polling.ts";

Deno.test("poll() looks until there is a value, or the time is over", async () => {
  let looks = 0;
  assert.equal(
    await poll({ pauseMs: [1, 2], limitMs: 60_000 }, () => ++looks === 5 ? "found" : undefined),
    "found",
  );
  assert.equal(looks, 5);
  looks = 0;
  assert.equal(await poll({ pauseMs: [1, 1], limitMs: 0 }, () => void looks++), undefined);
  assert.equal(looks, 1, "it looks once");
});

Deno.test("retry() works again only after what passes, and throws that in the end", async () => {
  const looks = { pauseMs: [1, 1], limitMs: 60_000 } as const;
  const passes = (thrown: unknown) => thrown instanceof RangeError;
  let tries = 0;
  const work = (error: Error) => () => ++tries < 3 ? Promise.reject(error) : Promise.resolve(tries);
  assert.equal(await retry(looks, passes, work(new RangeError())), 3);
  tries = 0;
  await assert.rejects(retry(looks, passes, work(new TypeError("other"))), TypeError);
  assert.equal(tries, 1);
  const last = new RangeError("still");
  await assert.rejects(retry({ ...looks, limitMs: 0 }, passes, () => Promise.reject(last)), last);
});
