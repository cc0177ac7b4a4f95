/**
 * The newest WAL of one Postgres, in memory: a ring that the replication stream fills and every
 * safekeeper's connection reads at its own position.
 *
 * It holds [start, end). It grows by doubling while somebody still needs what would be dropped, up
 * to WAL_BUFFER_BYTES_MAX; then whoever lags behind `start` is caught up from another safekeeper.
 * What is not committed yet is never dropped: Postgres waits instead. Only a record that is longer
 * than that makes it grow further, to twice the record at most: nothing of it is committed before
 * all of it is there.
 */
import { assert } from "../../libs/utils/assert.ts";
import { addLsn, type Lsn, maxLsn } from "../../libs/utils/lsn.ts";

/** Most WAL kept in memory for one endpoint. */
export const WAL_BUFFER_BYTES_MAX = 64 * 1024 * 1024;

const INITIAL_BYTES = 256 * 1024;

/** See the head of the file. */
export class WalBuffer {
  #ring = new Uint8Array(INITIAL_BYTES);
  // Invariant: #start <= #end <= #start + #ring.length
  #start: Lsn;
  #end: Lsn;
  /** The position whose byte is at ring index 0 (modulo the ring's length). */
  #origin: Lsn;

  constructor(start: Lsn) {
    this.#start = start;
    this.#end = start;
    this.#origin = start;
  }

  /** The oldest position held. */
  get start(): Lsn {
    return this.#start;
  }

  /** End of what Postgres sent. */
  get end(): Lsn {
    return this.#end;
  }

  /** Memory in use. */
  get capacityBytes(): number {
    return this.#ring.length;
  }

  /** True if `count` more bytes fit without dropping anything at or past `keepFrom`. */
  fits(count: number, keepFrom: Lsn): boolean {
    return this.#end + count - Math.max(keepFrom, this.#start) <= WAL_BUFFER_BYTES_MAX;
  }

  /**
   * Appends bytes at `end`; drops the oldest, but nothing past `keepFrom` while it can grow, and
   * nothing past `committed` ever.
   */
  append(bytes: Uint8Array, keepFrom: Lsn, committed: Lsn): void {
    assert(bytes.length <= WAL_BUFFER_BYTES_MAX, "one message of WAL fits the buffer");
    const end = addLsn(this.#end, bytes.length);
    const wanted = Math.max(
      Math.min(end - Math.max(keepFrom, this.#start), WAL_BUFFER_BYTES_MAX),
      end - Math.max(committed, this.#start),
    );
    if (wanted > this.#ring.length) this.#grow(wanted);
    this.#start = maxLsn(this.#start, Math.max(0, end - this.#ring.length) as Lsn);
    const at = (this.#end - this.#origin) % this.#ring.length;
    const first = Math.min(bytes.length, this.#ring.length - at);
    this.#ring.set(first === bytes.length ? bytes : bytes.subarray(0, first), at);
    if (first < bytes.length) this.#ring.set(bytes.subarray(first), 0);
    this.#end = end;
  }

  #grow(wanted: number): void {
    let length = this.#ring.length;
    while (length < wanted) length *= 2;
    const grown = new Uint8Array(length);
    this.copyTo(this.#start, this.#end, grown, 0);
    this.#ring = grown;
    this.#origin = this.#start;
  }

  /** Copies [begin, end) to `into` at `at`. */
  copyTo(begin: Lsn, end: Lsn, into: Uint8Array, at: number): void {
    assert(begin >= this.#start && end <= this.#end && begin <= end, "the WAL is in the buffer");
    const length = end - begin;
    const from = (begin - this.#origin) % this.#ring.length;
    const first = Math.min(length, this.#ring.length - from);
    into.set(this.#ring.subarray(from, from + first), at);
    if (first < length) into.set(this.#ring.subarray(0, length - first), at + first);
  }
}
