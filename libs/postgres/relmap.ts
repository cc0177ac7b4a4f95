/**
 * `pg_filenode.map`: which file holds each catalog that is too basic to be looked up in pg_class
 * (relmapper.c). One in global/, one in each database's directory.
 *
 *   magic u32 = 0x592717 | count u32 | 62 or 64 x {catalog oid u32, relfilenode u32} | CRC-32C
 *
 * The CRC covers all before it; until 15 there are 62 entries, and four bytes of padding follow.
 */
import { crc32c } from "../utils/crc32c.ts";
import { Corrupt } from "../utils/errors.ts";
import type { PgVersion } from "./versions.ts";

const MAGIC = 0x592717;

/**
 * Checks the bytes of a map file and returns relfilenode by catalog oid. `what` names the file in
 * errors. Throws Corrupt for a wrong size, magic, count or checksum.
 */
export function readRelMap(
  bytes: Uint8Array,
  version: PgVersion,
  what: string,
): Map<number, number> {
  const fail = (why: string): never => {
    throw new Corrupt(`Cannot read the relation map ${what}: ${why}`);
  };
  if (bytes.length !== version.relMapFileBytes) {
    fail(`it has ${bytes.length} bytes, not ${version.relMapFileBytes}`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (view.getUint32(0, true) !== MAGIC) fail("its magic is wrong");
  const count = view.getUint32(4, true);
  if (count > version.relMapEntries) fail(`it claims ${count} entries`);
  const crcOffset = 8 + 8 * version.relMapEntries;
  const crc = view.getUint32(crcOffset, true);
  if (crc !== crc32c(bytes.subarray(0, crcOffset))) fail("checksum mismatch");
  const map = new Map<number, number>();
  for (let i = 0; i < count; i++) {
    map.set(view.getUint32(8 + 8 * i, true), view.getUint32(12 + 8 * i, true));
  }
  return map;
}
