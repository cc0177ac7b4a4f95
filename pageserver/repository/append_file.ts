/**
 * The growing file of an open layer: header and blobs are appended (layer_format.ts), and can be
 * read back at once.
 *
 *   [0, flushedBytes)        in the file, whole pages, read through the page cache
 *   [flushedBytes, length)   in the write buffer, BUFFER_BYTES at most
 *
 * Nothing is synced while it grows. After a crash the file is dropped, its WAL comes again. When
 * the layer is flushed, the index is put behind the blobs and the file becomes the layer
 * (layer_writer.ts); until the layer's reader takes over, this object keeps serving its blobs, so
 * the buffer is kept.
 *
 * The buffer is written out when room is needed, at its own place in the file, and stays as it is
 * when that fails: whoever finds the disk full may try again later, with nothing lost.
 */
import { assert } from "../../libs/utils/assert.ts";
import { writeAll } from "../../libs/utils/durable.ts";
import { Unavailable } from "../../libs/utils/errors.ts";
import { ifThere } from "../../libs/utils/if_there.ts";
import { blobChecksum, checkBlob, checkBlobLength, pagesOfBlob } from "./blob_source.ts";
import type { FileTable, LayerFile } from "./file_table.ts";
import {
  BLOB_BYTES_MAX,
  BLOB_HEADER_BYTES,
  BLOB_REGION_BYTES_MAX,
  CACHE_PAGE_BYTES,
  encodeHeader,
  HEADER_BYTES,
  type LayerOwner,
} from "./layer_format.ts";
import type { FilePageCache } from "./file_page_cache.ts";
import type { Reconstruction } from "./reconstruction.ts";
import type { Resources } from "./resources.ts";

/** Bytes held back before they go to the file: a multiple of the page, so only whole pages go. */
const BUFFER_BYTES = 1024 * 1024;

/** An append-only file of blobs. Invariant: flushedBytes is a multiple of the page size. */
export class AppendFile {
  readonly file: LayerFile;
  readonly #files: FileTable;
  readonly #cache: FilePageCache;
  readonly #writer: Deno.FsFile;
  readonly #buffer = new Uint8Array(BUFFER_BYTES);
  readonly #bufferView = new DataView(this.#buffer.buffer);
  #flushedBytes = 0;
  #length = 0;
  #sealed = false;
  #writerClosed = false;

  /** Creates the file. */
  constructor(path: string, owner: LayerOwner, resources: Resources) {
    this.#files = resources.files;
    this.#cache = resources.cache;
    this.#writer = Deno.openSync(path, { write: true, createNew: true });
    this.file = this.#files.register(path);
    this.#append(encodeHeader(owner), 0, HEADER_BYTES);
  }

  /** Bytes so far: where the next blob begins. */
  get length(): number {
    return this.#length;
  }

  /** Bytes of memory it holds. */
  get bufferBytes(): number {
    return BUFFER_BYTES;
  }

