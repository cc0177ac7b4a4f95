import assert from "node:assert/strict";
import type { Lsn } from "../../libs/utils/lsn.ts";
import { type Candidate, chooseKnown, chooseSource, shouldSwitch } from "./source_choice.ts";

const lsn = (n: number) => n as Lsn;

function candidate(
  safekeeperId: number,
  commit: number,
  heardMs = 0,
  retryMs = -Infinity,
): Candidate {
  return { safekeeperId, connstr: `sk${safekeeperId}:1`, commitLsn: lsn(commit), heardMs, retryMs };
}

Deno.test("chooseSource() takes the safekeeper with the most committed WAL", () => {
  const candidates = [candidate(1, 100), candidate(2, 300), candidate(3, 200)];
  assert.equal(chooseSource(candidates, lsn(50), 0)?.safekeeperId, 2);
});

Deno.test("chooseSource() wants nothing when nobody has more than we have", () => {
  assert.equal(chooseSource([candidate(1, 100)], lsn(100), 0), undefined);
});

Deno.test("chooseSource() leaves out the silent and the failed", () => {
  const candidates = [
    candidate(1, 300, 0),
    candidate(2, 200, 60_000, 70_000),
    candidate(3, 100, 60_000),
  ];
  assert.equal(chooseSource(candidates, lsn(50), 60_000)?.safekeeperId, 3);
  assert.equal(chooseSource(candidates, lsn(50), 69_999)?.safekeeperId, 3);
  assert.equal(chooseSource(candidates, lsn(50), 70_000)?.safekeeperId, 2);
});

Deno.test("chooseKnown() takes the silent and those that have nothing new, not the failed", () => {
  const candidates = [candidate(1, 100), candidate(2, 300, 0, 70_000), candidate(3, 200)];
  assert.equal(chooseKnown(candidates, 60_000)?.safekeeperId, 3);
  assert.equal(chooseKnown(candidates, 70_000)?.safekeeperId, 2);
  assert.equal(chooseKnown([], 0), undefined);
});

Deno.test("shouldSwitch() stays with a safekeeper that brings WAL", () => {
  const connection = { safekeeperId: 1, progressMs: 59_000 };
  assert.equal(shouldSwitch(connection, candidate(2, 1000), lsn(500), 60_000), false);
  assert.equal(shouldSwitch(connection, undefined, lsn(500), 90_000), false);
});

Deno.test("shouldSwitch() leaves one that brings nothing, or is far behind", () => {
  const stalled = { safekeeperId: 1, progressMs: 40_000 };
  assert.equal(shouldSwitch(stalled, candidate(2, 1000), lsn(500), 60_000), true);
  assert.equal(shouldSwitch(stalled, candidate(1, 1000), lsn(500), 60_000), false);
  const busy = { safekeeperId: 1, progressMs: 60_000 };
  assert.equal(shouldSwitch(busy, candidate(2, 2 ** 31), lsn(500), 60_000), true);
});
