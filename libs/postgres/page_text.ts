/**
 * A data page for people: what kind it is, its header, its line pointers and what they point at;
 * and the differences between two versions of a page, in the same terms.
 *
 * The kind is told by the special space, as pageinspect and pg_filedump do: its size, and the
 * identifier that most index types keep in the last two bytes of the page. Nothing here trusts the
 * page: positions that make no sense are printed as they are.
 *
 * Called by `neon page get` and for the differences that `neon wal verify` finds.
 */
import { formatLsn } from "../utils/lsn.ts";
import { FORK_FSM, FORK_VM, PAGE_SIZE } from "./constants.ts";
import {
  isNewPage,
  PAGE_HEADER_SIZE,
  pageFlags,
  pageLower,
  pageLsn,
  pagePruneXid,
  pageSpecial,
  pageUpper,
} from "./page.ts";

/** Identifiers in the last two bytes of a page (hash.h, gist.h, spgist_private.h, bloom.h, brin). */
const PAGE_IDS: Readonly<Record<number, string>> = {
  0xff80: "hash",
  0xff81: "gist",
  0xff82: "spgist",
  0xff83: "bloom",
  0xf091: "brin metapage",
  0xf092: "brin revmap",
  0xf093: "brin",
};
const SEQUENCE_MAGIC = 0x1717;
const POINTER_STATES = ["UNUSED", "NORMAL", "REDIRECT", "DEAD"];
const LP_NORMAL = 1;
const PAGE_FLAGS = ["HAS_FREE_LINES", "PAGE_FULL", "ALL_VISIBLE"];
const BTREE_FLAGS = [
  ...["leaf", "root", "deleted", "meta", "half dead", "split end", "has garbage"],
  ...["incomplete split", "full xid"],
];
const GIN_FLAGS = [
  ...["data", "leaf", "deleted", "meta", "list", "list full row", "incomplete split"],
  "compressed",
];
const HEAP_HEADER_BYTES = 23;
const INDEX_HEADER_BYTES = 8;
/** Bytes of a difference that are printed. */
const WINDOW_BYTES = 16;
/** Differing stretches and tuples that are printed. */
const RANGES_MAX = 8;

/** A line pointer. */
interface Item {
  readonly number: number;
  readonly state: string;
  readonly offset: number;
  readonly length: number;
}

function viewOf(page: Uint8Array): DataView {
  return new DataView(page.buffer, page.byteOffset, page.length);
}

function flagNames(bits: number, names: readonly string[]): string {
  const set = names.filter((_, i) => (bits & (1 << i)) !== 0);
  return set.length === 0 ? "none" : set.join(", ");
}

/** What kind of page it is: "heap", "btree", "visibility map", "new" and so on. */
function pageKind(page: Uint8Array, fork: number): string {
  const view = viewOf(page);
  if (page.every((byte) => byte === 0)) return "all zeros";
  if (isNewPage(view, 0)) return "new";
  if (fork === FORK_FSM) return "free space map";
  if (fork === FORK_VM) return "visibility map";
  const special = pageSpecial(view, 0);
  if (special > PAGE_SIZE || special < PAGE_HEADER_SIZE) return "unknown";
  if (special === PAGE_SIZE) return "heap";
  const id = PAGE_IDS[view.getUint16(PAGE_SIZE - 2, true)];
  const size = PAGE_SIZE - special;
  if (size === 8 && view.getUint32(special, true) === SEQUENCE_MAGIC) return "sequence";
  if (id !== undefined) return id;
  if (size === 16) return "btree";
  return size === 8 ? "gin" : "unknown";
}

/** The special space in words, where it is known. */
function specialText(page: Uint8Array, kind: string): string | undefined {
  const view = viewOf(page);
  const at = pageSpecial(view, 0);
  const u32 = (offset: number) => view.getUint32(at + offset, true);
  const u16 = (offset: number) => view.getUint16(at + offset, true);
  if (kind === "btree") {
    const flags = flagNames(u16(12), BTREE_FLAGS);
    return `left ${u32(0)}, right ${u32(4)}, level ${u32(8)}, flags ${flags}, cycle id ${u16(14)}`;
  }
  if (kind === "gin") {
    return `right ${u32(0)}, maxoff ${u16(4)}, flags ${flagNames(u16(6), GIN_FLAGS)}`;
  }
  if (kind === "hash") {
    const hex = u16(12).toString(16);
    return `previous ${u32(0)}, next ${u32(4)}, bucket ${u32(8)}, flags 0x${hex}`;
  }
  if (kind === "gist") return `right ${u32(8)}, flags 0x${u16(12).toString(16)}`;
  if (kind === "spgist") {
    return `flags 0x${u16(0).toString(16)}, redirections ${u16(2)}, placeholders ${u16(4)}`;
  }
  return undefined;
}

