/**
 * Reading a finished layer (layer_format.ts) through the page cache, synchronously.
 *
 * Opening checks header and trailer against what index_part says of the layer and loads the
 * directory; each index block is checked once when it enters the cache, each blob at every read.
 * What fails a check throws Corrupt and names the file.
 */
import { Corrupt } from "../../libs/utils/errors.ts";
import { INVALID_LSN, type Lsn } from "../../libs/utils/lsn.ts";
import {
  checkBlob,
  checkBlobLength,
  type LayerSource,
  pagesOfBlob,
  type SearchKey,
} from "./blob_source.ts";
import type { LayerFile } from "./file_table.ts";
import type { Found } from "./found.ts";
import { compareKeys, isSameObject, type Key, makeKey } from "./key.ts";
import {
  blockEntries,
  blockObjects,
  checkBlock,
  entryOffset,
  findEntry,
  findObject,
  objectFirstEntry,
  readObject,
} from "./index_block.ts";
import { LayerDirectory } from "./layer_directory.ts";
import {
  BLOB_HEADER_BYTES,
  BLOCK_ITEM_BYTES,
  CACHE_PAGE_BYTES,
  checkHeader,
  decodeTrailer,
  DIRECTORY_ENTRY_BYTES,
  HEADER_BYTES,
  type LayerDescription,
  type LayerOwner,
  type LayerTrailer,
  readLsn,
} from "./layer_format.ts";
import type { FilePageCache } from "./file_page_cache.ts";
import type { Reconstruction } from "./reconstruction.ts";
import type { Resources } from "./resources.ts";

const LSN_MAX = Number.MAX_SAFE_INTEGER as Lsn;

/** No entry has this word: tombstones have position 0, and blobs end before 4 GiB. */
const NONE_PENDING = -1;

/** Where what lies in a layer file. */
export interface LayerExtent {
  /** Bytes of header and values; then come the index blocks. */
  readonly valueBytes: number;
  readonly indexBlocks: number;
  readonly entries: number;
}

/** An open layer file. */
export class LayerReader implements LayerSource {
  readonly lsnStart: Lsn;
  readonly lsnEnd: Lsn;
  readonly #file: LayerFile;
  readonly #cache: FilePageCache;
  readonly #trailer: LayerTrailer;
  readonly #directory: LayerDirectory;
  /**
   * Where the last search ended: no entry behind `entry` is at or before `key`, as of the search's
   * LSN; `end` is the end of the entries of its object in that index block. Neighbours are asked
   * for one after the other, and lie so.
   */
  readonly #at = { key: makeKey(0, 0, 0, 0, 0, -2), block: 0, entry: 0, end: 0 };

