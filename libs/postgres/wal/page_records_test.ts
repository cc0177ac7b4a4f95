/**
 * PageRecords on the last page of a write, as XLogWrite may leave it: what was inserted before the
 * synced position is complete, of the records behind it any bytes may be missing. What it says is
 * held against WalStreamDecoder over the complete WAL.
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import { addLsn, INVALID_LSN, type Lsn, toLsn } from "../../utils/lsn.ts";
import { PAGE_SIZE, RECORD_HEADER_SIZE, Rmgr, XlogInfo } from "../constants.ts";
import { pgVersion } from "../versions.ts";
import { PageRecords } from "./page_records.ts";
import { buildRecord, WalWriter } from "./record_builder.ts";
import { RecordCursor } from "./record_cursor.ts";
import { pageHeaderSize } from "./segment.ts";
import { WalStreamDecoder } from "./stream_decoder.ts";

/** Small, so that there are many first pages, and padding does not outweigh all else. */
const SEGMENT = 8 * PAGE_SIZE;
const VERSION = pgVersion(17);
const IDENTITY = { version: VERSION, segmentSize: SEGMENT, systemId: 77n };
const START = toLsn(SEGMENT);
const RECORDS = 40;

/** Numbers from 0 to below `below`, the same for the same seed (mulberry32). */
type Random = (below: number) => number;

