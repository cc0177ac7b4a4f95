/**
 * WAL of the simulation: records of eight bytes, each a random number and a checksum over it and
 * its position. That is all that consensus needs of WAL: bytes that differ, and a way to tell from
 * the disk where the last whole record ends.
 */
import type { Lsn } from "../../libs/utils/lsn.ts";
import type { Random } from "./random.ts";

/** Where the timeline begins. */
export const LOG_START = 0x1000028 as Lsn;
export const RECORD_BYTES = 8;
/** Room for one schedule's WAL. */
export const LOG_BYTES_MAX = 4096;

/** A log's bytes, from LOG_START on. */
export type LogBytes = Uint8Array<ArrayBuffer>;

function checksum(id: number, offset: number): number {
  const mixed = Math.imul(id ^ Math.imul(offset + 1, 0x9e3779b1), 0x85ebca6b);
  return (mixed ^ (mixed >>> 13)) >>> 0;
}

function readU32(bytes: LogBytes, at: number): number {
  return (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>>
    0;
}

function writeU32(bytes: LogBytes, at: number, value: number): void {
  bytes[at] = value;
  bytes[at + 1] = value >>> 8;
  bytes[at + 2] = value >>> 16;
  bytes[at + 3] = value >>> 24;
}

/** Puts a new record at `offset`. */
export function writeRecord(bytes: LogBytes, offset: number, random: Random): void {
  const id = random.next() | 1;
  writeU32(bytes, offset, id >>> 0);
  writeU32(bytes, offset + 4, checksum(id >>> 0, offset));
}

/** The end of the whole records that follow `offset` without a gap. */
export function endOfRecords(bytes: LogBytes, offset: number): number {
  let end = offset;
  while (end + RECORD_BYTES <= LOG_BYTES_MAX) {
    const id = readU32(bytes, end);
    if (id === 0 || readU32(bytes, end + 4) !== checksum(id, end)) break;
    end += RECORD_BYTES;
  }
  return end;
}

/** The LSN at an offset of the log. */
export function lsnAt(offset: number): Lsn {
  return (LOG_START + offset) as Lsn;
}
