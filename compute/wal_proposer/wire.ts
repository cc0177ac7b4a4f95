/**
 * The few fields of a message that the hot loops look at, read straight from its bytes: an
 * AppendResponse and the headers of the replication stream. Everything else goes through the
 * codecs.
 */
import type { Lsn } from "../../libs/utils/lsn.ts";

/** First byte of an AppendResponse. */
export const APPEND_RESPONSE_TAG = 0x61;
/** Offsets in an AppendResponse: tag, u32 generation, u64 term, u64 flush LSN. */
export const APPEND_RESPONSE_TERM_AT = 5;
export const APPEND_RESPONSE_FLUSH_AT = 13;
/** What its replicas still read: u64 xmin, u64 catalog xmin, behind commit LSN and a time. */
export const APPEND_RESPONSE_XMIN_AT = 37;
export const APPEND_RESPONSE_CATALOG_XMIN_AT = 45;
/** Where pageserver feedback starts in an AppendResponse that carries some. */
export const APPEND_RESPONSE_BYTES = 53;

/** A big endian 64-bit number below 2^53. */
export function readU64(bytes: Uint8Array, at: number): Lsn {
  const high = readU32(bytes, at);
  return (high * 4294967296 + readU32(bytes, at + 4)) as Lsn;
}

function readU32(bytes: Uint8Array, at: number): number {
  return bytes[at]! * 16777216 + ((bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!);
}
