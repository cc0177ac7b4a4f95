/**
 * What the message parts of this folder share: 64-bit numbers that must fit a JavaScript number.
 */
import type { ByteReader } from "../utils/bytes.ts";
import { Corrupt } from "../utils/errors.ts";

/** Reads a u64 (a term, a node id, a transaction id) as a number. Throws Corrupt beyond 2^53. */
export function readSafeU64(reader: ByteReader): number {
  const value = reader.u64();
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new Corrupt(`Cannot read a 64-bit number: ${value} is beyond 2^53`);
  }
  return Number(value);
}

/** Reads an i64 (microseconds since 2000-01-01) as a number. Throws Corrupt beyond 2^53. */
export function readSafeI64(reader: ByteReader): number {
  const value = reader.i64();
  const number = Number(value);
  if (!Number.isSafeInteger(number)) {
    throw new Corrupt(`Cannot read a 64-bit number: ${value} is beyond 2^53`);
  }
  return number;
}