function randomOf(seed: number): Random {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

/** WAL, where its records end, and its links between. */
class Wal {
  readonly #writer = new WalWriter(START, IDENTITY);
  #previous = toLsn(START - 8);
  bytes = new Uint8Array(0);
  ends: Lsn[] = [];

  /** `length` of a record as stored, headers included: one that can be made. */
  record(length: number, random: Random): void {
    // The header of the main data has 2 bytes up to 255 bytes of it, 5 from there on
    const count = length < 26
      ? 0
      : length < 24 + 5 + 256
      ? Math.min(length - 26, 255)
      : length - 29;
    const main = Uint8Array.from({ length: count }, () => 1 + random(255));
    const { LOGICALMSG: rmid } = Rmgr;
    const record = buildRecord({ rmid, info: 0, previous: this.#previous, main });
    this.#previous = this.#writer.append(record);
  }

  switchSegment(): void {
    const { XLOG: rmid } = Rmgr;
    const record = buildRecord({ rmid, info: XlogInfo.SWITCH, previous: this.#previous });
    this.#previous = this.#writer.append(record);
    this.#writer.padTo(toLsn(Math.ceil(this.#writer.end / SEGMENT) * SEGMENT));
  }

  /** Record bytes that still go on the page. */
  get room(): number {
    const next = this.#writer.nextRecordLsn;
    return PAGE_SIZE - next % PAGE_SIZE;
  }

  /** Reads the ends out of the bytes; the last page is filled with what is not there yet. */
  finish(): void {
    const wal = this.#writer.bytes();
    const decoder = new WalStreamDecoder(START, SEGMENT, VERSION);
    const cursor = new RecordCursor();
    decoder.feed(wal);
    while (decoder.next(cursor)) this.ends.push(decoder.recordLsn);
    assert.equal(this.ends.at(-1), this.#writer.end);
    this.bytes = new Uint8Array(Math.ceil(wal.length / PAGE_SIZE) * PAGE_SIZE);
    this.bytes.set(wal);
  }
}

function randomWal(random: Random): Wal {
  const wal = new Wal();
  for (let i = 0; i < RECORDS; i++) {
    const { room } = wal;
    const lengths = [
      () => RECORD_HEADER_SIZE,
      () => RECORD_HEADER_SIZE + random(300),
      () => RECORD_HEADER_SIZE + random(3000),
      () => RECORD_HEADER_SIZE + random(4 * PAGE_SIZE),
      () => Math.max(RECORD_HEADER_SIZE, room), // to the end of the page
      () => Math.max(RECORD_HEADER_SIZE, room - 8), // 8 and 16 bytes of the next header fit
      () => Math.max(RECORD_HEADER_SIZE, room - 16),
      () => room + PAGE_SIZE - 24, // over the next page, to its end where it has the short header
    ];
    const kind = random(lengths.length + 1);
    if (kind < lengths.length) wal.record(lengths[kind]!(), random);
    else wal.switchSegment();
  }
  wal.finish();
  return wal;
}

/** The page at `at` of the WAL where everything before `synced` was inserted. */
function writtenPage(wal: Wal, at: number, synced: number, random: Random): Uint8Array {
  const page = wal.bytes.slice(at, at + PAGE_SIZE);
  const tenths = [0, 1, 5, 10][random(4)]!;
  const from = synced - at;
  // In some order; or from the front on, as memcpy goes
  const copied = random(2) === 0 ? from + random(PAGE_SIZE - from + 1) : from;
  for (let i = copied; i < PAGE_SIZE; i++) if (random(10) < tenths) page[i] = 0;
  return page;
}

function check(wal: Wal, synced: Lsn, random: Random): void {
  const pageStart = toLsn(Math.floor((synced - 1) / PAGE_SIZE) * PAGE_SIZE);
  const pageEnd = addLsn(pageStart, PAGE_SIZE);
  const at = pageStart - START;
  const records = new PageRecords(
    SEGMENT,
    (from, into) => into.set(wal.bytes.subarray(from - START, from - START + into.length)),
  );
  records.bytes.set(writtenPage(wal, at, synced - START, random));
  const known = wal.ends.filter((end) => end > pageStart && end <= synced);
  const boundaries = [toLsn(pageStart - 8), pageStart, ...known.filter((end) => end < pageEnd)];
  const boundary = boundaries[random(boundaries.length)]!;
  records.scan(pageStart, boundary);
  const { recordEnd, finalEnd } = records;
  const where = `page ${pageStart}, synced ${synced}, from ${boundary}: ${recordEnd} ${finalEnd}`;
  const last = known.at(-1) ?? INVALID_LSN;
  assert.ok(recordEnd === INVALID_LSN || wal.ends.includes(recordEnd), `a record's end: ${where}`);
  assert.ok(recordEnd >= last, `not below ${last}: ${where}`);
  assert.ok(finalEnd >= recordEnd && finalEnd >= pageStart && finalEnd <= pageEnd, where);
  const final = records.bytes.subarray(0, finalEnd - pageStart);
  assert.deepEqual(final, wal.bytes.subarray(at, at + final.length), `final bytes: ${where}`);
}

Deno.test("the end of the whole records on a page that is being written is found", () => {
  const seeds = fc.integer({ min: 0, max: 0x7fffffff });
  fc.assert(
    fc.property(seeds, (seed) => {
      const random = randomOf(seed);
      const wal = randomWal(random);
      const whole = wal.ends.at(-1)!;
      const pages = Array.from(
        { length: Math.floor((whole - START) / PAGE_SIZE) },
        (_, i) => addLsn(START, (i + 1) * PAGE_SIZE),
      );
      for (const synced of [...wal.ends, ...pages]) check(wal, synced, random);
    }),
    { numRuns: 60 },
  );
});

/** A page of which the first `room` record bytes are those of one record. */
function pageAfter(room: number): Wal {
  const wal = new Wal();
  const random = randomOf(1);
  wal.record(PAGE_SIZE - pageHeaderSize(START, SEGMENT) - room, random);
  return wal;
}

Deno.test("the rest of an XLOG_SWITCH whose header is on two pages is no record's end", () => {
  for (const room of [8, 16]) {
    const wal = pageAfter(room);
    wal.switchSegment();
    wal.finish();
    const segmentEnd = addLsn(START, SEGMENT);
    assert.deepEqual(wal.ends.slice(1), [segmentEnd]);
    const page = addLsn(START, PAGE_SIZE);
    check(wal, addLsn(page, PAGE_SIZE), randomOf(2));
    check(wal, segmentEnd, randomOf(3));
  }
});

Deno.test("the rest of another record is not taken for that of an XLOG_SWITCH", () => {
  for (const room of [8, 16]) {
    const wal = pageAfter(room);
    wal.record(RECORD_HEADER_SIZE, randomOf(1));
    wal.record(RECORD_HEADER_SIZE, randomOf(1));
    wal.finish();
    for (const end of wal.ends) check(wal, end, randomOf(end));
  }
});
