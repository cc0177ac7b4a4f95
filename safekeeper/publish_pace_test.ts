import assert from "node:assert/strict";
import { PublishPace } from "./publish_pace.ts";

Deno.test("PublishPace: at once, then in rounds while it moves, and no more after some", () => {
  const pace = new PublishPace<string>();
  assert.equal(pace.isResting, true);
  assert.equal(pace.changed("a"), true);
  assert.equal(pace.changed("a"), false);
  assert.equal(pace.changed("b"), true);
  assert.deepEqual([...pace.round()], ["a"], "b has not changed again");
  assert.equal(pace.isResting, false);
  assert.deepEqual([...pace.round()], []);
  assert.equal(pace.isResting, true);

  assert.equal(pace.changed("a"), true);
  const rounds = Array.from({ length: 10 }, () => {
    assert.equal(pace.changed("a"), false);
    return [...pace.round()].length;
  });
  assert.deepEqual(rounds, [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]);
  assert.deepEqual([...pace.round()], []);
  assert.equal(pace.changed("a"), true, "it has rested");
});