/** The fields of the header, by name, as text. */
function headerFields(page: Uint8Array): Record<string, string> {
  const view = viewOf(page);
  const flags = pageFlags(view, 0);
  return {
    lsn: formatLsn(pageLsn(view, 0)),
    checksum: String(view.getUint16(8, true)),
    flags: flagNames(flags, PAGE_FLAGS),
    lower: String(pageLower(view, 0)),
    upper: String(pageUpper(view, 0)),
    special: String(pageSpecial(view, 0)),
    "prune xid": String(pagePruneXid(view, 0)),
  };
}

const KINDS_WITH_ITEMS = /^(heap|btree|gin|gist|spgist|hash|brin|sequence)$/;

/** The line pointers; none for kinds without, or where the header or a pointer makes no sense. */
function pageItems(page: Uint8Array, kind: string): Item[] {
  const view = viewOf(page);
  const lower = pageLower(view, 0);
  const special = pageSpecial(view, 0);
  const sane = lower >= PAGE_HEADER_SIZE && lower <= pageUpper(view, 0) &&
    pageUpper(view, 0) <= special && special <= PAGE_SIZE && lower % 4 === 0;
  if (!KINDS_WITH_ITEMS.test(kind) || !sane) return [];
  const items = Array.from({ length: (lower - PAGE_HEADER_SIZE) / 4 }, (_, i) => {
    const pointer = view.getUint32(PAGE_HEADER_SIZE + 4 * i, true);
    return {
      number: i + 1,
      state: POINTER_STATES[(pointer >>> 15) & 3]!,
      offset: pointer & 0x7fff,
      length: pointer >>> 17,
    };
  });
  const outside = items.some(({ offset, length }) => offset + length > special && length > 0);
  return outside ? [] : items;
}

function itemText(page: Uint8Array, kind: string, item: Item): string {
  const view = viewOf(page);
  const at = item.offset;
  const u16 = (offset: number) => view.getUint16(at + offset, true);
  const u32 = (offset: number) => view.getUint32(at + offset, true);
  const hex = (value: number) => `0x${value.toString(16).padStart(4, "0")}`;
  const isTuple = item.state === POINTER_STATES[LP_NORMAL] || item.length > 0;
  if (item.state === "REDIRECT") return `to ${item.offset}`;
  if (!isTuple) return "";
  if ((kind === "heap" || kind === "sequence") && item.length >= HEAP_HEADER_BYTES) {
    const ctid = `(${u16(12) * 65536 + u16(14)},${u16(16)})`;
    return `xmin ${u32(0)} xmax ${u32(4)} cid ${u32(8)} ctid ${ctid} ` +
      `infomask2 ${hex(u16(18))} infomask ${hex(u16(20))} hoff ${page[at + 22]}`;
  }
  const isIndex = kind === "btree" || kind === "gist" || kind === "hash" || kind === "gin";
  if (isIndex && item.length >= INDEX_HEADER_BYTES) {
    const key = page.subarray(at + 8, at + Math.min(item.length, 8 + WINDOW_BYTES));
    return `tid (${u16(0) * 65536 + u16(2)},${u16(4)}) info ${hex(u16(6))} key ${hexText(key)}`;
  }
  return hexText(page.subarray(at, at + Math.min(item.length, WINDOW_BYTES)));
}

function hexText(bytes: Uint8Array): string {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
}

function itemLine(page: Uint8Array, kind: string, item: Item): string {
  const place = `${String(item.offset).padStart(5)} +${String(item.length).padStart(5)}`;
  return `${String(item.number).padStart(4)}  ${item.state.padEnd(8)} ${place}  ${
    itemText(page, kind, item)
  }`.trimEnd();
}

