/** Where two logs part, by their term histories. */
import assert from "node:assert/strict";
import { Corrupt } from "../utils/errors.ts";
import type { Lsn } from "../utils/lsn.ts";
import {
  checkTermHistory,
  highestCommonPoint,
  lastLogTerm,
  termHistoryUpTo,
} from "./term_history.ts";

const at = (term: number, lsn: number) => ({ term, lsn: lsn as Lsn });

Deno.test("highestCommonPoint() ends at the first difference", () => {
  const mine = [at(0, 100), at(1, 100), at(2, 200)];
  const cases: [ReturnType<typeof at>[], number, unknown][] = [
    [[at(0, 100), at(1, 100), at(3, 150)], 300, at(1, 150)],
    [[at(0, 100), at(1, 100), at(3, 250)], 300, at(1, 200)],
    [[at(0, 100), at(1, 100), at(2, 200), at(3, 260)], 300, at(2, 260)],
    [[at(0, 100), at(1, 100), at(2, 200), at(3, 360)], 300, at(2, 300)],
    [[at(0, 100), at(1, 100), at(2, 200)], 300, at(2, 300)],
    [[at(5, 100)], 300, undefined],
    [[], 300, undefined],
  ];
  for (const [proposer, flush, expected] of cases) {
    assert.deepEqual(highestCommonPoint(proposer, mine, flush as Lsn), expected);
  }
});

Deno.test("highestCommonPoint() refuses one term with two starts", () => {
  assert.throws(() => highestCommonPoint([at(1, 100)], [at(1, 108)], 200 as Lsn), Corrupt);
});

Deno.test("lastLogTerm() and termHistoryUpTo() cut at the flush LSN, inclusive", () => {
  const history = [at(1, 100), at(2, 200)];
  assert.equal(lastLogTerm(history, 99 as Lsn), 0);
  assert.equal(lastLogTerm(history, 199 as Lsn), 1);
  assert.equal(lastLogTerm(history, 200 as Lsn), 2);
  assert.deepEqual(termHistoryUpTo(history, 199 as Lsn), [at(1, 100)]);
  assert.deepEqual(termHistoryUpTo(history, 200 as Lsn), history);
});

Deno.test("checkTermHistory() refuses terms that do not rise", () => {
  assert.throws(() => checkTermHistory([at(2, 100), at(2, 200)]), Corrupt);
  assert.throws(() => checkTermHistory([at(1, 300), at(2, 200)]), Corrupt);
});
