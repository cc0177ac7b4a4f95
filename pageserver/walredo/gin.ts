/**
 * Redo of the GIN resource manager (PostgreSQL 17, ginxlog.c; record formats and redo are the same
 * in 14 to 18). Changes of posting tree leaves are in gin_leaf.ts.
 *
 * A record touches several pages, each under its own reference id; every routine is asked for one
 * of them. Pages with an image to apply never come here. Records (ginxlog.h), main data:
 *   create posting tree  0 size u32, 4 lists; reference 0 root
 *   insert               0 flags u16; in inner pages also 2 left, 6 right half of the split child
 *                        references 0 page, 1 left half
 *                        block data 0, entry tree: 0 item u16, 2 replaces it u8, 4 tuple
 *                        posting tree, inner: 0 item u16, 2 posting item; leaf: gin_leaf.ts
 *   split                28 flags u16 at 24; references 0 left, 1 right, 2 root, all images, 3 the
 *                        left half of the child whose split this completes
 *   vacuum page          reference 0, an image
 *   vacuum leaf          reference 0, block data: gin_leaf.ts
 *   delete page          0 item in the parent u16, 4 right sibling u32, 8 xid u32
 *                        references 0 page, 1 parent, 2 left sibling
 *   update metapage      16 metapage contents (56), 72 old tail u32, 76 its right sibling u32,
 *                        80 count of tuples i32
 *                        references 0 metapage, 1 tail of the pending list, with those tuples
 *   insert list page     0 right sibling u32, 4 count i32; reference 0, with the tuples
 *   delete list pages    metapage contents (56), 56 count i32; references 0 metapage, 1.. pages
 */
import { setPagePruneXid } from "../../libs/postgres/page.ts";
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import { indexTupleAt, setTidBlock, tidBlock, tupleLength } from "./btree_page.ts";
import { recompressLeaf } from "./gin_leaf.ts";
import {
  clearGinIncompleteSplit,
  deletePostingItem,
  GIN_COMPRESSED,
  GIN_DATA,
  GIN_DATA_START,
  GIN_DELETED,
  GIN_LEAF,
  GIN_LIST,
  GIN_LIST_FULLROW,
  ginCount,
  ginFlags,
  initGinPage,
  NO_BLOCK,
  requirePostingTreePage,
  restoreGinMetapage,
  setGinCount,
  setGinDataSize,
  setGinFlags,
  setGinRightSibling,
  splitPostingItem,
} from "./gin_page.ts";
import { deleteIndexItem } from "./page_compact.ts";
import { addItem, copyBytes, itemCount, stampLsn } from "./page_items.ts";
import { fault, require } from "./redo_fault.ts";
import type { PageTarget } from "./types.ts";

/** Opcodes, in info & 0xf0. */
const GinInfo = {
  CREATE_PTREE: 0x10,
  INSERT: 0x20,
  SPLIT: 0x30,
  VACUUM_PAGE: 0x40,
  DELETE_PAGE: 0x50,
  UPDATE_META_PAGE: 0x60,
  INSERT_LISTPAGE: 0x70,
  DELETE_LISTPAGE: 0x80,
  VACUUM_DATA_LEAF_PAGE: 0x90,
} as const;

const OPCODE_MASK = 0xf0;
/** Flags of insert and split records (GIN_INSERT_ISDATA, GIN_INSERT_ISLEAF). */
const IS_DATA = 0x01;
const IS_LEAF = 0x02;
/** Reference to the left half of a child, in a split record. */
const CHILD_REF_OF_SPLIT = 3;
const SPLIT_FLAGS_AT = 24;
/** Offset of the metapage's contents in the main data of an update: the locator, aligned. */
const META_OF_UPDATE = 16;
/** Size of the fixed fields of an insert record's block data for the entry tree. */
const ENTRY_HEADER_SIZE = 4;
const POSTING_ITEM_DATA_SIZE = 12;

