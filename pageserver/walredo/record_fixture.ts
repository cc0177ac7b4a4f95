/** Records and pages for tests and benchmarks of redo. */
import { Rmgr } from "../../libs/postgres/constants.ts";
import { pgVersion } from "../../libs/postgres/versions.ts";
import { type BlockReference, buildRecord } from "../../libs/postgres/wal/record_builder.ts";
import { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import { Reconstruction } from "../repository/reconstruction.ts";
import { Heap2Info, HEAP_INIT_PAGE, HeapInfo } from "./heap_records.ts";
import type { PageTarget, RedoKey } from "./types.ts";

export const VERSION = pgVersion(17);
const RELATION = { spc: 1663, db: 5, rel: 16384 };

/** What a record of the fixture consists of. */
export interface FixtureRecord {
  rmid: number;
  info: number;
  xid?: number;
  main?: number[];
  blocks?: BlockReference[];
}

/** The bytes of one record. */
export function record(parts: FixtureRecord): Uint8Array {
  const { rmid, info, xid, main, blocks } = parts;
  return buildRecord({
    rmid,
    info,
    xid: xid ?? 700,
    previous: 0 as Lsn,
    ...(main === undefined ? {} : { main: Uint8Array.from(main) }),
    ...(blocks === undefined ? {} : { blocks }),
  });
}

/** A cursor on one record, whose end is at `endLsn`. */
export function cursorOn(parts: FixtureRecord, endLsn = 0x2000): RecordCursor {
  const bytes = record(parts);
  const cursor = new RecordCursor();
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  cursor.decode(VERSION, bytes, view, 0, bytes.length, 0x1000 as Lsn, endLsn as Lsn);
  return cursor;
}

/** A reference to a block of RELATION. */
export function reference(id: number, block: number, fork = 0, data?: number[]): BlockReference {
  const tag = { ...RELATION, fork };
  return { id, tag, block, ...(data === undefined ? {} : { data: Uint8Array.from(data) }) };
}

/** The key of a block of RELATION. */
export function relationKey(block: number, fork = 0): RedoKey {
  return { kind: "relation", ...RELATION, fork, slruKind: 0, segno: 0, block };
}

/** The key of an SLRU page. */
export function slruKey(slruKind: number, page: number): RedoKey {
  const segno = Math.floor(page / 32);
  return { kind: "slru", spc: 0, db: 0, rel: 0, fork: 0, slruKind, segno, block: page % 32 };
}

/** A page of its own, all zero. */
export function newPage(): PageTarget {
  const bytes = new Uint8Array(8192);
  return { bytes, view: new DataView(bytes.buffer), offset: 0 };
}

/** The two bytes of a u16. */
export function u16(value: number): number[] {
  return [value & 0xff, value >> 8];
}

/** The four bytes of a u32. */
export function u32(value: number): number[] {
  return [...u16(value & 0xffff), ...u16(value >>> 16)];
}

const TUPLE_DATA = 100;
/** Hot updates between two prunings. */
const CHAIN = 30;

function insertRecord(): Uint8Array {
  const data = [...u16(3), ...u16(0x0802), 24, 0, ...new Array<number>(TUPLE_DATA).fill(0x61)];
  const block = { ...reference(0, 0, 0, data), flags: 0x40 };
  const info = HeapInfo.INSERT | HEAP_INIT_PAGE;
  return record({ rmid: Rmgr.HEAP, info, main: [...u16(1), 0], blocks: [block] });
}

/**
 * A hot update of item `old` to `item`; prefix and suffix are shared, 8 bytes in the middle
 * change.
 */
function hotUpdateRecord(old: number, item: number, value: number): Uint8Array {
  const header = [...u16(0x8003), ...u16(0x2802), 24];
  const data = [...u16(40), ...u16(52), ...header, 0, ...u32(value), ...u32(~value)];
  const main = [...u32(701), ...u16(old), 0, 0x60, ...u32(0), ...u16(item)];
  const blocks = [reference(0, 0, 0, data)];
  return record({ rmid: Rmgr.HEAP, info: HeapInfo.HOT_UPDATE, main, blocks });
}

/** Redirects item 1 to `live` and frees `unused`. */
function pruneRecord(live: number, unused: number[]): Uint8Array {
  const data = [...u16(1), ...u16(1), ...u16(live)];
  data.push(...u16(unused.length), ...unused.flatMap(u16));
  const info = Heap2Info.PRUNE_ON_ACCESS;
  const blocks = [reference(0, 0, 0, data)];
  return record({ rmid: Rmgr.HEAP2, info, main: [0, 0x04 | 0x20 | 0x80], blocks });
}

/** `count` heap records on block 0, as a busy row makes them: an insert, hot updates, prunings. */
export function heapHistory(count: number): Reconstruction {
  const found = new Reconstruction();
  found.begin();
  const add = (bytes: Uint8Array, i: number) => {
    const at = found.reserve(bytes.length);
    found.bytes.set(bytes, at);
    found.addRecord(at, bytes.length, (0x1000 + 8 * i) as Lsn);
  };
  let live = 1;
  let chain: number[] = [];
  for (let i = 0; i < count; i++) {
    if (i === 0) {
      add(insertRecord(), i);
    } else if (chain.length < CHAIN) {
      let item = 2;
      while (item === live || chain.includes(item)) item++;
      add(hotUpdateRecord(live, item, i), i);
      if (live !== 1) chain.push(live); // item 1 stays, as the redirection to the living one
      live = item;
    } else {
      add(pruneRecord(live, chain), i);
      chain = [];
    }
  }
  return found;
}
