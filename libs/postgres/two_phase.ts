/**
 * Files of `pg_twophase`, one for each prepared transaction (twophase.c): the main data of its
 * PREPARE record followed by its CRC-32C. Named by the xid in 8 hex digits, from 17 on by the
 * full xid in 16.
 */
import { crc32c } from "../utils/crc32c.ts";
import { Corrupt } from "../utils/errors.ts";
import type { PgVersion } from "./versions.ts";
import { XactRecord } from "./xact_record.ts";
import { fullXidBefore } from "./xid.ts";

const CRC_BYTES = 4;

/** File name for a full xid, for example "000002F1" or "00000000000002F1". */
export function twoPhaseFileName(fullXid: number, version: PgVersion): string {
  const digits = version.twoPhaseNameDigits;
  return (fullXid % 16 ** digits).toString(16).toUpperCase().padStart(digits, "0");
}

/**
 * The full xid that a file name stands for, undefined for another name. Before 17 a name has only
 * the lower 32 bits, of an xid before `nextXid`.
 */
export function parseTwoPhaseFileName(
  name: string,
  version: PgVersion,
  nextXid: number,
): number | undefined {
  if (name.length !== version.twoPhaseNameDigits || !/^[0-9A-F]+$/.test(name)) return undefined;
  const xid = parseInt(name, 16);
  return version.twoPhaseNameDigits === 16 ? xid : fullXidBefore(nextXid, xid);
}

/** The main data in a file's bytes. Throws Corrupt naming `path` if its checksum is wrong. */
export function twoPhaseMainData(file: Uint8Array, path: string): Uint8Array {
  const length = file.length - CRC_BYTES;
  const view = new DataView(file.buffer, file.byteOffset, file.length);
  if (length < 0 || view.getUint32(length, true) !== crc32c(file.subarray(0, length))) {
    throw new Corrupt(`Cannot read "${path}": checksum mismatch`);
  }
  return file.subarray(0, length);
}

/** The file's bytes, from the main data of the PREPARE record. */
export function twoPhaseFile(mainData: Uint8Array): Uint8Array<ArrayBuffer> {
  const file = new Uint8Array(mainData.length + CRC_BYTES);
  file.set(mainData);
  new DataView(file.buffer).setUint32(mainData.length, crc32c(mainData), true);
  return file;
}

/** Xids of the subtransactions of a prepared transaction. Throws Corrupt. */
export function preparedSubxacts(mainData: Uint8Array, version: PgVersion): number[] {
  const record = new XactRecord();
  record.decodePrepared(mainData, version);
  return Array.from({ length: record.subxactCount }, (_, i) => record.subxact(i));
}
