/** RecordCursor against records from the builder, and against damaged ones. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { Corrupt } from "../../utils/errors.ts";
import { type Lsn, toLsn } from "../../utils/lsn.ts";
import { BKPBLOCK_WILL_INIT, PAGE_SIZE } from "../constants.ts";
import { pgVersion } from "../versions.ts";
import { type BlockReference, buildRecord, type RecordParts } from "./record_builder.ts";
import { RecordCursor } from "./record_cursor.ts";

const LSN = toLsn(0x1000028);

function decode(cursor: RecordCursor, record: Uint8Array, major = 17): RecordCursor {
  const bytes = new Uint8Array(record.length + 13);
  bytes.set(record, 5); // offsets must be absolute
  cursor.decode(
    pgVersion(major),
    bytes,
    new DataView(bytes.buffer),
    5,
    record.length,
    LSN,
    (LSN + 8) as Lsn,
  );
  return cursor;
}

const slice = (
  cursor: RecordCursor,
  at: number,
  count: number,
) => [...cursor.bytes.subarray(at, at + count)];

const u32 = fc.integer({ min: 0, max: 0xffffffff });
const bytes = (max: number) => fc.uint8Array({ minLength: 1, maxLength: max });
const block: fc.Arbitrary<BlockReference> = fc.record({
  id: fc.integer({ min: 0, max: 32 }),
  tag: fc.record({ spc: u32, db: u32, rel: u32, fork: fc.integer({ min: 0, max: 3 }) }),
  block: u32,
  flags: fc.constantFrom(0, BKPBLOCK_WILL_INIT),
  data: bytes(50),
});
const parts: fc.Arbitrary<RecordParts> = fc.record({
  rmid: fc.integer({ min: 0, max: 255 }),
  info: fc.integer({ min: 0, max: 255 }),
  xid: u32,
  previous: fc.constant(toLsn(0x1000000)),
  main: fc.oneof(bytes(255), bytes(2000)),
  origin: fc.integer({ min: 1, max: 0xffff }),
  toplevelXid: u32,
  blocks: fc.uniqueArray(block, { selector: (b) => b.id, maxLength: 33 })
    .map((blocks) => blocks.sort((a, b) => a.id - b.id)),
}, { requiredKeys: ["rmid", "info", "previous"] });

Deno.test("cursor gives back what the builder was told, reused for every record", () => {
  const cursor = new RecordCursor();
  fc.assert(fc.property(parts, (wanted) => {
    decode(cursor, buildRecord(wanted));
    assert.deepEqual([cursor.rmid, cursor.info, cursor.xid], [
      wanted.rmid,
      wanted.info,
      wanted.xid ?? 0,
    ]);
    assert.equal(cursor.origin, wanted.origin ?? 0);
    assert.equal(cursor.toplevelXid, wanted.toplevelXid ?? 0);
    assert.deepEqual(slice(cursor, cursor.mainOffset, cursor.mainLength), [...wanted.main ?? []]);
    const blocks = wanted.blocks ?? [];
    assert.equal(cursor.maxBlockId, blocks.at(-1)?.id ?? -1);
    assert.equal(cursor.blockPresent.reduce((sum, one) => sum + one, 0), blocks.length);
    for (const { id, tag, block, data } of blocks) {
      assert.equal(cursor.findBlock(tag.spc, tag.db, tag.rel, tag.fork, block) <= id, true);
      assert.deepEqual(
        [cursor.blockSpc[id], cursor.blockDb[id], cursor.blockRel[id], cursor.blockFork[id]],
        [tag.spc, tag.db, tag.rel, tag.fork],
      );
      assert.equal(cursor.blockNumber[id], block);
      const stored = slice(cursor, cursor.dataOffset[id]!, cursor.dataLength[id]!);
      assert.deepEqual(stored, [...data ?? []]);
    }
  }));
});

const TAG = { spc: 1663, db: 5, rel: 16384, fork: 0 };

Deno.test("cursor finds sparse references by relation, fork and block", () => {
  const cursor = new RecordCursor();
  const blocks = [
    { id: 0, tag: TAG, block: 7 },
    { id: 2, tag: { ...TAG, fork: 2 }, block: 0 },
    { id: 3, tag: TAG, block: 8, sameRelation: true },
  ];
  decode(cursor, buildRecord({ rmid: 10, info: 0, previous: LSN, blocks }));
  assert.equal(cursor.findBlock(1663, 5, 16384, 2, 0), 2);
  assert.equal(cursor.findBlock(1663, 5, 16384, 0, 8), 3);
  assert.equal(cursor.findBlock(1663, 5, 16384, 0, 0), -1);
  assert.equal(cursor.blockPresent[1], 0);
});

Deno.test("cursor reads the image bits of each version", () => {
  const image = { info: 0x03, bytes: new Uint8Array(100), holeOffset: 50 };
  const blocks = [{ id: 0, tag: TAG, block: 1, image: { ...image, bytes: new Uint8Array(8000) } }];
  const plain = decode(
    new RecordCursor(),
    buildRecord({ rmid: 0, info: 0xb0, previous: LSN, blocks }),
  );
  assert.deepEqual([plain.applyImage[0], plain.holeLength[0]], [1, PAGE_SIZE - 8000]);
  // In 14 the same bits say: with a hole and compressed, not to be applied.
  blocks[0]!.image = { ...image, compressedHoleLength: 32 } as typeof image;
  const record = buildRecord({ rmid: 0, info: 0xb0, previous: LSN, blocks });
  const old = decode(new RecordCursor(), record, 14);
  assert.deepEqual([old.applyImage[0], old.holeLength[0], old.imageLength[0]], [0, 32, 100]);
});

Deno.test("cursor never reads past a damaged record: it decodes or throws Corrupt", () => {
  const cursor = new RecordCursor();
  const damage = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 });
  fc.assert(fc.property(parts, damage, (wanted, flips) => {
    const record = buildRecord(wanted).slice();
    for (const [at, value] of flips) {
      const place = 24 + at % Math.max(record.length - 24, 1);
      if (place < record.length) record[place] = value;
    }
    try {
      decode(cursor, record);
      assert.equal(cursor.mainOffset + cursor.mainLength, 5 + record.length);
    } catch (error) {
      assert.ok(error instanceof Corrupt);
      assert.match(error.message, /0\/1000028/);
    }
  }));
});
