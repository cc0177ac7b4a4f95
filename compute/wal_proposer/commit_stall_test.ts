import assert from "node:assert/strict";
import { toLsn } from "../../libs/utils/lsn.ts";
import { CommitStall } from "./commit_stall.ts";

const link = (id: number, lastReceivedMs: number, copy: unknown = {}, isStopped = false) => ({
  address: { id },
  isStopped,
  copy,
  lastReceivedMs,
});

Deno.test("commits that wait are told with those that do not answer, others are not", () => {
  const stall = new CommitStall(0);
  const links = [link(1, 9900), link(2, 5000), link(3, 9900, undefined), link(4, 0, {}, true)];
  stall.look(1000, toLsn(80), toLsn(80));
  stall.look(9000, toLsn(80), toLsn(80));
  assert.equal(stall.describe(9900, links), undefined, "nothing is to be committed");
  stall.look(9900, toLsn(88), toLsn(800));
  stall.look(11_000, toLsn(96), toLsn(800));
  assert.equal(stall.describe(11_000, links), undefined, "it gets on");
  stall.look(13_000, toLsn(96), toLsn(808));
  assert.deepEqual(
    stall.describe(14_000, [link(1, 13_900), ...links.slice(1)]),
    { seconds: 3, silent_safekeepers: [2, 3] },
  );
});
