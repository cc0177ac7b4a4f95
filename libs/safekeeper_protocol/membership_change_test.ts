/** When a change of members may go on, step by step; the simulator has the whole (tests/simulation). */
import assert from "node:assert/strict";
import type { Lsn } from "../utils/lsn.ts";
import { MembershipChange } from "./membership_change.ts";

function log(term: number, lastLogTerm: number, flush: number) {
  return { term, lastLogTerm, flushLsn: flush as Lsn };
}

Deno.test("the goal is the newest log and the highest term of a majority of the old members", () => {
  const change = new MembershipChange([1, 2, 3], [2, 3, 4]);
  change.jointAdopted(2, log(5, 3, 900));
  assert.equal(change.goal, undefined);
  change.jointAdopted(3, log(4, 4, 200));
  assert.deepEqual(change.goal, log(5, 4, 200));
  change.jointAdopted(1, log(9, 9, 900));
  assert.deepEqual(change.goal, log(5, 4, 200), "who comes later had no part in a majority");
});

Deno.test("the last step waits for the log and the term on a majority of the new members", () => {
  const change = new MembershipChange([1, 2, 3], [3, 4, 5]);
  change.jointAdopted(1, log(5, 4, 200));
  change.jointAdopted(2, log(5, 4, 100));
  assert.ok(!change.isJoint);
  change.jointAdopted(3, log(5, 4, 200));
  change.jointAdopted(4, log(3, 3, 900));
  assert.ok(change.isJoint && change.isReady(3) && !change.mayFinish);
  assert.ok(change.lacksTerm(4) && !change.lacksTerm(3) && !change.lacksTerm(5));
  change.jointAdopted(4, log(5, 3, 900));
  assert.ok(!change.isReady(4), "a longer log of an older term is not newer");
  change.jointAdopted(4, log(4, 4, 200));
  assert.ok(!change.isReady(4), "the term is missing");
  change.jointAdopted(4, log(5, 4, 200));
  assert.ok(change.mayFinish);
});

Deno.test("it is over when a majority of the new members has the final configuration", () => {
  const change = new MembershipChange([1], [2, 3]);
  change.finalAdopted(2);
  assert.ok(!change.isFinal);
  change.finalAdopted(3);
  assert.ok(change.isFinal);
});
