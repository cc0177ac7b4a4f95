/** Synthesized beginnings of standbys at every awkward position, read back as PostgreSQL reads them. */
import assert from "node:assert/strict";
import { alignLsn, type Lsn, toLsn } from "../../utils/lsn.ts";
import { decodeCheckPoint } from "../checkpoint.ts";
import { PAGE_SIZE, Rmgr, WAL_SEGMENT_SIZE, XlogInfo } from "../constants.ts";
import { emptyCheckPoint } from "../empty_cluster_fixture.ts";
import { PG_VERSIONS, type PgVersion, pgVersion } from "../versions.ts";
import { RecordCursor } from "./record_cursor.ts";
import { advanceOverHeaders, recordBytesBetween, retreatOverHeaders } from "./segment.ts";
import { mainU32, readRunningXacts, StandbyInfo } from "./small_records.ts";
import { shortestRecordBefore, synthesizeStandbyWal } from "./standby_start.ts";
import { WalStreamDecoder } from "./stream_decoder.ts";

const SEGMENT = WAL_SEGMENT_SIZE;
const EPOCH = 2 ** 32;
const SYSTEM_ID = 0x6b01d2f3a4b5c6d7n;
const V17 = pgVersion(17);
const checkPoint = { ...emptyCheckPoint(), nextXid: EPOCH + 5000, oldestActiveXid: 4000 };
const NOTHING = { xids: [], locks: [] };

/** Reads what was synthesized for P = `lsn`; returns the last record's end. */
function expectStandby(
  prev: Lsn,
  lsn: Lsn,
  running: Parameters<typeof synthesizeStandbyWal>[0]["running"] = NOTHING,
  version: PgVersion = V17,
): { end: Lsn; lastInfo: number } {
  const identity = { systemId: SYSTEM_ID, version, segmentSize: SEGMENT };
  const made = synthesizeStandbyWal({ ...identity, lsn, prev, checkPoint, running });
  const decoder = new WalStreamDecoder(made.start, SEGMENT, version);
  decoder.feed(made.wal);
  const cursor = new RecordCursor();
  assert.ok(decoder.next(cursor));
  assert.deepEqual([cursor.rmid, cursor.info], [Rmgr.XLOG, XlogInfo.CHECKPOINT_ONLINE]);
  assert.equal(cursor.lsn, made.start);
  const online = decodeCheckPoint(cursor.bytes, cursor.mainOffset, version);
  const oldest = running.xids[0] ?? checkPoint.nextXid;
  assert.deepEqual(online, {
    ...checkPoint,
    redo: made.start,
    oldestActiveXid: oldest % EPOCH,
  });
  assert.deepEqual(online, made.checkPoint);
  let previous = cursor.lsn;
  const next = (rmid: number, info: number) => {
    assert.ok(decoder.next(cursor));
    assert.deepEqual([cursor.rmid, cursor.info, cursor.prevLsn], [rmid, info, previous]);
    previous = cursor.lsn;
  };
  if (running.locks.length > 0) {
    next(Rmgr.STANDBY, StandbyInfo.LOCK);
    assert.equal(mainU32(cursor, 0), running.locks.length);
    const { xid, db, rel } = running.locks[0]!;
    const first = [4, 8, 12].map((at) => mainU32(cursor, at));
    assert.deepEqual(first, [xid % EPOCH, db, rel]);
  }
  next(Rmgr.STANDBY, StandbyInfo.RUNNING_XACTS);
  const list = readRunningXacts(cursor);
  assert.deepEqual([list.count, list.overflowed], [running.xids.length, false]);
  assert.deepEqual([list.nextXid, list.oldestRunningXid], [5000, oldest % EPOCH]);
  running.xids.forEach((xid, i) => {
    assert.equal(cursor.view.getUint32(list.xidsAt + 4 * i, true), xid % EPOCH);
  });
  assert.ok(decoder.next(cursor));
  assert.equal(cursor.rmid, Rmgr.XLOG);
  assert.deepEqual([cursor.lsn, cursor.prevLsn], [prev, previous]);
  assert.ok(!decoder.next(cursor));
  const end = cursor.info === XlogInfo.SWITCH ? made.end : cursor.endLsn;
  assert.equal(end, made.end);
  return { end, lastInfo: cursor.info };
}

Deno.test("a standby's WAL ends exactly at P, wherever the last record begins and ends", () => {
  const locks = [{ xid: EPOCH + 4990, db: 5, rel: 16400 }, { xid: EPOCH + 4990, db: 0, rel: 1262 }];
  const running = { xids: [EPOCH + 4990, EPOCH + 4999], locks };
  for (const boundary of [5 * SEGMENT + 10 * PAGE_SIZE, 0x100000000]) {
    const header = boundary % SEGMENT === 0 ? 40 : 24;
    for (const length of [24, 32, 56, 280, 288, 9000]) {
      for (let behind = -512; behind <= 512; behind += 8) {
        const lsn = toLsn(boundary + behind);
        if (behind >= 0 && behind <= header) continue; // no record ends there
        const bytes = Math.ceil(length / 8) * 8;
        const prev = retreatOverHeaders(lsn, bytes, SEGMENT);
        const { end, lastInfo } = expectStandby(prev, lsn, behind % 16 === 0 ? running : NOTHING);
        assert.equal(end, lsn);
        assert.equal(lastInfo, behind === 0 && header === 40 ? XlogInfo.SWITCH : XlogInfo.NOOP);
      }
    }
  }
  for (const version of PG_VERSIONS) {
    expectStandby(toLsn(0x5000100), toLsn(0x5000180), running, version);
  }
});

Deno.test("behind a page header a standby begins on the boundary before it", () => {
  const page = 3 * SEGMENT + 7 * PAGE_SIZE;
  const prev = shortestRecordBefore(toLsn(page + 24), SEGMENT);
  assert.equal(prev, page - 24);
  assert.equal(expectStandby(prev, toLsn(page + 24)).end, page);
});

Deno.test("behind a WAL switch a standby begins with the next segment", () => {
  const boundary = toLsn(9 * SEGMENT);
  const prev = toLsn(8 * SEGMENT + 3 * PAGE_SIZE + 4000);
  assert.deepEqual(expectStandby(prev, boundary), { end: boundary, lastInfo: XlogInfo.SWITCH });
  const behindHeader = expectStandby(prev, toLsn(boundary + 40));
  assert.deepEqual(behindHeader, { end: boundary, lastInfo: XlogInfo.SWITCH });
});

Deno.test("many transactions in progress take several pages, and segments", () => {
  const xids = Array.from({ length: 70_000 }, (_, i) => EPOCH - 70_000 + i);
  const lsn = toLsn(6 * SEGMENT + PAGE_SIZE + 400);
  const prev = toLsn(lsn - 104);
  assert.equal(expectStandby(prev, lsn, { xids, locks: [] }).end, lsn);
});

Deno.test("retreatOverHeaders() and recordBytesBetween() are the inverses of going forward", () => {
  const first = toLsn(2 * SEGMENT - 2 * PAGE_SIZE + 24);
  for (let start: number = first; start < 2 * SEGMENT + 600; start += 8) {
    if (start % PAGE_SIZE < (start % SEGMENT < PAGE_SIZE ? 40 : 24)) continue;
    for (const count of [8, 24, 120, 8168, 20_000]) {
      const end = alignLsn(advanceOverHeaders(toLsn(start), count, SEGMENT));
      assert.equal(retreatOverHeaders(end, count, SEGMENT), start);
      assert.equal(recordBytesBetween(toLsn(start), end, SEGMENT), count);
    }
  }
});
