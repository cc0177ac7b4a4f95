/**
 * The two byte-oriented compressions of page images: pglz (pg_lzcompress.c) and LZ4 blocks.
 *
 * Both are literals mixed with copies of earlier output. They decompress straight into the page's
 * slot, allocate nothing and need no native code, hence no permission to load any. Both functions
 * write exactly `size` bytes at `to` and return true, or return false for input that does not
 * describe `size` bytes.
 *
 *   pglz: control byte, low bit first: 0 = one literal byte; 1 = copy, two or three bytes
 *         `oooollll oooooooo [length]`: offset 12 bits, length 4 bits + 3; 18: plus the third byte
 *   lz4:  token `llllmmmm`, literal length 4 bits (15: more bytes follow), literals, offset u16,
 *         match length 4 bits + 4 (15: more bytes); the last sequence ends after its literals
 */

/** Copies `count` bytes from `distance` back; source and destination may overlap, byte by byte. */
function copyBack(target: Uint8Array, to: number, distance: number, count: number): void {
  if (distance >= count) target.copyWithin(to, to - distance, to - distance + count);
  else for (let i = 0; i < count; i++) target[to + i] = target[to + i - distance]!;
}

/** Decompresses pglz data [from, from + length) of `source`. */
export function pglzDecompress(
  source: Uint8Array,
  from: number,
  length: number,
  target: Uint8Array,
  to: number,
  size: number,
): boolean {
  const [sourceEnd, targetEnd] = [from + length, to + size];
  let [at, out] = [from, to];
  while (at < sourceEnd && out < targetEnd) {
    let control = source[at++]!;
    for (let item = 0; item < 8 && at < sourceEnd && out < targetEnd; item++, control >>= 1) {
      if ((control & 1) === 0) {
        target[out++] = source[at++]!;
        continue;
      }
      if (at + 2 > sourceEnd) return false;
      const distance = ((source[at]! & 0xf0) << 4) | source[at + 1]!;
      let count = (source[at]! & 0x0f) + 3;
      at += 2;
      if (count === 18) {
        if (at >= sourceEnd) return false;
        count += source[at++]!;
      }
      if (distance === 0 || distance > out - to) return false;
      count = Math.min(count, targetEnd - out);
      copyBack(target, out, distance, count);
      out += count;
    }
  }
  return at === sourceEnd && out === targetEnd;
}

/** Decompresses the LZ4 block [from, from + length) of `source`. */
export function lz4Decompress(
  source: Uint8Array,
  from: number,
  length: number,
  target: Uint8Array,
  to: number,
  size: number,
): boolean {
  const [sourceEnd, targetEnd] = [from + length, to + size];
  let [at, out] = [from, to];
  while (at < sourceEnd) {
    const token = source[at++]!;
    let literals = token >> 4;
    if (literals === 15) {
      for (let more = 255; more === 255; literals += more) {
        if (at >= sourceEnd) return false;
        more = source[at++]!;
      }
    }
    if (literals > sourceEnd - at || literals > targetEnd - out) return false;
    for (let i = 0; i < literals; i++) target[out++] = source[at++]!;
    if (at === sourceEnd) return out === targetEnd;
    if (at + 2 > sourceEnd) return false;
    const distance = source[at]! | (source[at + 1]! << 8);
    at += 2;
    let count = (token & 0x0f) + 4;
    if (count === 19) {
      for (let more = 255; more === 255; count += more) {
        if (at >= sourceEnd) return false;
        more = source[at++]!;
      }
    }
    if (distance === 0 || distance > out - to || count > targetEnd - out) return false;
    copyBack(target, out, distance, count);
    out += count;
  }
  return false;
}
