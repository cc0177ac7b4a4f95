/**
 * Reading ahead in layer files: values that arrived one behind the other lie so in the file, as do
 * the pages of an image layer, and a scan reads them in that order, once.
 *
 * A stream is a row of misses of the page cache, each right behind the one before. Where one has
 * gone on for STREAK_MIN pages, what is missing nearby is read by the chunk, into buffers of their
 * own instead of the cache: they are not asked for again soon, and to reuse a buffer costs less
 * than to touch new memory for each page.
 *
 * Chunks lie at multiples of their size, so that the processes of a parallel scan, which take turns
 * in short rows of pages, share them, and the file is read from front to back: then the kernel
 * reads ahead of us, and the disk works while pages are sent.
 *
 * Where the event loop turns between reads, the chunks that follow are read by other threads while
 * the present one is worked on: neither the disk nor the copy out of the kernel's cache holds up
 * who has pages to send. Who needs such a chunk before it is there may wait for it, while others
 * are served (postponed.ts), or reads it himself, as if nobody had begun.
 *
 * The buffers are few. They lie in one slab, which is there from the first chunk on.
 */
import { assert } from "../../libs/utils/assert.ts";
import type { FileTable, LayerFile } from "./file_table.ts";
import { CACHE_PAGE_BYTES } from "./layer_format.ts";
import { Postponed } from "./postponed.ts";

/**
 * One scan reads images, and each run of delta layers over them: there are less than
 * compaction_threshold of a size (compaction/delta_plan.ts). And some beginnings of what may be a
 * scan. A chunk for each, and some of those behind: too few, and they are read again and again.
 */
const STREAMS = 16;
const CHUNKS = 24;
/** Pages read at once: 512 KiB, a few hundred microseconds where the disk has to be asked. */
const CHUNK_PAGES = 64;
/** Chunks that are read behind the one that a long scan has come to, and by all scans together. */
const CHUNKS_BEHIND = 3;
const CHUNKS_READ_MAX = 6;
/** Values of one page that was changed often lie in some pages, seldom in so many in a row. */
const STREAK_MIN = 4;
/** Pages that a row may leave out, because they are in the cache or hold nothing that is read. */
const GAP_PAGES_MAX = 3;
/**
 * Within so many pages of where a stream is, NEAR_ROW_MIN misses in a row are of another process of
 * the same scan: they stay within 1024 blocks of each other, and ask for 128 more
 * (compute/lazy_files/library/). Less is somebody's who looks for rows by an index: also two misses
 * are one value that lies across two pages.
 */
const NEAR_PAGES = 20 * CHUNK_PAGES;
const NEAR_ROW_MIN = 3;

/** Bytes of all buffers. */
const SLAB_BYTES = CHUNKS * CHUNK_PAGES * CACHE_PAGE_BYTES;

/** Whether a page goes on with a row, this far behind where the row is. */
function isBehind(gap: number): boolean {
  return gap >= 0 && gap <= GAP_PAGES_MAX;
}

/** The streams and the chunks. */
export class ReadAhead {
  readonly #files: FileTable;
  /** The buffers, or nothing. */
  bytes = new Uint8Array(0);
  view = new DataView(this.bytes.buffer);
  // Of each stream: the file (0: none), the page that goes on with it, pages so far.
  readonly #streamFile = new Uint32Array(STREAMS);
  readonly #next = new Uint32Array(STREAMS);
  readonly #streak = new Uint32Array(STREAMS);
  readonly #streamRecent = new Uint8Array(STREAMS);
  #streamHand = 0;
  // The last miss: its file, the page behind it, and how many came in a row.
  #missedFile = 0;
  #missedNext = 0;
  #missedRow = 0;
  // Of each chunk: the file (0: none), its first page, and how many of its pages are there.
  readonly #chunkFile = new Uint32Array(CHUNKS);
  readonly #first = new Uint32Array(CHUNKS);
  readonly #count = new Uint32Array(CHUNKS);
  readonly #chunkRecent = new Uint8Array(CHUNKS);
  #chunkHand = 0;
  // Of a chunk that was or is being read by another thread: whether it is still being read (its
  // count is 0 then), and where the values of the file end while nobody has asked for it (else 0).
  readonly #isRead = new Uint8Array(CHUNKS);
  readonly #ready: (Promise<void> | undefined)[] = new Array(CHUNKS).fill(undefined);
  readonly #unseenEnd = new Uint32Array(CHUNKS);
  // Of such a chunk: the page behind the one that was last looked for, and how many in a row.
  readonly #foundNext = new Uint32Array(CHUNKS);
  readonly #foundRow = new Uint32Array(CHUNKS);
  #reads = 0;
  /** Where find() looks first. */
  #latest = 0;

