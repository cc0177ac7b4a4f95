/**
 * One timeline's WAL in remote storage: `<tenant>/<timeline>/<segment>`, whole segments under
 * PostgreSQL's names and with PostgreSQL's contents, and unfinished ones (wal_backup_plan.ts).
 */
import { WAL_TIMELINE_ID } from "../libs/postgres/constants.ts";
import { segmentName, segmentNumber, segmentStart } from "../libs/postgres/wal/segment.ts";
import type { RemoteStorage } from "../libs/remote_storage/remote_storage.ts";
import { Corrupt } from "../libs/utils/errors.ts";
import { addLsn, formatLsn, type Lsn, lsnFromHalves } from "../libs/utils/lsn.ts";
import type { TimelineState } from "./timeline_state.ts";

/** WAL that a reader has in memory, twice: what it reads, and what comes next. */
const BLOCK_BYTES = 4 * 1024 * 1024;

/** See the head of the file. */
export class RemoteWal {
  readonly storage: RemoteStorage;
  readonly prefix: string;
  readonly segmentSize: number;

  constructor(storage: RemoteStorage, state: TimelineState) {
    this.storage = storage;
    this.prefix = `${state.tenantId}/${state.timelineId}/`;
    this.segmentSize = state.walSegmentSize;
  }

  /** Key of a whole segment. */
  segmentKey(segment: number): string {
    return this.prefix + segmentName(WAL_TIMELINE_ID, segment, this.segmentSize);
  }

  /** Reads whole segments from here on. */
  reader(): RemoteWalReader {
    return new RemoteWalReader(this);
  }

  /** Removes all of the timeline's objects. */
  async removeAll(): Promise<void> {
    const objects = await Array.fromAsync(this.storage.list(this.prefix));
    await this.storage.delete(objects.map((object) => object.key));
  }
}

/** A piece of a segment on its way, or here. */
interface Block {
  readonly start: Lsn;
  readonly bytes: Promise<Uint8Array>;
}

/**
 * Reads a timeline's whole segments one block after the other; while one is read, the next is
 * fetched. One call at a time.
 */
export class RemoteWalReader {
  readonly #wal: RemoteWal;
  readonly #blockBytes: number;
  readonly #control = new AbortController();
  #current: Block | undefined;
  #next: Block | undefined;

  constructor(wal: RemoteWal) {
    this.#wal = wal;
    this.#blockBytes = Math.min(BLOCK_BYTES, wal.segmentSize);
  }

  /**
   * WAL from `lsn` on: what is left of its block, but no more than `count` bytes, good until the
   * next call. Whole segments end at `end`. Throws what reading from remote storage throws, Corrupt
   * for an object that is not this segment.
   */
  async read(lsn: Lsn, count: number, end: Lsn): Promise<Uint8Array> {
    const start = addLsn(lsn, -(lsn % this.#blockBytes));
    if (this.#current?.start !== start) {
      this.#current = this.#next?.start === start ? this.#next : this.#fetch(start);
      const following = addLsn(start, this.#blockBytes);
      this.#next = following < end ? this.#fetch(following) : undefined;
    }
    try {
      const bytes = await this.#current.bytes;
      const from = lsn - start;
      return bytes.subarray(from, Math.min(bytes.length, from + count));
    } catch (thrown) {
      this.#current = undefined; // another call tries again
      throw thrown;
    }
  }

  #fetch(start: Lsn): Block {
    const bytes = this.#download(start);
    bytes.catch(() => {}); // whoever reads the block sees it
    return { start, bytes };
  }

  async #download(start: Lsn): Promise<Uint8Array> {
    const { segmentSize, storage } = this.#wal;
    const segment = segmentNumber(start, segmentSize);
    const from = start % segmentSize;
    const key = this.#wal.segmentKey(segment);
    const range = { start: from, end: from + this.#blockBytes };
    const bytes = await storage.read(key, range, this.#control.signal);
    if (from === 0) checkSegment(key, bytes, segmentStart(segment, segmentSize));
    return bytes;
  }

  /** Cancels what is under way. */
  close(): void {
    this.#control.abort(new Error("the reader was closed"));
    this.#current = this.#next = undefined;
  }
}

/** Throws Corrupt unless the bytes begin with the header of the page at `start`. */
function checkSegment(key: string, bytes: Uint8Array, start: Lsn): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const page = lsnFromHalves(view.getUint32(12, true), view.getUint32(8, true));
  if (page === start) return;
  throw new Corrupt(`Cannot use "${key}": it holds the WAL at ${formatLsn(page)}`);
}
