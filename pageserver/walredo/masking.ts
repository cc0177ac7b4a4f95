/**
 * Hides what may differ between a page on the server that wrote the WAL and the same page replayed
 * from it: exactly what PostgreSQL's own mask functions hide (heap_mask, btree_mask, hash_mask,
 * brin_mask, gin_mask, gist_mask, spg_mask, generic_mask, seq_mask; bufmask.c).
 *
 * One exception, on the strict side: PostgreSQL masks a visibility map page named by a heap record
 * as if it were a heap page, which hides all of its bits ("unused space"). Here nothing but its
 * LSN, its checksum and the hint bits of its header are hidden.
 */
import { FORK_VM, PAGE_SIZE, Rmgr } from "../../libs/postgres/constants.ts";
import {
  PAGE_HEADER_SIZE,
  pageLower,
  pageUpper,
  setPageChecksumField,
  setPageLower,
  setPageLsn,
  setPagePruneXid,
  setPageUpper,
} from "../../libs/postgres/page.ts";
import { BRIN_META_PAGE, BRIN_REGULAR_PAGE, brinPageType, clearEvacuation } from "./brin_page.ts";
import {
  BTP_HAS_GARBAGE,
  BTP_LEAF,
  BTP_SPLIT_END,
  btreeFlags,
  setBtreeFlags,
  setCycleId,
} from "./btree_page.ts";
import { GIN_DELETED, ginFlags } from "./gin_page.ts";
import {
  changeGistFlags,
  GIST_FOLLOW_RIGHT,
  GIST_HAS_GARBAGE,
  GIST_LEAF,
  gistFlags,
  setNsn,
} from "./gist_page.ts";
import {
  hashFlags,
  LH_BUCKET_PAGE,
  LH_OVERFLOW_PAGE,
  LH_PAGE_HAS_DEAD_TUPLES,
  LH_PAGE_TYPE,
  setHashFlags,
} from "./hash_page.ts";
import {
  ctidItem,
  HEAP_XMAX_COMMITTED,
  HEAP_XMAX_INVALID,
  HEAP_XMIN_FROZEN,
  infomask,
  setCommandId,
  setCtid,
  setInfomask,
} from "./heap_tuple.ts";
import {
  checkPageBounds,
  itemCount,
  LP_NORMAL,
  LP_UNUSED,
  makePointer,
  maxAlign,
  PD_ALL_VISIBLE,
  PD_HAS_FREE_LINES,
  pointerAt,
  pointerLength,
  pointerOffset,
  pointerState,
  setPageFlag,
} from "./page_items.ts";
import type { PageTarget } from "./types.ts";

const PD_PAGE_FULL = 2;
/** The bits of t_infomask about xmin and xmax (HEAP_XACT_MASK). */
const HEAP_XACT_MASK = 0xfff0;
/** Item number in t_ctid of a tuple that is being inserted speculatively. */
const SPECULATIVE_ITEM = 0xfffe;

const MASKED: ReadonlySet<number> = new Set([
  Rmgr.HEAP,
  Rmgr.HEAP2,
  Rmgr.BTREE,
  Rmgr.HASH,
  Rmgr.BRIN,
  Rmgr.GENERIC,
  Rmgr.GIN,
  Rmgr.GIST,
  Rmgr.SPGIST,
  Rmgr.SEQ,
]);

/** Resource managers whose pages can be masked here. */
export function canMask(rmid: number): boolean {
  return MASKED.has(rmid);
}

/** Masks a page that a record of `rmid` refers to, in place. */
export function maskPage(page: PageTarget, rmid: number, fork: number, block: number): void {
  setPageLsn(page.view, page.offset, 0, 0);
  setPageChecksumField(page.view, page.offset, 0);
  if (rmid === Rmgr.SEQ || rmid === Rmgr.GENERIC) return maskFreeSpace(page);
  maskHeaderHints(page);
  if (fork === FORK_VM) return;
  if (rmid === Rmgr.BRIN) return maskBrin(page);
  if (rmid === Rmgr.GIN) return maskGin(page);
  if (rmid === Rmgr.SPGIST) return maskSpgist(page);
  maskFreeSpace(page);
  switch (rmid) {
    case Rmgr.BTREE:
      return maskBtree(page);
    case Rmgr.HASH:
      return maskHash(page);
    case Rmgr.GIST:
      return maskGist(page);
    default:
      return maskHeap(page, block);
  }
}

