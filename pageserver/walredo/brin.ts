/**
 * Redo of the BRIN resource manager (PostgreSQL 17, brin_xlog.c; the same records in 14 to 18).
 *
 * A record touches several pages, each under its own reference id; every routine is asked for one
 * of them. Opcodes are info & 0x70; 0x80 says that reference 0 is a new page. Main data
 * (brin_xlog.h) and references:
 *   create index     0 blocks per range u32, 4 version u16; 0 metapage
 *   insert           0 heap block u32, 4 blocks per range u32, 8 item number u16
 *                    0 page (the tuple), 1 revmap page
 *   update           0 old item number u16, 4 the fields of insert; as insert, and 2 old page
 *   samepage update  0 item number u16; 0 page (the tuple)
 *   revmap extend    0 block u32; 0 metapage, 1 new revmap page
 *   desummarize      0 blocks per range u32, 4 heap block u32, 8 item number u16
 *                    0 revmap page, 1 page
 */
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import {
  BRIN_REGULAR_PAGE,
  BRIN_REVMAP_PAGE,
  initBrinMetapage,
  initBrinPage,
  setLastRevmapPage,
  setRangeItem,
} from "./brin_page.ts";
import { freeIndexItem, overwriteIndexItem } from "./page_compact.ts";
import { copyBytes, reserveItem, stampLsn } from "./page_items.ts";
import { fault, require } from "./redo_fault.ts";
import type { PageTarget } from "./types.ts";

/** Opcodes, in info & 0x70. */
const BrinInfo = {
  CREATE_INDEX: 0x00,
  INSERT: 0x10,
  UPDATE: 0x20,
  SAMEPAGE_UPDATE: 0x30,
  REVMAP_EXTEND: 0x40,
  DESUMMARIZE: 0x50,
} as const;

const OPCODE_MASK = 0x70;
/** In info: the tuple is the first on its page. */
const INIT_PAGE = 0x80;
/** Bytes of main data, by opcode >> 4. */
const MAIN_SIZES = [6, 10, 14, 2, 4, 10];
/** Offset of the fields of an insertion in an update's main data. */
const INSERT_IN_UPDATE = 4;

/**
 * Applies a BRIN record to the page that is its block reference `id` (none: -1, nothing to do).
 */
export function redoBrin(page: PageTarget, cursor: RecordCursor, id: number): void {
  if (id < 0) return;
  const opcode = cursor.info & OPCODE_MASK;
  const { view, mainOffset: main } = cursor;
  require(cursor.mainLength >= (MAIN_SIZES[opcode >> 4] ?? 0), "record is too short");
  switch (opcode) {
    case BrinInfo.CREATE_INDEX:
      require(id === 0, "index creation has no such reference");
      initBrinMetapage(page, view.getUint32(main, true), view.getUint16(main + 4, true));
      break;
    case BrinInfo.INSERT:
      insertTuple(page, cursor, id, main);
      break;
    case BrinInfo.UPDATE:
      if (id === 2) freeIndexItem(page, view.getUint16(main, true));
      else insertTuple(page, cursor, id, main + INSERT_IN_UPDATE);
      break;
    case BrinInfo.SAMEPAGE_UPDATE:
      require(id === 0, "samepage update has no such reference");
      overwriteIndexItem(
        page,
        view.getUint16(main, true),
        cursor.bytes,
        cursor.dataOffset[0]!,
        cursor.dataLength[0]!,
      );
      break;
    case BrinInfo.REVMAP_EXTEND:
      require(id <= 1, "revmap extension has no such reference");
      if (id === 0) setLastRevmapPage(page, view.getUint32(main, true));
      else initBrinPage(page, BRIN_REVMAP_PAGE);
      break;
    case BrinInfo.DESUMMARIZE:
      desummarize(page, cursor, id);
      break;
    default:
      fault("unknown opcode");
  }
  stampLsn(page, cursor.endLsn);
}

/** The new tuple, or the range's entry that leads to it; an insertion's fields are at `fields`. */
function insertTuple(page: PageTarget, cursor: RecordCursor, id: number, fields: number): void {
  require(id <= 1, "insertion has no such reference");
  const { view } = cursor;
  const number = view.getUint16(fields + 8, true);
  if (id === 1) {
    const perRange = view.getUint32(fields + 4, true);
    const heapBlock = view.getUint32(fields, true);
    setRangeItem(page, perRange, heapBlock, cursor.blockNumber[0]!, number);
    return;
  }
  if (cursor.info & INIT_PAGE) initBrinPage(page, BRIN_REGULAR_PAGE);
  const size = cursor.dataLength[0]!;
  const at = reserveItem(page, number, size, true);
  copyBytes(page.bytes, at, cursor.bytes, cursor.dataOffset[0]!, size);
}

function desummarize(page: PageTarget, cursor: RecordCursor, id: number): void {
  require(id <= 1, "desummarization has no such reference");
  const { view, mainOffset: main } = cursor;
  if (id === 1) return freeIndexItem(page, view.getUint16(main + 8, true));
  setRangeItem(page, view.getUint32(main, true), view.getUint32(main + 4, true), 0, 0);
}
