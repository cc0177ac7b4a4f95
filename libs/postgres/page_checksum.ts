/**
 * pd_checksum of a data page (PostgreSQL 17, storage/checksum_impl.h; the same in 14 to 18).
 *
 * The page is 64 rows of 32 words; each of the 32 columns is hashed by itself (FNV-1a with one more
 * shift), from a starting value of its own, with two rows of zeros at the end. The hashes and the
 * block's number within its relation are folded into 1 .. 65535. The field itself counts as zero.
 * Pages that were never initialised have no checksum.
 *
 * The storage keeps pages without regard to the field: redo does not maintain it. It is set on the
 * pages that leave for a cluster whose pg_control says that it has checksums.
 */
import { PAGE_SIZE } from "./constants.ts";
import { isNewPage, setPageChecksumField } from "./page.ts";

/** data_checksum_version in pg_control of a cluster that has them (PG_DATA_CHECKSUM_VERSION). */
export const DATA_CHECKSUM_VERSION = 1;

const COLUMNS = 32;
const ROW_BYTES = 4 * COLUMNS;
const FNV_PRIME = 16777619;

/** Where the hash of each column starts. */
const STARTS = Int32Array.of(
  ...[0x5b1f36e9, 0xb8525960, 0x02ab50aa, 0x1de66d2a, 0x79ff467a, 0x9bb9f8a3, 0x217e7cd2],
  ...[0x83e13d2c, 0xf8d4474f, 0xe39eb970, 0x42c6ae16, 0x993216fa, 0x7b093b5d, 0x98daff3c],
  ...[0xf718902a, 0x0b1c9cdb, 0xe58f764b, 0x187636bc, 0x5d7b3bb1, 0xe73de7de, 0x92bec979],
  ...[0xcca6c0b2, 0x304a0979, 0x85aa43d4, 0x783125bb, 0x6ca8eaa2, 0xe407eac6, 0x4b5cfc3e],
  ...[0x9fbf8c76, 0x15ca20be, 0xf2ca9fd3, 0x959bd756],
);

function mix(hash: number, word: number): number {
  const mixed = hash ^ word;
  return Math.imul(mixed, FNV_PRIME) ^ (mixed >>> 17);
}

/** The hash of the page at `offset`. Four columns at a time: their steps overlap in the CPU. */
function hashPage(view: DataView, offset: number): number {
  const end = offset + PAGE_SIZE;
  let folded = 0;
  for (let column = 0; column < COLUMNS; column += 4) {
    let a = STARTS[column]!;
    let b = STARTS[column + 1]!;
    let c = STARTS[column + 2]!;
    let d = STARTS[column + 3]!;
    for (let at = offset + 4 * column; at < end; at += ROW_BYTES) {
      a = mix(a, view.getInt32(at, true));
      b = mix(b, view.getInt32(at + 4, true));
      c = mix(c, view.getInt32(at + 8, true));
      d = mix(d, view.getInt32(at + 12, true));
    }
    for (let row = 0; row < 2; row++) {
      a = mix(a, 0);
      b = mix(b, 0);
      c = mix(c, 0);
      d = mix(d, 0);
    }
    folded ^= a ^ b ^ c ^ d;
  }
  return folded;
}

/**
 * Sets pd_checksum of the page at `offset`, which is block `block` of its relation fork. No effect
 * on a page that was never initialised.
 */
export function setPageChecksum(view: DataView, offset: number, block: number): void {
  if (isNewPage(view, offset)) return;
  setPageChecksumField(view, offset, 0);
  const hash = (hashPage(view, offset) ^ block) >>> 0;
  setPageChecksumField(view, offset, hash % 65535 + 1);
}
