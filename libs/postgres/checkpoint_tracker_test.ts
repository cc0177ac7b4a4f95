/** CheckpointTracker and the records that it reads, built by hand for every version. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { ByteWriter } from "../utils/bytes.ts";
import { Corrupt } from "../utils/errors.ts";
import { type Lsn, toLsn } from "../utils/lsn.ts";
import { type CheckPoint, encodeCheckPoint } from "./checkpoint.ts";
import { CheckpointTracker, StateChange } from "./checkpoint_tracker.ts";
import { Rmgr, XactInfo, XlogInfo } from "./constants.ts";
import { PG_VERSIONS, type PgVersion, pgVersion } from "./versions.ts";
import { buildRecord } from "./wal/record_builder.ts";
import { RecordCursor } from "./wal/record_cursor.ts";
import { ClogInfo, MultiXactInfo, readSlruPage, StandbyInfo } from "./wal/small_records.ts";
import { XactRecord } from "./xact_record.ts";
import { defaultWalParameters, emptyCheckPoint } from "./empty_cluster_fixture.ts";

const LSN = toLsn(0x1000028);
const EPOCH = 2 ** 32;
const words = (...values: number[]) => {
  const writer = new ByteWriter("little");
  for (const value of values) writer.u32(value);
  return writer.bytes();
};

/** A cursor at a record with this main data. */
function at(
  version: PgVersion,
  rmid: number,
  info: number,
  xid: number,
  main: Uint8Array,
): RecordCursor {
  const bytes = buildRecord({ rmid, info, xid, previous: LSN, main });
  const cursor = new RecordCursor();
  const end = (LSN + bytes.length) as Lsn;
  cursor.decode(version, bytes, new DataView(bytes.buffer), 0, bytes.length, LSN, end);
  return cursor;
}

const V17 = pgVersion(17);
const heap = (xid: number) => at(V17, Rmgr.HEAP, 0, xid, words(1));
const time = [0x11111111, 0x0002ca00];
const commit = (xid: number, ...subxacts: number[]) =>
  at(V17, Rmgr.XACT, 0x80, xid, words(...time, 0x002, subxacts.length, ...subxacts));

function tracker(fields: Partial<CheckPoint> = {}): CheckpointTracker {
  const checkPoint = { ...emptyCheckPoint(), nextXid: 100, ...fields };
  return new CheckpointTracker(V17, checkPoint, defaultWalParameters());
}

Deno.test("nextXid follows transactions, their subtransactions and what the server lists", () => {
  const t = tracker();
  assert.equal(t.apply(heap(103)), StateChange.nextXid);
  assert.equal(t.checkPoint.nextXid, 104);
  assert.equal(t.apply(heap(101)), StateChange.nothing);
  t.apply(commit(101, 102, 105));
  assert.equal(t.checkPoint.nextXid, 106);
  t.apply(at(V17, Rmgr.XACT, XactInfo.ASSIGNMENT, 106, words(106, 2, 107, 108)));
  assert.equal(t.checkPoint.nextXid, 109);
  const list = words(1, 0, 0, 115, 105, 114, 105);
  t.apply(at(V17, Rmgr.STANDBY, StandbyInfo.RUNNING_XACTS, 0, list));
  assert.equal(t.checkPoint.nextXid, 115);
});

Deno.test("nextXid wraps into the next epoch and skips the reserved ids", () => {
  const t = tracker({ nextXid: EPOCH - 2, oldestXid: EPOCH - 1000 });
  t.apply(heap(EPOCH - 1));
  assert.equal(t.checkPoint.nextXid, EPOCH + 3);
  t.apply(heap(4));
  assert.equal(t.checkPoint.nextXid, EPOCH + 5);
  assert.equal(t.fullXid(EPOCH - 2), EPOCH - 2);
});

const align = (writer: ByteWriter) => writer.zeros((8 - writer.length % 8) % 8);

/** Main data of a PREPARE record as each version lays it out. */
function prepareData(version: PgVersion, xid: number, gid: string, subxacts: number[]): Uint8Array {
  const writer = new ByteWriter("little");
  writer.u32(0x57f94534).u32(0).u32(xid).u32(5).u64(0n).u32(10).u32(subxacts.length);
  writer.u32(1).u32(2);
  if (version.statsItemBytes > 0) writer.u32(0).u32(0);
  writer.u32(0).u8(0).u8(0).u16(gid.length + 1).u64(0x77n).u64(0n);
  writer.cstr(gid);
  align(writer);
  for (const subxact of subxacts) writer.u32(subxact);
  align(writer);
  writer.u32(1663).u32(5).u32(20000);
  align(writer);
  writer.u32(1663).u32(5).u32(20001).u32(1663).u32(5).u32(20002);
  return writer.bytes().slice();
}