  /**
   * `alongside`: the event loop turns between reads, so that there can be reads by other threads.
   */
  constructor(files: FileTable, readonly alongside: boolean) {
    this.#files = files;
  }

  /** Where the chunk ends in which find() or miss() last found a page. */
  get end(): number {
    return this.#bufferOf(this.#latest) + this.#count[this.#latest]! * CACHE_PAGE_BYTES;
  }

  /** The offset of a page of a chunk that was read, or -1. */
  find(file: LayerFile, page: number): number {
    const chunk = this.#holds(this.#latest, file, page) ? this.#latest : this.#look(file, page);
    if (chunk < 0) return -1;
    if (this.#unseenEnd[chunk]! > 0) this.#see(chunk, file, page);
    return this.#offsetOf(chunk, page);
  }

  /** The chunk of a page, which is the latest then; or -1. */
  #look(file: LayerFile, page: number): number {
    for (let chunk = 0; chunk < CHUNKS; chunk++) {
      if (!this.#holds(chunk, file, page)) continue;
      this.#chunkRecent[chunk] = 1;
      this.#latest = chunk;
      return chunk;
    }
    return -1;
  }

  /**
   * Notes a miss. If it goes on with a stream that is long enough, the page is read with those
   * around it, up to page `pagesEnd`, and its offset returned; else -1: the caller reads it. Throws
   * Postponed, if that is allowed, where it is on its way.
   */
  miss(file: LayerFile, page: number, pagesEnd: number, mayPostpone: boolean): number {
    if (page >= pagesEnd) return -1;
    if (mayPostpone && this.#reads > 0) this.#postpone(file, page);
    const isRow = this.#isInRow(file, page);
    let short = -1;
    for (let stream = 0; stream < STREAMS; stream++) {
      if (this.#streamFile[stream] !== file.id) continue;
      const gap = page - this.#next[stream]!;
      if (this.#streak[stream]! < STREAK_MIN) {
        if (isBehind(gap)) short = stream;
      } else if (isBehind(gap) || (isRow && Math.abs(gap) <= NEAR_PAGES)) {
        return this.#goOn(stream, file, page, pagesEnd);
      }
    }
    if (short < 0) {
      this.#begin(file, page);
      return -1;
    }
    this.#streamRecent[short] = 1;
    this.#next[short] = page + 1;
    if (++this.#streak[short]! < STREAK_MIN) return -1;
    return this.#goOn(short, file, page, pagesEnd);
  }

  /** Notes a miss; whether it is one of NEAR_ROW_MIN in a row. */
  #isInRow(file: LayerFile, page: number): boolean {
    const goesOn = file.id === this.#missedFile && isBehind(page - this.#missedNext);
    this.#missedRow = goesOn ? this.#missedRow + 1 : 1;
    this.#missedFile = file.id;
    this.#missedNext = page + 1;
    return this.#missedRow >= NEAR_ROW_MIN;
  }

  /** Throws Postponed if the page is being read by another thread. */
  #postpone(file: LayerFile, page: number): void {
    const chunk = this.#chunkOf(file, page - page % CHUNK_PAGES);
    const ready = chunk >= 0 && this.#isRead[chunk] === 1 ? this.#ready[chunk] : undefined;
    if (ready !== undefined) throw new Postponed(ready);
  }

  /** Reads the chunk of a page that a long stream asks for. */
  #goOn(stream: number, file: LayerFile, page: number, pagesEnd: number): number {
    this.#streamRecent[stream] = 1;
    const chunk = this.#load(file, page, pagesEnd);
    const end = this.#first[chunk]! + this.#count[chunk]!;
    if (end > this.#next[stream]!) this.#next[stream] = end;
    this.#readOn(chunk, file, pagesEnd);
    return this.#offsetOf(chunk, page);
  }

  /**
   * Notes that a page is looked for in a chunk that was read for a scan. A row of them is the scan;
   * what is looked for alone is somebody's who happens to need what lies here.
   */
  #see(chunk: number, file: LayerFile, page: number): void {
    const gap = page - this.#foundNext[chunk]!;
    if (gap === -1) return; // the same page
    this.#foundNext[chunk] = page + 1;
    this.#foundRow[chunk] = isBehind(gap) ? this.#foundRow[chunk]! + 1 : 1;
    if (this.#foundRow[chunk] === STREAK_MIN) this.#comeTo(chunk, file);
  }

  /** A scan has come to a chunk that was read for it: it goes on behind that, and so do we. */
  #comeTo(chunk: number, file: LayerFile): void {
    const pagesEnd = this.#unseenEnd[chunk]!;
    this.#unseenEnd[chunk] = 0;
    const end = this.#first[chunk]! + this.#count[chunk]!;
    for (let stream = 0; stream < STREAMS; stream++) {
      const gap = end - this.#next[stream]!;
      const isLong = this.#streak[stream]! >= STREAK_MIN;
      if (this.#streamFile[stream] !== file.id || !isLong || gap > NEAR_PAGES) continue;
      this.#streamRecent[stream] = 1;
      if (gap > 0) this.#next[stream] = end;
    }
    this.#readOn(chunk, file, pagesEnd);
  }

  /** Has the chunks behind this one read: one at first, and more once a scan has used that. */
  #readOn(chunk: number, file: LayerFile, pagesEnd: number): void {
    if (!this.alongside || file.descriptor < 0) return;
    const at = this.#first[chunk]!;
    const hasBefore = at >= CHUNK_PAGES && this.#chunkOf(file, at - CHUNK_PAGES) >= 0;
    const count = hasBefore ? CHUNKS_BEHIND : 1;
    for (let n = 1; n <= count && this.#reads < CHUNKS_READ_MAX; n++) {
      const first = at + n * CHUNK_PAGES;
      if (first >= pagesEnd) return;
      if (this.#chunkOf(file, first) < 0) this.#readAlongside(file, first, pagesEnd);
    }
  }

  #readAlongside(file: LayerFile, first: number, pagesEnd: number): void {
    const count = Math.min(CHUNK_PAGES, pagesEnd - first);
    // The chunk that the caller is about to look at must stay as it is
    this.#chunkRecent[this.#latest] = 1;
    let chunk = this.#freeBuffer();
    if (chunk === this.#latest) chunk = this.#freeBuffer();
    assert(chunk !== this.#latest, "there are more buffers than are read into");
    this.#chunkFile[chunk] = file.id;
    this.#first[chunk] = first;
    this.#count[chunk] = 0;
    this.#unseenEnd[chunk] = 0;
    this.#isRead[chunk] = 1;
    this.#reads++;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#ready[chunk] = promise;
    this.#files.readLater(
      file,
      first * CACHE_PAGE_BYTES,
      count * CACHE_PAGE_BYTES,
      this.bytes,
      this.#bufferOf(chunk),
      (isRead) => {
        this.#reads--;
        this.#isRead[chunk] = 0;
        this.#ready[chunk] = undefined;
        resolve();
        // Who could not wait has it already; who could not read it will be told by who asks
        if (!isRead || this.#holdsElsewhere(chunk, file, first)) {
          this.#chunkFile[chunk] = 0;
          return;
        }
        this.#count[chunk] = count;
        this.#chunkRecent[chunk] = 1;
        this.#unseenEnd[chunk] = pagesEnd;
        this.#foundRow[chunk] = 0;
      },
    );
  }

  /** The chunk that has, or is to have, the pages from `first` on; or -1. */
  #chunkOf(file: LayerFile, first: number): number {
    for (let chunk = 0; chunk < CHUNKS; chunk++) {
      if (this.#chunkFile[chunk] === file.id && this.#first[chunk] === first) return chunk;
    }
    return -1;
  }

  #holdsElsewhere(chunk: number, file: LayerFile, first: number): boolean {
    for (let other = 0; other < CHUNKS; other++) {
      if (other !== chunk && this.#holds(other, file, first)) return true;
    }
    return false;
  }

  #holds(chunk: number, file: LayerFile, page: number): boolean {
    const at = page - this.#first[chunk]!;
    return at >= 0 && at < this.#count[chunk]! && this.#chunkFile[chunk] === file.id;
  }

  #offsetOf(chunk: number, page: number): number {
    return this.#bufferOf(chunk) + (page - this.#first[chunk]!) * CACHE_PAGE_BYTES;
  }

