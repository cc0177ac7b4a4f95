/** GIN pages and record parts for tests. */
import { Rmgr } from "../../libs/postgres/constants.ts";
import { setPageLower } from "../../libs/postgres/page.ts";
import {
  GIN_COMPRESSED,
  GIN_DATA,
  GIN_LEAF,
  GIN_LIST,
  initGinPage,
  setGinCount,
} from "./gin_page.ts";
import { encodeList } from "./gin_posting_list.ts";
import { addItem } from "./page_items.ts";
import { type FixtureRecord, reference, u16, u32 } from "./record_fixture.ts";
import type { PageTarget } from "./types.ts";

/** Kinds of pages that fillGinPage knows. */
export const GIN_PAGE_KINDS = ["entry", "leaf", "inner", "list"] as const;

/** The bytes of a posting list of tids (block 0 if they are below 2048). */
export function listBytes(...tids: number[]): number[] {
  const target = new Uint8Array(8192);
  return [...target.subarray(0, encodeList(Float64Array.from(tids), tids.length, target))];
}

/** The bytes of a tid. */
export function tidBytes(block: number, item: number): number[] {
  return [...u16(block >>> 16), ...u16(block & 0xffff), ...u16(item)];
}

/** An index tuple of 16 bytes with a tid of `block` and key bytes of `fill`. */
export function entryTuple(block: number, fill: number): number[] {
  return [...tidBytes(block, 0), ...u16(16), ...new Array<number>(8).fill(fill)];
}

/** Fills a posting tree leaf with these lists. */
export function fillLeaf(page: PageTarget, lists: number[][]): void {
  initGinPage(page, GIN_DATA | GIN_LEAF | GIN_COMPRESSED);
  const bytes = lists.flat();
  page.bytes.set(bytes, page.offset + 32);
  setPageLower(page.view, page.offset, 32 + bytes.length);
}

/** Fills an inner posting tree page with items that lead to these blocks. */
export function fillInner(page: PageTarget, blocks: number[]): void {
  initGinPage(page, GIN_DATA);
  const bytes = blocks.flatMap((
    block,
    i,
  ) => [...tidBytes(block, 0).slice(0, 4), ...tidBytes(i, 1)]);
  page.bytes.set(bytes, page.offset + 32);
  setPageLower(page.view, page.offset, 32 + bytes.length);
  setGinCount(page, blocks.length);
}

/** Fills a page of a kind with some of what it has. */
export function fillGinPage(page: PageTarget, kind: typeof GIN_PAGE_KINDS[number]): void {
  if (kind === "leaf") return fillLeaf(page, [listBytes(1, 2, 300), listBytes(4000, 9000)]);
  if (kind === "inner") return fillInner(page, Array.from({ length: 30 }, (_, i) => i + 2));
  initGinPage(page, kind === "list" ? GIN_LIST : GIN_LEAF);
  for (let number = 1; number <= 40; number++) {
    addItem(page, number, Uint8Array.from(entryTuple(number, 9)), 0, 16);
  }
}

/** A GIN record on block 0 as reference `id`. */
export function ginRecord(
  info: number,
  main: number[],
  id: number,
  data?: number[],
): FixtureRecord {
  const blocks = id === 0 ? [] : [reference(0, 9)];
  return { rmid: Rmgr.GIN, info, main, blocks: [...blocks, reference(id, 0, 0, data)] };
}

/** Changes of a leaf's lists, from the bytes of each. */
export function leafActions(...actions: number[][]): number[] {
  return [...u16(actions.length), ...actions.flat()];
}

/** Main data of a metapage update: pending list tail, its right sibling, tuples added to it. */
export function metaUpdate(tail: number, rightSibling: number, tuples: number): number[] {
  const contents = Array.from({ length: 56 }, (_, i) => i);
  return [
    ...new Array<number>(16).fill(0),
    ...contents,
    ...[tail, rightSibling, tuples, 0]
      .flatMap(u32),
  ];
}
