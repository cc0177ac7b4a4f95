/**
 * Some entries of layers that are rewritten, in the order in which they are written, with their
 * values: those are read in the order in which they lie in each file, in pieces as large as what is
 * wanted of them lies close together, and put into one slab.
 *
 * So a layer in key order is read once, from front to back; one in order of arrival once for each
 * batch, or where little of it is wanted, value by value.
 */
import { assert } from "../../libs/utils/assert.ts";
import { checkBlob, checkBlobLength } from "../repository/blob_source.ts";
import type { FileTable, LayerFile } from "../repository/file_table.ts";
import { isSameObject, type Key } from "../repository/key.ts";
import { BLOB_HEADER_BYTES, EntryKind, KIND_MASK } from "../repository/layer_format.ts";
import type { LayerExtent } from "../repository/layer_reader.ts";

/** Entries of a batch: their numbers take 16 bits. */
export const BATCH_ENTRIES_MAX = 65536;
/** Bytes of values of a batch, if it has more than one. */
export const BATCH_BYTES = 32 * 1024 * 1024;
/** Bytes that are read at once. */
const CHUNK_BYTES = 512 * 1024;
/** What lies between two values is read with them up to here: it costs less than another read. */
const GAP_BYTES = 16 * 1024;
/** What is read behind the position of the last value, whose length is not known. */
const TAIL_BYTES = 4096;

/** A layer whose values are read. */
interface ValueSource {
  readonly file: LayerFile;
  readonly extent: LayerExtent;
}

/** The batch. Reused. */
export class ValueBatch {
  count = 0;
  slab = new Uint8Array(BATCH_BYTES);
  #view = new DataView(this.slab.buffer);
  readonly #files: FileTable;
  readonly #sources: readonly ValueSource[];
  /** The objects of the entries, in order, and of each entry which. */
  readonly #objects: Key[] = [];
  readonly #objectOf = new Uint32Array(BATCH_ENTRIES_MAX);
  readonly #f6 = new Uint32Array(BATCH_ENTRIES_MAX);
  readonly #sourceOf = new Uint8Array(BATCH_ENTRIES_MAX);
  readonly #words = new Uint32Array(BATCH_ENTRIES_MAX);
  readonly #lsns = new Float64Array(BATCH_ENTRIES_MAX);
  /** Where the value is in the slab, header and padding included. */
  readonly #offsets = new Uint32Array(BATCH_ENTRIES_MAX);
  readonly #lengths = new Uint32Array(BATCH_ENTRIES_MAX);
  /** (source * 2^29 + position / 8) * 2^16 + number of the entry, ascending. */
  readonly #order = new Float64Array(BATCH_ENTRIES_MAX);
  readonly #chunk = new Uint8Array(CHUNK_BYTES);
  readonly #chunkView = new DataView(this.#chunk.buffer);

  /** For entries of `sources`. */
  constructor(files: FileTable, sources: readonly ValueSource[]) {
    this.#files = files;
    this.#sources = sources;
  }

  /** Adds the next entry. */
  add(source: number, key: Key, lsn: number, word: number): void {
    assert(this.count < BATCH_ENTRIES_MAX && source < 256, "entry and source have their numbers");
    const last = this.#objects.at(-1);
    if (last === undefined || !isSameObject(last, key)) this.#objects.push({ ...key });
    const at = this.count++;
    this.#objectOf[at] = this.#objects.length - 1;
    this.#f6[at] = key.f6;
    this.#sourceOf[at] = source;
    this.#lsns[at] = lsn;
    this.#words[at] = word;
  }

