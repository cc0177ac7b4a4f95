/**
 * Compression in the pglz format, which every PostgreSQL reads in page images (decompress.ts has
 * the format). Made for pages that are mostly runs: one candidate for each place, the last one with
 * the same three bytes.
 */

const HASH_SLOTS = 4096;
const DISTANCE_MAX = 4095;
const MATCH_MIN = 3;
const MATCH_MAX = 273;
/** From this length on the length has a byte of its own. */
const LONG_MATCH = 18;

/** Compresses `source`; undefined if it would not become shorter. */
export function pglzCompress(source: Uint8Array): Uint8Array | undefined {
  const target = new Uint8Array(source.length);
  const last = new Int32Array(HASH_SLOTS).fill(-1);
  let out = 0;
  let controlAt = 0;
  let items = 8;
  for (let at = 0; at < source.length;) {
    if (out + 4 > target.length) return undefined;
    if (items === 8) {
      controlAt = out++;
      target[controlAt] = 0;
      items = 0;
    }
    const candidate = remember(source, at, last);
    const length = candidate < 0 ? 0 : matchLength(source, candidate, at);
    if (length < MATCH_MIN) {
      target[out++] = source[at++]!;
    } else {
      const distance = at - candidate;
      const short = Math.min(length, LONG_MATCH) - MATCH_MIN;
      target[out++] = ((distance >> 4) & 0xf0) | short;
      target[out++] = distance & 0xff;
      if (length >= LONG_MATCH) target[out++] = length - LONG_MATCH;
      target[controlAt] = target[controlAt]! | (1 << items);
      at += length;
    }
    items++;
  }
  return out < source.length ? target.slice(0, out) : undefined;
}

/** Notes the place under its three bytes; returns the last one that had them, or -1. */
function remember(source: Uint8Array, at: number, last: Int32Array): number {
  if (at + MATCH_MIN > source.length) return -1;
  const bytes = source[at]! | (source[at + 1]! << 8) | (source[at + 2]! << 16);
  const slot = (Math.imul(bytes, 0x9e3779b1) >>> 20) % HASH_SLOTS;
  const candidate = last[slot]!;
  last[slot] = at;
  return candidate >= 0 && at - candidate <= DISTANCE_MAX ? candidate : -1;
}

function matchLength(source: Uint8Array, candidate: number, at: number): number {
  const limit = Math.min(MATCH_MAX, source.length - at);
  let length = 0;
  while (length < limit && source[candidate + length] === source[at + length]) length++;
  return length;
}
