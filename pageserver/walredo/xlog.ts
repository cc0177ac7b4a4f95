/**
 * Redo of the XLOG resource manager on data pages: full page images and nothing else.
 *
 * An image that is to be applied was restored before this is called, as for every resource
 * manager. What is left: FPI_FOR_HINT without an image, which exists when checksums are on and
 * full_page_writes is off, and means nothing (PostgreSQL 17, xlog_redo).
 */
import { XlogInfo } from "../../libs/postgres/constants.ts";
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import { fault } from "./redo_fault.ts";

/** Checks an XLOG record that has no image to apply for block reference `id` (none: -1). */
export function redoXlog(cursor: RecordCursor, id: number): void {
  if (id < 0) return;
  const opcode = cursor.info & 0xf0;
  if (opcode === XlogInfo.FPI_FOR_HINT) return;
  if (opcode === XlogInfo.FPI) fault("a page image record without its image");
  fault("an XLOG record with a block reference that is no page image");
}