  /** Opens the file. Throws Corrupt if it is missing or is not the layer that `layer` describes. */
  constructor(
    file: LayerFile,
    layer: LayerDescription,
    owner: LayerOwner,
    resources: Resources,
  ) {
    const { files } = resources;
    this.#file = file;
    this.#cache = resources.cache;
    this.lsnStart = layer.lsnStart;
    this.lsnEnd = layer.lsnEnd;
    const page = new Uint8Array(CACHE_PAGE_BYTES);
    files.readExactly(file, 0, HEADER_BYTES, page, 0);
    checkHeader(page, owner, file.path);
    files.readExactly(file, layer.sizeBytes - CACHE_PAGE_BYTES, CACHE_PAGE_BYTES, page, 0);
    const trailer = decodeTrailer(page, owner, file.path);
    this.#trailer = trailer;
    this.#checkDescription(layer);
    const directory = new Uint8Array(trailer.indexBlocks * DIRECTORY_ENTRY_BYTES);
    const at = (trailer.firstIndexPage + trailer.indexBlocks) * CACHE_PAGE_BYTES;
    files.readExactly(file, at, directory.length, directory, 0);
    this.#directory = new LayerDirectory(
      directory,
      trailer.indexBlocks,
      trailer.directoryCrc,
      file.path,
    );
  }

  /** Bytes of memory it holds. */
  get memoryBytes(): number {
    return this.#directory.memoryBytes;
  }

  /** Where values and index lie in the file, for who reads all of it. */
  get extent(): LayerExtent {
    const { firstIndexPage, indexBlocks, entries } = this.#trailer;
    return { valueBytes: firstIndexPage * CACHE_PAGE_BYTES, indexBlocks, entries };
  }

  /** `above`: only entries above this LSN; for the rest the search comes again. */
  gather(key: SearchKey, upTo: Lsn, found: Found, above = this.lsnStart): boolean {
    if (!this.#isNext(key, upTo)) return this.#search(key, upTo, found, above);
    const { view } = this.#cache;
    const at = entryOffset(view, this.#block(this.#at.block), this.#at.entry);
    const lsn = readLsn(view, at + 8);
    return lsn > above && found.add(this, view.getUint32(at + 4, true), lsn);
  }

  /**
   * Whether the key is the next behind #at, and all that the layer has of it is the next entry; #at
   * is there then. False also where it would take more than a look to know.
   */
  #isNext(key: SearchKey, upTo: Lsn): boolean {
    const at = this.#at;
    if (key.f6 !== at.key.f6 + 1 || at.entry + 2 >= at.end || !isSameObject(key, at.key)) {
      return false;
    }
    const { view } = this.#cache;
    const next = entryOffset(view, this.#block(at.block), at.entry + 1);
    const isOnly = view.getUint32(next, true) === key.f6 &&
      view.getUint32(next + BLOCK_ITEM_BYTES, true) !== key.f6;
    if (!isOnly || readLsn(view, next + 8) > upTo) return false;
    at.entry++;
    at.key.f6 = key.f6;
    return true;
  }

  #search(key: SearchKey, upTo: Lsn, found: Found, above: Lsn): boolean {
    let number = this.#directory.find(key, upTo);
    if (number < 0) return false;
    const { view } = this.#cache;
    let block = this.#block(number);
    let object = findObject(view, block, key);
    if (object < 0) return false;
    let start = objectFirstEntry(view, block, object);
    const end = objectFirstEntry(view, block, object + 1);
    let entry = findEntry(view, block, start, end, key.f6, upTo);
    if (entry >= start) this.#note(key, number, entry, end);
    for (;;) {
      for (; entry >= start; entry--) {
        const at = entryOffset(view, block, entry);
        if (view.getUint32(at, true) !== key.f6) return false;
        const lsn = readLsn(view, at + 8);
        if (lsn <= above) return false;
        if (found.add(this, view.getUint32(at + 4, true), lsn)) return true;
      }
      // The key's older entries may end the block before, if this block begins with the key.
      if (start > 0 || number === 0) return false;
      block = this.#block(--number);
      object = blockObjects(view, block) - 1;
      if (findObject(view, block, key) !== object) return false;
      start = objectFirstEntry(view, block, object);
      entry = blockEntries(view, block) - 1;
    }
  }

  /** Moves #at to the entry that a search found. */
  #note(key: Key, block: number, entry: number, end: number): void {
    const at = this.#at;
    at.key.f1 = key.f1;
    at.key.f2 = key.f2;
    at.key.f3 = key.f3;
    at.key.f4 = key.f4;
    at.key.f5 = key.f5;
    at.key.f6 = key.f6;
    at.block = block;
    at.entry = entry;
    at.end = end;
  }

  /** The length of the blob at `position`. */
  blobLength(position: number): number {
    const at = this.#blobAt(position, 0, false);
    return this.#cache.valueView.getUint32(at, true);
  }

  /**
   * Visits all entries of the object of `from` in its blocks [from.f6, endBlock), by block, then
   * LSN, then order of arrival, until a visit returns true: then it is true. A visitor must not
   * read.
   */
  entries(
    from: Key,
    endBlock: number,
    visit: (block: number, word: number, lsn: Lsn) => boolean,
  ): boolean {
    const { view } = this.#cache;
    const first = Math.max(0, this.#directory.find(from, INVALID_LSN));
    for (let number = first; number < this.#directory.blocks; number++) {
      const block = this.#block(number);
      const object = findObject(view, block, from);
      // The block where `from` belongs may end before it; the next one then begins with it, or none
      if (object < 0 && number > first) return false;
      if (object < 0) continue;
      const end = objectFirstEntry(view, block, object + 1);
      for (let entry = objectFirstEntry(view, block, object); entry < end; entry++) {
        const at = entryOffset(view, block, entry);
        const f6 = view.getUint32(at, true);
        if (f6 >= endBlock) return false;
        if (f6 < from.f6) continue;
        if (visit(f6, view.getUint32(at + 4, true), readLsn(view, at + 8))) return true;
      }
      if (object < blockObjects(view, block) - 1) return false;
    }
    return false;
  }

  /** Blocks that hold nothing but more versions of a key are passed over. */
  scan(from: Key, to: Key, upTo: Lsn, visit: (key: Key, word: number) => void): void {
    // A copy of each block: visit() may read blobs, which can push the block out of the cache.
    const bytes = new Uint8Array(CACHE_PAGE_BYTES);
    const view = new DataView(bytes.buffer);
    const key = makeKey(0, 0, 0, 0, 0, 0);
    const pending = makeKey(0, 0, 0, 0, 0, 0);
    let pendingWord = NONE_PENDING;
    // The block that may hold `from` begins at or before it.
    let number = Math.max(0, this.#directory.find(from, INVALID_LSN));
    for (; number < this.#directory.blocks; number = this.#blockAfter(number, key, upTo)) {
      const block = this.#block(number);
      bytes.set(this.#cache.bytes.subarray(block, block + CACHE_PAGE_BYTES));
      for (let object = 0; object < blockObjects(view, 0); object++) {
        readObject(view, 0, object, key);
        const end = objectFirstEntry(view, 0, object + 1);
        let next = objectFirstEntry(view, 0, object);
        while (next < end) {
          const first = next;
          key.f6 = view.getUint32(entryOffset(view, 0, first), true);
          next = findEntry(view, 0, first, end, key.f6, LSN_MAX) + 1;
          if (pendingWord !== NONE_PENDING && compareKeys(key, pending) !== 0) {
            visit(pending, pendingWord);
            pendingWord = NONE_PENDING;
          }
          if (compareKeys(key, to) >= 0) return;
          if (compareKeys(key, from) < 0) continue;
          const newest = findEntry(view, 0, first, next, key.f6, upTo);
          if (newest < first) continue;
          Object.assign(pending, key);
          pendingWord = view.getUint32(entryOffset(view, 0, newest) + 4, true);
        }
      }
    }
    if (pendingWord !== NONE_PENDING) visit(pending, pendingWord);
  }

  /**
   * The next block that a scan has to look at when `key` is the last of block `number`: the one
   * with the key's newest entry at or below `upTo`, else the one with its last entries.
   */
  #blockAfter(number: number, key: Key, upTo: Lsn): number {
    const newest = this.#directory.find(key, upTo);
    if (newest > number) return newest;
    return Math.max(number + 1, this.#directory.find(key, LSN_MAX));
  }

  readBlob(position: number, likelyBytes: number, into: Reconstruction): number {
    const at = this.#blobAt(position, likelyBytes, into.mayPostpone);
    const { valueView } = this.#cache;
    const length = valueView.getUint32(at, true);
    const crc = valueView.getUint32(at + 4, true);
    checkBlobLength(length, position, this.#file.path);
    const offset = into.reserve(length);
    this.#cache.readValue(
      this.#file,
      position + BLOB_HEADER_BYTES,
      length,
      this.#trailer.firstIndexPage,
      into.bytes,
      offset,
    );
    checkBlob(into.bytes, offset, length, crc, position, this.#file.path);
    return offset;
  }

  pointAtBlob(position: number, likelyBytes: number, into: Reconstruction): boolean {
    const at = this.#blobAt(position, likelyBytes, into.mayPostpone);
    const { valueBytes: bytes, valueView: view, valueEnd } = this.#cache;
    const length = view.getUint32(at, true);
    const crc = view.getUint32(at + 4, true);
    checkBlobLength(length, position, this.#file.path);
    const start = at + BLOB_HEADER_BYTES;
    if (start + length > valueEnd) return false;
    checkBlob(bytes, start, length, crc, position, this.#file.path);
    into.pointAt(bytes, view, start, length);
    return true;
  }

  /** The offset of a blob's header in valueBytes of the cache. */
  #blobAt(position: number, likelyBytes: number, mayPostpone: boolean): number {
    this.#cache.mayPostpone = mayPostpone;
    const page = Math.floor(position / CACHE_PAGE_BYTES);
    const { firstIndexPage } = this.#trailer; // what comes before are values
    const needed = pagesOfBlob(position, likelyBytes);
    return this.#cache.valuePage(this.#file, page, firstIndexPage, needed) +
      position % CACHE_PAGE_BYTES;
  }

  /** The offset in the cache of an index block that has been checked. */
  #block(number: number): number {
    const { firstIndexPage, indexBlocks } = this.#trailer;
    const end = firstIndexPage + indexBlocks;
    const offset = this.#cache.page(this.#file, firstIndexPage + number, firstIndexPage, end);
    if (this.#cache.isVerified(offset)) return offset;
    checkBlock(this.#cache.bytes, this.#cache.view, offset, number, this.#file.path);
    this.#cache.markVerified(offset);
    return offset;
  }

  #checkDescription(layer: LayerDescription): void {
    const trailer = this.#trailer;
    if (
      trailer.kind !== layer.kind || trailer.inKeyOrder !== layer.inKeyOrder ||
      trailer.sizeBytes !== layer.sizeBytes || trailer.lsnStart !== layer.lsnStart ||
      trailer.lsnEnd !== layer.lsnEnd || compareKeys(trailer.first, layer.first) !== 0 ||
      compareKeys(trailer.last, layer.last) !== 0
    ) {
      throw new Corrupt(
        `Cannot read layer file "${this.#file.path}": it is not the layer that index_part lists`,
      );
    }
  }
}
