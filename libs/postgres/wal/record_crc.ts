/**
 * The checksum of a WAL record (XLogRecord.xl_crc): CRC-32C of the body, that is everything from
 * byte 24 on, continued over the first 20 bytes of the header.
 *
 * Most records are short, and then the two calls into the native add-on, with a view object each,
 * cost more than the bytes: those run through a table here, without allocating anything.
 */
import { crc32c } from "../../utils/crc32c.ts";
import { RECORD_HEADER_SIZE } from "../constants.ts";

/** Offset of xl_crc; the header bytes before it are covered. */
export const RECORD_CRC_OFFSET = 20;

/** Bodies up to this length use the table (measured: the add-on wins from about 200 bytes on). */
const TABLE_BODY_MAX = 160;

function makeTables(): Uint32Array[] {
  const first = new Uint32Array(256);
  for (let i = 0; i < 256; i++) {
    let crc = i;
    for (let bit = 0; bit < 8; bit++) crc = (crc & 1) !== 0 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
    first[i] = crc;
  }
  const made = [first];
  for (let t = 1; t < 4; t++) {
    made.push(made[t - 1]!.map((before) => (before >>> 8) ^ first[before & 0xff]!));
  }
  return made;
}

const [T0, T1, T2, T3] = makeTables() as [Uint32Array, Uint32Array, Uint32Array, Uint32Array];

/** Continues the inverted `crc` over [start, end), four bytes a step. */
function update(crc: number, bytes: Uint8Array, start: number, end: number): number {
  let at = start;
  for (; at + 4 <= end; at += 4) {
    crc ^= bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
    crc = T3[crc & 0xff]! ^ T2[(crc >>> 8) & 0xff]! ^ T1[(crc >>> 16) & 0xff]! ^ T0[crc >>> 24]!;
  }
  for (; at < end; at++) crc = (crc >>> 8) ^ T0[(crc ^ bytes[at]!) & 0xff]!;
  return crc;
}

/** The checksum of the record at [start, start + length). */
export function recordCrc(bytes: Uint8Array, start: number, length: number): number {
  const body = start + RECORD_HEADER_SIZE;
  const inverted = length - RECORD_HEADER_SIZE <= TABLE_BODY_MAX
    ? update(-1, bytes, body, start + length)
    : ~crc32c(bytes.subarray(body, start + length));
  return ~update(inverted, bytes, start, start + RECORD_CRC_OFFSET) >>> 0;
}
