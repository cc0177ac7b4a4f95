/**
 * What a search has found of one key so far: entries newest first, over several layers.
 *
 * A layer adds entries until one is a base: an image, a record that rebuilds the page, or a
 * tombstone; the search then stops. Reused by every read; holds no bytes of values.
 */
import { assert } from "../../libs/utils/assert.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import type { LayerSource } from "./blob_source.ts";
import { CACHE_PAGE_BYTES, EntryKind, KIND_MASK } from "./layer_format.ts";
import type { Reconstruction } from "./reconstruction.ts";

/** Entries of one key, newest first. */
export class Found {
  count = 0;
  /** Entries at or below this LSN are not wanted: the caller has that version. -1 for none. */
  after = -1;
  /** The last entry is a base, so nothing older matters. */
  hasBase = false;
  /** The search came down to `after`: the caller's version is the base. */
  reachedAfter = false;
  #words = new Uint32Array(256);
  #lsns = new Float64Array(256);
  #sources: LayerSource[] = [];

  /** Empties it. */
  begin(after: number): void {
    this.count = 0;
    this.after = after;
    this.hasBase = false;
    this.reachedAfter = false;
    this.#sources.length = 0;
  }

  /** Adds the next older entry; true if the search is over. Call only while it is not. */
  add(source: LayerSource, word: number, lsn: number): boolean {
    if (lsn <= this.after) {
      this.reachedAfter = true;
      return true;
    }
    if (this.count === this.#words.length) this.#grow();
    this.#words[this.count] = word;
    this.#lsns[this.count] = lsn;
    this.#sources.push(source);
    this.count++;
    this.hasBase = (word & KIND_MASK) !== EntryKind.record;
    return this.hasBase;
  }

  /** The kind of the oldest entry; only with hasBase. */
  get baseKind(): number {
    assert(this.hasBase, "a search without a base has no base kind");
    return this.#words[this.count - 1]! & KIND_MASK;
  }

  /** Whether the oldest entry is an image. */
  get #baseIsImage(): boolean {
    return this.hasBase && this.baseKind === EntryKind.image;
  }

  /** Calls `visit` for each entry, oldest first. */
  forEach(visit: (lsn: Lsn, kind: number, source: LayerSource) => void): void {
    for (let i = this.count - 1; i >= 0; i--) {
      visit(this.#lsns[i] as Lsn, this.#words[i]! & KIND_MASK, this.#sources[i]!);
    }
  }

  /**
   * Copies all values into `into`, oldest first. An image without records may stay where it is, if
   * `into` allows that.
   */
  readInto(into: Reconstruction): void {
    if (into.mayPoint && this.count === 1 && this.#baseIsImage && this.#pointAtImage(into)) return;
    for (let i = this.count - 1; i >= 0; i--) {
      const word = this.#words[i]!;
      const kind = word & KIND_MASK;
      if (kind === EntryKind.tombstone) continue;
      const likelyBytes = kind === EntryKind.image ? CACHE_PAGE_BYTES : 0; // mostly a page
      const offset = this.#sources[i]!.readBlob(word - kind, likelyBytes, into);
      const length = into.length - offset;
      const lsn = this.#lsns[i] as Lsn;
      if (kind === EntryKind.image) into.setImage(offset, length, lsn);
      else into.addRecord(offset, length, lsn);
    }
  }

  #pointAtImage(into: Reconstruction): boolean {
    const position = this.#words[0]! - EntryKind.image;
    if (!this.#sources[0]!.pointAtBlob(position, CACHE_PAGE_BYTES, into)) return false;
    into.imageLsn = this.#lsns[0] as Lsn;
    return true;
  }

  #grow(): void {
    const words = new Uint32Array(this.#words.length * 2);
    const lsns = new Float64Array(this.#lsns.length * 2);
    words.set(this.#words);
    lsns.set(this.#lsns);
    this.#words = words;
    this.#lsns = lsns;
  }
}
