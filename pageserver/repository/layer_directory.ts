/**
 * The directory of a finished layer in RAM: the first key and LSN of each index block, in order, as
 * typed arrays (32 bytes a block, so 16 KB for a layer of 250,000 entries).
 */
import { crc32c } from "../../libs/utils/crc32c.ts";
import { Corrupt } from "../../libs/utils/errors.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import type { Key } from "./key.ts";
import { DIRECTORY_ENTRY_BYTES, readLsn, writeLsn } from "./layer_format.ts";

const TWO_32 = 4294967296;

/** The first key of every block. The five fields before the last are folded into three numbers. */
export class LayerDirectory {
  readonly #class: Float64Array; // f1, f2
  readonly #f3: Uint32Array;
  readonly #rel: Float64Array; // f4, f5
  readonly #f6: Uint32Array;
  readonly #lsn: Float64Array;

  /** Reads `count` entries. Throws Corrupt naming `path` if their checksum is not `crc`. */
  constructor(bytes: Uint8Array, count: number, crc: number, path: string) {
    if (crc32c(bytes) !== crc) {
      throw new Corrupt(`Cannot read layer file "${path}": checksum mismatch in its directory`);
    }
    this.#class = new Float64Array(count);
    this.#f3 = new Uint32Array(count);
    this.#rel = new Float64Array(count);
    this.#f6 = new Uint32Array(count);
    this.#lsn = new Float64Array(count);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    for (let i = 0, at = 0; i < count; i++, at += DIRECTORY_ENTRY_BYTES) {
      this.#class[i] = view.getUint8(at) * TWO_32 + view.getUint32(at + 4, true);
      this.#f3[i] = view.getUint32(at + 8, true);
      this.#rel[i] = view.getUint32(at + 12, true) * 256 + view.getUint8(at + 1);
      this.#f6[i] = view.getUint32(at + 16, true);
      this.#lsn[i] = readLsn(view, at + 24);
    }
  }

  /** Index blocks. */
  get blocks(): number {
    return this.#f3.length;
  }

  /** Bytes of memory it holds. */
  get memoryBytes(): number {
    return this.blocks * DIRECTORY_ENTRY_BYTES;
  }

  /** The last block whose first entry is at or before (key, lsn); -1 if there is none. */
  find(key: Key, lsn: Lsn): number {
    const prefix = key.f1 * TWO_32 + key.f2;
    const rel = key.f4 * 256 + key.f5;
    let low = 0;
    let high = this.blocks;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const order = this.#class[middle]! - prefix || this.#f3[middle]! - key.f3 ||
        this.#rel[middle]! - rel || this.#f6[middle]! - key.f6 || this.#lsn[middle]! - lsn;
      if (order <= 0) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }
}

/** Writes one entry of the directory at `offset`. */
export function writeDirectoryEntry(view: DataView, offset: number, key: Key, lsn: number): void {
  view.setUint8(offset, key.f1);
  view.setUint8(offset + 1, key.f5);
  view.setUint16(offset + 2, 0, true);
  view.setUint32(offset + 4, key.f2, true);
  view.setUint32(offset + 8, key.f3, true);
  view.setUint32(offset + 12, key.f4, true);
  view.setUint32(offset + 16, key.f6, true);
  view.setUint32(offset + 20, 0, true);
  writeLsn(view, offset + 24, lsn);
}
