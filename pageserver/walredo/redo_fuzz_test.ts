/**
 * Whatever bytes a page and a record hold: redo ends with a page or with a RedoError, and never
 * writes outside its slot of the slab.
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import { Rmgr } from "../../libs/postgres/constants.ts";
import { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import {
  BRIN_REGULAR_PAGE,
  BRIN_REVMAP_PAGE,
  initBrinMetapage,
  initBrinPage,
} from "./brin_page.ts";
import { initBtreePage } from "./btree_page.ts";
import { GIST_LEAF, initGistPage } from "./gist_page.ts";
import { initBitmapPage, initHashMetapage, initHashPage, LH_BUCKET_PAGE } from "./hash_page.ts";
import { reconstructPage } from "./reconstruct.ts";
import { heapHistory, record, reference, relationKey, VERSION } from "./record_fixture.ts";
import { applyRecord } from "./redo.ts";
import { RedoError } from "./redo_error.ts";
import { addItem } from "./page_items.ts";
import { initSpgistPage } from "./spgist_page.ts";
import type { PageTarget } from "./types.ts";

const PAGE = 8192;
const GUARD = 0x5c;

function addItems(page: PageTarget): void {
  const item = Uint8Array.of(0, 0, 1, 0, 2, 0, 16, 0, 9, 9, 9, 9, 9, 9, 9, 9);
  for (let number = 1; number <= 40; number++) addItem(page, number, item, 0, item.length);
}

/** Pages of all kinds, and who changes them. */
const PAGES: { rmids: number[]; fill: (page: PageTarget) => void }[] = [
  {
    rmids: [Rmgr.HEAP, Rmgr.HEAP2, Rmgr.SEQ, Rmgr.GENERIC],
    fill: (page) => reconstructPage(heapHistory(50), relationKey(0), page, VERSION),
  },
  {
    rmids: [Rmgr.BTREE, Rmgr.BTREE, Rmgr.HEAP2],
    fill: (page) => {
      initBtreePage(page, 0, 3, 0, 1);
      addItems(page);
    },
  },
  {
    rmids: [Rmgr.HASH],
    fill: (page) => {
      initHashPage(page, 7, 1, LH_BUCKET_PAGE);
      addItems(page);
    },
  },
  { rmids: [Rmgr.HASH], fill: (page) => initHashMetapage(page, 1000, 400, 40) },
  { rmids: [Rmgr.HASH], fill: (page) => initBitmapPage(page, 4096) },
  {
    rmids: [Rmgr.BRIN],
    fill: (page) => {
      initBrinPage(page, BRIN_REGULAR_PAGE);
      addItems(page);
    },
  },
  { rmids: [Rmgr.BRIN], fill: (page) => initBrinPage(page, BRIN_REVMAP_PAGE) },
  {
    rmids: [Rmgr.GIST],
    fill: (page) => {
      initGistPage(page, 3, GIST_LEAF);
      addItems(page);
    },
  },
  {
    rmids: [Rmgr.SPGIST],
    fill: (page) => {
      initSpgistPage(page, true, false);
      addItems(page);
    },
  },
  { rmids: [Rmgr.BRIN], fill: (page) => initBrinMetapage(page, 128, 1) },
];

/** A page of PAGES in the middle of three slots. */
function somePage(kind: number): PageTarget {
  const bytes = new Uint8Array(3 * PAGE).fill(GUARD);
  const page = { bytes, view: new DataView(bytes.buffer), offset: PAGE };
  PAGES[kind]!.fill(page);
  return page;
}

const small = fc.oneof(fc.integer({ min: 0, max: 45 }), fc.integer({ min: 0, max: 255 }));
const bytesOf = (length: number) => fc.array(small, { minLength: 0, maxLength: length });

/** Where to damage a page: its header, its line pointers, anywhere. */
const place = fc.oneof(
  fc.integer({ min: 10, max: 17 }),
  fc.integer({ min: 24, max: 80 }),
  fc.integer({ min: 0, max: PAGE - 1 }),
);

const cases = fc.record({
  kind: fc.integer({ min: 0, max: PAGES.length - 1 }),
  rmidChoice: fc.nat(),
  opcode: fc.integer({ min: 0, max: 15 }),
  id: fc.integer({ min: 0, max: 6 }),
  fork: fc.constantFrom(0, 2),
  main: fc.array(small, { minLength: 24, maxLength: 40 }),
  data: bytesOf(120),
  damage: fc.array(fc.tuple(place, fc.integer({ min: 0, max: 255 })), { maxLength: 4 }),
});

Deno.test("applyRecord() ends in a page or a RedoError and keeps to its slot", () => {
  const cursor = new RecordCursor();
  let applied = 0;
  fc.assert(
    fc.property(cases, ({ kind, rmidChoice, opcode, id, fork, main, data, damage }) => {
      const page = somePage(kind);
      const { rmids } = PAGES[kind]!;
      const rmid = rmids[rmidChoice % rmids.length]!;
      for (const [at, value] of damage) page.bytes[PAGE + at] = value;
      const blocks = id === 0 ? [] : [reference(0, 9)];
      blocks.push(reference(id, 0, fork, data.length > 0 ? data : [0]));
      const bytes = record({ rmid, info: opcode << 4, main, blocks });
      cursor.decode(
        VERSION,
        bytes,
        new DataView(bytes.buffer, bytes.byteOffset, bytes.length),
        0,
        bytes.length,
        8 as Lsn,
        16 as Lsn,
      );
      try {
        applyRecord(relationKey(0, fork), page, cursor, VERSION);
        applied++;
      } catch (thrown) {
        assert.ok(thrown instanceof RedoError, String(thrown));
      }
      const guarded = [page.bytes.subarray(0, PAGE), page.bytes.subarray(2 * PAGE)];
      assert.ok(guarded.every((slot) => slot.every((byte) => byte === GUARD)), "another slot");
    }),
    { numRuns: 8000 },
  );
  assert.ok(applied > 100, "nearly everything failed: the generator is useless");
});
