import assert from "node:assert/strict";
import fc from "fast-check";
import { type Lsn, toLsn } from "../../libs/utils/lsn.ts";
import { type LogEnd, quorumOf, quorumPosition } from "./branch_position.ts";

function end(lastLogTerm: number, flush: number, commit = 0): LogEnd {
  return { lastLogTerm, flushLsn: toLsn(flush), commitLsn: toLsn(commit) };
}

function bounds(answers: LogEnd[], count: number): [Lsn, Lsn] | undefined {
  const position = quorumPosition(answers, count);
  return position === undefined ? undefined : [position.held, position.possible];
}

Deno.test("quorumPosition() of one safekeeper is its flush position", () => {
  assert.deepEqual(bounds([end(2, 100, 50)], 1), [100, 100]);
  assert.equal(bounds([], 1), undefined);
});

Deno.test("quorumPosition() of three takes what two hold", () => {
  assert.deepEqual(bounds([end(2, 120), end(2, 100), end(2, 90)], 3), [100, 100]);
  assert.deepEqual(bounds([end(2, 100), end(2, 100), end(1, 400, 40)], 3), [100, 100]);
});

Deno.test("quorumPosition() leaves open what a silent safekeeper may hold", () => {
  assert.deepEqual(bounds([end(2, 120), end(2, 100)], 3), [100, 120]);
  assert.deepEqual(bounds([end(2, 100), end(2, 100)], 3), [100, 100]);
  assert.equal(bounds([end(2, 100)], 3), undefined);
  assert.deepEqual(bounds([end(2, 120), end(2, 100, 120)], 2), [120, 120]);
});

Deno.test("quorumPosition() brackets every position that a majority acknowledged", () => {
  const count = 3;
  const property = fc.property(
    fc.array(fc.nat(1000), { minLength: count, maxLength: count }),
    fc.nat(count - 1),
    fc.boolean(),
    (flushes, silent, allAnswer) => {
      // One term: what is acknowledged is what a majority of all safekeepers has on disk.
      const acknowledged = [...flushes].sort((a, b) => b - a)[quorumOf(count) - 1]!;
      const answering = flushes.filter((_, i) => allAnswer || i !== silent);
      const found = quorumPosition(answering.map((flush) => end(1, flush)), count)!;
      assert.ok(found.held <= acknowledged && acknowledged <= found.possible);
      if (allAnswer) assert.equal(found.held, found.possible);
    },
  );
  fc.assert(property, { numRuns: 500 });
});