  /** Reads the chunk around a page; returns its number. */
  #load(file: LayerFile, page: number, pagesEnd: number): number {
    const first = page - page % CHUNK_PAGES;
    const count = Math.min(CHUNK_PAGES, pagesEnd - first);
    const chunk = this.#bufferFor(file, first);
    this.#count[chunk] = 0; // while the buffer is half filled, should the read fail
    this.#unseenEnd[chunk] = 0;
    this.#files.readExactly(
      file,
      first * CACHE_PAGE_BYTES,
      count * CACHE_PAGE_BYTES,
      this.bytes,
      this.#bufferOf(chunk),
    );
    this.#chunkFile[chunk] = file.id;
    this.#first[chunk] = first;
    this.#count[chunk] = count;
    this.#chunkRecent[chunk] = 1;
    this.#latest = chunk;
    return chunk;
  }

  /** The buffer that has the beginning of this chunk, of a file that has grown, or a free one. */
  #bufferFor(file: LayerFile, first: number): number {
    for (let chunk = 0; chunk < CHUNKS; chunk++) {
      if (this.#holds(chunk, file, first)) return chunk;
    }
    return this.#freeBuffer();
  }

  /** A buffer of a chunk that was not looked for since the hand last passed, and is not read. */
  #freeBuffer(): number {
    if (this.bytes.length === 0) {
      this.bytes = new Uint8Array(SLAB_BYTES);
      this.view = new DataView(this.bytes.buffer);
    }
    while (this.#chunkRecent[this.#chunkHand] === 1 || this.#isRead[this.#chunkHand] === 1) {
      this.#chunkRecent[this.#chunkHand] = 0;
      this.#chunkHand = (this.#chunkHand + 1) % CHUNKS;
    }
    const chunk = this.#chunkHand;
    this.#chunkHand = (chunk + 1) % CHUNKS;
    return chunk;
  }

  /** Begins a stream in the place of one that has not gone on since the hand last passed. */
  #begin(file: LayerFile, page: number): void {
    while (this.#streamRecent[this.#streamHand] === 1) {
      this.#streamRecent[this.#streamHand] = 0;
      this.#streamHand = (this.#streamHand + 1) % STREAMS;
    }
    const stream = this.#streamHand;
    this.#streamHand = (stream + 1) % STREAMS;
    this.#streamFile[stream] = file.id;
    this.#next[stream] = page + 1;
    this.#streak[stream] = 1;
  }

  #bufferOf(chunk: number): number {
    return chunk * CHUNK_PAGES * CACHE_PAGE_BYTES;
  }
}
