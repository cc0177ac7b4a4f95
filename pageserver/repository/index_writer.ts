/**
 * The end of a layer file (layer_format.ts): index blocks from entries that come in order, the
 * directory of the blocks, and the trailer.
 */
import { crc32c } from "../../libs/utils/crc32c.ts";
import { writeAll } from "../../libs/utils/durable.ts";
import { syncFile } from "./durable_async.ts";
import { IndexBlockBuilder } from "./index_block.ts";
import type { Key } from "./key.ts";
import { writeDirectoryEntry } from "./layer_directory.ts";
import {
  CACHE_PAGE_BYTES,
  DIRECTORY_ENTRY_BYTES,
  encodeTrailer,
  type LayerDescription,
  type LayerOwner,
} from "./layer_format.ts";

/** Index blocks that are given away with one call. */
const BLOCKS_PER_WRITE = 32;

/** Makes index blocks and collects the directory. */
export class IndexWriter {
  readonly #write: (blocks: Uint8Array) => void;
  readonly #builder = new IndexBlockBuilder();
  readonly #buffer = new Uint8Array(BLOCKS_PER_WRITE * CACHE_PAGE_BYTES);
  #buffered = 0;
  #directory = new Uint8Array(64 * DIRECTORY_ENTRY_BYTES);
  #object = -1;
  blocks = 0;
  entries = 0;

  /** `write` is given some blocks at a time, in a buffer that is used again. */
  constructor(write: (blocks: Uint8Array) => void) {
    this.#write = write;
  }

  /** Adds the next entry; `object` numbers the objects in order, `key` has all fields. */
  add(object: number, key: Key, lsn: number, word: number): void {
    if (!this.#builder.hasRoom(object !== this.#object)) this.#endBlock();
    if (this.#builder.isEmpty) this.#beginBlock(key, lsn);
    if (object !== this.#object) {
      this.#builder.addObject(key);
      this.#object = object;
    }
    this.#builder.addEntry(key.f6, lsn, word);
    this.entries++;
  }

  /** Gives the rest away and returns the directory's bytes. */
  finish(): Uint8Array {
    if (!this.#builder.isEmpty) this.#endBlock();
    this.#writeBuffer();
    return this.#directory.subarray(0, this.blocks * DIRECTORY_ENTRY_BYTES);
  }

  #beginBlock(key: Key, lsn: number): void {
    const at = this.blocks * DIRECTORY_ENTRY_BYTES;
    if (at === this.#directory.length) {
      const grown = new Uint8Array(at * 2);
      grown.set(this.#directory);
      this.#directory = grown;
    }
    writeDirectoryEntry(new DataView(this.#directory.buffer), at, key, lsn);
  }

  #endBlock(): void {
    this.#builder.finish(this.blocks, this.#buffer, this.#buffered * CACHE_PAGE_BYTES);
    this.blocks++;
    this.#object = -1;
    if (++this.#buffered === BLOCKS_PER_WRITE) this.#writeBuffer();
  }

  #writeBuffer(): void {
    this.#write(this.#buffer.subarray(0, this.#buffered * CACHE_PAGE_BYTES));
    this.#buffered = 0;
  }
}

/**
 * Writes directory and trailer behind the index blocks, of which `index` has written all but the
 * last to `out`, and syncs the file. Header and values are `valueBytes` long.
 */
export async function finishLayerFile(
  out: Deno.FsFile,
  index: IndexWriter,
  layer: Omit<LayerDescription, "sizeBytes">,
  valueBytes: number,
  owner: LayerOwner,
): Promise<LayerDescription> {
  const directory = index.finish();
  writeAll(out, directory);
  const rest = directory.length % CACHE_PAGE_BYTES;
  const padding = rest === 0 ? 0 : CACHE_PAGE_BYTES - rest;
  writeAll(out, new Uint8Array(padding));
  const indexBytes = index.blocks * CACHE_PAGE_BYTES;
  const description: LayerDescription = {
    ...layer,
    sizeBytes: valueBytes + indexBytes + directory.length + padding + CACHE_PAGE_BYTES,
  };
  const trailer = {
    ...description,
    indexBlocks: index.blocks,
    firstIndexPage: valueBytes / CACHE_PAGE_BYTES,
    directoryCrc: crc32c(directory),
    entries: index.entries,
  };
  writeAll(out, encodeTrailer(trailer, owner));
  await syncFile(out);
  return description;
}
