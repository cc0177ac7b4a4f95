/**
 * The cache of 8 KiB pages of layer files: one slab, a hash from (file, page) to slot, clock
 * eviction.
 *
 * Only whole pages that never change again are asked for: any page of a finished layer, and the
 * pages of an ephemeral file that have been written out in full. A slot's bytes are good until the
 * next call that may load a page. `verified` is a mark of the caller's: index blocks are
 * checksummed once per load instead of once per read.
 *
 * Pages of values are asked for with `valuePage`. Most are read once, and new memory is dear, so
 * rows of them pass beside the cache (read_ahead.ts), and others through a few slots of their own
 * that are used in turn: only what is loaded again and again gets a slot of the cache.
 *
 * The hash is chained through `next`: slots and buckets are small integers, -1 ends a chain.
 */
import { assert } from "../../libs/utils/assert.ts";
import type { FileTable, LayerFile } from "./file_table.ts";
import { CACHE_PAGE_BYTES } from "./layer_format.ts";
import { ReadAhead } from "./read_ahead.ts";

const PAGE_SHIFT = 13;
/** Slots for values that are read for the first time. */
const PASSING_SLOTS = 32;
/**
 * Loads of a page of values until it gets a slot. A page of the database often lies across two of
 * them, and has its own cache at the second request; records of many pages are loaded more often.
 */
const LOADS_MIN = 5;
/** Pages whose loads are counted: a power of two. */
const COUNTED = 32768;
/** Pages of an index that are read at once: of a thousand and more pages of a table each. */
const GROUP_PAGES = 8;
const GROUP_BYTES = GROUP_PAGES * CACHE_PAGE_BYTES;
const TWO_32 = 4294967296;
const PAGE_MASK = CACHE_PAGE_BYTES - 1;

/**
 * The cache. Invariant: a slot is in the chain of its (file, page) exactly if slotFile is not 0.
 */
export class FilePageCache {
  readonly #files: FileTable;
  readonly #slots: number;
  bytes: Uint8Array<ArrayBuffer>;
  view: DataView;
  readonly #slotFile: Uint32Array;
  readonly #slotPage: Uint32Array;
  readonly #recent: Uint8Array;
  readonly #verified: Uint8Array;
  readonly #next: Int32Array;
  readonly #buckets: Int32Array;
  #ahead: ReadAhead;
  // Loads of pages of values, by a hash; two pages that share a place forget each other.
  readonly #loaded = new Float64Array(COUNTED);
  readonly #loads = new Uint8Array(COUNTED);
  #hand = 0;
  #passingHand = 0;
  /** Whether the present read may be put off while others read ahead for it: see postponed.ts. */
  mayPostpone = false;
  /** What valuePage() last returned is an offset in here; the file goes on there up to valueEnd. */
  valueBytes: Uint8Array<ArrayBuffer>;
  valueView: DataView;
  valueEnd = 0;
  /** Counters for the metrics page. */
  hits = 0;
  misses = 0;
  evictions = 0;

  /** `alongside`: the event loop turns between reads, see read_ahead.ts. */
  constructor(cacheBytes: number, files: FileTable, alongside = false) {
    this.#files = files;
    this.#slots = Math.max(8, Math.floor(cacheBytes / CACHE_PAGE_BYTES));
    const all = this.#slots + PASSING_SLOTS; // those are behind the slots of the cache
    this.bytes = new Uint8Array(all * CACHE_PAGE_BYTES + GROUP_BYTES);
    this.view = new DataView(this.bytes.buffer);
    this.valueBytes = this.bytes;
    this.valueView = this.view;
    this.#slotFile = new Uint32Array(all);
    this.#slotPage = new Uint32Array(all);
    this.#recent = new Uint8Array(all);
    this.#verified = new Uint8Array(all);
    this.#next = new Int32Array(all).fill(-1);
    this.#buckets = new Int32Array(2 ** Math.ceil(Math.log2(this.#slots))).fill(-1);
    this.#ahead = new ReadAhead(files, alongside);
  }

  /** Forgets all pages. Their memory is free when garbage is collected. */
  clear(): void {
    this.#slotFile.fill(0);
    this.#next.fill(-1);
    this.#buckets.fill(-1);
    this.bytes = new Uint8Array(this.bytes.length);
    this.view = new DataView(this.bytes.buffer);
    this.forgetScans();
  }

  /** Forgets what was read ahead of scans, and gives back its memory: the next one has new. */
  forgetScans(): void {
    this.#ahead = new ReadAhead(this.#files, this.#ahead.alongside);
    this.valueBytes = this.bytes;
    this.valueView = this.view;
  }

  /** Bytes of all slots: the cache's limit. */
  get capacityBytes(): number {
    return this.#slots * CACHE_PAGE_BYTES;
  }

