/**
 * What a GiST or SP-GiST record does to a page, finer than its opcode: reads the record by itself,
 * sharing no code with redo, so that a test can say that its workload reached everything.
 */
import { Rmgr } from "../../libs/postgres/constants.ts";
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";

const named = (opcode: string, variants: string[]) => variants.map((name) => `${opcode}: ${name}`);

/** Every variant that gistVariants can name and that a small workload can reach. */
export const GIST_VARIANTS: readonly string[] = [
  ...named("Gist PAGE_UPDATE", ["inserts", "deletes", "one for one", "several for one"]),
  ...named("Gist PAGE_UPDATE", ["left half"]),
  "Gist DELETE",
  "Gist PAGE_REUSE",
  ...named("Gist PAGE_SPLIT", ["root leaf", "root inner", "leaf", "inner"]),
  ...named("Gist PAGE_SPLIT", ["more than two pages", "left half"]),
  ...named("Gist PAGE_DELETE", ["page", "parent"]),
  ...named("SPGist ADD_LEAF", ["first of its chain", "in a chain", "for a dead one", "new page"]),
  ...named("SPGist ADD_LEAF", ["nulls", "parent"]),
  ...named("SPGist MOVE_LEAFS", ["source", "destination", "new destination", "parent"]),
  ...named("SPGist MOVE_LEAFS", ["for a dead one"]),
  ...named("SPGist ADD_NODE", ["in place", "old page", "new page", "made page"]),
  ...named("SPGist ADD_NODE", ["parent on the old page", "parent elsewhere"]),
  ...named("SPGist SPLIT_TUPLE", ["same page", "prefix", "postfix", "postfix on a made page"]),
  ...named("SPGist PICKSPLIT", ["root", "nulls", "all the same"]),
  // A source page is emptied whole only while the index is being built, which is not logged so.
  ...named("SPGist PICKSPLIT", ["source", "made destination", "destination"]),
  ...named("SPGist PICKSPLIT", ["made inner page", "inner page", "parent on the inner page"]),
  ...named("SPGist PICKSPLIT", ["parent"]),
  ...named("SPGist VACUUM_LEAF", ["dead", "placeholders", "moves", "links"]),
  "SPGist VACUUM_ROOT",
  ...named("SPGist VACUUM_REDIRECT", ["redirections", "placeholders at the end"]),
];

/** The variants of what the record does to its reference `id`; -1 for the record as such. */
export function gistVariants(cursor: RecordCursor, id: number): string[] {
  if (cursor.rmid === Rmgr.GIST) return gist(cursor, id);
  return cursor.rmid === Rmgr.SPGIST && id >= 0 ? spgist(cursor, id) : [];
}

function gist(cursor: RecordCursor, id: number): string[] {
  const { view, mainOffset: main } = cursor;
  const opcode = cursor.info & 0xf0;
  if (id < 0) return opcode === 0x20 ? ["Gist PAGE_REUSE"] : [];
  switch (opcode) {
    case 0x00: {
      if (id === 1) return ["Gist PAGE_UPDATE: left half"];
      const deletions = view.getUint16(main, true);
      const insertions = view.getUint16(main + 2, true);
      if (deletions === 0) return ["Gist PAGE_UPDATE: inserts"];
      if (insertions === 0) return ["Gist PAGE_UPDATE: deletes"];
      const several = deletions > 1 || insertions > 1;
      return [`Gist PAGE_UPDATE: ${several ? "several for one" : "one for one"}`];
    }
    case 0x10:
      return ["Gist DELETE"];
    case 0x30: {
      if (id === 0) return ["Gist PAGE_SPLIT: left half"];
      const kind = view.getUint8(main + 16) !== 0 ? "leaf" : "inner";
      const root = cursor.blockNumber[1] === 0 ? "root " : "";
      const many = view.getUint16(main + 18, true) > (root === "" ? 2 : 3);
      const names = [`Gist PAGE_SPLIT: ${root}${kind}`];
      return many ? [...names, "Gist PAGE_SPLIT: more than two pages"] : names;
    }
    case 0x60:
      return [`Gist PAGE_DELETE: ${id === 0 ? "page" : "parent"}`];
    default:
      return [`Gist unknown 0x${opcode.toString(16)}`];
  }
}

function spgist(cursor: RecordCursor, id: number): string[] {
  const { view, mainOffset: main } = cursor;
  const u16 = (at: number) => view.getUint16(main + at, true);
  const is = (at: number) => view.getUint8(main + at) !== 0;
  const opcode = cursor.info & 0xf0;
  switch (opcode) {
    case 0x10: {
      if (id === 1) return ["SPGist ADD_LEAF: parent"];
      const [leaf, head] = [u16(2), u16(4)];
      const kind = head === leaf ? "for a dead one" : head === 0 ? "first of its chain" : undefined;
      const names = [kind ?? "in a chain"];
      if (is(0)) names.push("new page");
      if (is(1)) names.push("nulls");
      return named("SPGist ADD_LEAF", names);
    }
    case 0x20: {
      const destination = is(2) ? "new destination" : "destination";
      const names = [["source", destination, "parent"][id]!];
      if (id === 1 && is(3)) names.push("for a dead one");
      return named("SPGist MOVE_LEAFS", names);
    }
    case 0x30: {
      if (cursor.blockPresent[1] === 0) return ["SPGist ADD_NODE: in place"];
      const names = [["old page", is(4) ? "made page" : "new page", "parent elsewhere"][id]!];
      if (id < 2 && view.getInt8(main + 5) === id) names.push(`parent on the ${names[0]}`);
      return named("SPGist ADD_NODE", names);
    }
    case 0x40:
      if (id === 1) {
        return [`SPGist SPLIT_TUPLE: ${is(4) ? "postfix on a made page" : "postfix"}`];
      }
      return [`SPGist SPLIT_TUPLE: ${is(5) ? "same page" : "prefix"}`];
    case 0x50:
      return named("SPGist PICKSPLIT", pickSplit(cursor, id));
    case 0x60: {
      const names = ["dead", "placeholders", "moves", "links"];
      return named("SPGist VACUUM_LEAF", names.filter((_, i) => u16(2 * i) > 0));
    }
    case 0x70:
      return ["SPGist VACUUM_ROOT"];
    case 0x80: {
      const names = u16(0) > 0 ? ["redirections"] : [];
      if (u16(2) > 0) names.push("placeholders at the end");
      return named("SPGist VACUUM_REDIRECT", names);
    }
    default:
      return [`SPGist unknown 0x${opcode.toString(16)}`];
  }
}

function pickSplit(cursor: RecordCursor, id: number): string[] {
  const { view, mainOffset: main } = cursor;
  const is = (at: number) => view.getUint8(main + at) !== 0;
  if (id === 0) return [is(6) ? "emptied source" : "source"];
  if (id === 1) return [is(7) ? "made destination" : "destination"];
  if (id === 3) return ["parent"];
  const names = [is(10) ? "made inner page" : "inner page"];
  if (is(0)) names.push("root");
  if (is(11)) names.push("nulls");
  if (is(12)) names.push("parent on the inner page");
  const lists = 2 * view.getUint16(main + 2, true) + 3 * view.getUint16(main + 4, true);
  if (view.getUint8(main + 28 + lists) & 4) names.push("all the same");
  return names;
}
