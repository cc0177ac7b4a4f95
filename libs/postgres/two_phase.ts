/**
 * Files of `pg_twophase`, one for each prepared transaction (twophase.c): the main data of its
 * PREPARE record followed by its CRC-32C. Named by the xid in 8 hex digits, from 17 on by the
 * full xid in 16.
 */
import { crc32c } from "../utils/crc32c.ts";
import type { PgVersion } from "./versions.ts";

/** File name for a full xid, for example "000002F1" or "00000000000002F1". */
export function twoPhaseFileName(fullXid: number, version: PgVersion): string {
  const digits = version.twoPhaseNameDigits;
  return (fullXid % 16 ** digits).toString(16).toUpperCase().padStart(digits, "0");
}

/** The file's bytes, from the main data of the PREPARE record. */
export function twoPhaseFile(mainData: Uint8Array): Uint8Array<ArrayBuffer> {
  const file = new Uint8Array(mainData.length + 4);
  file.set(mainData);
  new DataView(file.buffer).setUint32(mainData.length, crc32c(mainData), true);
  return file;
}
