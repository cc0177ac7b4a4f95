import assert from "node:assert/strict";
import { toLsn } from "../libs/utils/lsn.ts";
import { SourceChoice } from "./source_choice.ts";

/** Plays seconds of answers each half second; gives which one was current at the end of each. */
function play(
  seconds: number,
  lsnAt: (index: number, second: number) => number | undefined,
): number[] {
  const choice = new SourceChoice(3, 0);
  const currents: number[] = [];
  for (let ms = 500; ms <= seconds * 1000; ms += 500) {
    for (let index = 0; index < 3; index++) {
      const lsn = lsnAt(index, ms / 1000);
      if (lsn !== undefined) choice.heard(index, toLsn(lsn * 8), ms);
    }
    choice.look(ms);
    if (ms % 1000 === 0) currents.push(choice.current);
  }
  return currents;
}

Deno.test("a source that answers and gets on is kept, however far behind it always is a little", () => {
  assert.deepEqual(play(8, (index, s) => 100 * s - (index === 0 ? 50 : 0)), Array(8).fill(0));
});

Deno.test("a source that says nothing is left for the one that knows most", () => {
  const lsnAt = (index: number, s: number) => index === 0 && s > 2 ? undefined : 100 * s + index;
  assert.deepEqual(play(8, lsnAt), [0, 0, 0, 2, 2, 2, 2, 2]);
});

Deno.test("a source that never said anything is left, too", () => {
  assert.deepEqual(play(4, (index) => index === 1 ? 100 : undefined), [0, 1, 1, 1]);
});

Deno.test("a source that has ended is left at once, and not come back to", () => {
  const choice = new SourceChoice(2, 0);
  choice.lost(0);
  assert.equal(choice.look(10), false, "nobody else is known");
  choice.heard(1, toLsn(8), 20);
  assert.equal(choice.look(20), true);
  choice.heard(0, toLsn(16), 30);
  assert.equal(choice.look(30), false);
  assert.equal(choice.current, 1);
});

Deno.test("a source that stays where it is while others get on is left", () => {
  assert.deepEqual(play(8, (index, s) => index === 0 ? 100 : 100 * s), [0, 0, 0, 0, 1, 1, 1, 1]);
});

Deno.test("while nobody answers nothing changes", () => {
  assert.deepEqual(play(6, (_, s) => s < 2 ? 100 : undefined), Array(6).fill(0));
});
