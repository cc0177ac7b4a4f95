import assert from "node:assert/strict";
import { clearImmediate, setImmediate } from "node:timers";
import { Turns } from "./turns.ts";

const PIECE_BYTES = 128 * 1024;

Deno.test("a loop over input that is always there gives others their turns", async () => {
  let turns = 0;
  const count = () => {
    turns++;
    next = setImmediate(count);
  };
  let next = setImmediate(count);
  const ours = new Turns();
  let waits = 0;
  for (let i = 0; i < 64; i++) {
    await Promise.resolve(); // an await that gives nobody a turn
    const turn = ours.after(PIECE_BYTES);
    if (turn === undefined) continue;
    waits++;
    await turn;
  }
  clearImmediate(next);
  assert.equal(waits, 8, "one for each MiB");
  assert.ok(turns >= waits - 1, `${turns} turns`);
});
