/**
 * The index of an open layer: for each key the newest entry, and from each entry the one before it.
 *
 *   hash table  (object, block) -> newest entry   open addressing, at most half full
 *   entries     previous entry | word | LSN       16 bytes each, in chunks; never moved or removed
 *
 * The table is split into TABLES parts by hash, so that one part's growth takes about a
 * millisecond even at the limit. Words are those of layer_format.ts. An insert costs about 0.1 us
 * and no garbage. Entries of one key come in ascending LSN order, so a chain runs from the newest
 * to the oldest.
 */
import { assert } from "../../libs/utils/assert.ts";
import { Unavailable } from "../../libs/utils/errors.ts";
import type { ObjectId } from "./key_interner.ts";

const TABLES_LOG2 = 5;
const TABLES = 1 << TABLES_LOG2;
const FIRST_SLOTS = 32;
const CHUNK_LOG2 = 13;
const CHUNK_ENTRIES = 1 << CHUNK_LOG2;
const CHUNK_MASK = CHUNK_ENTRIES - 1;
/** Entries that one layer can hold; a layer is frozen long before (timeline.ts). */
const ENTRIES_MAX = 1 << 26;
const SLOT_BYTES = 12;
const ENTRY_BYTES = 16;

/** The end of a chain. */
export const NO_ENTRY = -1;

interface Table {
  /** object + 1; 0 is an empty slot. */
  objects: Uint32Array;
  blocks: Uint32Array;
  /** Newest entry + 1; 0 in an empty slot, and for a key whose entries were all taken back. */
  heads: Uint32Array;
  used: number;
}

interface Chunk {
  /** Previous entry + 1; 0 ends the chain. */
  previous: Uint32Array;
  words: Uint32Array;
  lsns: Float64Array;
}

function newTable(slots: number): Table {
  return {
    objects: new Uint32Array(slots),
    blocks: new Uint32Array(slots),
    heads: new Uint32Array(slots),
    used: 0,
  };
}

function hashKey(object: number, block: number): number {
  let hash = Math.imul(object + 1, 0x9e3779b1) ^ Math.imul(block, 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
  return (hash ^ (hash >>> 13)) >>> 0;
}

function slotOf(table: Table, hash: number, object: number, block: number): number {
  const mask = table.objects.length - 1;
  let slot = hash & mask;
  for (;;) {
    const found = table.objects[slot]!;
    if (found === 0 || (found === object + 1 && table.blocks[slot] === block)) return slot;
    slot = (slot + 1) & mask;
  }
}

/** Keys, and the chain of entries of each. */
export class MemoryIndex {
  readonly #tables: Table[] = Array.from({ length: TABLES }, () => newTable(FIRST_SLOTS));
  readonly #chunks: Chunk[] = [];
  #slots = TABLES * FIRST_SLOTS;
  #keys = 0;
  #entries = 0;

  /** Distinct keys; some may have no entries after truncate(). */
  get keyCount(): number {
    return this.#keys;
  }

  /** Entries of all keys. */
  get entryCount(): number {
    return this.#entries;
  }

  /** Bytes of memory it holds. */
  get memoryBytes(): number {
    return this.#slots * SLOT_BYTES + this.#chunks.length * CHUNK_ENTRIES * ENTRY_BYTES;
  }

  /** Adds the newest entry of a key; true if it is the key's only one. */
  put(object: ObjectId, block: number, lsn: number, word: number): boolean {
    const hash = hashKey(object, block);
    const table = this.#tables[hash >>> (32 - TABLES_LOG2)]!;
    const slot = slotOf(table, hash, object, block);
    const newest = table.heads[slot]!;
    table.heads[slot] = this.#addEntry(newest, lsn, word) + 1;
    if (table.objects[slot] === 0) {
      table.objects[slot] = object + 1;
      table.blocks[slot] = block;
      this.#keys++;
      if (++table.used * 2 > table.objects.length) this.#growTable(table);
    }
    return newest === 0;
  }

  /** The newest entry of a key, or NO_ENTRY. */
  newest(object: ObjectId, block: number): number {
    const hash = hashKey(object, block);
    const table = this.#tables[hash >>> (32 - TABLES_LOG2)]!;
    const slot = slotOf(table, hash, object, block);
    return table.heads[slot]! - 1;
  }

  /** The entry before `entry` of the same key, or NO_ENTRY. */
  previous(entry: number): number {
    return this.#chunks[entry >>> CHUNK_LOG2]!.previous[entry & CHUNK_MASK]! - 1;
  }

  /** Position and kind of the entry's blob. */
  word(entry: number): number {
    return this.#chunks[entry >>> CHUNK_LOG2]!.words[entry & CHUNK_MASK]!;
  }

  /** The entry's LSN. */
  lsn(entry: number): number {
    return this.#chunks[entry >>> CHUNK_LOG2]!.lsns[entry & CHUNK_MASK]!;
  }

  /** Takes back all entries but the first `count`. Visits every key: for failures only. */
  truncate(count: number): void {
    if (count === this.#entries) return;
    for (const { heads } of this.#tables) {
      for (let slot = 0; slot < heads.length; slot++) {
        let entry = heads[slot]! - 1;
        while (entry >= count) entry = this.previous(entry);
        heads[slot] = entry + 1;
      }
    }
    this.#entries = count;
    this.#chunks.length = Math.ceil(count / CHUNK_ENTRIES);
  }

  /** All keys, in no order, table by table so that a caller can take breaks. */
  *keyTables(): Generator<{ objects: Uint32Array; blocks: Uint32Array }> {
    for (const table of this.#tables) yield table;
  }

  #addEntry(previous: number, lsn: number, word: number): number {
    const entry = this.#entries;
    const at = entry & CHUNK_MASK;
    if (at === 0) {
      if (entry >= ENTRIES_MAX) {
        throw new Unavailable(`Cannot add to an open layer: it holds ${entry} entries already`);
      }
      this.#chunks.push({
        previous: new Uint32Array(CHUNK_ENTRIES),
        words: new Uint32Array(CHUNK_ENTRIES),
        lsns: new Float64Array(CHUNK_ENTRIES),
      });
    }
    const chunk = this.#chunks[entry >>> CHUNK_LOG2]!;
    chunk.previous[at] = previous;
    chunk.words[at] = word;
    chunk.lsns[at] = lsn;
    this.#entries++;
    return entry;
  }

  #growTable(table: Table): void {
    const { objects, blocks, heads } = table;
    const larger = newTable(objects.length * 2);
    for (let slot = 0; slot < objects.length; slot++) {
      const object = objects[slot]! - 1;
      if (object < 0) continue;
      const block = blocks[slot]!;
      const to = slotOf(larger, hashKey(object, block), object, block);
      assert(larger.objects[to] === 0, "a key is in a table once");
      larger.objects[to] = object + 1;
      larger.blocks[to] = block;
      larger.heads[to] = heads[slot]!;
    }
    table.objects = larger.objects;
    table.blocks = larger.blocks;
    table.heads = larger.heads;
    this.#slots += objects.length;
  }
}
