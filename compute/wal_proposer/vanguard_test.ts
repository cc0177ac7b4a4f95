/** Who gets WAL at once: a quorum, the same one as long as nobody else is faster. */
import assert from "node:assert/strict";
import { NO_MEMBERSHIP } from "../../libs/safekeeper_protocol/membership.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import { Quorum } from "./quorum.ts";
import { Vanguard } from "./vanguard.ts";

const AT = 200 as Lsn;

/** Chooses of `flushed.length` safekeepers; says whose WAL may wait then. */
function spared(
  vanguard: Vanguard,
  flushed: readonly number[],
  streaming: readonly number[] = flushed.map((_, peer) => peer),
): number[] {
  const peers = flushed.map((_, peer) => peer);
  const quorum = new Quorum(peers.map((peer) => peer + 1), NO_MEMBERSHIP);
  vanguard.choose(quorum, streaming, Float64Array.from(flushed), AT);
  return peers.filter((peer) => vanguard.spares(peer));
}

Deno.test("of three one is spared, of five two; without a majority nobody is", () => {
  const vanguard = new Vanguard();
  assert.deepEqual(spared(vanguard, [200]), []);
  assert.deepEqual(spared(vanguard, [200, 200]), []);
  assert.deepEqual(spared(vanguard, [200, 200, 200]), [2]);
  assert.deepEqual(spared(vanguard, [200, 200, 200, 200]), [3]);
  assert.deepEqual(spared(vanguard, [200, 200, 200, 200, 200]), [3, 4]);
  assert.deepEqual(spared(vanguard, [200, 200, 200], [0]), []);
  assert.deepEqual(spared(new Vanguard(), [200, 200, 200], [1, 2]), [0], "one that is away");
});

Deno.test("who lacks what is committed makes place, and does not come back of itself", () => {
  const vanguard = new Vanguard();
  spared(vanguard, [200, 200, 200]);
  assert.ok(!vanguard.isOutrun(Float64Array.of(200, 200, 100), AT), "the spared one may lack it");
  assert.ok(!vanguard.isOutrun(Float64Array.of(200, 100, 100), AT), "nobody has it instead");
  assert.ok(vanguard.isOutrun(Float64Array.of(100, 200, 200), AT));
  assert.deepEqual(spared(vanguard, [100, 200, 200]), [0]);
  assert.deepEqual(spared(vanguard, [200, 200, 200]), [0]);
  assert.deepEqual(spared(vanguard, [200, 200, 200], [0, 1]), [2], "it has to");
});

Deno.test("a joint membership has a majority of both lists in the vanguard", () => {
  const member = (id: number) => ({ id, host: "sk", pgPort: id });
  const quorum = new Quorum([1, 2, 3, 4], {
    ...NO_MEMBERSHIP,
    generation: 2,
    members: [1, 2, 3].map(member),
    newMembers: [2, 3, 4].map(member),
  });
  const vanguard = new Vanguard();
  vanguard.choose(quorum, [0, 1, 3], new Float64Array(4), 0 as Lsn);
  assert.deepEqual([0, 1, 2, 3].map((peer) => vanguard.spares(peer)), [false, false, true, false]);
  vanguard.choose(quorum, [0, 1, 2, 3], new Float64Array(4), 0 as Lsn);
  assert.deepEqual([0, 1, 2, 3].map((peer) => vanguard.spares(peer)), [false, false, true, false]);
});