Deno.test("prepared transactions survive a shutdown, until their own end", () => {
  for (const version of PG_VERSIONS) {
    const start = { ...emptyCheckPoint(), nextXid: 100 };
    const t = new CheckpointTracker(version, start, defaultWalParameters());
    const prepare = at(
      version,
      Rmgr.XACT,
      XactInfo.PREPARE,
      100,
      prepareData(version, 100, "a gid", [101, 102]),
    );
    t.apply(prepare);
    assert.deepEqual([...t.preparedXids], [100]);
    const shutdown = encodeCheckPoint({ ...emptyCheckPoint(), nextXid: 120 }, version);
    t.apply(at(version, Rmgr.XLOG, XlogInfo.CHECKPOINT_SHUTDOWN, 0, shutdown));
    assert.equal(t.checkPoint.nextXid, 120);
    const copy = CheckpointTracker.restore(t.serialise(), version);
    assert.deepEqual([...copy.preparedXids], [100]);
    const end = words(...time, 0x012, 2, 101, 102, 100);
    for (const one of [t, copy]) {
      one.apply(at(version, Rmgr.XACT, 0x80 | XactInfo.COMMIT_PREPARED, 0, end));
      assert.equal(one.preparedXids.size, 0);
    }
  }
});

Deno.test("XactRecord reads every part, with statistics items of each version's size", () => {
  for (const version of PG_VERSIONS) {
    const record = new XactRecord();
    const hasStats = version.statsItemBytes > 0;
    const writer = new ByteWriter("little");
    writer.u32(time[0]!).u32(time[1]!).u32(0x0bf | (hasStats ? 0x100 : 0)).u32(5).u32(1663);
    writer.u32(2).u32(901).u32(902).u32(1).u32(1663).u32(5).u32(20000);
    if (hasStats) writer.u32(3).zeros(3 * version.statsItemBytes);
    writer.u32(1).zeros(16).u32(900).cstr("gid").lsn(toLsn(0xabc)).u64(0n);
    const info = 0x80 | XactInfo.ABORT_PREPARED;
    record.decode(at(version, Rmgr.XACT, info, 0, writer.bytes().slice()), version);
    assert.deepEqual(
      [record.opcode, record.xid, record.db, record.subxactCount, record.relationCount],
      [XactInfo.ABORT_PREPARED, 900, 5, 2, 1],
    );
    assert.deepEqual([record.subxact(0), record.subxact(1)], [901, 902]);
    const relation = [record.relationSpc(0), record.relationDb(0), record.relationRel(0)];
    assert.deepEqual(relation, [1663, 5, 20000]);
    assert.deepEqual([record.gid(), record.originLsn], ["gid", 0xabcn]);
    assert.equal(record.time, time[1]! * EPOCH + time[0]!);
    record.decode(at(version, Rmgr.XACT, 0, 7, words(...time)), version);
    assert.deepEqual([record.xid, record.subxactCount, record.gid()], [7, 0, ""]);
    const prepared = prepareData(version, 55, "p", [56]);
    record.decode(at(version, Rmgr.XACT, XactInfo.PREPARE, 55, prepared), version);
    assert.deepEqual([record.xid, record.subxact(0), record.gid()], [55, 56, "p"]);
    assert.deepEqual([record.relationRel(0), record.abortRelationCount], [20000, 2]);
    assert.deepEqual(record.abortRelation(1), [1663, 5, 20002]);
    const short = at(version, Rmgr.XACT, 0x80, 7, words(...time, 0x002, 5, 1));
    assert.throws(() => record.decode(short, version), Corrupt);
  }
});

