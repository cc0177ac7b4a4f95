/** WalStreamDecoder against WAL that our own writer lays out, in every alignment. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { Corrupt } from "../../utils/errors.ts";
import { addLsn, type Lsn, toLsn } from "../../utils/lsn.ts";
import { PAGE_SIZE, Rmgr, XlogInfo } from "../constants.ts";
import { pgVersion } from "../versions.ts";
import { XLP_FIRST_IS_OVERWRITE_CONTRECORD } from "./page_header.ts";
import { buildRecord, WalWriter } from "./record_builder.ts";
import { RecordCursor } from "./record_cursor.ts";
import { segmentNumber, segmentStart, skipPageHeader } from "./segment.ts";
import { WalStreamDecoder } from "./stream_decoder.ts";

/** Small segments (PostgreSQL wants 1 MiB at least) so that records cross them often. */
const SEGMENT = 4 * PAGE_SIZE;
const VERSION = pgVersion(17);
const IDENTITY = { version: VERSION, segmentSize: SEGMENT, systemId: 77n };

interface Written {
  lsn: Lsn;
  bytes: Uint8Array;
  end: Lsn;
}

/** Appends records of the given main data lengths, linked to each other. */
function append(writer: WalWriter, lengths: number[], previous: Lsn): Written[] {
  const written: Written[] = [];
  for (const [i, length] of lengths.entries()) {
    const main = new Uint8Array(length).fill(i + 1);
    const bytes = buildRecord({ rmid: Rmgr.HEAP, info: 0x20, xid: 700 + i, previous, main })
      .slice();
    const lsn = writer.append(bytes);
    written.push({ lsn, bytes, end: writer.end });
    previous = lsn;
  }
  return written;
}

/** Feeds `wal` in pieces whose lengths cycle through `chunks`, and checks every record. */
function expectRecords(start: Lsn, wal: Uint8Array, chunks: number[], expected: Written[]): void {
  const decoder = new WalStreamDecoder(start, SEGMENT, VERSION);
  const cursor = new RecordCursor();
  let seen = 0;
  const scratch = new Uint8Array(Math.max(...chunks));
  for (let at = 0, turn = 0; at < wal.length; turn++) {
    const count = Math.min(chunks[turn % chunks.length]!, wal.length - at);
    scratch.set(wal.subarray(at, at + count));
    decoder.feed(scratch.subarray(0, count));
    scratch.fill(0xee); // the decoder must not look at the caller's buffer later
    at += count;
    while (decoder.next(cursor)) {
      const want = expected[seen++]!;
      assert.equal(cursor.lsn, want.lsn);
      assert.equal(cursor.endLsn, want.end);
      assert.equal(decoder.recordLsn, want.end);
      const raw = cursor.bytes.subarray(cursor.start, cursor.start + cursor.length);
      assert.deepEqual(raw, want.bytes);
    }
    assert.equal(decoder.fedLsn, start + at);
  }
  assert.equal(seen, expected.length);
}

Deno.test("decoder returns every record whatever the alignment and the pieces", () => {
  const lengths = fc.array(
    fc.oneof(fc.integer({ min: 0, max: 300 }), fc.integer({ min: 0, max: 3 * SEGMENT })),
    { minLength: 1, maxLength: 12 },
  );
  const chunks = fc.array(fc.integer({ min: 1, max: 20000 }), { minLength: 1, maxLength: 5 });
  fc.assert(fc.property(fc.nat(3 * SEGMENT / 8), lengths, chunks, (at, sizes, pieces) => {
    const inPage = at * 8 % PAGE_SIZE;
    const start = toLsn(10 * SEGMENT + (inPage > 0 && inPage < 40 ? at * 8 - inPage : at * 8));
    const writer = new WalWriter(start, IDENTITY);
    const written = append(writer, sizes, toLsn(8 * SEGMENT));
    expectRecords(start, writer.bytes(), pieces, written);
  }));
});

Deno.test("decoder starts right behind a page header that it is not fed", () => {
  const boundary = toLsn(11 * SEGMENT);
  const writer = new WalWriter(boundary, IDENTITY);
  const written = append(writer, [10, 9000], toLsn(SEGMENT));
  const start = skipPageHeader(boundary, SEGMENT);
  expectRecords(start, writer.bytes().subarray(start - boundary), [500], written);
});

