/**
 * Redo of the Btree resource manager (PostgreSQL 17, nbtxlog.c). Splits, deduplication and
 * deletion of items are in their own files; here are insertion, page deletion, new roots and the
 * metapage.
 *
 * A record touches several pages, each under its own reference id; every routine is asked for one
 * of them and must look at nothing else. Records (nbtxlog.h), main data:
 *   insert          0 item number u16
 *                   references 0 page, 1 left child (upper, meta), 2 metapage (meta)
 *   mark half dead  0 item in the parent u16, 4 leaf u32, 8 left u32, 12 right u32,
 *                   16 top parent u32; references 0 leaf, 1 parent
 *   unlink          0 left u32, 4 right u32, 8 level u32, 16 safe xid u64, 24 leaf's left u32,
 *                   28 leaf's right u32, 32 leaf's top parent u32
 *                   references 0 target, 1 left, 2 right, 3 leaf, 4 metapage
 *   new root        0 root u32, 4 level u32; references 0 root, 1 left child, 2 metapage
 */
import { PAGE_SIZE } from "../../libs/postgres/constants.ts";
import { PAGE_HEADER_SIZE, setPageLower } from "../../libs/postgres/page.ts";
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import { redoDedup } from "./btree_dedup.ts";
import { redoDeleteItems } from "./btree_delete.ts";
import {
  addHalfDeadHighKey,
  BTP_DELETED,
  BTP_HALF_DEAD,
  BTP_HAS_FULLXID,
  BTP_LEAF,
  BTP_ROOT,
  clearIncompleteSplit,
  indexTupleAt,
  initBtreePage,
  NO_PAGE,
  restoreItems,
  restoreMetapage,
  setLeftSibling,
  setRightSibling,
  setTidBlock,
  tidBlock,
} from "./btree_page.ts";
import { swapPosting } from "./btree_posting.ts";
import { redoSplit } from "./btree_split.ts";
import { deleteIndexItem } from "./page_compact.ts";
import { addItem, copyBytes, stampLsn } from "./page_items.ts";
import { fault, require } from "./redo_fault.ts";
import type { PageTarget } from "./types.ts";

/** Opcodes, in info & 0xf0. */
const BtreeInfo = {
  INSERT_LEAF: 0x00,
  INSERT_UPPER: 0x10,
  INSERT_META: 0x20,
  SPLIT_L: 0x30,
  SPLIT_R: 0x40,
  INSERT_POST: 0x50,
  DEDUP: 0x60,
  DELETE: 0x70,
  UNLINK_PAGE: 0x80,
  UNLINK_PAGE_META: 0x90,
  NEWROOT: 0xa0,
  MARK_PAGE_HALFDEAD: 0xb0,
  VACUUM: 0xc0,
  REUSE_PAGE: 0xd0,
  META_CLEANUP: 0xe0,
} as const;

const OPCODE_MASK = 0xf0;
/** Reference ids that mean the same in several records. */
const META_REF_OF_INSERT = 2;
const META_REF_OF_UNLINK = 4;
/** Offset of the counts in the main data of delete and vacuum records. */
const DELETE_COUNTS = 4;
const VACUUM_COUNTS = 0;

/**
 * Applies a Btree record to the page that is its block reference `id` (none: -1, nothing to do).
 */
export function redoBtree(page: PageTarget, cursor: RecordCursor, id: number): void {
  if (id < 0) return;
  const opcode = cursor.info & OPCODE_MASK;
  switch (opcode) {
    case BtreeInfo.INSERT_LEAF:
    case BtreeInfo.INSERT_UPPER:
    case BtreeInfo.INSERT_META:
      return redoInsert(page, cursor, id);
    case BtreeInfo.INSERT_POST:
      return redoInsertIntoPosting(page, cursor, id);
    case BtreeInfo.SPLIT_L:
      return redoSplit(page, cursor, id, true);
    case BtreeInfo.SPLIT_R:
      return redoSplit(page, cursor, id, false);
    case BtreeInfo.DEDUP:
      return redoDedup(page, cursor);
    case BtreeInfo.DELETE:
      return redoDeleteItems(page, cursor, cursor.mainOffset + DELETE_COUNTS);
    case BtreeInfo.VACUUM:
      return redoDeleteItems(page, cursor, cursor.mainOffset + VACUUM_COUNTS);
    case BtreeInfo.UNLINK_PAGE:
    case BtreeInfo.UNLINK_PAGE_META:
      return redoUnlink(page, cursor, id);
    case BtreeInfo.MARK_PAGE_HALFDEAD:
      return redoMarkHalfDead(page, cursor, id);
    case BtreeInfo.NEWROOT:
      return redoNewRoot(page, cursor, id);
    case BtreeInfo.META_CLEANUP:
      return restoreMetapage(page, cursor, id);
    case BtreeInfo.REUSE_PAGE:
      return;
    default:
      fault(`unknown opcode 0x${opcode.toString(16)}`);
  }
}