  /**
   * The offset in `bytes` of a page of `file`, loaded if need be, and those beside it with it: all
   * in [pagesStart, pagesEnd) are there and never change. Throws Corrupt as readExactly.
   */
  page(file: LayerFile, page: number, pagesStart: number, pagesEnd: number): number {
    const found = this.#find(file, page, this.#bucketOf(file.id, page));
    if (found >= 0) return found;
    const aligned = page - page % GROUP_PAGES;
    const first = Math.max(aligned, pagesStart);
    const count = Math.min(aligned + GROUP_PAGES, pagesEnd) - first;
    const from = this.bytes.length - GROUP_BYTES;
    const position = first * CACHE_PAGE_BYTES;
    this.#files.readExactly(file, position, count * CACHE_PAGE_BYTES, this.bytes, from);
    this.misses++;
    // The one that is asked for comes last, so that the others do not push it out.
    for (let other = first; other < first + count; other++) {
      if (other === page || !this.#isMissing(file, other)) continue;
      const offset = this.#keep(file, other, first, from);
      this.#recent[offset >>> PAGE_SHIFT] = 0; // it may never be asked for
    }
    return this.#keep(file, page, first, from);
  }

  /** Gives a slot to a page of what lies at `from`, which begins with page `first`. */
  #keep(file: LayerFile, page: number, first: number, from: number): number {
    const at = from + (page - first) * CACHE_PAGE_BYTES;
    const slot = this.#freeSlot();
    this.bytes.copyWithin(slot * CACHE_PAGE_BYTES, at, at + CACHE_PAGE_BYTES);
    this.#link(file, page, this.#bucketOf(file.id, page), slot);
    return slot * CACHE_PAGE_BYTES;
  }

  /**
   * The same of a page with values, which may be read with the pages behind it: all before
   * `pagesEnd` are there and never change. `needed` says how many pages, this one and the next or
   * this one alone, the caller is going to ask for: a value that lies across both is one read then.
   * The offset is one in valueBytes.
   */
  valuePage(file: LayerFile, page: number, pagesEnd: number, needed: 1 | 2): number {
    const ahead = this.#ahead.find(file, page);
    if (ahead >= 0) {
      this.hits++;
      return this.#inChunk(ahead);
    }
    const bucket = this.#bucketOf(file.id, page);
    const found = this.#find(file, page, bucket);
    if (found >= 0) return this.#inSlot(found, file, page);
    const read = this.#ahead.miss(file, page, pagesEnd, this.mayPostpone);
    if (read >= 0) {
      this.misses++;
      return this.#inChunk(read);
    }
    return this.#inSlot(this.#loadValue(file, page, pagesEnd, needed, bucket), file, page);
  }

