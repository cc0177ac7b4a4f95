import assert from "node:assert/strict";
import { renewAfterMs } from "./lsn_lease.ts";

Deno.test("a lease is renewed in time, whatever the clocks show", () => {
  const now = 1_800_000_000_000;
  const minutes = 60_000;
  assert.equal(renewAfterMs(now + 9 * minutes, now), 3 * minutes);
  // Ours has jumped back by a day, or is behind the pageserver's: ten minutes are still ten minutes
  assert.equal(renewAfterMs(now + 10 * minutes, now - 24 * 60 * minutes), 200_000);
  // Ours is ahead
  assert.equal(renewAfterMs(now, now + 24 * 60 * minutes), 5000);
});