function redoInsert(page: PageTarget, cursor: RecordCursor, id: number): void {
  if (id === META_REF_OF_INSERT) return restoreMetapage(page, cursor, id);
  if (id !== 0) return clearIncompleteSplit(page, cursor);
  const number = cursor.view.getUint16(cursor.mainOffset, true);
  addItem(page, number, cursor.bytes, cursor.dataOffset[0]!, cursor.dataLength[0]!);
  stampLsn(page, cursor.endLsn);
}

/** A changeable copy of the new item. */
const newItem = new Uint8Array(PAGE_SIZE);

/**
 * The new tuple's tid falls inside a posting list: block data is the index there u16, then the
 * tuple.
 */
function redoInsertIntoPosting(page: PageTarget, cursor: RecordCursor, id: number): void {
  if (id !== 0) return;
  const number = cursor.view.getUint16(cursor.mainOffset, true);
  const from = cursor.dataOffset[0]!;
  const size = cursor.dataLength[0]! - 2;
  copyBytes(newItem, 0, cursor.bytes, from + 2, size);
  const postingAt = indexTupleAt(page, number - 1);
  swapPosting(page.bytes, page.view, postingAt, cursor.view.getUint16(from, true), newItem, 0);
  addItem(page, number, newItem, 0, size);
  stampLsn(page, cursor.endLsn);
}

function redoMarkHalfDead(page: PageTarget, cursor: RecordCursor, id: number): void {
  const record = cursor.view;
  const main = cursor.mainOffset;
  if (id === 0) {
    const left = record.getUint32(main + 8, true);
    const right = record.getUint32(main + 12, true);
    initBtreePage(page, left, right, 0, BTP_HALF_DEAD | BTP_LEAF);
    addHalfDeadHighKey(page, record.getUint32(main + 16, true));
  } else {
    // The parent keeps the deleted page's key range, but leads to its right sibling instead.
    const number = record.getUint16(main, true);
    const { view } = page;
    setTidBlock(view, indexTupleAt(page, number), tidBlock(view, indexTupleAt(page, number + 1)));
    deleteIndexItem(page, number + 1);
  }
  stampLsn(page, cursor.endLsn);
}

function redoUnlink(page: PageTarget, cursor: RecordCursor, id: number): void {
  const record = cursor.view;
  const main = cursor.mainOffset;
  const left = record.getUint32(main, true);
  const right = record.getUint32(main + 4, true);
  switch (id) {
    case 0:
      makeDeletedPage(page, cursor, left, right);
      break;
    case 1:
      setRightSibling(page, right);
      break;
    case 2:
      setLeftSibling(page, left);
      break;
    case 3: {
      const leafLeft = record.getUint32(main + 24, true);
      const leafRight = record.getUint32(main + 28, true);
      initBtreePage(page, leafLeft, leafRight, 0, BTP_HALF_DEAD | BTP_LEAF);
      addHalfDeadHighKey(page, record.getUint32(main + 32, true));
      break;
    }
    case META_REF_OF_UNLINK:
      return restoreMetapage(page, cursor, id);
    default:
      fault(`unlink has no reference ${id}`);
  }
  stampLsn(page, cursor.endLsn);
}

/**
 * An empty page that remembers until which transaction it must not be reused (BTPageSetDeleted).
 */
function makeDeletedPage(
  page: PageTarget,
  cursor: RecordCursor,
  left: number,
  right: number,
): void {
  const main = cursor.mainOffset;
  const level = cursor.view.getUint32(main + 8, true);
  const flags = BTP_DELETED | BTP_HAS_FULLXID | (level === 0 ? BTP_LEAF : 0);
  initBtreePage(page, left, right, level, flags);
  copyBytes(page.bytes, page.offset + PAGE_HEADER_SIZE, cursor.bytes, main + 16, 8);
  setPageLower(page.view, page.offset, PAGE_HEADER_SIZE + 8);
}

function redoNewRoot(page: PageTarget, cursor: RecordCursor, id: number): void {
  if (id === 2) return restoreMetapage(page, cursor, id);
  if (id === 1) return clearIncompleteSplit(page, cursor);
  require(id === 0, "new root has no such reference");
  const level = cursor.view.getUint32(cursor.mainOffset + 4, true);
  initBtreePage(page, NO_PAGE, NO_PAGE, level, BTP_ROOT | (level === 0 ? BTP_LEAF : 0));
  if (level > 0) restoreItems(page, cursor, cursor.dataOffset[0]!, cursor.dataLength[0]!);
  stampLsn(page, cursor.endLsn);
}
