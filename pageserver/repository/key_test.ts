import assert from "node:assert/strict";
import fc from "fast-check";
import {
  compareKeys,
  describeKey,
  formatKey,
  type Key,
  keyFromBytes,
  keyToBytes,
  makeKey,
  parseKey,
  twophaseKey,
  twophaseXid,
} from "./key.ts";
import { KeyInterner, NO_OBJECT } from "./key_interner.ts";

const u8 = fc.integer({ min: 0, max: 255 });
const u32 = fc.oneof(fc.integer({ min: 0, max: 3 }), fc.integer({ min: 0, max: 4294967295 }));
const anyKey = fc.record<Key>(
  { f1: u8, f2: u32, f3: u32, f4: u32, f5: u8, f6: u32 },
  { noNullPrototype: true },
);

Deno.test("a key survives its bytes and its text", () => {
  fc.assert(fc.property(anyKey, (key) => {
    assert.deepEqual(keyFromBytes(keyToBytes(key)), key);
    assert.deepEqual(parseKey(formatKey(key)), key);
  }));
  const key = makeKey(0, 1663, 5, 1259, 0, 7);
  assert.equal(formatKey(key), "000000067F00000005000004EB0000000007");
  assert.equal(describeKey(key), "block 7 of relation 1663/5/1259 main");
  assert.throws(() => parseKey("00"), SyntaxError);
});

Deno.test("compareKeys() is the order of the bytes", () => {
  fc.assert(fc.property(anyKey, anyKey, (a, b) => {
    const byText = formatKey(a) < formatKey(b) ? -1 : formatKey(a) > formatKey(b) ? 1 : 0;
    assert.equal(Math.sign(compareKeys(a, b)), byText);
  }));
});

Deno.test("twophaseXid() undoes twophaseKey() for 64-bit ids", () => {
  for (const xid of [3, 0xffffffff, 0x1_0000_0005, 2 ** 52 + 12345]) {
    assert.equal(twophaseXid(twophaseKey(xid)), xid);
  }
});

Deno.test("the interner gives equal fields one id and others another", () => {
  const interner = new KeyInterner();
  const ids = new Map<string, number>();
  const out: Key = { f1: 0, f2: 0, f3: 0, f4: 0, f5: 0, f6: 0 };
  for (let i = 0; i < 20_000; i++) {
    const key = { f1: i & 1, f2: 1663, f3: i % 7, f4: i % 3001, f5: i % 4, f6: 0 };
    const text = formatKey(key);
    const found = interner.find(key.f1, key.f2, key.f3, key.f4, key.f5);
    assert.equal(found, ids.get(text) ?? NO_OBJECT);
    const id = interner.intern(key.f1, key.f2, key.f3, key.f4, key.f5);
    if (found !== NO_OBJECT) assert.equal(id, found);
    ids.set(text, id);
    interner.fields(id, out);
    assert.equal(formatKey(out), text);
  }
  assert.equal(new Set(ids.values()).size, ids.size);
  assert.equal(interner.size, ids.size);
});