  /** Appends bytes[start, start + length) as a blob and returns its position. */
  appendBlob(bytes: Uint8Array, start: number, length: number): number {
    assert(!this.#sealed, "a sealed file takes no more blobs");
    const position = this.#length;
    if (length > BLOB_BYTES_MAX || position + length + 16 > BLOB_REGION_BYTES_MAX) {
      throw new Unavailable(
        `Cannot store ${length} bytes in "${this.file.path}": it holds ${position} already`,
      );
    }
    this.#makeRoom();
    const at = position - this.#flushedBytes;
    this.#bufferView.setUint32(at, length, true);
    this.#bufferView.setUint32(at + 4, blobChecksum(bytes, start, length), true);
    this.#length += BLOB_HEADER_BYTES;
    try {
      this.#append(bytes, start, length);
      const rest = this.#length & 7;
      if (rest !== 0) this.#pad(8 - rest);
    } catch (thrown) {
      // A part of it may be in the file already; nobody will refer to it
      this.#length = Math.max(position, this.#flushedBytes);
      throw thrown;
    }
    return position;
  }

  /** Appends a blob with its header and padding, as it lies in another file. */
  appendStored(bytes: Uint8Array, start: number, length: number): number {
    assert(!this.#sealed && length % 8 === 0, "an unsealed file takes whole blobs");
    const position = this.#length;
    if (position + length > BLOB_REGION_BYTES_MAX) {
      throw new Unavailable(
        `Cannot store ${length} bytes in "${this.file.path}": it holds ${position} already`,
      );
    }
    this.#append(bytes, start, length);
    return position;
  }

  /** Appends the blob at `position` to into.bytes; see LayerSource. */
  readBlob(position: number, likelyBytes: number, into: Reconstruction): number {
    let length: number;
    let crc: number;
    this.#cache.mayPostpone = into.mayPostpone;
    if (position >= this.#flushedBytes) {
      const at = position - this.#flushedBytes;
      length = this.#bufferView.getUint32(at, true);
      crc = this.#bufferView.getUint32(at + 4, true);
    } else {
      const page = Math.floor(position / CACHE_PAGE_BYTES);
      const needed = pagesOfBlob(position, likelyBytes);
      const at = this.#cache.valuePage(this.file, page, this.#wholePages, needed) +
        position % CACHE_PAGE_BYTES;
      length = this.#cache.valueView.getUint32(at, true);
      crc = this.#cache.valueView.getUint32(at + 4, true);
    }
    checkBlobLength(length, position, this.file.path);
    const offset = into.reserve(length);
    this.#read(position + BLOB_HEADER_BYTES, length, into.bytes, offset);
    checkBlob(into.bytes, offset, length, crc, position, this.file.path);
    return offset;
  }

  /**
   * Writes out what the buffer holds, padded with zeros to a whole page, and returns the padded
   * length. The caller appends the index through `writer` and syncs it; if that fails before the
   * sync, it begins again here.
   */
  seal(): number {
    this.#sealed = true;
    const used = this.#length - this.#flushedBytes;
    const padded = Math.ceil(used / CACHE_PAGE_BYTES) * CACHE_PAGE_BYTES;
    this.#buffer.fill(0, used, padded);
    this.#writer.seekSync(this.#flushedBytes, Deno.SeekMode.Start);
    writeAll(this.#writer, this.#buffer.subarray(0, padded));
    this.#writer.truncateSync(this.#flushedBytes + padded); // of an attempt before
    return this.#flushedBytes + padded;
  }

  /** The handle that the file is written through; positioned at the end. */
  get writer(): Deno.FsFile {
    return this.#writer;
  }

  /** Closes the write handle; again is fine. */
  closeWriter(): void {
    if (this.#writerClosed) return;
    this.#writerClosed = true;
    this.#writer.close();
  }

  /** Closes both handles and removes the file; again is fine. */
  discard(): void {
    this.closeWriter();
    this.#files.release(this.file);
    ifThere(() => Deno.removeSync(this.file.path));
  }

  /** Pages that are in the file. */
  get #wholePages(): number {
    return this.#flushedBytes / CACHE_PAGE_BYTES;
  }

  #read(position: number, length: number, into: Uint8Array, at: number): void {
    const cached = Math.max(0, Math.min(length, this.#flushedBytes - position));
    if (cached > 0) {
      this.#cache.readValue(this.file, position, cached, this.#wholePages, into, at);
    }
    if (cached === length) return;
    const from = position + cached - this.#flushedBytes;
    into.set(this.#buffer.subarray(from, from + length - cached), at + cached);
  }

  #append(bytes: Uint8Array, start: number, length: number): void {
    for (let done = 0; done < length;) {
      this.#makeRoom();
      const at = this.#length - this.#flushedBytes;
      const count = Math.min(length - done, BUFFER_BYTES - at);
      this.#buffer.set(bytes.subarray(start + done, start + done + count), at);
      done += count;
      this.#length += count;
    }
  }

  /** Up to the next multiple of 8, so always within the buffer. */
  #pad(count: number): void {
    this.#makeRoom();
    const at = this.#length - this.#flushedBytes;
    for (let i = 0; i < count; i++) this.#buffer[at + i] = 0;
    this.#length += count;
  }

  /** Writes the buffer out if it is full. */
  #makeRoom(): void {
    if (this.#length - this.#flushedBytes < BUFFER_BYTES) return;
    this.#writer.seekSync(this.#flushedBytes, Deno.SeekMode.Start);
    writeAll(this.#writer, this.#buffer);
    this.#flushedBytes += BUFFER_BYTES;
  }
}