  /**
   * Reads the values of the first entries, as many as there is room for, and returns their number,
   * which is not 0. Throws Corrupt.
   */
  fetch(): number {
    let count = this.count;
    while (!this.#read(count)) count = Math.ceil(count / 2);
    return count;
  }

  /** Forgets the first `count` entries. */
  drop(count: number): void {
    const left = this.count - count;
    const firstObject = left === 0 ? this.#objects.length : this.#objectOf[count]!;
    for (const each of [this.#f6, this.#sourceOf, this.#words, this.#lsns, this.#objectOf]) {
      each.copyWithin(0, count, this.count);
    }
    for (let i = 0; i < left; i++) this.#objectOf[i]! -= firstObject;
    this.#objects.splice(0, firstObject);
    this.count = left;
  }

  /** The key of an entry. */
  keyOf(entry: number, into: Key): void {
    Object.assign(into, this.#objects[this.#objectOf[entry]!]!);
    into.f6 = this.#f6[entry]!;
  }

  /** Whether an entry has the key of the one before, which is in the batch. */
  hasKeyBefore(entry: number): boolean {
    return this.#f6[entry] === this.#f6[entry - 1] &&
      this.#objectOf[entry] === this.#objectOf[entry - 1];
  }

  /** Whether an entry has the object of the one before, which is in the batch. */
  hasObjectBefore(entry: number): boolean {
    return this.#objectOf[entry] === this.#objectOf[entry - 1];
  }

  /** The block of an entry. */
  blockOf(entry: number): number {
    return this.#f6[entry]!;
  }

  /** The LSN of an entry. */
  lsnOf(entry: number): number {
    return this.#lsns[entry]!;
  }

  /** Position and kind of an entry's value where it was. */
  wordOf(entry: number): number {
    return this.#words[entry]!;
  }

  /** The source of an entry. */
  sourceOf(entry: number): number {
    return this.#sourceOf[entry]!;
  }

  /** Where a value is in the slab, after fetch(). */
  offsetOf(entry: number): number {
    return this.#offsets[entry]!;
  }

  /** Its bytes, with header and padding. */
  lengthOf(entry: number): number {
    return this.#lengths[entry]!;
  }

  /** Reads the values of the first `count` entries; false if there is no room for them. */
  #read(count: number): boolean {
    const order = this.#sorted(count);
    if (this.slab.length > BATCH_BYTES) this.#replaceSlab(BATCH_BYTES); // one value was larger
    let used = 0;
    let before = -1; // source and position of the value before
    let offset = 0;
    let length = 0;
    let chunkSource = -1;
    let chunkStart = 0;
    let chunkEnd = 0;
    for (let i = 0; i < order.length; i++) {
      const entry = order[i]! % BATCH_ENTRIES_MAX;
      const source = this.#sourceOf[entry]!;
      const position = this.#positionOf(entry);
      const place = Math.floor(order[i]! / BATCH_ENTRIES_MAX);
      if (place !== before) {
        before = place;
        if (source !== chunkSource || position + BLOB_HEADER_BYTES > chunkEnd) {
          chunkEnd = this.#readChunk(order, i);
          [chunkSource, chunkStart] = [source, position];
        }
        length = this.#storedLength(position - chunkStart, source, position);
        if (used + length > BATCH_BYTES && count > 1) return false;
        offset = used;
        used += length;
        if (used > this.slab.length) this.#replaceSlab(used);
        if (position + length <= chunkEnd) {
          const at = position - chunkStart;
          this.slab.set(this.#chunk.subarray(at, at + length), offset);
        } else {
          const { file } = this.#sources[source]!;
          this.#files.readExactly(file, position, length, this.slab, offset);
        }
        this.#check(offset, source, position);
      }
      this.#offsets[entry] = offset;
      this.#lengths[entry] = length;
    }
    return true;
  }

  #positionOf(entry: number): number {
    return this.#words[entry]! - (this.#words[entry]! & KIND_MASK);
  }

  /** The entries with values among the first `count`, in the order of their values. */
  #sorted(count: number): Float64Array {
    let at = 0;
    for (let entry = 0; entry < count; entry++) {
      if ((this.#words[entry]! & KIND_MASK) === EntryKind.tombstone) continue;
      const place = this.#sourceOf[entry]! * 2 ** 29 + this.#positionOf(entry) / 8;
      this.#order[at++] = place * BATCH_ENTRIES_MAX + entry;
    }
    return this.#order.subarray(0, at).sort();
  }

  /** Reads from the value of order[i] on what is worth it; returns where it ends in the file. */
  #readChunk(order: Float64Array, i: number): number {
    const entry = order[i]! % BATCH_ENTRIES_MAX;
    const source = this.#sourceOf[entry]!;
    const start = this.#positionOf(entry);
    let end = start + TAIL_BYTES;
    for (let next = i + 1; next < order.length; next++) {
      const other = order[next]! % BATCH_ENTRIES_MAX;
      const tail = this.#positionOf(other) + TAIL_BYTES;
      if (this.#sourceOf[other] !== source || tail - start > CHUNK_BYTES) break;
      if (tail - end > GAP_BYTES) break;
      end = tail;
    }
    const { file, extent } = this.#sources[source]!;
    end = Math.min(end, extent.valueBytes);
    this.#files.readExactly(file, start, end - start, this.#chunk, 0);
    return end;
  }

  #storedLength(at: number, source: number, position: number): number {
    const length = this.#chunkView.getUint32(at, true);
    checkBlobLength(length, position, this.#sources[source]!.file.path);
    return BLOB_HEADER_BYTES + Math.ceil(length / 8) * 8;
  }

  #check(offset: number, source: number, position: number): void {
    const length = this.#view.getUint32(offset, true);
    const crc = this.#view.getUint32(offset + 4, true);
    const { path } = this.#sources[source]!.file;
    checkBlob(this.slab, offset + BLOB_HEADER_BYTES, length, crc, position, path);
  }

  #replaceSlab(bytes: number): void {
    this.slab = new Uint8Array(bytes);
    this.#view = new DataView(this.slab.buffer);
  }
}
