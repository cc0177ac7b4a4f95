/** What a new member of a timeline takes of it. */
import assert from "node:assert/strict";
import { newTenantId, newTimelineId } from "../libs/utils/id.ts";
import { type Lsn, parseLsn } from "../libs/utils/lsn.ts";
import { planPull, type PullSource } from "./pull_plan.ts";
import { newTimelineState } from "./timeline_state.ts";

const START = parseLsn("0/2000028");
const member = (id: number) => ({ id, host: "h", pgPort: id });
const JOINT = { generation: 1, members: [member(1)], newMembers: [member(2)] };

function source(changes: Partial<PullSource>): PullSource {
  const state = newTimelineState({
    tenantId: newTenantId(),
    timelineId: newTimelineId(),
    pgVersionNum: 170011,
    walSegmentSize: 1 << 24,
    startLsn: START,
  });
  return { ...state, firstLsn: 0 as Lsn, ...changes };
}

function plan(changes: Partial<PullSource>, hasRemote = false) {
  const { state, copyFrom } = planPull(source(changes), JOINT, hasRemote);
  return { ...state, copyFrom };
}

Deno.test("planPull() takes what is committed, and the history up to there", () => {
  const termHistory = [
    { term: 0, lsn: START },
    { term: 3, lsn: parseLsn("0/2000100") },
    { term: 5, lsn: parseLsn("0/2000400") },
  ];
  const planned = plan({ term: 7, termHistory, commitLsn: parseLsn("0/2000300") });
  assert.equal(planned.term, 7);
  assert.deepEqual(planned.termHistory, termHistory.slice(0, 2));
  assert.deepEqual(planned.membership, JOINT);
  assert.equal(planned.copyFrom, parseLsn("0/2000000"));
  assert.equal(planned.localStartLsn, START, "before are zeros");
});

Deno.test("planPull() copies nothing of a timeline without WAL", () => {
  const planned = plan({});
  assert.equal(planned.copyFrom, START);
  assert.equal(planned.localStartLsn, START);
});

Deno.test("planPull() begins where the member's WAL does, or that which is in remote storage", () => {
  const there = {
    commitLsn: parseLsn("0/9001000"),
    firstLsn: parseLsn("0/4000000"),
    backupLsn: parseLsn("0/8000000"),
  };
  assert.equal(plan(there).copyFrom, parseLsn("0/4000000"));
  assert.equal(plan(there, true).copyFrom, parseLsn("0/8000000"));
  assert.equal(plan(there, true).localStartLsn, parseLsn("0/8000000"));
});

Deno.test("planPull() brings the last segment of an offloaded timeline to the disk", () => {
  const end = parseLsn("0/9001000");
  const planned = plan({ commitLsn: end, offloadedLsn: end, backupLsn: parseLsn("0/9000000") });
  assert.equal(planned.copyFrom, parseLsn("0/9000000"));
  assert.equal(planned.offloadedLsn, undefined);
});
