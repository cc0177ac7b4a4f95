import assert from "node:assert/strict";
import fc from "fast-check";
import { toLsn } from "../../libs/utils/lsn.ts";
import { type LogEnd, quorumOf, settledEnd } from "./branch_position.ts";

function end(lastLogTerm: number, flush: number, commit = 0): LogEnd {
  return { lastLogTerm, flushLsn: toLsn(flush), commitLsn: toLsn(commit) };
}

Deno.test("settledEnd() is what is known to be committed if nothing can be beyond", () => {
  assert.equal(settledEnd([end(2, 100, 100)], 1), 100);
  assert.equal(settledEnd([end(2, 100, 90)], 1), undefined);
  assert.equal(settledEnd([end(2, 120, 100), end(2, 100, 100), end(2, 90, 90)], 3), 100);
  assert.equal(settledEnd([end(2, 100, 100), end(2, 100, 80), end(1, 400, 40)], 3), 100);
  assert.throws(() => settledEnd([end(2, 100, 100)], 3), /a majority answered/);
});

Deno.test("settledEnd() leaves open what a silent safekeeper may hold", () => {
  assert.equal(settledEnd([end(2, 120, 100), end(2, 100, 100)], 3), undefined);
  assert.equal(settledEnd([end(2, 100, 100), end(2, 100, 100)], 3), 100);
});

Deno.test("settledEnd() is never before a position that a majority acknowledged", () => {
  const count = 3;
  const property = fc.property(
    fc.array(fc.nat(1000), { minLength: count, maxLength: count }),
    fc.nat(1000),
    fc.nat(count - 1),
    fc.boolean(),
    (flushes, lag, silent, allAnswer) => {
      // One term: what is acknowledged is what a majority of all safekeepers has on disk.
      const acknowledged = [...flushes].sort((a, b) => b - a)[quorumOf(count) - 1]!;
      const known = Math.max(0, acknowledged - lag);
      const answers = flushes.filter((_, i) => allAnswer || i !== silent)
        .map((flush) => end(1, flush, Math.min(flush, known)));
      const settled = settledEnd(answers, count);
      if (settled !== undefined) assert.ok(settled >= acknowledged);
      if (lag === 0 && allAnswer) assert.equal(settled, acknowledged);
    },
  );
  fc.assert(property, { numRuns: 1000 });
});
