import assert from "node:assert/strict";
import { Rmgr, XactInfo } from "../libs/postgres/constants.ts";
import { formatLsn, type Lsn, maxLsn } from "../libs/utils/lsn.ts";
import { newTimelineId } from "../libs/utils/id.ts";
import { type TestCluster, u32s, withCluster } from "./cluster_fixture.ts";
import { lastCommit, type LsnAtTime, lsnAtTime } from "./commit_marks.ts";
import type { Timeline } from "./repository/timeline.ts";

/** 2026 in microseconds since 2000, in the middle of a second. */
const BASE = 846_000_000_600_000;
const TWO_32 = 4294967296;

interface Commit {
  readonly lsn: Lsn;
  readonly time: number;
}

async function commit(cluster: TestCluster, time: number): Promise<Commit> {
  const main = u32s(time % TWO_32, Math.floor(time / TWO_32));
  return { lsn: await cluster.ingest({ rmid: Rmgr.XACT, info: XactInfo.COMMIT, main }), time };
}

/** What is to be found: all commits one after the other, up to the first that is later. */
function expected(commits: readonly Commit[], timeline: Timeline, time: number): LsnAtTime {
  const begin = timeline.startLsn;
  if (commits.length === 0) return { lsn: begin, kind: "nodata" };
  const later = commits.findIndex((commit) => commit.time > time);
  if (later < 0) return { lsn: maxLsn(commits.at(-1)!.lsn, begin), kind: "future" };
  if (commits[later]!.lsn <= begin || later === 0) return { lsn: begin, kind: "past" };
  return { lsn: maxLsn(commits[later - 1]!.lsn, begin), kind: "present" };
}

function check(timeline: Timeline, commits: readonly Commit[]): void {
  const end = timeline.lastRecordLsn;
  for (const { time } of commits) {
    for (const at of [time - 1, time, time + 1, time + 400_000]) {
      const found = lsnAtTime(timeline, at, end);
      assert.deepEqual(found, expected(commits, timeline, at), `${at - BASE} of ${formatLsn(end)}`);
    }
  }
}

// Seconds apart, in one second, at the same time, and out of order
const TIMES = [
  ...[0, 10, 20, 30, 500_000, 5_000_000, 5_000_000, 5_000_001, 4_999_990, 5_000_002],
  ...[60_000_000, 59_000_000, 58_000_000, 60_000_001, 70_000_000, 3_600_000_000],
];

Deno.test("lsnAtTime() finds the end of the last commit before the first that is later", () =>
  withCluster(async (cluster) => {
    const { timeline } = cluster;
    const end = timeline.lastRecordLsn;
    assert.deepEqual(lsnAtTime(timeline, BASE, end), { lsn: timeline.startLsn, kind: "nodata" });
    assert.equal(lastCommit(timeline, end), undefined);
    const commits: Commit[] = [];
    for (const time of TIMES) {
      commits.push(await commit(cluster, BASE + time));
      await cluster.ingest({ rmid: Rmgr.XACT, info: XactInfo.ABORT, main: u32s(0, 0) });
    }
    check(timeline, commits);
    await timeline.flush();
    check(timeline, commits);
    const few = commits.slice(0, 7);
    const last = few.at(-1)!;
    assert.deepEqual(
      lsnAtTime(timeline, BASE * 2, last.lsn),
      { lsn: last.lsn, kind: "future" },
      "nothing behind the end that is given",
    );
    assert.deepEqual(lastCommit(timeline, last.lsn), last);
  }));

Deno.test("a branch finds commits of its ancestor behind its start, and goes on from them", () =>
  withCluster(async (cluster) => {
    const commits: Commit[] = [];
    for (const time of TIMES) commits.push(await commit(cluster, BASE + time));
    const inAncestor = commits.slice(0, 12);
    const { lsn } = inAncestor.at(-1)!;
    const { tenant, timeline } = cluster;
    const branch = await tenant.createBranch(newTimelineId(), timeline.timelineId, lsn);
    check(branch, inAncestor);
    cluster.follow(branch);
    // The clock of its first endpoint is behind
    const own: Commit[] = [];
    for (const time of [59_500_000, 60_000_000, 60_700_000, 61_000_000, 90_000_000]) {
      own.push(await commit(cluster, BASE + time));
    }
    check(branch, [...inAncestor, ...own]);
  }));

Deno.test("times before 2000 and behind 2136 are found as far as they can be", () =>
  withCluster(async (cluster) => {
    const { timeline } = cluster;
    const early = await cluster.ingest({
      rmid: Rmgr.XACT,
      info: XactInfo.COMMIT,
      main: u32s(-5, -1),
    });
    assert.deepEqual(lastCommit(timeline, early), { lsn: early, time: 0 });
    const commits = [await commit(cluster, BASE), await commit(cluster, 2 ** 53 - 10)];
    check(timeline, [{ lsn: early, time: 0 }, ...commits]);
  }));
