/**
 * Objects: the first five fields of a key, interned into a small integer once.
 *
 * A hot path then carries (object, block), two numbers, and a map on them needs no strings and
 * makes no garbage. Ids are dense from 0, stable for the life of the process, never written to
 * disk and never forgotten; there are at most OBJECTS_MAX, 26 bytes each. One interner serves all
 * timelines of a pageserver (the same relation has the same id on every branch).
 *
 * The table is open addressing with linear probing over a power of two, at most half full; a slot
 * holds object + 1, 0 is empty.
 */
import { assert } from "../../libs/utils/assert.ts";
import { Unavailable } from "../../libs/utils/errors.ts";
import { type Key, KeyClass } from "./key.ts";

declare const objectBrand: unique symbol;

/** An interned (f1..f5). */
export type ObjectId = number & { readonly [objectBrand]: true };

/** What find() answers for an object that was never interned. */
export const NO_OBJECT = -1 as ObjectId;

/** Two million relations, their sizes and SLRU segments; bounds the table at about 55 MB. */
const OBJECTS_MAX = 1 << 21;

function hashFields(f1: number, f2: number, f3: number, f4: number, f5: number): number {
  let hash = Math.imul(f4 ^ (f5 << 24), 0x9e3779b1);
  hash = Math.imul((hash ^ (hash >>> 15)) + f3, 0x85ebca6b);
  hash = Math.imul((hash ^ (hash >>> 13)) + f2, 0xc2b2ae35);
  hash = Math.imul((hash ^ (hash >>> 16)) + f1, 0x27d4eb2f);
  return (hash ^ (hash >>> 15)) >>> 0;
}

/** The table of objects. */
export class KeyInterner {
  #capacity = 1024;
  #count = 0;
  #f1 = new Uint8Array(this.#capacity);
  #f2 = new Uint32Array(this.#capacity);
  #f3 = new Uint32Array(this.#capacity);
  #f4 = new Uint32Array(this.#capacity);
  #f5 = new Uint8Array(this.#capacity);
  #slots = new Uint32Array(this.#capacity * 2);

  /** Objects interned so far. */
  get size(): number {
    return this.#count;
  }

  /** The object's id, given out now if it is new. Throws Unavailable at OBJECTS_MAX. */
  intern(f1: number, f2: number, f3: number, f4: number, f5: number): ObjectId {
    const slot = this.#slotOf(f1, f2, f3, f4, f5);
    const found = this.#slots[slot]!;
    if (found !== 0) return (found - 1) as ObjectId;
    if (this.#count >= OBJECTS_MAX) {
      throw new Unavailable(`Cannot intern another relation: the limit is ${OBJECTS_MAX}`);
    }
    const object = this.#count++;
    this.#f1[object] = f1;
    this.#f2[object] = f2;
    this.#f3[object] = f3;
    this.#f4[object] = f4;
    this.#f5[object] = f5;
    this.#slots[slot] = object + 1;
    if (this.#count === this.#capacity) this.#grow();
    return object as ObjectId;
  }

  /** The object's id, or NO_OBJECT if nothing interned it. */
  find(f1: number, f2: number, f3: number, f4: number, f5: number): ObjectId {
    return (this.#slots[this.#slotOf(f1, f2, f3, f4, f5)]! - 1) as ObjectId;
  }

  /** Interns a relation fork. */
  relation(spc: number, db: number, rel: number, fork: number): ObjectId {
    return this.intern(KeyClass.relation, spc, db, rel, fork);
  }

  /** Interns an SLRU segment. */
  slru(kind: number, segno: number): ObjectId {
    return this.intern(KeyClass.slru, kind, 1, segno, 0);
  }

  /** Writes f1..f5 of `object` into `out`. */
  fields(object: ObjectId, out: Key): void {
    assert(object >= 0 && object < this.#count, "an object id came from this interner");
    out.f1 = this.#f1[object]!;
    out.f2 = this.#f2[object]!;
    out.f3 = this.#f3[object]!;
    out.f4 = this.#f4[object]!;
    out.f5 = this.#f5[object]!;
  }

  /** The class (f1) of `object`. */
  classOf(object: ObjectId): number {
    return this.#f1[object]!;
  }

  /** The order of two objects by their fields. */
  compare(a: ObjectId, b: ObjectId): number {
    return this.#f1[a]! - this.#f1[b]! || this.#f2[a]! - this.#f2[b]! ||
      this.#f3[a]! - this.#f3[b]! || this.#f4[a]! - this.#f4[b]! || this.#f5[a]! - this.#f5[b]!;
  }

  /** The slot that holds the object, or the empty one where it belongs. */
  #slotOf(f1: number, f2: number, f3: number, f4: number, f5: number): number {
    const mask = this.#slots.length - 1;
    let slot = hashFields(f1, f2, f3, f4, f5) & mask;
    for (;;) {
      const found = this.#slots[slot]!;
      if (found === 0) return slot;
      const object = found - 1;
      if (
        this.#f4[object] === f4 && this.#f5[object] === f5 && this.#f3[object] === f3 &&
        this.#f2[object] === f2 && this.#f1[object] === f1
      ) return slot;
      slot = (slot + 1) & mask;
    }
  }

  #grow(): void {
    this.#capacity *= 2;
    const larger = <T extends Uint8Array | Uint32Array>(old: T, grown: T): T => {
      grown.set(old);
      return grown;
    };
    this.#f1 = larger(this.#f1, new Uint8Array(this.#capacity));
    this.#f2 = larger(this.#f2, new Uint32Array(this.#capacity));
    this.#f3 = larger(this.#f3, new Uint32Array(this.#capacity));
    this.#f4 = larger(this.#f4, new Uint32Array(this.#capacity));
    this.#f5 = larger(this.#f5, new Uint8Array(this.#capacity));
    this.#slots = new Uint32Array(this.#capacity * 2);
    const mask = this.#slots.length - 1;
    for (let object = 0; object < this.#count; object++) {
      let slot = hashFields(
        this.#f1[object]!,
        this.#f2[object]!,
        this.#f3[object]!,
        this.#f4[object]!,
        this.#f5[object]!,
      ) & mask;
      while (this.#slots[slot] !== 0) slot = (slot + 1) & mask;
      this.#slots[slot] = object + 1;
    }
  }
}
