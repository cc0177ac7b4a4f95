/**
 * All pages that a replay has touched, in their newest version: slots of 8 KiB in slabs of 32 MiB,
 * found by object (a relation fork or an SLRU segment) and block.
 *
 *   object -> chunks of 512 blocks -> slot + 1, 0 = not held
 */
import { PAGE_SIZE } from "../../libs/postgres/constants.ts";
import { KeyInterner, type ObjectId } from "../../pageserver/repository/key_interner.ts";
import { type Key, KeyClass, makeKey } from "../../pageserver/repository/key.ts";
import type { PageTarget, RedoKey } from "../../pageserver/walredo/types.ts";

const SLAB_SHIFT = 12;
const SLAB_PAGES = 1 << SLAB_SHIFT;
const CHUNK_SHIFT = 9;
const CHUNK_BLOCKS = 1 << CHUNK_SHIFT;

/** Held pages. */
export class PageStore {
  readonly interner: KeyInterner = new KeyInterner();
  readonly #slabs: PageTarget[] = [];
  readonly #chunks: (Uint32Array | undefined)[][] = [];
  #used = 0;

  /** Pages held. */
  get size(): number {
    return this.#used;
  }

  /** The slot of a page plus one; 0 if it is not held. */
  find(object: ObjectId, block: number): number {
    const chunk = this.#chunks[object]?.[block >>> CHUNK_SHIFT];
    return chunk === undefined ? 0 : chunk[block & (CHUNK_BLOCKS - 1)]!;
  }

  /** A slot, of undefined content, for a page that is not held; plus one, as find. */
  add(object: ObjectId, block: number): number {
    const slot = this.#used++;
    if (slot >>> SLAB_SHIFT === this.#slabs.length) {
      const bytes = new Uint8Array(SLAB_PAGES * PAGE_SIZE);
      this.#slabs.push({ bytes, view: new DataView(bytes.buffer), offset: 0 });
    }
    while (this.#chunks.length <= object) this.#chunks.push([]);
    const chunks = this.#chunks[object]!;
    while (chunks.length <= block >>> CHUNK_SHIFT) chunks.push(undefined);
    const chunk = chunks[block >>> CHUNK_SHIFT] ??= new Uint32Array(CHUNK_BLOCKS);
    chunk[block & (CHUNK_BLOCKS - 1)] = slot + 1;
    return slot + 1;
  }

  /** The page in a slot, counted from one. One object for each slab: it moves with the next call. */
  page(slot: number): PageTarget {
    const slab = this.#slabs[(slot - 1) >>> SLAB_SHIFT]!;
    slab.offset = ((slot - 1) & (SLAB_PAGES - 1)) * PAGE_SIZE;
    return slab;
  }

  /** Forgets the pages of an object from `block` on; their slots are not used again. */
  forget(object: ObjectId, block: number): void {
    const chunks = this.#chunks[object];
    if (chunks === undefined) return;
    for (let at = block >>> CHUNK_SHIFT; at < chunks.length; at++) {
      const first = at << CHUNK_SHIFT;
      chunks[at]?.fill(0, Math.max(0, block - first));
    }
  }

  /** Every held page, with its key; both are valid until the next. */
  *pages(): Generator<{ key: RedoKey; target: PageTarget }> {
    const fields = makeKey(0, 0, 0, 0, 0, 0);
    for (const [object, chunks] of this.#chunks.entries()) {
      this.interner.fields(object as ObjectId, fields);
      for (const [at, chunk] of chunks.entries()) {
        for (let i = 0; chunk !== undefined && i < CHUNK_BLOCKS; i++) {
          if (chunk[i] === 0) continue;
          const block = (at << CHUNK_SHIFT) + i;
          yield { key: keyOf(fields, block), target: this.page(chunk[i]!) };
        }
      }
    }
  }
}

function keyOf({ f1, f2, f3, f4, f5 }: Key, block: number): RedoKey {
  return f1 === KeyClass.slru
    ? { kind: "slru", spc: 0, db: 0, rel: 0, fork: 0, slruKind: f2, segno: f4, block }
    : { kind: "relation", spc: f2, db: f3, rel: f4, fork: f5, slruKind: 0, segno: 0, block };
}
