import assert from "node:assert/strict";
import { Rmgr, XactInfo } from "../../libs/postgres/constants.ts";
import { SlruKind } from "../../libs/postgres/slru.ts";
import { ClogInfo } from "../../libs/postgres/wal/small_records.ts";
import { HEAP, u32s, withCluster } from "../cluster_fixture.ts";
import { twophaseKey } from "../repository/key.ts";

const HAS_INFO = 0x80;
const SUBXACTS = 0x02;
const RELATIONS = 0x04;
const TWO_PHASE = 0x10;

const commit = (...words: number[]) => ({
  rmid: Rmgr.XACT,
  info: XactInfo.COMMIT | HAS_INFO,
  main: u32s(0, 0, ...words),
});

Deno.test("a commit goes once to each pg_xact page of its tree", () =>
  withCluster(async (cluster) => {
    await cluster.ingest(
      { rmid: Rmgr.CLOG, info: ClogInfo.ZEROPAGE, main: u32s(1, 0) },
      commit(SUBXACTS, 4, 701, 702, 32768 + 5, 32768 + 6),
    );
    assert.equal(cluster.collectSlru(SlruKind.CLOG, 0).recordCount, 1);
    assert.equal(cluster.collectSlru(SlruKind.CLOG, 1).recordCount, 2);
  }));

Deno.test("a commit drops relations with all their forks", () =>
  withCluster(async (cluster) => {
    const before = cluster.timeline.lastRecordLsn;
    await cluster.ingest(commit(RELATIONS, 1, HEAP.spc, HEAP.db, HEAP.rel));
    assert.equal(cluster.blocks(HEAP), -1);
    assert.equal(cluster.blocks({ ...HEAP, fork: 2 }), -1);
    assert.equal(cluster.blocks({ ...HEAP, rel: 16385 }), 1);
    const object = cluster.manager.interner.relation(HEAP.spc, HEAP.db, HEAP.rel, 0);
    assert.equal(cluster.served.relations.blocksAt(object, before), 3);
  }));

Deno.test("an abort drops what it lists, too", () =>
  withCluster(async (cluster) => {
    const dropping = commit(RELATIONS, 1, HEAP.spc, HEAP.db, HEAP.rel);
    await cluster.ingest({ ...dropping, info: XactInfo.ABORT | HAS_INFO });
    assert.equal(cluster.blocks(HEAP), -1);
    assert.equal(cluster.collectSlru(SlruKind.CLOG, 0).recordCount, 1);
  }));

Deno.test("a prepared transaction has its state file until it ends", () =>
  withCluster(async (cluster) => {
    const { timeline } = cluster;
    const state = new Uint8Array(120).fill(0);
    state.set(u32s(0x57f94534, 124, 700), 0);
    state[62] = 1; // the gid is empty: a NUL alone
    const lsn = await cluster.ingest({ rmid: Rmgr.XACT, info: XactInfo.PREPARE, main: state });
    assert.deepEqual(timeline.getValue(twophaseKey(700), lsn), state);
    const end = await cluster.ingest({
      rmid: Rmgr.XACT,
      info: XactInfo.COMMIT_PREPARED | HAS_INFO,
      xid: 0,
      main: u32s(0, 0, TWO_PHASE, 700),
    });
    assert.equal(timeline.getValue(twophaseKey(700), end), undefined);
    assert.deepEqual(timeline.getValue(twophaseKey(700), lsn), state);
    assert.equal(cluster.collectSlru(SlruKind.CLOG, 0).recordCount, 1);
  }));
