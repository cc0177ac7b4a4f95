/** Which pages of an endpoint's relation files are there, by its arena (library/arena.h). */
import { PAGE_SIZE, RELATION_SEGMENT_PAGES } from "../../libs/postgres/constants.ts";
import type { RelTag } from "../../libs/postgres/relation.ts";

const ENTRIES_OFFSET = 4096;
const ENTRY_BYTES = 32;
const WORD_ABSENT = 0;
const WORD_CLEAN = 1;

/** Where a page of a local file comes from. */
export type PageOrigin = "absent" | "fetched" | "written";

/** Reads the arena; the answer is about that moment. */
export function pageOrigins(arenaPath: string): (tag: RelTag, block: number) => PageOrigin {
  const bytes = Deno.readFileSync(arenaPath);
  const view = new DataView(bytes.buffer);
  const wordsOffset = Number(view.getBigUint64(32, true));
  const files = new Map<string, { base: number; firstWord: number }>();
  for (let i = 0; i < view.getUint32(8, true); i++) {
    const at = ENTRIES_OFFSET + i * ENTRY_BYTES;
    const numbers = [0, 4, 8].map((offset) => view.getUint32(at + offset, true));
    const name = [...numbers, view.getUint16(at + 12, true), view.getUint32(at + 16, true)];
    files.set(name.join("/"), {
      base: view.getUint32(at + 20, true),
      firstWord: view.getUint32(at + 28, true),
    });
  }
  return ({ spc, db, rel, fork }, block) => {
    const segment = Math.floor(block / RELATION_SEGMENT_PAGES);
    const file = files.get([spc, db, rel, fork, segment].join("/"));
    const page = block % RELATION_SEGMENT_PAGES;
    if (file === undefined || page >= file.base) return "written";
    const word = view.getUint32(wordsOffset + (file.firstWord + page) * 4, true);
    return word === WORD_ABSENT ? "absent" : word === WORD_CLEAN ? "fetched" : "written";
  };
}

/** A block of a fork that was read whole. */
export function blockOf(bytes: Uint8Array, block: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(bytes.subarray(block * PAGE_SIZE, (block + 1) * PAGE_SIZE));
}