/**
 * Applies a GIN record to the page that is its block reference `id` (none: -1, nothing to do).
 */
export function redoGin(page: PageTarget, cursor: RecordCursor, id: number): void {
  if (id < 0) return;
  const opcode = cursor.info & OPCODE_MASK;
  switch (opcode) {
    case GinInfo.CREATE_PTREE:
      redoCreatePostingTree(page, cursor, id);
      break;
    case GinInfo.INSERT:
      redoInsert(page, cursor, id);
      break;
    case GinInfo.SPLIT:
      redoSplit(page, cursor, id);
      break;
    case GinInfo.VACUUM_PAGE:
      return fault("vacuum of an entry page without its image");
    case GinInfo.VACUUM_DATA_LEAF_PAGE:
      require(id === 0, "vacuum of a leaf has no such reference");
      redoLeaf(page, cursor);
      break;
    case GinInfo.DELETE_PAGE:
      redoDeletePage(page, cursor, id);
      break;
    case GinInfo.UPDATE_META_PAGE:
      redoUpdateMetapage(page, cursor, id);
      break;
    case GinInfo.INSERT_LISTPAGE:
      redoInsertListPage(page, cursor, id);
      break;
    case GinInfo.DELETE_LISTPAGE:
      redoDeleteListPages(page, cursor, id);
      break;
    default:
      fault(`unknown opcode 0x${opcode.toString(16)}`);
  }
  stampLsn(page, cursor.endLsn);
}

function redoCreatePostingTree(page: PageTarget, cursor: RecordCursor, id: number): void {
  require(id === 0, "create posting tree has no such reference");
  const size = cursor.view.getUint32(cursor.mainOffset, true);
  require(size + 4 <= cursor.mainLength, "posting lists end too early");
  initGinPage(page, GIN_DATA | GIN_LEAF | GIN_COMPRESSED);
  setGinDataSize(page, size);
  copyBytes(page.bytes, page.offset + GIN_DATA_START, cursor.bytes, cursor.mainOffset + 4, size);
}

function redoInsert(page: PageTarget, cursor: RecordCursor, id: number): void {
  const flags = cursor.view.getUint16(cursor.mainOffset, true);
  const isLeaf = (flags & IS_LEAF) !== 0;
  if (id === 1 && !isLeaf) return clearGinIncompleteSplit(page);
  require(id === 0, "insert has no such reference");
  const rightHalf = isLeaf ? NO_BLOCK : tidBlock(cursor.view, cursor.mainOffset + 6);
  if ((flags & IS_DATA) === 0) return insertEntry(page, cursor, rightHalf);
  if (isLeaf) return redoLeaf(page, cursor);
  requirePostingTreePage(page, false);
  require(cursor.dataLength[0]! >= POSTING_ITEM_DATA_SIZE, "posting item ends too early");
  const from = cursor.dataOffset[0]!;
  const number = cursor.view.getUint16(from, true);
  splitPostingItem(page, number, rightHalf, cursor.bytes, from + 2);
}

/** Adds an entry, or replaces the one with that key; in an inner page it leads to a left half. */
function insertEntry(page: PageTarget, cursor: RecordCursor, rightHalf: number): void {
  require((ginFlags(page) & GIN_DATA) === 0, "not a page of an entry tree");
  require(cursor.dataLength[0]! > ENTRY_HEADER_SIZE, "index tuple ends too early");
  const from = cursor.dataOffset[0]!;
  const number = cursor.view.getUint16(from, true);
  if (rightHalf !== NO_BLOCK) {
    const at = indexTupleAt(page, number);
    setTidBlock(page.view, at, rightHalf);
    page.view.setUint16(at + 4, 0, true);
  }
  if (cursor.bytes[from + 2] !== 0) deleteIndexItem(page, number);
  addTuples(page, cursor, 0, ENTRY_HEADER_SIZE, number, 1);
}

/**
 * Adds `count` index tuples as items `first` and on; they are the block data of reference `id`
 * after the first `skip` bytes.
 */
