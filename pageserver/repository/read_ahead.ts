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
 * The buffers are few and lie at the end of the cache's slab, so that an offset in it is all that a
 * caller needs.
 */
import type { FileTable, LayerFile } from "./file_table.ts";
import { CACHE_PAGE_BYTES } from "./layer_format.ts";

/** A few scans at a time, and the beginnings of what may be one. */
const STREAMS = 8;
const CHUNKS = 8;
/** Pages read at once: 512 KiB, a few hundred microseconds where the disk has to be asked. */
const CHUNK_PAGES = 64;
/** Values of one page that was changed often lie in some pages, seldom in so many in a row. */
const STREAK_MIN = 4;
/** Pages that a row may leave out, because they are in the cache or hold nothing that is read. */
const GAP_PAGES_MAX = 3;
/**
 * Within so many pages of where a stream is, two misses in a row are of another process of the same
 * scan: they stay within 1024 blocks of each other, and ask for 128 more
 * (compute/lazy_files/library/). A miss alone is somebody's who looks for rows by an index.
 */
const NEAR_PAGES = 20 * CHUNK_PAGES;

/** Bytes of slab that the chunks need. */
export const READ_AHEAD_BYTES = CHUNKS * CHUNK_PAGES * CACHE_PAGE_BYTES;

/** Whether a page goes on with a row, this far behind where the row is. */
function isBehind(gap: number): boolean {
  return gap >= 0 && gap <= GAP_PAGES_MAX;
}

/** The streams and the chunks. */
export class ReadAhead {
  readonly #files: FileTable;
  readonly #bytes: Uint8Array;
  readonly #offset: number;
  // Of each stream: the file (0: none), the page that goes on with it, pages so far.
  readonly #streamFile = new Uint32Array(STREAMS);
  readonly #next = new Uint32Array(STREAMS);
  readonly #streak = new Uint32Array(STREAMS);
  readonly #streamRecent = new Uint8Array(STREAMS);
  #streamHand = 0;
  // The last miss: its file, and the page behind it.
  #missedFile = 0;
  #missedNext = 0;
  // Of each chunk: the file (0: none), its first page, and how many of its pages are there.
  readonly #chunkFile = new Uint32Array(CHUNKS);
  readonly #first = new Uint32Array(CHUNKS);
  readonly #count = new Uint32Array(CHUNKS);
  readonly #chunkRecent = new Uint8Array(CHUNKS);
  #chunkHand = 0;
  /** Where find() looks first. */
  #latest = 0;

  /** The buffers are bytes[offset, offset + READ_AHEAD_BYTES). */
  constructor(files: FileTable, bytes: Uint8Array, offset: number) {
    this.#files = files;
    this.#bytes = bytes;
    this.#offset = offset;
  }

  /** Where the buffers begin. */
  get start(): number {
    return this.#offset;
  }

  /** Where the chunk ends in which find() or miss() last found a page. */
  get end(): number {
    return this.#bufferOf(this.#latest) + this.#count[this.#latest]! * CACHE_PAGE_BYTES;
  }

  /** The offset of a page of a chunk that was read, or -1. */
  find(file: LayerFile, page: number): number {
    if (this.#holds(this.#latest, file, page)) return this.#offsetOf(this.#latest, page);
    for (let chunk = 0; chunk < CHUNKS; chunk++) {
      if (!this.#holds(chunk, file, page)) continue;
      this.#chunkRecent[chunk] = 1;
      this.#latest = chunk;
      return this.#offsetOf(chunk, page);
    }
    return -1;
  }

  /**
   * Notes a miss. If it goes on with a stream that is long enough, the page is read with those
   * around it, up to page `pagesEnd`, and its offset returned; else -1: the caller reads it.
   */
  miss(file: LayerFile, page: number, pagesEnd: number): number {
    if (page >= pagesEnd) return -1;
    const isRow = file.id === this.#missedFile && isBehind(page - this.#missedNext);
    this.#missedFile = file.id;
    this.#missedNext = page + 1;
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

  /** Reads the chunk of a page that a long stream asks for. */
  #goOn(stream: number, file: LayerFile, page: number, pagesEnd: number): number {
    this.#streamRecent[stream] = 1;
    const chunk = this.#load(file, page, pagesEnd);
    const end = this.#first[chunk]! + this.#count[chunk]!;
    if (end > this.#next[stream]!) this.#next[stream] = end;
    return this.#offsetOf(chunk, page);
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
    this.#files.readExactly(
      file,
      first * CACHE_PAGE_BYTES,
      count * CACHE_PAGE_BYTES,
      this.#bytes,
      this.#bufferOf(chunk),
    );
    this.#chunkFile[chunk] = file.id;
    this.#first[chunk] = first;
    this.#count[chunk] = count;
    this.#chunkRecent[chunk] = 1;
    this.#latest = chunk;
    return chunk;
  }

  /**
   * The buffer that has the beginning of this chunk, of a file that has grown, or that of a chunk
   * which was not looked for since the hand last passed.
   */
  #bufferFor(file: LayerFile, first: number): number {
    for (let chunk = 0; chunk < CHUNKS; chunk++) {
      if (this.#holds(chunk, file, first)) return chunk;
    }
    while (this.#chunkRecent[this.#chunkHand] === 1) {
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
    return this.#offset + chunk * CHUNK_PAGES * CACHE_PAGE_BYTES;
  }
}
