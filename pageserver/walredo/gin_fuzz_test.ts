/**
 * Whatever bytes a GIN page and a GIN record hold: redo ends with a page or with a RedoError, and
 * never writes outside its slot of the slab.
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import type { Lsn } from "../../libs/utils/lsn.ts";
import { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import {
  entryTuple,
  fillGinPage,
  GIN_PAGE_KINDS,
  ginRecord,
  leafActions,
  listBytes,
  metaUpdate,
  tidBytes,
} from "./gin_fixture.ts";
import { record, relationKey, u16, u32, VERSION } from "./record_fixture.ts";
import { applyRecord } from "./redo.ts";
import { RedoError } from "./redo_error.ts";

const PAGE = 8192;
const GUARD = 0x5c;

const byte = fc.oneof(fc.integer({ min: 0, max: 9 }), fc.integer({ min: 0, max: 255 }));
const damage = (places: fc.Arbitrary<number>) => fc.array(fc.tuple(places, byte), { maxLength: 4 });
const pagePlace = fc.oneof(
  fc.integer({ min: 10, max: 17 }),
  fc.integer({ min: 24, max: 90 }),
  fc.integer({ min: 8184, max: PAGE - 1 }),
  fc.integer({ min: 0, max: PAGE - 1 }),
);

/** Records as the server could write them, for some page or other. */
const sound = [
  ginRecord(0x10, [...u32(8), ...listBytes(5)], 0),
  ginRecord(0x20, u16(3), 0, leafActions([0, 4, ...u16(1), ...tidBytes(0, 7)], [1, 1])),
  ginRecord(0x20, u16(3), 0, leafActions([1, 2, ...listBytes(5, 6)], [1, 3, ...listBytes(70)])),
  ginRecord(0x20, u16(2), 0, [...u16(3), 1, 0, ...entryTuple(900, 7)]),
  ginRecord(0x20, [...u16(0), ...u32(5), ...u32(6)], 0, [...u16(3), 0, 0, ...entryTuple(9, 7)]),
  ginRecord(0x20, [...u16(1), ...u32(5), ...u32(6)], 0, [...u16(3), ...u32(7), ...tidBytes(1, 1)]),
  ginRecord(0x20, [...u16(1), ...u32(5), ...u32(6)], 1),
  ginRecord(0x30, new Array<number>(28).fill(0), 3),
  ...[0, 1, 2].map((id) => ginRecord(0x50, [...u16(2), 0, 0, ...u32(77), ...u32(4711)], id)),
  ginRecord(0x60, metaUpdate(5, 6, 2), 1, [...entryTuple(1, 1), ...entryTuple(2, 2)]),
  ...[0, 1].map((id) => ginRecord(0x60, metaUpdate(5, 6, 0), id)),
  ginRecord(0x70, [...u32(5), ...u32(1)], 0, entryTuple(1, 1)),
  ...[0, 1].map((id) => ginRecord(0x80, [...new Array<number>(56).fill(1), ...u32(1)], id)),
  ginRecord(0x90, [], 0, leafActions([0, 1], [1, 3, ...listBytes(70)])),
];

const cases = fc.record({
  kind: fc.constantFrom(...GIN_PAGE_KINDS),
  parts: fc.constantFrom(...sound),
  pageDamage: damage(pagePlace),
  mainDamage: damage(fc.nat(90)),
  dataDamage: damage(fc.nat(40)),
});

Deno.test("redo of GIN records ends in a page or a RedoError and keeps to its slot", () => {
  const cursor = new RecordCursor();
  const bytes = new Uint8Array(3 * PAGE);
  const page = { bytes, view: new DataView(bytes.buffer), offset: PAGE };
  let applied = 0;
  let failed = 0;
  fc.assert(
    fc.property(cases, ({ kind, parts, pageDamage, mainDamage, dataDamage }) => {
      bytes.fill(GUARD);
      fillGinPage(page, kind);
      for (const [at, value] of pageDamage) bytes[PAGE + at] = value;
      const raw = record(parts);
      const view = new DataView(raw.buffer, raw.byteOffset, raw.length);
      const decode = () => cursor.decode(VERSION, raw, view, 0, raw.length, 8 as Lsn, 16 as Lsn);
      decode();
      const id = cursor.maxBlockId;
      for (const [at, value] of mainDamage) raw[cursor.mainOffset + (at % 90)] = value;
      const length = cursor.dataLength[id]!;
      for (const [at, value] of dataDamage) {
        if (length > 0) raw[cursor.dataOffset[id]! + (at % length)] = value;
      }
      try {
        applyRecord(relationKey(0), page, cursor, VERSION);
        applied++;
      } catch (thrown) {
        assert.ok(thrown instanceof RedoError, String(thrown));
        failed++;
      }
      const guarded = [bytes.subarray(0, PAGE), bytes.subarray(2 * PAGE)];
      assert.ok(guarded.every((slot) => slot.every((value) => value === GUARD)), "another slot");
    }),
    { numRuns: 6000 },
  );
  assert.ok(applied > 500 && failed > 500, `${applied} applied, ${failed} failed: useless`);
});
