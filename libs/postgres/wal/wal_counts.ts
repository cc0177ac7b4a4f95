/**
 * Counts of WAL by resource manager and opcode: how many records, how many bytes of them are page
 * images, how many are not (pg_waldump --stats).
 */
import { recordName } from "../rmgr_names.ts";
import type { PgVersion } from "../versions.ts";
import type { RecordCursor } from "./record_cursor.ts";
import { imageBytes } from "./record_text.ts";

/** Sums over records of one kind. */
export interface WalCount {
  records: number;
  /** Bytes without page images. */
  recordBytes: number;
  imageBytes: number;
}

/** Counts records as they are shown to it. */
export class WalCounts {
  readonly total: WalCount = { records: 0, recordBytes: 0, imageBytes: 0 };
  readonly #version: PgVersion;
  /** By resource manager id times 256 plus opcode bits. */
  readonly #byKind = new Map<number, WalCount>();

  constructor(version: PgVersion) {
    this.#version = version;
  }

  add(cursor: RecordCursor): void {
    const kind = cursor.rmid * 256 + (cursor.info & 0xf0);
    let count = this.#byKind.get(kind);
    if (count === undefined) {
      count = { records: 0, recordBytes: 0, imageBytes: 0 };
      this.#byKind.set(kind, count);
    }
    const images = imageBytes(cursor);
    for (const sum of [count, this.total]) {
      sum.records++;
      sum.recordBytes += cursor.length - images;
      sum.imageBytes += images;
    }
  }

  /**
   * By record name ("Heap INSERT+INIT"), in the order of resource managers and opcodes. Transaction
   * records with and without the "more data" bit are one.
   */
  byName(): Map<string, WalCount> {
    const found = new Map<string, WalCount>();
    for (const [kind, count] of [...this.#byKind].sort(([a], [b]) => a - b)) {
      const name = recordName(this.#version, Math.floor(kind / 256), kind % 256);
      const sum = found.get(name) ?? { records: 0, recordBytes: 0, imageBytes: 0 };
      sum.records += count.records;
      sum.recordBytes += count.recordBytes;
      sum.imageBytes += count.imageBytes;
      found.set(name, sum);
    }
    return found;
  }
}
