import assert from "node:assert/strict";
import { StandbyFeedback } from "./standby_feedback.ts";

Deno.test("StandbyFeedback is the lowest that any safekeeper reports", () => {
  const feedback = new StandbyFeedback();
  const now = () => [feedback.xmin, feedback.catalogXmin];
  assert.equal(feedback.note(0, 0, 0), false);
  assert.equal(feedback.note(1, 900, 0), true);
  assert.equal(feedback.note(2, 2 ** 32 + 5, 700), true);
  assert.deepEqual(now(), [900, 700]);
  assert.equal(feedback.note(2, 2 ** 32 + 6, 700), false, "another one holds back more");
  assert.equal(feedback.note(1, 0, 0), true);
  assert.deepEqual(now(), [2 ** 32 + 6, 700]);
  assert.equal(feedback.note(2, 0, 0), true);
  assert.deepEqual(now(), [0, 0]);
});
