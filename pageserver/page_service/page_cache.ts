/**
 * Reconstructed pages in memory: one slab of 8 KiB slots with clock eviction.
 *
 * A slot holds one page of one timeline together with the range of LSNs for which its content is
 * the page: [from, at]. `from` is the LSN of the last change in it, `at` the newest LSN for which
 * somebody has looked and found no later change.
 *
 *   Invariant: from <= at <= last_record_lsn of the timeline.
 *
 * A page is worth a slot when it was hard to rebuild, or when somebody asks for it again: who reads
 * a whole table asks for each page once, and would only push out what others use.
 *
 * The map from (object, block) to the slot lives with the timeline (ServedTimeline.cachedPages), so
 * that a timeline which is gone takes its map along; the slots are reused when the clock hand
 * passes.
 */
import { PAGE_SIZE } from "../../libs/postgres/constants.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import type { ObjectId } from "../repository/key_interner.ts";

const TWO_32 = 4294967296;

/** Rebuilding a page from so many records costs as much as some system calls. */
const EASY_RECORDS_MAX = 8;
/** Pages asked for once that are remembered: a power of two. */
const ASKED_FOR = 32768;

/** What a slot belongs to while it is free. */
const NOBODY = new Map<number, number>();

/** The slab and the clock. */
export class PageCache {
  /** Slot n is bytes[n * 8192, (n + 1) * 8192). */
  bytes: Uint8Array<ArrayBuffer>;
  view: DataView;
  /** First and last LSN for which slot n is the page. */
  readonly from: Float64Array;
  readonly at: Float64Array;
  readonly #owner: Map<number, number>[];
  readonly #key: Float64Array;
  readonly #used: Uint8Array;
  readonly #slots: number;
  // What was asked for, by a hash; two pages that share a place forget each other.
  readonly #asked = new Float64Array(ASKED_FOR);
  #hand = 0;

  constructor(capacityBytes: number) {
    this.#slots = Math.max(1, Math.floor(capacityBytes / PAGE_SIZE));
    this.bytes = new Uint8Array(this.#slots * PAGE_SIZE);
    this.view = new DataView(this.bytes.buffer);
    this.from = new Float64Array(this.#slots);
    this.at = new Float64Array(this.#slots);
    this.#owner = new Array(this.#slots).fill(NOBODY);
    this.#key = new Float64Array(this.#slots);
    this.#used = new Uint8Array(this.#slots);
  }

  /** The slot of a page, whatever its LSNs, or undefined. */
  find(pages: Map<number, number>, object: ObjectId, block: number): number | undefined {
    const slot = pages.get(object * TWO_32 + block);
    if (slot !== undefined) this.#used[slot] = 1;
    return slot;
  }

  /** Whether a page without a slot should have one, now that `records` had to be applied to it. */
  isWorthASlot(object: ObjectId, block: number, records: number): boolean {
    if (records > EASY_RECORDS_MAX) return true;
    const place = (Math.imul(object, 0x9e3779b1) + block) & (ASKED_FOR - 1);
    const key = object * TWO_32 + block + 1;
    if (this.#asked[place] === key) return true;
    this.#asked[place] = key;
    return false;
  }

  /** A slot for a page that has none; its content and LSNs are the caller's to set at once. */
  take(pages: Map<number, number>, object: ObjectId, block: number): number {
    const slot = this.#victim();
    this.drop(slot);
    const key = object * TWO_32 + block;
    this.#owner[slot] = pages;
    this.#key[slot] = key;
    this.#used[slot] = 1;
    pages.set(key, slot);
    return slot;
  }

  /** Notes that the slot holds the page from `from` to `at`. */
  validate(slot: number, from: Lsn, at: Lsn): void {
    this.from[slot] = from;
    this.at[slot] = at;
  }

  /** Frees a slot, for example because rebuilding its page failed half way. */
  drop(slot: number): void {
    const owner = this.#owner[slot]!;
    if (owner !== NOBODY) owner.delete(this.#key[slot]!);
    this.#owner[slot] = NOBODY;
    this.#used[slot] = 0;
  }

  /** Frees all slots. Their memory is free when garbage is collected. */
  clear(): void {
    for (let slot = 0; slot < this.#slots; slot++) this.drop(slot);
    this.bytes = new Uint8Array(this.bytes.length);
    this.view = new DataView(this.bytes.buffer);
  }

  #victim(): number {
    for (;;) {
      const slot = this.#hand;
      this.#hand = slot + 1 === this.#slots ? 0 : slot + 1;
      if (this.#used[slot] === 0) return slot;
      this.#used[slot] = 0;
    }
  }
}