function addTuples(
  page: PageTarget,
  cursor: RecordCursor,
  id: number,
  skip: number,
  first: number,
  count: number,
): void {
  const end = cursor.dataOffset[id]! + cursor.dataLength[id]!;
  let at = cursor.dataOffset[id]! + skip;
  for (let i = 0; i < count; i++) {
    const size = tupleLength(cursor.view, at);
    require(at + size <= end, "index tuples end too early");
    addItem(page, first + i, cursor.bytes, at, size);
    at += size;
  }
}

function redoLeaf(page: PageTarget, cursor: RecordCursor): void {
  requirePostingTreePage(page, true);
  const from = cursor.dataOffset[0]!;
  recompressLeaf(page, cursor.bytes, cursor.view, from, from + cursor.dataLength[0]!);
}

function redoSplit(page: PageTarget, cursor: RecordCursor, id: number): void {
  const flags = cursor.view.getUint16(cursor.mainOffset + SPLIT_FLAGS_AT, true);
  require(id === CHILD_REF_OF_SPLIT, "split without the image of a page");
  require((flags & IS_LEAF) === 0, "split of a leaf has no child");
  clearGinIncompleteSplit(page);
}

function redoDeletePage(page: PageTarget, cursor: RecordCursor, id: number): void {
  const record = cursor.view;
  const main = cursor.mainOffset;
  require((ginFlags(page) & GIN_DATA) !== 0, "not a page of a posting tree");
  switch (id) {
    case 0:
      setGinFlags(page, ginFlags(page) | GIN_DELETED);
      // Until which transaction it must not be reused (GinPageSetDeleteXid).
      return setPagePruneXid(page.view, page.offset, record.getUint32(main + 8, true));
    case 1:
      requirePostingTreePage(page, false);
      return deletePostingItem(page, record.getUint16(main, true));
    case 2:
      return setGinRightSibling(page, record.getUint32(main + 4, true));
    default:
      fault(`delete page has no reference ${id}`);
  }
}

/** The pending list got tuples in its last page, or a new last page; or only statistics changed. */
function redoUpdateMetapage(page: PageTarget, cursor: RecordCursor, id: number): void {
  const record = cursor.view;
  const main = cursor.mainOffset;
  if (id === 0) return restoreGinMetapage(page, cursor.bytes, main + META_OF_UPDATE);
  require(id === 1, "update metapage has no such reference");
  const count = record.getInt32(main + 80, true);
  if (count > 0) {
    addTuples(page, cursor, id, 0, itemCount(page) + 1, count);
    setGinCount(page, ginCount(page) + 1);
  } else {
    require(record.getUint32(main + 72, true) !== NO_BLOCK, "no tail to be changed");
    setGinRightSibling(page, record.getUint32(main + 76, true));
  }
}

function redoInsertListPage(page: PageTarget, cursor: RecordCursor, id: number): void {
  require(id === 0, "insert list page has no such reference");
  const rightSibling = cursor.view.getUint32(cursor.mainOffset, true);
  const isTail = rightSibling === NO_BLOCK;
  initGinPage(page, isTail ? GIN_LIST | GIN_LIST_FULLROW : GIN_LIST);
  setGinRightSibling(page, rightSibling);
  // Heap tuples that end here: the list is of one, and its last page has the end.
  setGinCount(page, isTail ? 1 : 0);
  const count = cursor.view.getInt32(cursor.mainOffset + 4, true);
  addTuples(page, cursor, id, 0, 1, count);
}

function redoDeleteListPages(page: PageTarget, cursor: RecordCursor, id: number): void {
  if (id === 0) return restoreGinMetapage(page, cursor.bytes, cursor.mainOffset);
  const count = cursor.view.getInt32(cursor.mainOffset + 56, true);
  if (id > count) fault(`delete list pages has no reference ${id}`);
  initGinPage(page, GIN_DELETED);
}
