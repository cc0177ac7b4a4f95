/**
 * Names of SLRU pages: what clog.ts and multixact.ts share. These pages have no header and no LSN.
 */
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import type { RedoKey } from "./types.ts";

/** Values of RedoKey.slruKind. */
export const SLRU_CLOG = 0;
export const SLRU_MEMBERS = 1;
export const SLRU_OFFSETS = 2;

const PAGES_PER_SEGMENT = 32;

/** Number of the page over all segments. */
export function slruPageNumber(key: RedoKey): number {
  return key.segno * PAGES_PER_SEGMENT + key.block;
}

/**
 * The page number that is all the main data of a "zero page" record: u32, or u64 from version 17
 * on.
 */
export function readSlruPageNumber(cursor: RecordCursor): number {
  const low = cursor.view.getUint32(cursor.mainOffset, true);
  if (cursor.mainLength < 8) return low;
  return cursor.view.getUint32(cursor.mainOffset + 4, true) * 0x100000000 + low;
}
