/** Decisions about WAL in remote storage: who uploads, what, and what may go. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { newTimelineId } from "../libs/utils/id.ts";
import type { Lsn } from "../libs/utils/lsn.ts";
import type { PartialSegment } from "./timeline_state.ts";
import {
  type BackupView,
  electOffloader,
  mayOffload,
  partialIsBehind,
  planPartial,
  removalHorizon,
  stillThere,
  UploadWindow,
} from "./wal_backup_plan.ts";

const SEGMENT = 1 << 20;

const lsn = (segments: number) => (segments * SEGMENT) as Lsn;

Deno.test("all who know the same choose the same safekeeper, and one that has the WAL", () => {
  const candidate = fc.record({
    id: fc.integer({ min: 1, max: 9 }),
    localStartLsn: fc.integer({ min: 1, max: 400 }).map(lsn),
    commitLsn: fc.integer({ min: 400, max: 700 }).map(lsn),
  });
  const candidates = fc.uniqueArray(candidate, { selector: ({ id }) => id, minLength: 1 });
  fc.assert(fc.property(candidates, fc.integer({ min: 100, max: 400 }), (all, backup) => {
    const timeline = newTimelineId();
    const elected = electOffloader(all, lsn(backup), timeline);
    assert.equal(electOffloader(all.toReversed(), lsn(backup), timeline), elected);
    const newest = Math.max(...all.map(({ commitLsn }) => commitLsn));
    const able = all.filter(({ localStartLsn, commitLsn }) =>
      localStartLsn <= lsn(backup) && newest - commitLsn <= 128 * SEGMENT
    );
    assert.equal(elected === undefined, able.length === 0);
    assert.ok(elected === undefined || able.some(({ id }) => id === elected));
  }));
});

Deno.test("timelines are shared out among the safekeepers", () => {
  const all = [1, 2, 3].map((id) => ({ id, localStartLsn: lsn(1), commitLsn: lsn(2) }));
  const elected = Array.from({ length: 200 }, () => electOffloader(all, lsn(1), newTimelineId()));
  for (const { id } of all) assert.ok(elected.filter((one) => one === id).length > 20);
});

Deno.test("segments are uploaded several at once, and counted without a hole", () => {
  const start = (lsn(3) + 5000) as Lsn;
  const window = new UploadWindow(start, SEGMENT, 3);
  const commit = (lsn(9) + 1) as Lsn;
  assert.deepEqual([0, 0, 0, 0].map(() => window.start(commit)), [3, 4, 5, undefined]);
  assert.equal(window.uploaded(4), start);
  assert.equal(window.start(commit), undefined, "an early one holds the others up");
  assert.equal(window.uploaded(3), lsn(5));
  assert.deepEqual([0, 0, 0].map(() => window.start(commit)), [6, 7, undefined]);
  for (const segment of [7, 5]) window.uploaded(segment);
  assert.equal(window.uploaded(6), lsn(8));
  assert.equal(window.start(commit), 8);
  assert.equal(window.start(commit), undefined, "the segment of the commit LSN is not whole");
  assert.throws(() => window.uploaded(3));
});

const VIEW: BackupView = {
  nodeId: 2,
  segmentSize: SEGMENT,
  localStartLsn: lsn(3),
  commitLsn: (lsn(5) + 800) as Lsn,
  flushLsn: (lsn(5) + 800) as Lsn,
  backupLsn: lsn(5),
  termHistory: [{ term: 0, lsn: lsn(3) }, { term: 4, lsn: lsn(4) }],
  partials: [],
};

/** What the plan for a view wants uploaded. */
function planned(view: BackupView): PartialSegment {
  const plan = planPartial(view, true);
  assert.ok(plan.kind === "upload");
  return plan.partial;
}

function uploaded(view: BackupView): PartialSegment {
  return { ...planned(view), status: "uploaded", crc32c: 1 };
}

