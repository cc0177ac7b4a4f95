/**
 * Writes a delta layer in key order (layer_format.ts): entries come in the order of the index, each
 * with its value, which is put behind the one before.
 *
 * Holds the index until the end: 16 bytes an entry. The file has a temporary name; who gets it
 * gives it its own and lists it.
 */
import { assert } from "../../libs/utils/assert.ts";
import { writeAll } from "../../libs/utils/durable.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import { AppendFile } from "./append_file.ts";
import { finishLayerFile, IndexWriter } from "./index_writer.ts";
import { compareKeys, isSameObject, type Key, makeKey } from "./key.ts";
import type { LayerDescription, LayerOwner } from "./layer_format.ts";
import type { Resources } from "./resources.ts";

/** What the layer is to be. */
interface SortedLayerOptions {
  readonly path: string;
  readonly owner: LayerOwner;
  readonly generation: number;
  readonly lsnStart: Lsn;
  readonly lsnEnd: Lsn;
}

/** One layer that is being written. */
export class SortedLayerWriter {
  readonly path: string;
  readonly #options: SortedLayerOptions;
  readonly #resources: Resources;
  readonly #file: AppendFile;
  /** Index blocks that wait for the end of the values. */
  readonly #blocks: Uint8Array[] = [];
  readonly #index = new IndexWriter((blocks) => this.#takeBlocks(blocks));
  #isSealed = false;
  readonly #first: Key = makeKey(0, 0, 0, 0, 0, 0);
  readonly #last: Key = makeKey(0, 0, 0, 0, 0, 0);
  #objects = 0;

  /** Creates the file. */
  constructor(options: SortedLayerOptions, resources: Resources) {
    this.path = options.path;
    this.#options = options;
    this.#resources = resources;
    this.#file = new AppendFile(options.path, options.owner, resources);
  }

  /** Bytes of values so far. */
  get valueBytes(): number {
    return this.#file.length;
  }

  /** Entries so far. */
  get entries(): number {
    return this.#index.entries;
  }

  /** Stores a blob with its header as bytes[at, at + length), as it lay elsewhere. */
  store(bytes: Uint8Array, at: number, length: number): number {
    return this.#file.appendStored(bytes, at, length);
  }

  /** Adds the next entry; `word` is as layer_format.ts says. */
  add(key: Key, lsn: number, word: number): void {
    const last = this.#last;
    if (this.entries === 0) Object.assign(this.#first, key);
    if (this.entries === 0 || !isSameObject(last, key)) {
      assert(this.entries === 0 || compareKeys(last, key) < 0, "objects come in order");
      Object.assign(last, key);
      this.#objects++;
    }
    last.f6 = key.f6;
    this.#index.add(this.#objects, key, lsn, word);
  }

  /** Finishes and syncs the file. On failure discard() is still to be called. */
  async finish(): Promise<LayerDescription> {
    const { owner, generation, lsnStart, lsnEnd } = this.#options;
    const valueBytes = this.#file.seal();
    this.#isSealed = true;
    const out = this.#file.writer;
    for (const blocks of this.#blocks) writeAll(out, blocks);
    this.#blocks.length = 0;
    const layer = await finishLayerFile(
      out,
      this.#index,
      {
        kind: "delta",
        inKeyOrder: true,
        first: this.#first,
        last: this.#last,
        lsnStart,
        lsnEnd,
        generation,
      },
      valueBytes,
      owner,
    );
    this.#file.closeWriter();
    this.#resources.files.release(this.#file.file);
    return layer;
  }

  /** Removes what was written. */
  discard(): void {
    this.#file.discard();
  }

  #takeBlocks(blocks: Uint8Array): void {
    if (this.#isSealed) writeAll(this.#file.writer, blocks);
    else this.#blocks.push(blocks.slice());
  }
}
