/**
 * The checksum of a WAL record (XLogRecord.xl_crc): CRC-32C of the body, that is everything from
 * byte 24 on, continued over the first 20 bytes of the header.
 *
 * Most records are short, and then the two calls into the native add-on, with a view object each,
 * cost more than the bytes: those run through tables here, 16 bytes a step, without allocating
 * anything.
 */
import { crc32c } from "../../utils/crc32c.ts";
import { RECORD_HEADER_SIZE } from "../constants.ts";

/** Offset of xl_crc; the header bytes before it are covered. */
export const RECORD_CRC_OFFSET = 20;

/** Bodies up to this length use the tables (measured: the add-on wins from about 400 bytes on). */
const TABLE_BODY_MAX = 384;

/** Bytes in a step of the tables, one table for each. */
const STEP = 16;

/** Table t is [256 t, 256 t + 256): the CRC of a byte with t zero bytes after it. */
function makeTables(): Int32Array {
  const made = new Int32Array(STEP * 256);
  for (let i = 0; i < 256; i++) {
    let crc = i;
    for (let bit = 0; bit < 8; bit++) crc = (crc & 1) !== 0 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
    made[i] = crc;
  }
  for (let i = 256; i < made.length; i++) {
    const before = made[i - 256]!;
    made[i] = (before >>> 8) ^ made[before & 0xff]!;
  }
  return made;
}

const T = makeTables();

/** What four bytes, the last of which has `table` / 256 bytes after it, add to a CRC. */
function wordCrc(word: number, table: number): number {
  return T[table + 768 + (word & 0xff)]! ^ T[table + 512 + ((word >>> 8) & 0xff)]! ^
    T[table + 256 + ((word >>> 16) & 0xff)]! ^ T[table + (word >>> 24)]!;
}

/** Continues the inverted `crc` over [start, end). */
function update(crc: number, view: DataView, start: number, end: number): number {
  let at = start;
  for (; at + STEP <= end; at += STEP) {
    crc = wordCrc(crc ^ view.getInt32(at, true), 3072) ^
      wordCrc(view.getInt32(at + 4, true), 2048) ^ wordCrc(view.getInt32(at + 8, true), 1024) ^
      wordCrc(view.getInt32(at + 12, true), 0);
  }
  for (; at + 4 <= end; at += 4) crc = wordCrc(crc ^ view.getInt32(at, true), 0);
  for (; at < end; at++) crc = (crc >>> 8) ^ T[(crc ^ view.getUint8(at)) & 0xff]!;
  return crc;
}

/** The checksum of the record at [start, start + length) of `bytes`, which `view` covers. */
export function recordCrc(
  bytes: Uint8Array,
  view: DataView,
  start: number,
  length: number,
): number {
  const body = start + RECORD_HEADER_SIZE;
  const inverted = length - RECORD_HEADER_SIZE <= TABLE_BODY_MAX
    ? update(-1, view, body, start + length)
    : ~crc32c(bytes.subarray(body, start + length));
  return ~update(inverted, view, start, start + RECORD_CRC_OFFSET) >>> 0;
}