Deno.test("an online checkpoint raises counters and ignores nextOid; NEXTOID sets it", () => {
  const t = tracker({ nextOid: 16384, nextMulti: 9, nextMultiOffset: 30, oldestXid: 50 });
  const online = { ...emptyCheckPoint(), nextXid: 90, nextOid: 99999, oldestXid: 60 };
  const data = {
    ...online,
    oldestXidDb: 4,
    nextMulti: 12,
    nextMultiOffset: 20,
    newestCommitTsXid: 8,
  };
  t.apply(at(V17, Rmgr.XLOG, XlogInfo.CHECKPOINT_ONLINE, 0, encodeCheckPoint(data, V17)));
  const { nextXid, nextOid, nextMulti, nextMultiOffset, oldestXid, oldestXidDb } = t.checkPoint;
  assert.deepEqual(
    [nextXid, nextOid, nextMulti, nextMultiOffset, oldestXid, oldestXidDb],
    [100, 16384, 12, 30, 60, 4],
  );
  assert.equal(t.checkPoint.newestCommitTsXid, 0);
  t.apply(at(V17, Rmgr.XLOG, XlogInfo.NEXTOID, 0, words(24576)));
  assert.equal(t.checkPoint.nextOid, 24576);
  t.apply(at(V17, Rmgr.XLOG, XlogInfo.FPW_CHANGE, 0, Uint8Array.of(1)));
  assert.equal(t.checkPoint.fullPageWrites, true);
});

Deno.test("commit timestamps begin and end with their setting, and follow commits between", () => {
  const t = tracker();
  const limits = () => [t.checkPoint.oldestCommitTsXid, t.checkPoint.newestCommitTsXid];
  const track = (on: number) => {
    const main = Uint8Array.of(...words(100, 8, 10, 0, 64, 1), 0, on);
    t.apply(at(V17, Rmgr.XLOG, XlogInfo.PARAMETER_CHANGE, 0, main));
  };
  t.apply(commit(100));
  assert.deepEqual(limits(), [0, 0], "off by default");
  track(1);
  assert.deepEqual(limits(), [101, 101]);
  t.apply(commit(103, 104, 107));
  t.apply(commit(105));
  assert.deepEqual(limits(), [101, 107]);
  t.apply(at(V17, Rmgr.COMMIT_TS, ClogInfo.TRUNCATE, 0, words(0, 0, 104)));
  t.apply(at(V17, Rmgr.COMMIT_TS, ClogInfo.TRUNCATE, 0, words(0, 0, 102)));
  assert.deepEqual(limits(), [104, 107]);
  const shutdown = { ...emptyCheckPoint(), nextXid: 108, oldestCommitTsXid: 105 };
  t.apply(at(V17, Rmgr.XLOG, XlogInfo.CHECKPOINT_SHUTDOWN, 0, encodeCheckPoint(shutdown, V17)));
  assert.deepEqual(limits(), [105, 107]);
  track(1);
  assert.deepEqual(limits(), [105, 107], "another setting has changed");
  const { checkPoint } = CheckpointTracker.restore(t.serialise(), V17);
  assert.deepEqual([checkPoint.oldestCommitTsXid, checkPoint.newestCommitTsXid], limits());
  track(0);
  assert.deepEqual(limits(), [0, 0]);
});

Deno.test("multixact records advance ids, members and their xids; truncation sets the oldest", () => {
  const t = tracker({ nextMulti: 5, nextMultiOffset: 10 });
  const create = words(7, 20, 2, 130, 0, 131, 4);
  t.apply(at(V17, Rmgr.MULTIXACT, MultiXactInfo.CREATE_ID, 120, create));
  const { nextMulti, nextMultiOffset, nextXid } = t.checkPoint;
  assert.deepEqual([nextMulti, nextMultiOffset, nextXid], [8, 22, 132]);
  const last = words(0xffffffff, 0xfffffffe, 4, 1, 0, 1, 0, 1, 0, 1, 0);
  const old = tracker({ nextMulti: 0xffffffff, nextMultiOffset: 0xfffffffe });
  old.apply(at(V17, Rmgr.MULTIXACT, MultiXactInfo.CREATE_ID, 0, last));
  assert.deepEqual([old.checkPoint.nextMulti, old.checkPoint.nextMultiOffset], [1, 2]);
  const truncate = words(16400, 1, 6, 1, 15);
  t.apply(at(V17, Rmgr.MULTIXACT, MultiXactInfo.TRUNCATE_ID, 0, truncate));
  assert.deepEqual([t.checkPoint.oldestMulti, t.checkPoint.oldestMultiDb], [6, 16400]);
});

Deno.test("clog truncation moves oldestXid, with page numbers of each version's width", () => {
  for (const version of PG_VERSIONS) {
    const t = new CheckpointTracker(version, emptyCheckPoint(), defaultWalParameters());
    const page = version.slruPageNumberBytes === 8 ? [3, 0] : [3];
    const record = at(version, Rmgr.CLOG, ClogInfo.TRUNCATE, 0, words(...page, 90000, 16401));
    assert.equal(readSlruPage(record, version), 3);
    assert.equal(t.apply(record), StateChange.more);
    assert.deepEqual([t.checkPoint.oldestXid, t.checkPoint.oldestXidDb], [90000, 16401]);
    assert.equal(t.apply(record), StateChange.nothing);
  }
});

