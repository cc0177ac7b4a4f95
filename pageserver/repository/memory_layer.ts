/**
 * An open or frozen layer: what came since the last flush, in an append-only file and an index in
 * RAM.
 *
 * A timeline writes into its one open layer; freezing it only notes where it ends. Entries above
 * the timeline's lastRecordLsn may be there already (a batch being put): readers do not see them,
 * because they never ask above lastRecordLsn.
 */
import { assert } from "../../libs/utils/assert.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import { AppendFile } from "./append_file.ts";
import type { LayerSource, SearchKey } from "./blob_source.ts";
import type { Found } from "./found.ts";
import { compareKeys, isScannable, type Key, makeKey } from "./key.ts";
import { type KeyInterner, NO_OBJECT, type ObjectId } from "./key_interner.ts";
import { MemoryIndex, NO_ENTRY } from "./memory_index.ts";
import type { LayerOwner } from "./layer_format.ts";
import type { Reconstruction } from "./reconstruction.ts";
import type { Resources } from "./resources.ts";

/** The open layer, or one that waits for its flush. */
export class MemoryLayer implements LayerSource {
  readonly lsnStart: Lsn;
  /** The end once frozen; while open, everything that comes is in range. */
  lsnEnd: Lsn = Number.MAX_SAFE_INTEGER as Lsn;
  /** The record before the one that ends at lsnEnd; set when frozen. */
  prevRecordLsn: Lsn = 0 as Lsn;
  readonly openedAtMs: number;
  readonly file: AppendFile;
  readonly index = new MemoryIndex();
  readonly #interner: KeyInterner;
  readonly #resources: Resources;
  #accountedBytes = 0;
  #committedLsn: Lsn;
  #committedEntries = 0;
  #committedScanKeys = 0;
  /** Keys of classes that scans read, in order of arrival. */
  readonly #scanObjects: ObjectId[] = [];
  readonly #scanBlocks: number[] = [];
  /** Greatest LSN put. */
  lastPutLsn: Lsn;

  /** Opens an empty layer on a new file at `path`. */
  constructor(path: string, lsnStart: Lsn, owner: LayerOwner, resources: Resources) {
    this.lsnStart = lsnStart;
    this.lastPutLsn = lsnStart;
    this.#committedLsn = lsnStart;
    this.openedAtMs = resources.now();
    this.file = new AppendFile(path, owner, resources);
    this.#resources = resources;
    this.#interner = resources.interner;
  }

  /** Everything put so far is visible now; brings the shared count of memory up to date. */
  commit(): void {
    this.#committedLsn = this.lastPutLsn;
    this.#committedEntries = this.index.entryCount;
    this.#committedScanKeys = this.#scanObjects.length;
    const bytes = this.index.memoryBytes + this.file.bufferBytes;
    this.#resources.openLayerBytes += bytes - this.#accountedBytes;
    this.#accountedBytes = bytes;
  }

  /** Forgets what was put since commit(). Its blobs stay in the file, unreferenced. */
  rollback(): void {
    this.index.truncate(this.#committedEntries);
    this.#scanObjects.length = this.#committedScanKeys;
    this.#scanBlocks.length = this.#committedScanKeys;
    this.lastPutLsn = this.#committedLsn;
  }

  /** Takes the layer out of the shared count: a finished layer has taken over, or it is dropped. */
  unaccount(): void {
    this.#resources.openLayerBytes -= this.#accountedBytes;
    this.#accountedBytes = 0;
  }

  /** Adds a version of a key; `word` is the blob's position plus its kind. */
  put(object: ObjectId, block: number, lsn: Lsn, word: number): void {
    assert(lsn > this.lsnStart && lsn >= this.lastPutLsn, "LSNs come in order");
    this.lastPutLsn = lsn;
    if (this.index.put(object, block, lsn, word) && isScannable(this.#interner.classOf(object))) {
      this.#scanObjects.push(object);
      this.#scanBlocks.push(block);
    }
  }

  /** Notes where the layer ends: at a record's end, with everything that was put at or below it. */
  freeze(lsnEnd: Lsn, prevRecordLsn: Lsn): void {
    assert(this.lastPutLsn <= lsnEnd, "a layer is frozen between batches");
    this.lsnEnd = lsnEnd;
    this.prevRecordLsn = prevRecordLsn;
  }

  gather(key: SearchKey, upTo: Lsn, found: Found): boolean {
    if (key.object === NO_OBJECT) return false;
    let entry = this.index.newest(key.object, key.f6);
    while (entry !== NO_ENTRY) {
      const lsn = this.index.lsn(entry);
      if (lsn <= upTo && found.add(this, this.index.word(entry), lsn)) return true;
      entry = this.index.previous(entry);
    }
    return false;
  }

  scan(from: Key, to: Key, upTo: Lsn, visit: (key: Key, word: number) => void): void {
    const key = makeKey(0, 0, 0, 0, 0, 0);
    for (let i = 0; i < this.#scanObjects.length; i++) {
      const object = this.#scanObjects[i]!;
      this.#interner.fields(object, key);
      key.f6 = this.#scanBlocks[i]!;
      if (compareKeys(key, from) < 0 || compareKeys(key, to) >= 0) continue;
      let entry = this.index.newest(object, key.f6);
      while (entry !== NO_ENTRY && this.index.lsn(entry) > upTo) entry = this.index.previous(entry);
      if (entry !== NO_ENTRY) visit(key, this.index.word(entry));
    }
  }

  readBlob(position: number, likelyBytes: number, into: Reconstruction): number {
    return this.file.readBlob(position, likelyBytes, into);
  }

  pointAtBlob(): boolean {
    return false; // what has just been written is seldom read as it is
  }
}
