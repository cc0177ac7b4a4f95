/**
 * Reads a timeline's WAL out of its segment files, for replication streams and for finding the end
 * of the WAL. Synchronous: what is read was written a moment ago and lies in the page cache. How
 * far the WAL is valid is the caller's business; beyond it the files hold zeros.
 */
import { segmentNumber } from "../libs/postgres/wal/segment.ts";
import { readAt } from "../libs/utils/durable.ts";
import type { Lsn } from "../libs/utils/lsn.ts";
import { openSegment } from "./wal_segments.ts";

/** A cursor with one open segment. */
export class WalReader {
  readonly #directory: string;
  readonly #segmentSize: number;
  #segment = -1;
  #file: Deno.FsFile | undefined;

  constructor(directory: string, segmentSize: number) {
    this.#directory = directory;
    this.#segmentSize = segmentSize;
  }

  /** Whether the segment of `lsn` is there; if not it was removed, or not written yet. */
  has(lsn: Lsn): boolean {
    const segment = segmentNumber(lsn, this.#segmentSize);
    if (segment === this.#segment) return true;
    this.close();
    this.#file = openSegment(this.#directory, segment, this.#segmentSize, { read: true });
    if (this.#file !== undefined) this.#segment = segment;
    return this.#file !== undefined;
  }

  /**
   * Fills `into` with WAL from `lsn` on, up to the end of that segment; returns the count, 0 if
   * there is no such segment.
   */
  read(lsn: Lsn, into: Uint8Array): number {
    if (!this.has(lsn)) return 0;
    const offset = lsn % this.#segmentSize;
    const count = Math.min(into.length, this.#segmentSize - offset);
    return readAt(this.#file!, offset, into.subarray(0, count));
  }

  /** Closes the open segment; reading opens it again. */
  close(): void {
    this.#file?.close();
    this.#file = undefined;
    this.#segment = -1;
  }
}
