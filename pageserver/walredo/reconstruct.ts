/**
 * A page at an LSN, from what the repository collected for it: the newest image at or below the
 * LSN, if any, and the records after it, oldest first.
 *
 * Without an image the first record must make the page from nothing. A page without either is an
 * error: an all-zero page that nobody wrote would read as an empty one, and rows would be missing.
 */
import { PAGE_SIZE } from "../../libs/postgres/constants.ts";
import type { PgVersion } from "../../libs/postgres/versions.ts";
import { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import { formatLsn, type Lsn } from "../../libs/utils/lsn.ts";
import { applyRecord, initialises } from "./redo.ts";
import { describeKey, RedoError } from "./redo_error.ts";
import type { PageTarget, RedoKey } from "./types.ts";

/** What the repository collects for one page; all in one slab, `bytes` and its `view`. */
interface CollectedPage {
  readonly hasImage: boolean;
  /** The image is bytes[0, imageLength). */
  readonly imageLength: number;
  /** The target already holds an older version of this page: the records go on from there. */
  readonly continues: boolean;
  readonly recordCount: number;
  /** Whole records, oldest first: offset and length in `bytes`, and the LSN of the record's end. */
  readonly recordOffset: Uint32Array;
  readonly recordLength: Uint32Array;
  readonly recordLsn: Float64Array;
  readonly bytes: Uint8Array;
  readonly view: DataView;
}

/** The one cursor: reconstruction is synchronous and not reentrant. */
const cursor = new RecordCursor();

/**
 * Builds the page `key` in `page`, which may be the collected image itself. Throws RedoError if a
 * record cannot be applied or if there is nothing to begin with, Corrupt for a record that cannot
 * be decoded.
 */
export function reconstructPage(
  collected: CollectedPage,
  key: RedoKey,
  page: PageTarget,
  version: PgVersion,
): void {
  if (collected.hasImage) {
    if (collected.imageLength !== PAGE_SIZE) {
      throw new RedoError(
        `Cannot reconstruct ${describeKey(key)}: its image has ${collected.imageLength} bytes`,
      );
    }
    if (page.bytes !== collected.bytes || page.offset !== 0) {
      page.bytes.set(collected.bytes.subarray(0, PAGE_SIZE), page.offset);
    }
  } else if (collected.recordCount === 0 && !collected.continues) {
    throw new RedoError(`Cannot reconstruct ${describeKey(key)}: no image and no records`);
  }
  const hasBase = collected.hasImage || collected.continues;
  for (let i = 0; i < collected.recordCount; i++) {
    const end = collected.recordLsn[i]! as Lsn;
    const length = collected.recordLength[i]!;
    // Only the end was stored; where the record started in the stream matters to messages alone.
    const { bytes, view } = collected;
    cursor.decode(version, bytes, view, collected.recordOffset[i]!, length, end, end);
    if (i === 0 && !hasBase && !initialises(cursor, key, version)) {
      throw new RedoError(
        `Cannot reconstruct ${describeKey(key)}: no image before the record ending at ${
          formatLsn(end)
        }`,
      );
    }
    applyRecord(key, page, cursor, version);
  }
}
