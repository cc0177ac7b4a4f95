/** What is in progress at an LSN, from hand-made WAL. */
import assert from "node:assert/strict";
import { Rmgr, XactInfo } from "../../libs/postgres/constants.ts";
import { StandbyInfo } from "../../libs/postgres/wal/small_records.ts";
import type { RunningTransactions } from "../../libs/postgres/wal/standby_start.ts";
import { decodeStandbyStart, STANDBY_START_NAME } from "../../libs/basebackup/standby_start.ts";
import { newTimelineId } from "../../libs/utils/id.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import { TarReader } from "../../libs/utils/tar.ts";
import { type TestCluster, u32s, withCluster } from "../cluster_fixture.ts";
import { restoreTracker } from "../ingest/wal_ingest.ts";
import { Basebackup } from "./basebackup.ts";
import { runningTransactions } from "./running_transactions.ts";

const HAS_INFO = 0x80;
const SUBXACTS = 0x02;
const TWO_PHASE = 0x10;

const message = (xid: number) => ({ rmid: Rmgr.LOGICALMSG, info: 0, xid, main: u32s(0, 0) });
const end = (opcode: number, xid: number, ...subxacts: number[]) => ({
  rmid: Rmgr.XACT,
  info: opcode | HAS_INFO,
  xid,
  main: u32s(0, 0, SUBXACTS, subxacts.length, ...subxacts),
});
const commit = (xid: number, ...subxacts: number[]) => end(XactInfo.COMMIT, xid, ...subxacts);
const snapshot = (nextXid: number, oldest: number) => ({
  rmid: Rmgr.STANDBY,
  info: StandbyInfo.RUNNING_XACTS,
  xid: 0,
  main: u32s(0, 0, 0, nextXid, oldest, oldest - 1),
});
const lock = (xid: number, ...rels: number[]) => ({
  rmid: Rmgr.STANDBY,
  info: StandbyInfo.LOCK,
  xid,
  main: u32s(rels.length, ...rels.flatMap((rel) => [xid, 5, rel])),
});

function runningAt(
  { served, reader }: TestCluster,
  lsn: Lsn,
  onlyPrepared = false,
): RunningTransactions {
  const tracker = restoreTracker(served, lsn);
  return runningTransactions({ served, reader, tracker, lsn, onlyPrepared });
}

Deno.test("every xid that was given out runs until it has ended, logged or not", () =>
  withCluster(async (cluster) => {
    const xids = (lsn: Lsn) => runningAt(cluster, lsn).xids;
    assert.deepEqual(xids(cluster.timeline.lastRecordLsn), []);
    const first = await cluster.ingest(message(703));
    assert.deepEqual(xids(first), [700, 701, 702, 703]);
    const second = await cluster.ingest(commit(703, 701), end(XactInfo.ABORT, 700));
    assert.deepEqual(xids(second), [702]);
    const third = await cluster.ingest(snapshot(710, 702));
    assert.deepEqual(xids(third), [702, 704, 705, 706, 707, 708, 709]);
    const fourth = await cluster.ingest(snapshot(710, 710));
    assert.deepEqual(xids(fourth), [], "what a crash ended is not waited for");
    assert.deepEqual(xids(first), [700, 701, 702, 703], "the past is still known");
  }));

/** A prepared transaction's state, with one subtransaction and an empty name. */
function preparedState(xid: number, subxact: number): Uint8Array {
  const state = new Uint8Array(136);
  state.set(u32s(0x57f94534, 136, xid), 0);
  state.set(u32s(1), 28);
  new DataView(state.buffer).setUint16(54, 1, true); // the name's length, with its NUL
  state.set(u32s(subxact), 80);
  return state;
}

Deno.test("prepared transactions outlive a shutdown with their subtransactions and locks", () =>
  withCluster(async (cluster) => {
    const lsn = await cluster.ingest(
      lock(700, 16384),
      message(701),
      { rmid: Rmgr.XACT, info: XactInfo.PREPARE, xid: 700, main: preparedState(700, 701) },
      lock(702, 16385),
    );
    const held = [{ xid: 700, db: 5, rel: 16384 }, { xid: 702, db: 5, rel: 16385 }];
    assert.deepEqual(runningAt(cluster, lsn), { xids: [700, 701, 702], locks: held });
    assert.deepEqual(runningAt(cluster, lsn, true), { xids: [700, 701], locks: [] });
    const snapped = await cluster.ingest(snapshot(703, 703));
    assert.deepEqual(runningAt(cluster, snapped), { xids: [700, 701], locks: held.slice(0, 1) });
    const done = await cluster.ingest({
      rmid: Rmgr.XACT,
      info: XactInfo.COMMIT_PREPARED | HAS_INFO,
      xid: 0,
      main: u32s(0, 0, TWO_PHASE | SUBXACTS, 1, 701, 700),
    });
    assert.deepEqual(runningAt(cluster, done), { xids: [], locks: [] });
  }));

Deno.test("locks are kept over a restart of ingest, however many, and once each", () =>
  withCluster(async (cluster) => {
    const rels = Array.from({ length: 40 }, (_, i) => 20_000 + i);
    for (const rel of rels.slice(0, 20)) await cluster.ingest(lock(705, rel));
    cluster.follow(cluster.timeline);
    await cluster.ingest(lock(705, ...rels.slice(10, 30)));
    const lsn = await cluster.ingest(lock(705, ...rels));
    assert.deepEqual(runningAt(cluster, lsn).locks.map(({ rel }) => rel), rels);
    const ended = await cluster.ingest(commit(705));
    assert.deepEqual(runningAt(cluster, ended).locks, []);
    assert.deepEqual(runningAt(cluster, lsn).locks.length, 40);
  }));

/** Transactions in progress that a base backup for a standby speaks of. */
async function inBackup(
  { served, reader }: TestCluster,
  lsn: Lsn,
  standby: "follows" | "stays",
): Promise<number> {
  const backup = new Basebackup({ served, reader, lsn, kind: "lazy", standby });
  const chunks: Uint8Array[] = [];
  await backup.write((chunk) => {
    chunks.push(chunk.slice());
    return Promise.resolve();
  });
  const tar = new TarReader((async function* () {
    yield* chunks;
  })());
  for (let entry = await tar.next(); entry !== undefined; entry = await tar.next()) {
    if (entry.name !== STANDBY_START_NAME) continue;
    return decodeStandbyStart(await tar.wholeBody(1e6)).transactions;
  }
  throw new Error("the backup is not of a standby");
}

Deno.test("base backups of standbys: what runs is told to one that follows the timeline", () =>
  withCluster(async (cluster) => {
    const at = await cluster.ingest(message(700), lock(701, 16384));
    assert.equal(await inBackup(cluster, at, "follows"), 2);
    assert.equal(await inBackup(cluster, at, "stays"), 0);
    const ancestor = cluster.timeline.timelineId;
    const branch = await cluster.tenant.createBranch(newTimelineId(), ancestor, at);
    await cluster.ingest(commit(700));
    assert.throws(
      () => new Basebackup({ ...cluster, lsn: at, kind: "lazy", standby: "follows" }),
      /it stands at/,
    );
    cluster.follow(branch);
    assert.equal(await inBackup(cluster, at, "follows"), 0, "its ancestor's have ended here");
    const end = await cluster.ingest(message(710));
    assert.equal(await inBackup(cluster, end, "follows"), 11);
  }));
