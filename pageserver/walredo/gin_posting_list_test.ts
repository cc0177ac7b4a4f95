import assert from "node:assert/strict";
import fc from "fast-check";
import { decodeList, encodeList, LIST_TIDS_MAX, listSize, mergeTids } from "./gin_posting_list.ts";

/** A tid as the number that lists are made of. */
const tid = (block: number, item: number) => block * 2048 + item;

/** Ascending tids: dense ones, sparse ones, and those at the end of the largest table. */
const tids = fc.array(
  fc.oneof(
    fc.tuple(fc.integer({ min: 0, max: 3 }), fc.integer({ min: 1, max: 291 })),
    fc.tuple(fc.integer({ min: 0, max: 100_000 }), fc.integer({ min: 1, max: 2047 })),
    fc.tuple(fc.integer({ min: 0, max: 0xfffffffe }), fc.integer({ min: 1, max: 2047 })),
  ),
  { minLength: 1, maxLength: 300 },
).map((pairs) =>
  [...new Set(pairs.map(([block, item]) => tid(block, item)))].sort((a, b) => a - b)
);

function encode(list: number[], room = 8192): Uint8Array {
  const target = new Uint8Array(room).fill(0xee);
  const size = encodeList(Float64Array.from(list), list.length, target);
  assert.ok(target.subarray(size).every((byte) => byte === 0xee), "nothing behind the list");
  return target.slice(0, size);
}

function decode(bytes: Uint8Array): number[] {
  const into = new Float64Array(LIST_TIDS_MAX);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return [...into.subarray(0, decodeList(view, 0, into))];
}

/** The format once more, in the plainest way: 64-bit integers, one list of bytes. */
function plainEncode(list: number[]): number[] {
  const first = BigInt(list[0]!);
  const words = [first >> 27n, (first >> 11n) & 0xffffn, first & 0x7ffn].map(Number);
  const bytes: number[] = [];
  list.slice(1).forEach((value, i) => {
    let delta = BigInt(value) - BigInt(list[i]!);
    do {
      bytes.push(Number(delta & 0x7fn) | (delta > 0x7fn ? 0x80 : 0));
      delta >>= 7n;
    } while (delta > 0n);
  });
  const header = [...words, bytes.length].flatMap((word) => [word & 0xff, word >> 8]);
  return [...header, ...bytes, ...(bytes.length % 2 === 1 ? [0] : [])];
}

Deno.test("a posting list has exactly PostgreSQL's bytes", () => {
  const list = [tid(0, 1), tid(0, 2), tid(0, 130), tid(1, 1), tid(0x12345678, 2047)];
  // Differences 1, 128, 1919 and a large one, whose last number has no top bit; then padding.
  const head = [0, 0, 0, 0, 1, 0, 11, 0, 0x01, 0x80, 0x01, 0xff, 0x0e];
  assert.deepEqual([...encode(list)].slice(0, head.length), head);
  assert.deepEqual([...encode(list)], plainEncode(list));
  assert.deepEqual([...encode([tid(0x00020003, 5)])], [2, 0, 3, 0, 5, 0, 0, 0]);
});

Deno.test("encodeList() and decodeList() are inverse, and agree with a plain encoder", () => {
  fc.assert(fc.property(tids, (list) => {
    const bytes = encode(list);
    assert.deepEqual([...bytes], plainEncode(list));
    assert.deepEqual(decode(bytes), list);
    assert.equal(listSize(new DataView(bytes.buffer), 0), bytes.length);
  }));
});

Deno.test("taking tids out of a list never makes it longer, which vacuum relies on", () => {
  fc.assert(fc.property(tids, fc.infiniteStream(fc.boolean()), (list, keep) => {
    const kept = list.filter(() => keep.next().value);
    if (kept.length > 0) assert.ok(encode(kept).length <= encode(list).length);
  }));
});

Deno.test("mergeTids() gives the union in order", () => {
  fc.assert(fc.property(tids, tids, (a, b) => {
    const into = new Float64Array(a.length + b.length);
    const count = mergeTids(Float64Array.from(a), a.length, Float64Array.from(b), b.length, into);
    const union = [...new Set([...a, ...b])].sort((x, y) => x - y);
    assert.deepEqual([...into.subarray(0, count)], union);
  }));
  assert.throws(() =>
    mergeTids(new Float64Array(2), 2, new Float64Array(1), 1, new Float64Array(2))
  );
});

Deno.test("a list that does not fit, or has no order, is an error", () => {
  const list = [tid(0, 1), tid(0, 2), tid(9, 1)];
  const size = encode(list).length;
  assert.throws(() => encode(list, size - 1), /too long/);
  assert.equal(encode(list, size).length, size);
  assert.throws(() => encode([tid(0, 2), tid(0, 2)]), /out of order/);
  assert.throws(() => encode([tid(0, 2), tid(0, 1)]), /out of order/);
});

Deno.test("decodeList() refuses what no server writes", () => {
  const list = (count: number, ...bytes: number[]) =>
    Uint8Array.from([0, 0, 0, 0, 1, 0, count & 0xff, count >> 8, ...bytes]);
  assert.throws(() => decode(list(1, 0)), /out of order/);
  assert.throws(() => decode(list(2, 0x81, 0x81)), /ends within a number/);
  const long = [0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01];
  assert.throws(() => decode(list(8, ...long)), /ends within a number/);
  const huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
  assert.throws(() => decode(list(7, ...huge)), /out of order/);
  assert.throws(() => decode(Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0)), /proper item number/);
  assert.throws(() => decode(Uint8Array.of(0, 0, 0, 0, 0, 8, 0, 0)), /proper item number/);
  assert.throws(() => decode(list(300, 1, 1)), RangeError);
  const many = list(9000, ...new Array<number>(9000).fill(1));
  assert.throws(() => decode(many), /too many tids/);
});
