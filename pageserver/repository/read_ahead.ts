/**
 * Reading ahead in layer files: values that arrived one behind the other lie so in the file, and a
 * scan of what COPY has made reads them in that order, once.
 *
 * A stream is a row of misses of the page cache, each right behind the one before. One that has
 * gone on for STREAK_MIN pages gets its next pages by one read, into a buffer of its own instead
 * of the cache: they are not asked for again soon, and to reuse 128 KiB costs less than to touch
 * new memory for each page.
 *
 * Streams are few and their buffers lie at the end of the cache's slab, so that an offset in it is
 * all that a caller needs.
 */
import type { FileTable, LayerFile } from "./file_table.ts";
import { CACHE_PAGE_BYTES } from "./layer_format.ts";

/** A few scans at a time, and the beginnings of what may be one. */
const STREAMS = 8;
/** Pages read at once. */
const RUN_PAGES = 16;
/** Values of one page that was changed often lie in some pages, seldom in so many in a row. */
const STREAK_MIN = 4;
/** Pages that a row may leave out, because they are in the cache or hold nothing that is read. */
const GAP_PAGES_MAX = 3;

/** Bytes of slab that the streams need. */
export const READ_AHEAD_BYTES = STREAMS * RUN_PAGES * CACHE_PAGE_BYTES;

/** The streams. */
export class ReadAhead {
  readonly #files: FileTable;
  readonly #bytes: Uint8Array;
  readonly #offset: number;
  // Of each stream: the file (0: none), the page that goes on with it, pages so far, and the run
  // in its buffer.
  readonly #file = new Uint32Array(STREAMS);
  readonly #next = new Uint32Array(STREAMS);
  readonly #streak = new Uint32Array(STREAMS);
  readonly #first = new Uint32Array(STREAMS);
  readonly #count = new Uint32Array(STREAMS);
  readonly #recent = new Uint8Array(STREAMS);
  #hand = 0;

  /** The buffers are bytes[offset, offset + READ_AHEAD_BYTES). */
  constructor(files: FileTable, bytes: Uint8Array, offset: number) {
    this.#files = files;
    this.#bytes = bytes;
    this.#offset = offset;
  }

  /** The offset of a page that a stream has read, or -1. */
  find(file: LayerFile, page: number): number {
    for (let stream = 0; stream < STREAMS; stream++) {
      const at = page - this.#first[stream]!;
      if (at < 0 || at >= this.#count[stream]! || this.#file[stream] !== file.id) continue;
      this.#recent[stream] = 1;
      return this.#bufferOf(stream) + at * CACHE_PAGE_BYTES;
    }
    return -1;
  }

  /**
   * Notes a miss. If it goes on with a stream that is long enough, the page is read with those
   * behind it, up to page `pagesEnd`, and its offset returned; else -1: the caller reads it.
   */
  miss(file: LayerFile, page: number, pagesEnd: number): number {
    if (page >= pagesEnd) return -1;
    for (let stream = 0; stream < STREAMS; stream++) {
      const gap = page - this.#next[stream]!;
      if (gap < 0 || gap > GAP_PAGES_MAX || this.#file[stream] !== file.id) continue;
      this.#recent[stream] = 1;
      this.#next[stream] = page + 1;
      if (++this.#streak[stream]! < STREAK_MIN) return -1;
      return this.#load(stream, file, page, Math.min(RUN_PAGES, pagesEnd - page));
    }
    this.#begin(file, page);
    return -1;
  }

  #load(stream: number, file: LayerFile, page: number, count: number): number {
    const offset = this.#bufferOf(stream);
    this.#count[stream] = 0; // while the buffer is half filled, should the read fail
    this.#files.readExactly(
      file,
      page * CACHE_PAGE_BYTES,
      count * CACHE_PAGE_BYTES,
      this.#bytes,
      offset,
    );
    this.#first[stream] = page;
    this.#count[stream] = count;
    this.#next[stream] = page + count;
    return offset;
  }

  /** Begins a stream in the place of one that has not gone on since the hand last passed. */
  #begin(file: LayerFile, page: number): void {
    while (this.#recent[this.#hand] === 1) {
      this.#recent[this.#hand] = 0;
      this.#hand = (this.#hand + 1) % STREAMS;
    }
    const stream = this.#hand;
    this.#hand = (stream + 1) % STREAMS;
    this.#file[stream] = file.id;
    this.#next[stream] = page + 1;
    this.#streak[stream] = 1;
    this.#count[stream] = 0;
  }

  #bufferOf(stream: number): number {
    return this.#offset + stream * RUN_PAGES * CACHE_PAGE_BYTES;
  }
}
