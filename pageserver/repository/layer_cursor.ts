/**
 * All entries of a layer, in the order of its index, for who rewrites it: index blocks are read one
 * behind the other, some at a time, past the page cache.
 */
import type { FileTable, LayerFile } from "./file_table.ts";
import {
  blockEntries,
  checkBlock,
  entryOffset,
  objectFirstEntry,
  readObject,
} from "./index_block.ts";
import { makeKey } from "./key.ts";
import { CACHE_PAGE_BYTES, readLsn } from "./layer_format.ts";
import type { LayerExtent } from "./layer_reader.ts";

/** Index blocks that are read at once: 64 KiB. */
const BLOCKS_PER_READ = 8;

/** Where one reader is in the index of a layer. */
export class LayerCursor {
  /** The entry it is at; the object is used again. */
  readonly key = makeKey(0, 0, 0, 0, 0, 0);
  lsn = 0;
  word = 0;
  readonly #files: FileTable;
  readonly #file: LayerFile;
  readonly #extent: LayerExtent;
  readonly #bytes = new Uint8Array(BLOCKS_PER_READ * CACHE_PAGE_BYTES);
  readonly #view = new DataView(this.#bytes.buffer);
  #number = -1;
  /** Offset of the block in #bytes; its entries, the next one, and the end of its object. */
  #block = 0;
  #entries = 0;
  #entry = 0;
  #object = 0;
  #objectEnd = 0;

  /** Before the first entry of an open layer. */
  constructor(files: FileTable, file: LayerFile, extent: LayerExtent) {
    this.#files = files;
    this.#file = file;
    this.#extent = extent;
  }

  /** Goes to the next entry; false behind the last. Throws Corrupt. */
  next(): boolean {
    while (this.#entry === this.#entries) if (!this.#nextBlock()) return false;
    while (this.#entry === this.#objectEnd) this.#nextObject();
    const at = entryOffset(this.#view, this.#block, this.#entry++);
    this.key.f6 = this.#view.getUint32(at, true);
    this.word = this.#view.getUint32(at + 4, true);
    this.lsn = readLsn(this.#view, at + 8);
    return true;
  }

  #nextObject(): void {
    readObject(this.#view, this.#block, ++this.#object, this.key);
    this.#objectEnd = objectFirstEntry(this.#view, this.#block, this.#object + 1);
  }

  #nextBlock(): boolean {
    const { indexBlocks } = this.#extent;
    if (++this.#number >= indexBlocks) return false;
    const first = this.#number - this.#number % BLOCKS_PER_READ;
    if (first === this.#number) this.#read(first, Math.min(BLOCKS_PER_READ, indexBlocks - first));
    this.#block = (this.#number - first) * CACHE_PAGE_BYTES;
    checkBlock(this.#bytes, this.#view, this.#block, this.#number, this.#file.path);
    this.#entries = blockEntries(this.#view, this.#block);
    this.#entry = 0;
    this.#object = -1;
    this.#objectEnd = 0;
    return true;
  }

  #read(first: number, count: number): void {
    const position = this.#extent.valueBytes + first * CACHE_PAGE_BYTES;
    this.#files.readExactly(this.#file, position, count * CACHE_PAGE_BYTES, this.#bytes, 0);
  }
}
