/** Page images: every compression, with and without hole, and damaged ones. */
import assert from "node:assert/strict";
import { zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import { compressSync } from "lz4-napi";
import { Buffer } from "node:buffer";
import { Corrupt } from "../../utils/errors.ts";
import { type Lsn, toLsn } from "../../utils/lsn.ts";
import { PAGE_SIZE } from "../constants.ts";
import { type PgVersion, pgVersion } from "../versions.ts";
import { lz4Decompress, pglzDecompress } from "./decompress.ts";
import { buildRecord } from "./record_builder.ts";
import { RecordCursor } from "./record_cursor.ts";
import { restoreImage } from "./restore_image.ts";

const TAG = { spc: 1663, db: 5, rel: 16384, fork: 0 };
const LSN = toLsn(0x2000028);

/** The page behind an image that is stored as `bytes`. */
function restore(
  version: PgVersion,
  info: number,
  bytes: Uint8Array,
  holeOffset: number,
  holeLength: number,
): Uint8Array {
  const compressed = (info & version.imageCompressed) !== 0;
  const withLength = compressed && holeLength > 0 ? { compressedHoleLength: holeLength } : {};
  const image = { info, bytes, holeOffset, ...withLength };
  const blocks = [{ id: 0, tag: TAG, block: 1, image }];
  const record = buildRecord({ rmid: 0, info: 0xb0, previous: LSN, blocks });
  const cursor = new RecordCursor();
  const view = new DataView(record.buffer, record.byteOffset, record.length);
  cursor.decode(version, record, view, 0, record.length, LSN, (LSN + 8) as Lsn);
  const slab = new Uint8Array(3 * PAGE_SIZE).fill(0xee);
  restoreImage(cursor, 0, slab, PAGE_SIZE, version);
  assert.ok(slab.subarray(0, PAGE_SIZE).every((byte) => byte === 0xee));
  assert.ok(slab.subarray(2 * PAGE_SIZE).every((byte) => byte === 0xee));
  return slab.subarray(PAGE_SIZE, 2 * PAGE_SIZE);
}

/** pglz data of literals only: a zero control byte before every eight bytes. */
function pglzLiterals(bytes: Uint8Array): Uint8Array {
  const out: number[] = [];
  for (let at = 0; at < bytes.length; at += 8) out.push(0, ...bytes.subarray(at, at + 8));
  return Uint8Array.from(out);
}

const pageParts = fc.record({
  holeOffset: fc.integer({ min: 24, max: 4000 }),
  holeLength: fc.integer({ min: 1000, max: 4000 }),
  seed: fc.uint8Array({ minLength: 1, maxLength: 40 }),
});

Deno.test("restoreImage() gives back the page, plain, LZ4 and Zstandard, with and without hole", () => {
  const version = pgVersion(17);
  fc.assert(
    fc.property(pageParts, fc.boolean(), ({ holeOffset, holeLength, seed }, withHole) => {
      const page = Uint8Array.from(
        { length: PAGE_SIZE },
        (_, i) => seed[i % seed.length]! + (i >> 9),
      );
      const hole = withHole ? holeLength : 0;
      if (withHole) {
        page.fill(0, holeOffset, holeOffset + hole);
      }
      const head = page.subarray(0, holeOffset);
      const stored = Buffer.concat([head, page.subarray(holeOffset + hole)]);
      const info = version.imageApply | (withHole ? version.imageHasHole : 0);
      const plain = restore(version, info, stored, withHole ? holeOffset : 0, hole);
      assert.deepEqual(plain, page);
      const lz4 = Uint8Array.from(compressSync(stored).subarray(4));
      const at = withHole ? holeOffset : 0;
      assert.deepEqual(restore(version, info | version.imageLz4, lz4, at, hole), page);
      const zstd = Uint8Array.from(zstdCompressSync(stored));
      assert.deepEqual(restore(version, info | version.imageZstd, zstd, at, hole), page);
    }),
    { numRuns: 30 },
  );
});

Deno.test("restoreImage() reads pglz as 14 and 17 mark it", () => {
  for (const version of [pgVersion(14), pgVersion(17)]) {
    const page = new Uint8Array(PAGE_SIZE);
    for (let i = 0; i < 400; i++) page[i] = i;
    const info = version.imageApply | version.imageHasHole | version.imagePglz;
    const stored = pglzLiterals(page.subarray(0, 400));
    assert.deepEqual(restore(version, info, stored, 400, PAGE_SIZE - 400), page);
    assert.throws(() => restore(version, info, stored.subarray(1), 400, PAGE_SIZE - 400), Corrupt);
    assert.throws(() => restore(version, info, stored, 400, PAGE_SIZE - 401), Corrupt);
  }
});

Deno.test("pglzDecompress() copies with overlap, long runs and up to the exact size", () => {
  const run = (data: number[], size: number) => {
    const target = new Uint8Array(size);
    const ok = pglzDecompress(Uint8Array.from(data), 0, data.length, target, 0, size);
    return ok ? [...target] : undefined;
  };
  // Control 0b10: literal 7, then offset 1, length 3.
  assert.deepEqual(run([0b10, 7, 0x00, 1], 4), [7, 7, 7, 7]);
  // Length 18 + 2 in three bytes, offset 2.
  const long = run([0b100, 1, 2, 0x0f, 2, 2], 22)!;
  assert.deepEqual(long, Array.from({ length: 22 }, (_, i) => 1 + i % 2));
  assert.equal(run([0b10, 7, 0x00, 2], 4), undefined, "before the start");
  assert.equal(run([0b10, 7, 0x00, 0], 4), undefined, "no distance");
  assert.equal(run([0b10, 7, 0x00], 4), undefined, "cut short");
  assert.equal(run([0b0, 7, 8], 1), undefined, "left over");
});

Deno.test("decompressors survive any bytes", () => {
  const target = new Uint8Array(300).fill(0xee);
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(100), (data, size) => {
    for (const decompress of [pglzDecompress, lz4Decompress]) {
      decompress(data, 0, data.length, target, 100, size);
      assert.ok(target.subarray(0, 100).every((byte) => byte === 0xee));
      assert.ok(target.subarray(100 + size).every((byte) => byte === 0xee));
      target.fill(0xee);
    }
  }));
});
