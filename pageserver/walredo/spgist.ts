/**
 * Redo of the SP-GiST resource manager (PostgreSQL 17, spgxlog.c; the records are those of 14 to
 * 18). Splitting a full leaf page is in spgist_split.ts, vacuum in spgist_vacuum.ts; here is
 * inserting: new leaves, chains of leaves that move to another page, inner tuples that change.
 * Builds of a whole index are logged as page images, by the XLOG resource manager. The metapage
 * is never logged after that: it only caches which pages have space.
 *
 * A record touches several pages, each under its own reference id; every routine is asked for one
 * of them and must look at nothing else. Everything is in the main data, unaligned (spgxlog.h);
 * "state" is: xid for redirections u32, +4 index is being built u8. References:
 *   add leaf     0 new page u8, 1 nulls u8, 2 item of the leaf u16, 4 item of its chain's head u16,
 *                6 item of the parent u16, 8 node u16, 10 leaf tuple; 0 page, 1 parent
 *   move leafs   0 moves u16, 2 new page u8, 3 replaces a dead one u8, 4 nulls u8,
 *                6 item of the parent u16, 8 node u16, 12 state, 20 item numbers to delete
 *                u16[moves], to insert u16[moves + 1, or 1 for a dead one], leaf tuples
 *                0 source, 1 destination, 2 parent
 *   add node     0 item u16, 2 new item u16, 4 new page u8, 5 where the parent is i8 (reference),
 *                6 item of the parent u16, 8 node u16, 12 state, 20 inner tuple
 *                0 page, 1 new page if the tuple moves, 2 parent if on neither
 *   split tuple  0 item of the prefix u16, 2 item of the postfix u16, 4 new page u8, 5 same page
 *                u8, 6 prefix tuple, postfix tuple; 0 page of the prefix, 1 page of the postfix
 */
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import { stampLsn } from "./page_items.ts";
import { fault, require } from "./redo_fault.ts";
import {
  addDeadTuple,
  endOfNumbers,
  initSpgistPage,
  innerSize,
  killTuples,
  leafSize,
  PLACEHOLDER,
  placeTuple,
  type Redirection,
  replaceTuple,
  setDownlink,
  setNextLeaf,
} from "./spgist_page.ts";
import { pickSplit } from "./spgist_split.ts";
import { vacuumLeaf, vacuumRedirections, vacuumRoot } from "./spgist_vacuum.ts";
import { deleteIndexItem } from "./page_compact.ts";
import type { PageTarget } from "./types.ts";

/** Opcodes, in info & 0xf0. */
const SpgistInfo = {
  ADD_LEAF: 0x10,
  MOVE_LEAFS: 0x20,
  ADD_NODE: 0x30,
  SPLIT_TUPLE: 0x40,
  PICKSPLIT: 0x50,
  VACUUM_LEAF: 0x60,
  VACUUM_ROOT: 0x70,
  VACUUM_REDIRECT: 0x80,
} as const;

const OPCODE_MASK = 0xf0;
/** Size of the fixed part of the main data, by opcode >> 4. */
const MAIN_SIZES = [0, 10, 20, 20, 6, 28, 16, 12, 8];

/**
 * Applies an SP-GiST record to the page that is its block reference `id` (none: -1, nothing to do).
 */
export function redoSpgist(page: PageTarget, cursor: RecordCursor, id: number): void {
  if (id < 0) return;
  changePage(page, cursor, id);
  stampLsn(page, cursor.endLsn);
}

function changePage(page: PageTarget, cursor: RecordCursor, id: number): void {
  const opcode = cursor.info & OPCODE_MASK;
  require(cursor.mainLength >= (MAIN_SIZES[opcode >> 4] ?? 0), "record is too short");
  switch (opcode) {
    case SpgistInfo.ADD_LEAF:
      return addLeaf(page, cursor, id);
    case SpgistInfo.MOVE_LEAFS:
      return moveLeafs(page, cursor, id);
    case SpgistInfo.ADD_NODE:
      return addNode(page, cursor, id);
    case SpgistInfo.SPLIT_TUPLE:
      return splitTuple(page, cursor, id);
    case SpgistInfo.PICKSPLIT:
      return pickSplit(page, cursor, id);
    case SpgistInfo.VACUUM_LEAF:
      return vacuumLeaf(page, cursor, id);
    case SpgistInfo.VACUUM_ROOT:
      return vacuumRoot(page, cursor, id);
    case SpgistInfo.VACUUM_REDIRECT:
      return vacuumRedirections(page, cursor, id);
    default:
      fault(`unknown opcode 0x${opcode.toString(16)}`);
  }
}