/** The page in lines. */
export function pageLines(page: Uint8Array, fork: number): string[] {
  const kind = pageKind(page, fork);
  const header = Object.entries(headerFields(page)).map(([name, text]) => `${name} ${text}`);
  const view = viewOf(page);
  const lines = [`kind: ${kind}`];
  if (kind === "all zeros") return lines;
  lines.push(`header: ${header.join(", ")}`);
  const special = specialText(page, kind);
  if (special !== undefined) lines.push(`special: ${special}`);
  const items = pageItems(page, kind);
  if (items.length === 0) {
    return KINDS_WITH_ITEMS.test(kind) ? lines : [...lines, ...dumpLines(page, PAGE_HEADER_SIZE)];
  }
  const free = pageUpper(view, 0) - pageLower(view, 0);
  lines.push(`items: ${items.length}, ${free} bytes free`);
  return [...lines, ...items.map((item) => itemLine(page, kind, item))];
}

/** A hex dump from `from` on; equal lines in a row show once, as "*". */
function dumpLines(page: Uint8Array, from = 0): string[] {
  const lines: string[] = [];
  let before = "";
  for (let at = from - from % WINDOW_BYTES; at < page.length; at += WINDOW_BYTES) {
    const text = hexText(page.subarray(at, at + WINDOW_BYTES));
    if (text !== before) lines.push(`${at.toString(16).padStart(4, "0")}  ${text}`);
    else if (lines.at(-1) !== "*") lines.push("*");
    before = text;
  }
  return lines;
}

/** First and last offset of each stretch of differing bytes; gaps below 8 bytes are bridged. */
function differingRanges(ours: Uint8Array, theirs: Uint8Array): [from: number, to: number][] {
  const ranges: [number, number][] = [];
  for (let i = 0; i < ours.length; i++) {
    if (ours[i] === theirs[i]) continue;
    const last = ranges.at(-1);
    if (last !== undefined && i - last[1] <= 8) last[1] = i;
    else ranges.push([i, i]);
  }
  return ranges;
}

/** Where in the page an offset is, in words. */
function placeOf(offset: number, items: readonly Item[], special: number): string {
  if (offset < PAGE_HEADER_SIZE) return "header";
  const pointersEnd = PAGE_HEADER_SIZE + 4 * items.length;
  if (offset < pointersEnd) {
    return `line pointer ${Math.floor((offset - PAGE_HEADER_SIZE) / 4) + 1}`;
  }
  if (offset >= special) return `special space, byte ${offset - special}`;
  const item = items.find((known) =>
    known.length > 0 && offset >= known.offset && offset < known.offset + known.length
  );
  return item === undefined ? "free space" : `item ${item.number}, byte ${offset - item.offset}`;
}

/**
 * How two versions of a page differ, in lines: header fields, special space, line pointers with
 * their tuples, then the bytes. Lines of ours begin with "-", those of the other with "+".
 */
export function pageDiffLines(
  ours: Uint8Array,
  theirs: Uint8Array,
  fork: number,
): string[] {
  const lines: string[] = [];
  const both = (name: string, a: string | undefined, b: string | undefined) => {
    if (a === b) return;
    lines.push(`- ${name} ${a ?? "none"}`, `+ ${name} ${b ?? "none"}`);
  };
  const [kindA, kindB] = [pageKind(ours, fork), pageKind(theirs, fork)];
  const [itemsA, itemsB] = [pageItems(ours, kindA), pageItems(theirs, kindB)];
  both("kind", kindA, kindB);
  const other = headerFields(theirs);
  for (const [name, text] of Object.entries(headerFields(ours))) both(name, text, other[name]);
  both("special:", specialText(ours, kindA), specialText(theirs, kindB));
  let shown = 0;
  for (let i = 0; i < Math.max(itemsA.length, itemsB.length) && shown < RANGES_MAX; i++) {
    const before = lines.length;
    both(
      "item",
      itemsA[i] && itemLine(ours, kindA, itemsA[i]!),
      itemsB[i] && itemLine(theirs, kindB, itemsB[i]!),
    );
    if (lines.length > before) shown++;
  }
  const special = pageSpecial(viewOf(theirs), 0);
  const ranges = differingRanges(ours, theirs);
  for (const [from, to] of ranges.slice(0, RANGES_MAX)) {
    const place = placeOf(from, itemsB, special);
    lines.push(`bytes ${from} to ${to} (${place})`);
    const end = Math.min(to + 1, from + WINDOW_BYTES);
    lines.push(
      `- ${hexText(ours.subarray(from, end))}`,
      `+ ${hexText(theirs.subarray(from, end))}`,
    );
  }
  if (ranges.length > RANGES_MAX) lines.push(`... ${ranges.length - RANGES_MAX} more stretches`);
  return lines;
}