Deno.test("decoder skips the padding behind XLOG_SWITCH, zero page headers included", () => {
  for (const before of [0, 8100, 20000]) {
    const writer = new WalWriter(toLsn(10 * SEGMENT), IDENTITY);
    const written = append(writer, [before], toLsn(SEGMENT));
    const previous = written[0]!.lsn;
    const bytes = buildRecord({ rmid: Rmgr.XLOG, info: XlogInfo.SWITCH, previous }).slice();
    const lsn = writer.append(bytes);
    const end = segmentStart(segmentNumber(lsn, SEGMENT) + 1, SEGMENT);
    writer.padTo(end);
    written.push({ lsn, bytes, end }, ...append(writer, [40, 40], lsn));
    for (const pieces of [[100000], [100], [PAGE_SIZE], [1]]) {
      expectRecords(writer.start, writer.bytes(), pieces, written);
    }
  }
});

Deno.test("decoder gives up a record that a page overwrites", () => {
  const writer = new WalWriter(toLsn(10 * SEGMENT + 64), IDENTITY);
  const written = append(writer, [50], toLsn(SEGMENT));
  const previous = written[0]!.lsn;
  const lost = buildRecord({ rmid: Rmgr.HEAP, info: 0, previous, main: new Uint8Array(30000) });
  writer.appendPart(lost, PAGE_SIZE - writer.end % PAGE_SIZE);
  writer.startOverwritingPage(XLP_FIRST_IS_OVERWRITE_CONTRECORD);
  written.push(...append(writer, [16, 500], previous));
  for (const pieces of [[100000], [64], [1]]) {
    expectRecords(writer.start, writer.bytes(), pieces, written);
  }
});

/** Decodes all of `wal`; returns the records seen before the error, and the error. */
function decodeUntilError(start: Lsn, wal: Uint8Array): { seen: number; error: unknown; at: Lsn } {
  const decoder = new WalStreamDecoder(start, SEGMENT, VERSION);
  const cursor = new RecordCursor();
  decoder.feed(wal);
  let seen = 0;
  try {
    while (decoder.next(cursor)) seen++;
  } catch (error) {
    assert.throws(() => decoder.next(cursor), Corrupt, "the error stays");
    return { seen, error, at: decoder.recordLsn };
  }
  return { seen, error: undefined, at: decoder.recordLsn };
}

Deno.test("decoder reports any flipped byte of a record, at that record", () => {
  const start = toLsn(10 * SEGMENT + 7000);
  const writer = new WalWriter(start, IDENTITY);
  const written = append(writer, [100, 3000, 100], toLsn(SEGMENT));
  const victim = written[1]!;
  const places = fc.nat(victim.end - victim.lsn - 1);
  fc.assert(fc.property(places, fc.integer({ min: 1, max: 255 }), (place, flip) => {
    const wal = writer.bytes().slice();
    const at = victim.lsn - start + place;
    wal[at]! ^= flip;
    const { seen, error, at: end } = decodeUntilError(start, wal);
    const inPage = (victim.lsn + place) % PAGE_SIZE;
    const harmless = place >= victim.end - victim.lsn - 7 || // padding
      (inPage >= 4 && inPage < 8) || (inPage >= 20 && inPage < 24) || inPage === 2;
    if (error === undefined && harmless) return;
    assert.equal(seen, 1);
    assert.ok(error instanceof Corrupt || place < 4, "a longer length waits for more");
    assert.ok(end <= victim.lsn);
  }));
});

Deno.test("decoder refuses a wrong link, another page's header and a start in a continuation", () => {
  const writer = new WalWriter(toLsn(10 * SEGMENT), IDENTITY);
  const [first] = append(writer, [9000], toLsn(SEGMENT));
  append(writer, [10], addLsn(first!.lsn, 8));
  const wal = writer.bytes().slice();
  assert.match(String(decodeUntilError(writer.start, wal).error), /links to/);
  const behind = decodeUntilError(addLsn(writer.start, PAGE_SIZE), wal.subarray(PAGE_SIZE));
  assert.match(String(behind.error), /begins with the rest of another record/);
  const elsewhere = decodeUntilError(addLsn(writer.start, 4 * SEGMENT), wal);
  assert.match(String(elsewhere.error), /no page header/);
  const zeros = decodeUntilError(addLsn(writer.start, 40), new Uint8Array(64));
  assert.match(String(zeros.error), /length is 0/);
});

Deno.test("decoder without block checks fills the header fields only", () => {
  const writer = new WalWriter(toLsn(10 * SEGMENT), IDENTITY);
  append(writer, [10], toLsn(SEGMENT));
  const decoder = new WalStreamDecoder(writer.start, SEGMENT, VERSION, { checkBlocks: false });
  const cursor = new RecordCursor();
  decoder.feed(writer.bytes());
  assert.ok(decoder.next(cursor));
  assert.deepEqual([cursor.rmid, cursor.xid, cursor.prevLsn], [Rmgr.HEAP, 700, SEGMENT]);
  assert.equal(cursor.mainLength, 0);
});