/** spgRedoAddLeaf. */
function addLeaf(page: PageTarget, cursor: RecordCursor, id: number): void {
  const record = cursor.view;
  const main = cursor.mainOffset;
  const number = record.getUint16(main + 2, true);
  if (id === 1) {
    const parent = record.getUint16(main + 6, true);
    const node = record.getUint16(main + 8, true);
    return setDownlink(page, parent, node, cursor.blockNumber[0]!, number);
  }
  require(id === 0, "add leaf has no such reference");
  const head = record.getUint16(main + 4, true);
  const tuple = main + 10;
  const size = leafSize(cursor, tuple);
  if (record.getUint8(main) !== 0) initSpgistPage(page, true, record.getUint8(main + 1) !== 0);
  if (head === number) return replaceTuple(page, number, cursor.bytes, tuple, size); // a dead one
  placeTuple(page, number, cursor.bytes, tuple, size);
  if (head !== 0) setNextLeaf(page, head, number);
}

/** spgRedoMoveLeafs. The last of the tuples is the head of the chain in its new place. */
function moveLeafs(page: PageTarget, cursor: RecordCursor, id: number): void {
  const record = cursor.view;
  const main = cursor.mainOffset;
  const moves = record.getUint16(main, true);
  const inserts = record.getUint8(main + 3) !== 0 ? 1 : moves + 1;
  const deleteList = main + 20;
  const insertList = endOfNumbers(cursor, deleteList, moves);
  const tuples = endOfNumbers(cursor, insertList, inserts);
  const destination = cursor.blockNumber[1]!;
  const head = record.getUint16(tuples - 2, true);
  switch (id) {
    case 0: {
      const redirection = redirectionTo(cursor, main + 12, destination, head);
      return killTuples(page, cursor, deleteList, moves, PLACEHOLDER, redirection);
    }
    case 1: {
      if (record.getUint8(main + 2) !== 0) {
        initSpgistPage(page, true, record.getUint8(main + 4) !== 0);
      }
      let at = tuples;
      for (let i = 0; i < inserts; i++) {
        const size = leafSize(cursor, at);
        placeTuple(page, record.getUint16(insertList + 2 * i, true), cursor.bytes, at, size);
        at += size;
      }
      return;
    }
    case 2: {
      const parent = record.getUint16(main + 6, true);
      const node = record.getUint16(main + 8, true);
      return setDownlink(page, parent, node, destination, head);
    }
    default:
      fault(`move leafs has no reference ${id}`);
  }
}

/**
 * What takes the place of a tuple that moved away, from the state at `stateAt`; undefined while the
 * index is being built: nobody is under way, a placeholder does.
 */
function redirectionTo(
  cursor: RecordCursor,
  stateAt: number,
  block: number,
  item: number,
): Redirection | undefined {
  if (cursor.view.getUint8(stateAt + 4) !== 0) return undefined;
  return { block, item, xid: cursor.view.getUint32(stateAt, true) };
}

/** spgRedoAddNode. */
function addNode(page: PageTarget, cursor: RecordCursor, id: number): void {
  const record = cursor.view;
  const main = cursor.mainOffset;
  const number = record.getUint16(main, true);
  const tuple = main + 20;
  if (id === 0 && cursor.blockPresent[1] === 0) {
    return replaceTuple(page, number, cursor.bytes, tuple, innerSize(cursor, tuple));
  }
  const newBlock = cursor.blockNumber[1]!;
  const newNumber = record.getUint16(main + 2, true);
  switch (id) {
    case 0:
      deleteIndexItem(page, number);
      addDeadTuple(
        page,
        number,
        PLACEHOLDER,
        redirectionTo(cursor, main + 12, newBlock, newNumber),
      );
      break;
    case 1:
      if (record.getUint8(main + 4) !== 0) initSpgistPage(page, false, false);
      placeTuple(page, newNumber, cursor.bytes, tuple, innerSize(cursor, tuple));
      break;
    default:
      require(id === 2, "add node has no such reference");
  }
  if (record.getInt8(main + 5) !== id) return;
  const parent = record.getUint16(main + 6, true);
  setDownlink(page, parent, record.getUint16(main + 8, true), newBlock, newNumber);
}

/** spgRedoSplitTuple: an inner tuple becomes one with less prefix, above one with the rest. */
function splitTuple(page: PageTarget, cursor: RecordCursor, id: number): void {
  const record = cursor.view;
  const main = cursor.mainOffset;
  require(id <= 1, "split tuple has no such reference");
  const prefix = main + 6;
  const prefixSize = innerSize(cursor, prefix);
  const postfix = prefix + prefixSize;
  if (id === 0) {
    replaceTuple(page, record.getUint16(main, true), cursor.bytes, prefix, prefixSize);
    if (record.getUint8(main + 5) === 0) return;
  } else if (record.getUint8(main + 4) !== 0) {
    initSpgistPage(page, false, false);
  }
  const number = record.getUint16(main + 2, true);
  placeTuple(page, number, cursor.bytes, postfix, innerSize(cursor, postfix));
}
