/**
 * What a redo routine is given: a slot for the page, and the name of the page it holds.
 * Both are objects that callers make once and reuse for every page and record.
 */

/**
 * One page in a slab of many: the 8192 bytes from `offset`. `view` covers exactly the memory of
 * `bytes`, so that an offset means the same in both.
 */
export interface PageTarget {
  bytes: Uint8Array;
  view: DataView;
  offset: number;
}

/**
 * Which page: a block of a fork of a relation, or a page of an SLRU. The fields of the other kind
 * are ignored. An SLRU's page number is 32 * segno + block.
 */
export interface RedoKey {
  kind: "relation" | "slru";
  spc: number;
  db: number;
  rel: number;
  fork: number;
  /** One of SlruKind. */
  slruKind: number;
  segno: number;
  block: number;
}

/** A key for its owner to fill in, of the first page of no relation. */
export function newRedoKey(): RedoKey {
  return { kind: "relation", spc: 0, db: 0, rel: 0, fork: 0, slruKind: 0, segno: 0, block: 0 };
}