Deno.test("parameters follow PARAMETER_CHANGE, and the state survives serialise() and restore()", () => {
  const u31 = fc.nat();
  fc.assert(
    fc.property(u31, u31, fc.boolean(), fc.boolean(), (connections, locks, hints, track) => {
      const t = tracker({ nextXid: 7 * EPOCH + 42 });
      const writer = new ByteWriter("little").u32(connections).u32(8).u32(10).u32(3).u32(locks).u32(
        2,
      );
      const data = writer.u8(hints ? 1 : 0).u8(track ? 1 : 0).u16(0).bytes().slice();
      assert.ok(t.apply(at(V17, Rmgr.XLOG, XlogInfo.PARAMETER_CHANGE, 0, data)));
      const restored = CheckpointTracker.restore(t.serialise(), V17);
      assert.deepEqual(restored.checkPoint, t.checkPoint);
      assert.deepEqual(restored.parameters, t.parameters);
      assert.deepEqual([restored.parameters.maxConnections, restored.parameters.walLogHints], [
        connections,
        hints,
      ]);
      assert.equal(restored.checkPoint.walLevel, 2);
    }),
  );
  const state = tracker().serialise();
  assert.ok(state.length < 128);
  assert.throws(() => CheckpointTracker.restore(state.slice(0, 100), V17), Corrupt);
  assert.throws(
    () => CheckpointTracker.restore(state.map((b, i) => i === 0 ? 9 : b), V17),
    Corrupt,
  );
});

Deno.test("oldestRunning moves with snapshots of what runs, and with shutdowns", () => {
  const t = tracker({ nextXid: EPOCH + 10, oldestXid: 5 });
  assert.equal(t.oldestRunning, EPOCH + 10);
  const snapshot = (next: number, oldest: number) =>
    t.apply(at(V17, Rmgr.STANDBY, StandbyInfo.RUNNING_XACTS, 0, words(0, 0, 0, next, oldest, 0)));
  t.apply(heap(20));
  assert.equal(t.oldestRunning, EPOCH + 10, "nobody has said that anything ended");
  assert.equal(snapshot(21, 15), StateChange.more);
  assert.equal(t.oldestRunning, EPOCH + 15);
  assert.equal(snapshot(21, 15), StateChange.nothing);
  snapshot(21, 12);
  assert.equal(t.oldestRunning, EPOCH + 15, "it never goes back");
  assert.equal(CheckpointTracker.restore(t.serialise(), V17).oldestRunning, EPOCH + 15);
  const checkPoint = encodeCheckPoint({ ...emptyCheckPoint(), nextXid: EPOCH + 40 }, V17);
  t.apply(at(V17, Rmgr.XLOG, XlogInfo.CHECKPOINT_SHUTDOWN, 0, checkPoint));
  assert.equal(t.oldestRunning, EPOCH + 40);
});

Deno.test("the next transaction id is restored from beside the state, also one that fell", () => {
  const t = tracker({ nextXid: EPOCH + 10, oldestXid: 5 });
  const state = t.serialise().slice();
  assert.equal(t.apply(heap(20)), StateChange.nextXid);
  const later = t.serialiseNextXid();
  const restored = (nextXid?: Uint8Array) =>
    CheckpointTracker.restore(state, V17, nextXid).checkPoint.nextXid;
  assert.deepEqual([restored(), restored(later)], [EPOCH + 10, EPOCH + 21]);
  const shutdown = encodeCheckPoint({ ...emptyCheckPoint(), nextXid: EPOCH + 15 }, V17);
  const change = t.apply(at(V17, Rmgr.XLOG, XlogInfo.CHECKPOINT_SHUTDOWN, 0, shutdown));
  assert.equal(change, StateChange.more);
  assert.equal(restored(t.serialiseNextXid()), EPOCH + 15);
  assert.throws(() => restored(later.subarray(0, 7)), Corrupt);
});

Deno.test("restore() reads the state that was kept before there was oldestRunning", () => {
  const state = tracker({ nextXid: EPOCH + 10, oldestXid: 5 }).serialise();
  const count = state.length - 4;
  const older = Uint8Array.from([1, ...state.slice(1, count - 8), ...state.slice(count)]);
  const restored = CheckpointTracker.restore(older, V17);
  assert.deepEqual([restored.checkPoint.nextXid, restored.oldestRunning], [EPOCH + 10, EPOCH + 5]);
});