  #inChunk(offset: number): number {
    this.valueBytes = this.#ahead.bytes;
    this.valueView = this.#ahead.view;
    this.valueEnd = this.#ahead.end;
    return offset;
  }

  #inSlot(offset: number, file: LayerFile, page: number): number {
    this.valueBytes = this.bytes;
    this.valueView = this.view;
    const next = (offset >>> PAGE_SHIFT) + 1; // the slot behind may have the page behind
    const goesOn = this.#slotPage[next] === page + 1 && this.#slotFile[next] === file.id;
    this.valueEnd = offset + (goesOn ? 2 : 1) * CACHE_PAGE_BYTES;
    return offset;
  }

  #loadValue(
    file: LayerFile,
    page: number,
    pagesEnd: number,
    needed: 1 | 2,
    bucket: number,
  ): number {
    if (this.#isWorthASlot(file, page)) return this.#load(file, page, bucket, this.#freeSlot());
    if (needed === 2 && page + 1 < pagesEnd && this.#isMissing(file, page + 1)) {
      return this.#loadTwo(file, page, bucket);
    }
    return this.#load(file, page, bucket, this.#passingSlot());
  }

  #isMissing(file: LayerFile, page: number): boolean {
    return this.#ahead.find(file, page) < 0 &&
      this.#slotOf(file, page, this.#bucketOf(file.id, page)) < 0;
  }

  /** The offset of a page that is there, which counts as a hit; -1 otherwise. */
  #find(file: LayerFile, page: number, bucket: number): number {
    const slot = this.#slotOf(file, page, bucket);
    if (slot < 0) return -1;
    this.#recent[slot] = 1;
    this.hits++;
    return slot * CACHE_PAGE_BYTES;
  }

  /** The slot of a page in the chain of `bucket`; -1 if it is in none. */
  #slotOf(file: LayerFile, page: number, bucket: number): number {
    let slot = this.#buckets[bucket]!;
    while (slot >= 0 && (this.#slotPage[slot] !== page || this.#slotFile[slot] !== file.id)) {
      slot = this.#next[slot]!;
    }
    return slot;
  }

  #load(file: LayerFile, page: number, bucket: number, slot: number): number {
    this.misses++;
    const offset = slot * CACHE_PAGE_BYTES;
    this.#files.readExactly(file, page * CACHE_PAGE_BYTES, CACHE_PAGE_BYTES, this.bytes, offset);
    this.#link(file, page, bucket, slot);
    return offset;
  }

  /** Loads two pages of values by one read, into slots side by side. */
  #loadTwo(file: LayerFile, page: number, bucket: number): number {
    this.misses += 2;
    if (this.#passingHand === PASSING_SLOTS - 1) this.#passingHand = 0;
    const slot = this.#passingSlot();
    const second = this.#passingSlot();
    const offset = slot * CACHE_PAGE_BYTES;
    const position = page * CACHE_PAGE_BYTES;
    this.#files.readExactly(file, position, 2 * CACHE_PAGE_BYTES, this.bytes, offset);
    this.#link(file, page, bucket, slot);
    this.#isWorthASlot(file, page + 1); // counts the load
    this.#link(file, page + 1, this.#bucketOf(file.id, page + 1), second);
    return offset;
  }

  /** Puts a slot that has just been filled into the chain of its page. */
  #link(file: LayerFile, page: number, bucket: number, slot: number): void {
    this.#slotFile[slot] = file.id;
    this.#slotPage[slot] = page;
    this.#recent[slot] = 1;
    this.#verified[slot] = 0;
    this.#next[slot] = this.#buckets[bucket]!;
    this.#buckets[bucket] = slot;
  }

  /** Whether markVerified was called since the page at this offset was loaded. */
  isVerified(offset: number): boolean {
    return this.#verified[offset >>> PAGE_SHIFT] === 1;
  }

  /** Notes that the caller has checked the page at this offset. */
  markVerified(offset: number): void {
    this.#verified[offset >>> PAGE_SHIFT] = 1;
  }

  /** Copies `length` bytes of values at `position` of `file` into into[at..]; see valuePage. */
  readValue(
    file: LayerFile,
    position: number,
    length: number,
    pagesEnd: number,
    into: Uint8Array,
    at: number,
  ): void {
    let done = 0;
    while (done < length) {
      const inPage = (position + done) & PAGE_MASK;
      const count = Math.min(length - done, CACHE_PAGE_BYTES - inPage);
      const page = Math.floor((position + done) / CACHE_PAGE_BYTES);
      const from = this.valuePage(file, page, pagesEnd, done + count < length ? 2 : 1) + inPage;
      into.set(this.valueBytes.subarray(from, from + count), at + done);
      done += count;
    }
  }

  #bucketOf(file: number, page: number): number {
    let hash = Math.imul(file, 0x9e3779b1) ^ Math.imul(page, 0x85ebca6b);
    hash ^= hash >>> 15;
    return Math.imul(hash, 0x2c1b3c6d) >>> 7 & (this.#buckets.length - 1);
  }

  /**
   * A slot in no chain: an unused one, or the next that was not read since the hand last passed.
   */
  #freeSlot(): number {
    for (;;) {
      const slot = this.#hand;
      this.#hand = slot + 1 === this.#slots ? 0 : slot + 1;
      if (this.#slotFile[slot] === 0) return slot;
      if (this.#recent[slot] === 0) {
        this.#unlink(slot);
        this.evictions++;
        return slot;
      }
      this.#recent[slot] = 0;
    }
  }

  /** The next of the slots that values pass through, in no chain. */
  #passingSlot(): number {
    const slot = this.#slots + this.#passingHand;
    this.#passingHand = (this.#passingHand + 1) % PASSING_SLOTS;
    if (this.#slotFile[slot] !== 0) {
      this.#unlink(slot);
      this.evictions++;
    }
    return slot;
  }

  /** Counts a load of a page of values; whether it should have a slot of the cache now. */
  #isWorthASlot(file: LayerFile, page: number): boolean {
    const place = (Math.imul(file.id, 0x9e3779b1) + page) & (COUNTED - 1);
    const key = file.id * TWO_32 + page;
    if (this.#loaded[place] !== key) {
      this.#loaded[place] = key;
      this.#loads[place] = 0;
    }
    if (this.#loads[place]! >= LOADS_MIN - 1) return true;
    this.#loads[place]!++;
    return false;
  }

  #unlink(slot: number): void {
    const bucket = this.#bucketOf(this.#slotFile[slot]!, this.#slotPage[slot]!);
    const after = this.#next[slot]!;
    this.#slotFile[slot] = 0;
    if (this.#buckets[bucket] === slot) {
      this.#buckets[bucket] = after;
      return;
    }
    let before = this.#buckets[bucket]!;
    while (this.#next[before] !== slot) {
      before = this.#next[before]!;
      assert(before >= 0, "a used slot is in the chain of its bucket");
    }
    this.#next[before] = after;
  }
}