function maskHeaderHints(page: PageTarget): void {
  setPagePruneXid(page.view, page.offset, 0);
  setPageFlag(page, PD_PAGE_FULL | PD_HAS_FREE_LINES | PD_ALL_VISIBLE, false);
}

function maskFreeSpace(page: PageTarget): void {
  checkPageBounds(page);
  const { view, offset } = page;
  page.bytes.fill(0, offset + pageLower(view, offset), offset + pageUpper(view, offset));
}

function maskHeap(page: PageTarget, block: number): void {
  const { bytes, view, offset } = page;
  const count = itemCount(page);
  for (let number = 1; number <= count; number++) {
    const pointer = view.getUint32(pointerAt(page, number), true);
    const at = offset + pointerOffset(pointer);
    const length = pointerLength(pointer);
    if (pointerState(pointer) === LP_NORMAL) {
      const mask = infomask(view, at);
      const frozen = (mask & HEAP_XMIN_FROZEN) === HEAP_XMIN_FROZEN;
      const hints = frozen ? HEAP_XMAX_INVALID | HEAP_XMAX_COMMITTED : HEAP_XACT_MASK;
      setInfomask(view, at, mask & ~hints);
      setCommandId(view, at, 0);
      if (ctidItem(view, at) === SPECULATIVE_ITEM) setCtid(view, at, block, number);
    }
    if (length > 0) bytes.fill(0, at + length, at + maxAlign(length));
  }
}

/** Line pointers may become dead without a record (mask_lp_flags). */
function maskPointerStates(page: PageTarget): void {
  const { view } = page;
  const count = itemCount(page);
  for (let number = 1; number <= count; number++) {
    const at = pointerAt(page, number);
    const pointer = view.getUint32(at, true);
    const unflagged = makePointer(pointerOffset(pointer), LP_UNUSED, pointerLength(pointer));
    view.setUint32(at, unflagged, true);
  }
}

/** All of a page but its header's other fields; for freed pages (mask_page_content). */
function maskContent(page: PageTarget): void {
  const { bytes, view, offset } = page;
  bytes.fill(0, offset + PAGE_HEADER_SIZE, offset + PAGE_SIZE);
  setPageLower(view, offset, 0);
  setPageUpper(view, offset, 0);
}

function maskHash(page: PageTarget): void {
  const flags = hashFlags(page);
  const type = flags & LH_PAGE_TYPE;
  if (type === 0) return maskContent(page);
  if (type === LH_BUCKET_PAGE || type === LH_OVERFLOW_PAGE) maskPointerStates(page);
  setHashFlags(page, flags & ~LH_PAGE_HAS_DEAD_TUPLES);
}

/** A revmap page keeps its contents where other pages have free space. */
function maskBrin(page: PageTarget): void {
  const type = brinPageType(page);
  const meta = type === BRIN_META_PAGE && pageLower(page.view, page.offset) > PAGE_HEADER_SIZE;
  if (type === BRIN_REGULAR_PAGE || meta) maskFreeSpace(page);
  clearEvacuation(page);
}

function maskBtree(page: PageTarget): void {
  if (btreeFlags(page) & BTP_LEAF) maskPointerStates(page);
  setBtreeFlags(page, btreeFlags(page) & ~(BTP_HAS_GARBAGE | BTP_SPLIT_END));
  setCycleId(page, 0);
}

/** A deleted page counts as empty; one that never had pd_lower set, as full (gin_mask). */
function maskGin(page: PageTarget): void {
  if (ginFlags(page) & GIN_DELETED) return maskContent(page);
  if (pageLower(page.view, page.offset) > PAGE_HEADER_SIZE) maskFreeSpace(page);
}

/** The NSN is an LSN; the server marks the left half of a split after writing the record. */
function maskGist(page: PageTarget): void {
  setNsn(page, 0, 0);
  changeGistFlags(page, GIST_FOLLOW_RIGHT, GIST_HAS_GARBAGE);
  if (gistFlags(page) & GIST_LEAF) maskPointerStates(page);
}

/** A metapage of old may never have had pd_lower set (spg_mask). */
function maskSpgist(page: PageTarget): void {
  if (pageLower(page.view, page.offset) >= PAGE_HEADER_SIZE) maskFreeSpace(page);
}
