/**
 * What a GIN record does to a page, finer than its opcode: reads the record by itself, sharing no
 * code with redo, so that a test can say that its workload reached everything.
 */
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";

const ACTIONS = ["", "DELETE", "INSERT", "REPLACE", "ADD_ITEMS"];
const NO_BLOCK = 0xffffffff;

/** Every variant that ginVariants can name and that a small workload can reach. */
export const GIN_VARIANTS: readonly string[] = [
  ...["entry leaf", "entry leaf, replaced", "entry inner", "data leaf", "data inner", "child"]
    .map((name) => `INSERT ${name}`),
  ...["entry leaf", "entry leaf root", "entry inner", "entry inner root"]
    .concat(["data leaf", "data leaf root", "child"]).map((name) => `SPLIT ${name}`),
  ...["page", "parent", "left"].map((name) => `DELETE_PAGE ${name}`),
  ...["tail", "new tail", "meta"].map((name) => `UPDATE_META_PAGE ${name}`),
  ...["tail", "part"].map((name) => `INSERT_LISTPAGE ${name}`),
  ...["meta", "page"].map((name) => `DELETE_LISTPAGE ${name}`),
  ...ACTIONS.slice(1).map((name) => `action ${name} of INSERT`),
  ...["DELETE", "REPLACE"].map((name) => `action ${name} of VACUUM_DATA_LEAF_PAGE`),
  "CREATE_PTREE",
  "VACUUM_PAGE",
  "VACUUM_DATA_LEAF_PAGE",
];

/** The variants of what the record does to its reference `id`. */
export function ginVariants(cursor: RecordCursor, id: number): string[] {
  const { view, mainOffset: main } = cursor;
  const flags = (at: number) => view.getUint16(main + at, true);
  const level = (bits: number) => `${bits & 1 ? "data" : "entry"} ${bits & 2 ? "leaf" : "inner"}`;
  switch (cursor.info & 0xf0) {
    case 0x10:
      return ["CREATE_PTREE"];
    case 0x20: {
      if (id === 1) return ["INSERT child"];
      const replaced = flags(0) === 2 && cursor.bytes[cursor.dataOffset[0]! + 2] !== 0;
      const name = `INSERT ${level(flags(0))}${replaced ? ", replaced" : ""}`;
      return flags(0) === 3 ? [name, ...actions(cursor, "INSERT")] : [name];
    }
    case 0x30:
      if (id === 3) return ["SPLIT child"];
      return [`SPLIT ${level(flags(24))}${flags(24) & 4 ? " root" : ""}`];
    case 0x40:
      return ["VACUUM_PAGE"];
    case 0x50:
      return [`DELETE_PAGE ${["page", "parent", "left"][id]}`];
    case 0x60:
      if (id === 0) return ["UPDATE_META_PAGE meta"];
      return [`UPDATE_META_PAGE ${view.getInt32(main + 80, true) > 0 ? "tail" : "new tail"}`];
    case 0x70: {
      const isTail = view.getUint32(main, true) === NO_BLOCK;
      return [`INSERT_LISTPAGE ${isTail ? "tail" : "part"}`];
    }
    case 0x80:
      return [`DELETE_LISTPAGE ${id === 0 ? "meta" : "page"}`];
    case 0x90:
      return ["VACUUM_DATA_LEAF_PAGE", ...actions(cursor, "VACUUM_DATA_LEAF_PAGE")];
    default:
      return [`unknown 0x${(cursor.info & 0xf0).toString(16)}`];
  }
}

/** The kinds of changes in the list of a posting tree leaf's changes. */
function actions(cursor: RecordCursor, of: string): string[] {
  const { bytes, view } = cursor;
  const from = cursor.dataOffset[0]!;
  const names: string[] = [];
  let at = from + 2;
  for (let left = view.getUint16(from, true); left > 0; left--) {
    const name = ACTIONS[bytes[at + 1]!]!;
    names.push(`action ${name} of ${of}`);
    at += 2;
    if (name === "ADD_ITEMS") at += 2 + 6 * view.getUint16(at, true);
    else if (name !== "DELETE") at += 8 + 2 * Math.ceil(view.getUint16(at + 6, true) / 2);
  }
  return names;
}