Deno.test("the unfinished segment is uploaded when due, under a name that says what it is", () => {
  assert.equal(
    planned(VIEW).name,
    "000000010000000000000005_4_0000000000500320_0000000000500320_sk2.partial",
  );
  assert.equal(planned(VIEW).status, "started");
  assert.equal(planPartial(VIEW, false).kind, "nothing");
  assert.ok(!mayOffload(VIEW));
  const done = { ...VIEW, partials: [uploaded(VIEW)] };
  assert.equal(planPartial(done, true).kind, "nothing");
  assert.ok(!partialIsBehind(done));
  assert.ok(mayOffload(done));
  for (
    const changed of [
      { flushLsn: (lsn(5) + 808) as Lsn },
      { commitLsn: (lsn(5) + 792) as Lsn },
      { termHistory: [{ term: 9, lsn: lsn(3) }] },
    ]
  ) {
    const view = { ...done, ...changed };
    assert.ok(partialIsBehind(view) && !mayOffload(view));
    assert.notEqual(planned(view).name, planned(VIEW).name);
  }
});

Deno.test("at the end of a segment there is no unfinished one", () => {
  const end = { ...VIEW, flushLsn: lsn(6), commitLsn: lsn(6) };
  assert.equal(planPartial(end, true).kind, "nothing");
  assert.ok(!mayOffload(end), "it is not uploaded yet");
  assert.ok(mayOffload({ ...end, backupLsn: lsn(6) }));
  const empty = { ...VIEW, flushLsn: lsn(3), commitLsn: lsn(3), backupLsn: lsn(3) };
  assert.ok(!mayOffload(empty), "there is nothing to get back");
});

Deno.test("unfinished segments that are not wanted are deleted", () => {
  const older = { ...uploaded(VIEW), name: "older" };
  const newest = uploaded(VIEW);
  const half = { ...newest, name: "half", status: "started" as const };
  const partials = [older, newest, half];
  const plan = planPartial({ ...VIEW, partials }, false);
  assert.deepEqual(plan, { kind: "delete", partials: [older, half] });
  const whole = { ...VIEW, partials: [newest], backupLsn: lsn(6) };
  assert.deepEqual(planPartial(whole, false), { kind: "delete", partials: [newest] });
});

Deno.test("what was truncated during its upload does not count", () => {
  const partial = planned(VIEW);
  assert.ok(stillThere({ ...VIEW, flushLsn: (lsn(5) + 5000) as Lsn }, partial));
  assert.ok(!stillThere({ ...VIEW, flushLsn: (lsn(5) + 792) as Lsn }, partial));
  const rewritten = [...VIEW.termHistory, { term: 5, lsn: (lsn(5) + 400) as Lsn }];
  assert.ok(!stillThere({ ...VIEW, termHistory: rewritten }, partial));
});

Deno.test("WAL goes below the lowest position that is needed", () => {
  const view = {
    commitLsn: lsn(900),
    flushLsn: lsn(901),
    peerHorizonLsn: lsn(100),
    remoteConsistentLsn: lsn(700),
    firstLsn: lsn(10),
  };
  const at = (changes: Partial<Parameters<typeof removalHorizon>[0]>) =>
    removalHorizon({ ...view, backupLsn: undefined, sentLsns: [], ...changes }) / SEGMENT;
  assert.equal(at({}), 100, "a peer that is behind has no other source");
  assert.equal(at({ peerHorizonLsn: lsn(800) }), 700);
  assert.equal(at({ sentLsns: [lsn(300), lsn(50)] }), 50);
  assert.equal(at({ commitLsn: lsn(10_000), flushLsn: lsn(10_000) }), 700, "but not for ever");
  assert.equal(at({ backupLsn: lsn(600) }), 600, "in remote storage it has");
  assert.equal(at({ backupLsn: lsn(800) }), 700);
  assert.equal(at({ backupLsn: lsn(800), sentLsns: [lsn(300), lsn(400)] }), 300);
  assert.equal(at({ backupLsn: lsn(800), sentLsns: [lsn(5)] }), 700, "it reads from there");
});
