/**
 * Full page images out of WAL records, whatever way wal_compression stored them.
 *
 * An image is the page without its hole (the zeros between pd_lower and pd_upper), as it is or
 * compressed with pglz, LZ4 or Zstandard. Which bit means which is in the version table.
 */
import { zstdDecompressSync } from "node:zlib";
import { Corrupt, messageOf } from "../../utils/errors.ts";
import { formatLsn } from "../../utils/lsn.ts";
import { PAGE_SIZE } from "../constants.ts";
import type { PgVersion } from "../versions.ts";
import { lz4Decompress, pglzDecompress } from "./decompress.ts";
import type { RecordCursor } from "./record_cursor.ts";

/**
 * Writes the image of block `id` as a full page to [targetOffset, targetOffset + 8192) of `target`,
 * as RestoreBlockImage does (xlogreader.c); pd_lsn is what the image has, redo sets it afterwards.
 * Throws Corrupt if the record has no such image, or one that does not decompress.
 */
export function restoreImage(
  cursor: RecordCursor,
  id: number,
  target: Uint8Array,
  targetOffset: number,
  version: PgVersion,
): void {
  if (cursor.blockPresent[id] !== 1 || cursor.hasImage[id] !== 1) {
    fail(cursor, id, "there is none");
  }
  const length = cursor.imageLength[id]!;
  const [holeOffset, holeLength] = [cursor.holeOffset[id]!, cursor.holeLength[id]!];
  const stored = PAGE_SIZE - holeLength;
  expandImage(cursor, id, length, target, targetOffset, stored, version);
  if (holeLength > 0) {
    const hole = targetOffset + holeOffset;
    target.copyWithin(hole + holeLength, hole, targetOffset + stored);
    target.fill(0, hole, hole + holeLength);
  }
}

/** Puts the image without its hole, `stored` bytes, at the front of the page. */
function expandImage(
  cursor: RecordCursor,
  id: number,
  length: number,
  target: Uint8Array,
  at: number,
  stored: number,
  version: PgVersion,
): void {
  const from = cursor.imageOffset[id]!;
  const method = cursor.imageInfo[id]! & version.imageCompressed;
  const { bytes } = cursor;
  if (method === 0) {
    target.set(bytes.subarray(from, from + length), at);
  } else if (method === version.imagePglz) {
    if (!pglzDecompress(bytes, from, length, target, at, stored)) {
      fail(cursor, id, `its pglz data of ${length} bytes is not a page`);
    }
  } else if (method === version.imageLz4) {
    if (!lz4Decompress(bytes, from, length, target, at, stored)) {
      fail(cursor, id, `its LZ4 data of ${length} bytes is not a page`);
    }
  } else if (method === version.imageZstd) {
    const page = expandZstd(cursor, id, bytes.subarray(from, from + length));
    if (page.length !== stored) fail(cursor, id, `its Zstandard data has ${page.length} bytes`);
    target.set(page, at);
  } else {
    fail(cursor, id, `it claims several compressions, ${method.toString(16)}`);
  }
}

function expandZstd(cursor: RecordCursor, id: number, data: Uint8Array): Uint8Array {
  try {
    return zstdDecompressSync(data, { maxOutputLength: PAGE_SIZE });
  } catch (thrown) {
    return fail(cursor, id, messageOf(thrown));
  }
}

function fail(cursor: RecordCursor, id: number, why: string): never {
  throw new Corrupt(
    `Cannot restore the image of block reference ${id} in the WAL record at ` +
      `${formatLsn(cursor.lsn)}: ${why}`,
  );
}
