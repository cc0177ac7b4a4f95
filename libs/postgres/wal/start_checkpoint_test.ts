/** Synthesized clean shutdowns at every awkward position (that PostgreSQL starts there was tried by hand). */
import assert from "node:assert/strict";
import { type Lsn, toLsn } from "../../utils/lsn.ts";
import { type CheckPoint, decodeCheckPoint } from "../checkpoint.ts";
import { PAGE_SIZE, Rmgr, WAL_SEGMENT_SIZE, XlogInfo } from "../constants.ts";
import { PG_VERSIONS, type PgVersion, pgVersion } from "../versions.ts";
import { pageHeaderFault, readPageHeader } from "./page_header.ts";
import { RecordCursor } from "./record_cursor.ts";
import { pageHeaderSize, parseSegmentName, segmentName, segmentStart } from "./segment.ts";
import { endOfCheckpointRecord, startLsnAfter, synthesizeStartWal } from "./start_checkpoint.ts";
import { WalStreamDecoder } from "./stream_decoder.ts";
import { emptyCheckPoint } from "../empty_cluster_fixture.ts";

const SEGMENT = WAL_SEGMENT_SIZE;
const SYSTEM_ID = 0x6b01d2f3a4b5c6d7n;

function checkPointAt(): CheckPoint {
  return { ...emptyCheckPoint(), nextXid: 2 ** 32 + 5000, nextOid: 24576, oldestActiveXid: 4000 };
}

/** The segment files in full, by first position. */
function writeOut(x: Lsn, prev: Lsn, version: PgVersion): Map<number, Uint8Array> {
  const files = new Map<number, Uint8Array>();
  const args = { x, prev, checkPoint: checkPointAt(), systemId: SYSTEM_ID, version };
  for (const { segmentName, pieces } of synthesizeStartWal({ ...args, segmentSize: SEGMENT })) {
    const file = new Uint8Array(SEGMENT);
    let filled = 0;
    for (const { offset, bytes } of pieces) {
      assert.ok(offset >= filled, "pieces are in order and apart");
      file.set(bytes, offset);
      filled = offset + bytes.length;
    }
    const { timelineId, segment } = parseSegmentName(segmentName, SEGMENT)!;
    assert.equal(timelineId, 1);
    files.set(segmentStart(segment, SEGMENT), file);
  }
  return files;
}

/** Checks what PostgreSQL checks at its start: page headers from the segment's first page on. */
function expectCleanShutdown(x: Lsn, version: PgVersion): void {
  const prev = toLsn(x - 96);
  const files = writeOut(x, prev, version);
  const start = startLsnAfter(x, SEGMENT);
  const end = endOfCheckpointRecord(start, SEGMENT);
  const firstSegment = start - start % SEGMENT;
  const pages = new Set([firstSegment, start - start % PAGE_SIZE, end - 1 - (end - 1) % PAGE_SIZE]);
  for (const page of pages) {
    const file = files.get(page - page % SEGMENT)!;
    const view = new DataView(file.buffer, page % SEGMENT, PAGE_SIZE);
    assert.equal(pageHeaderFault(view, 0, version, page as Lsn, SEGMENT), undefined);
    const header = readPageHeader(view, 0);
    assert.equal(header.timelineId, 1);
    assert.equal(header.pageStart, page);
    assert.equal(header.systemId, page % SEGMENT === 0 ? SYSTEM_ID : undefined);
  }
  const decoder = new WalStreamDecoder(x, SEGMENT, version);
  for (let at: number = x; at < end;) {
    const base = at - at % SEGMENT;
    const until = Math.min(end, base + SEGMENT);
    decoder.feed(files.get(base)!.subarray(at - base, until - base));
    at = until;
  }
  const cursor = new RecordCursor();
  assert.ok(decoder.next(cursor), "there is one record");
  assert.deepEqual([cursor.rmid, cursor.info], [Rmgr.XLOG, XlogInfo.CHECKPOINT_SHUTDOWN]);
  assert.deepEqual([cursor.lsn, cursor.endLsn, cursor.prevLsn], [start, end, prev]);
  assert.deepEqual([cursor.length, decoder.recordLsn], [114, end]);
  const checkPoint = decodeCheckPoint(cursor.bytes, cursor.mainOffset, version);
  assert.deepEqual(checkPoint, { ...checkPointAt(), redo: start, oldestActiveXid: 0 });
  assert.ok(!decoder.next(cursor));
}

Deno.test("synthesizeStartWal() works at every distance from a page's end", () => {
  const page = toLsn(5 * SEGMENT + 10 * PAGE_SIZE);
  for (let left = 0; left <= 160; left += 8) expectCleanShutdown(toLsn(page - left), pgVersion(17));
  for (const version of PG_VERSIONS) expectCleanShutdown(toLsn(page - 8), version);
});

Deno.test("synthesizeStartWal() works at and around a segment boundary", () => {
  const boundary = 0x100000000; // also where the high half of the position changes
  for (let left = 0; left <= 160; left += 8) {
    expectCleanShutdown(toLsn(boundary - left), pgVersion(17));
  }
  for (const into of [40, 48, PAGE_SIZE - 8, PAGE_SIZE, PAGE_SIZE + 24, PAGE_SIZE + 32]) {
    expectCleanShutdown(toLsn(boundary + into), pgVersion(17));
  }
});

Deno.test("a start right behind another synthetic checkpoint continues it", () => {
  const first = startLsnAfter(toLsn(3 * SEGMENT + PAGE_SIZE), SEGMENT);
  const second = endOfCheckpointRecord(first, SEGMENT);
  assert.equal(second - first, 120);
  expectCleanShutdown(second, pgVersion(17));
});

Deno.test("only a record that crosses a segment needs two files", () => {
  const boundary = 7 * SEGMENT;
  const count = (x: number) => writeOut(toLsn(x), toLsn(SEGMENT), pgVersion(17)).size;
  assert.deepEqual([count(boundary - 120), count(boundary - 112), count(boundary)], [1, 2, 1]);
});

Deno.test("segment names count in 4 GiB, and parse back", () => {
  assert.equal(segmentName(1, 0x1ff, SEGMENT), "0000000100000001000000FF");
  assert.equal(segmentName(1, 4097, 1 << 20), "000000010000000100000001");
  assert.deepEqual(parseSegmentName("0000000100000001000000FF", SEGMENT), {
    timelineId: 1,
    segment: 0x1ff,
  });
  assert.equal(parseSegmentName("000000010000000100000100", SEGMENT), undefined);
  assert.equal(parseSegmentName("00000001.history", SEGMENT), undefined);
  assert.deepEqual([pageHeaderSize(SEGMENT, SEGMENT), pageHeaderSize(PAGE_SIZE, SEGMENT)], [
    40,
    24,
  ]);
});
