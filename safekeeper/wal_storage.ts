/**
 * The WAL of one timeline on disk: append, sync, truncate, remove.
 *
 * Positions: `writeLsn` is the end of what was written, `recordLsn` the end of the last whole
 * record in it (the WAL is decoded and its checksums verified as it comes), `flushLsn` that of the
 * last whole record that is durable. A position is a record's end, 8-aligned, perhaps on a page
 * boundary; the page header there belongs to what follows.
 *
 * Appending is synchronous into the page cache; `flush` is asynchronous and syncs through a second
 * file descriptor, so that appends go on meanwhile and the next flush takes them all; a flush that
 * began before a truncation reports nothing new (wal_positions.ts has these rules). Where there is
 * little to sync, that lately took a moment only, and hardly anybody else is busy, `flushInPlace`
 * does it: that saves a thread, and all that waiting for one takes.
 *
 * A segment that is full stays open under its partial name, and the next one is begun, until a
 * flush has synced it; then it gets its complete name. New names are made durable by the flush,
 * too. So a crash may leave several partial segments: the WAL ends where whole records end, and an
 * election removes what lies behind before anything is written.
 *
 * Failures: a failed write or truncation leaves bytes behind the end of the WAL in a state that we
 * do not know, so nothing may be written until a truncation has succeeded (every election
 * truncates). After a failed sync the WAL ends at `flushLsn`, and what lies behind it is such a
 * state, too: the page cache may hold bytes as clean that never reached the disk, so that a later
 * sync would prove nothing. A truncation drops those pages. A restart may find them, so it writes
 * anew what it finds and does not know to be durable.
 */
import { setImmediate } from "node:timers/promises";
import type { PgVersion } from "../libs/postgres/versions.ts";
import { RecordCursor } from "../libs/postgres/wal/record_cursor.ts";
import { segmentNumber, segmentStart } from "../libs/postgres/wal/segment.ts";
import { WalStreamDecoder } from "../libs/postgres/wal/stream_decoder.ts";
import { assert } from "../libs/utils/assert.ts";
import { fsyncDirectory, readAt, syncDirectory, writeAll } from "../libs/utils/durable.ts";
import { Corrupt, messageOf, Unavailable } from "../libs/utils/errors.ts";
import { ifThere } from "../libs/utils/if_there.ts";
import { addLsn, formatLsn, type Lsn } from "../libs/utils/lsn.ts";
import { BusySyncs } from "./busy_syncs.ts";
import { SpareSegment } from "./spare_segment.ts";
import { WalPositions } from "./wal_positions.ts";
import { WalReader } from "./wal_reader.ts";
import {
  completeSegment,
  createSegment,
  listSegments,
  openSegment,
  reopenAsPartial,
} from "./wal_segments.ts";

/** Bytes that finding the end of the WAL reads at a time. */
const SCAN_BYTES = 1 << 20;

/** Syncs that take less on average, all busy timelines together, are done in place, */
const IN_PLACE_MS_MAX = 2;
/** as long as they cover no more than this, */
const IN_PLACE_BYTES_MAX = 64 * 1024;
/** and no more timelines are busy: two do not harm each other, four would lose a third. */
const IN_PLACE_TIMELINES_MAX = 2;
/** Weight of the newest sync in that average. */
const SYNC_WEIGHT = 0.1;

/** Full segments that may wait for a flush; a further one is synced in place. */
const FULL_SEGMENTS_MAX = 8;

/** The next segment is made ahead when this part of the open one is full. */
const PREPARE_AT = 0.25;

/** Where and what the WAL is. */
interface WalStorageOptions {
  readonly directory: string;
  readonly version: PgVersion;
  readonly segmentSize: number;
  /** Asked when a segment is made: it may be learnt after opening. */
  readonly systemId: () => bigint;
  /** Where the WAL on this safekeeper begins. */
  readonly localStartLsn: Lsn;
  /** Known to be the end of a record that is durable here: the search for the end starts there. */
  readonly commitLsn: Lsn;
  /**
   * Where proposers began to write. The first record there may link to a previous record that is
   * not ours, so the search for the end takes up again there.
   */
  readonly joinLsns?: readonly Lsn[];
}

/** A segment that is being written, or is full and not synced yet. */
interface OpenSegment {
  readonly segment: number;
  readonly file: Deno.FsFile;
  /** For asynchronous syncs: a file is busy while an asynchronous call is under way on it. */
  readonly syncFile: Deno.FsFile;
  /** Where the next write to `file` would go. */
  position: number;
}

const busySyncs = new BusySyncs<WalStorage>();

/** See the head of this file. */
export class WalStorage {
  readonly #options: WalStorageOptions;
  readonly #segmentSize: number;
  readonly #cursor = new RecordCursor();
  readonly #spare: SpareSegment;
  #decoder: WalStreamDecoder;
  #open: OpenSegment | undefined;
  /** Full, and to be synced; lowest first. */
  #full: OpenSegment[] = [];
  /** A file was made whose size or name may not be durable. */
  #hasNewFile = false;
  readonly #positions: WalPositions;
  /** How long a sync takes, as a moving average; unknown at first. */
  #syncMs: number | undefined;
  #closed = false;

  /** Opens the WAL and finds its end. Throws Corrupt if committed WAL is missing. */
  constructor(options: WalStorageOptions) {
    this.#options = options;
    this.#segmentSize = options.segmentSize;
    this.#spare = new SpareSegment(options.directory, options.segmentSize);
    this.#decoder = this.#decoderAt(options.commitLsn);
    const end = this.#recover();
    this.#positions = new WalPositions(end);
    this.#decoder = this.#decoderAt(end);
  }

  get writeLsn(): Lsn {
    return this.#positions.writeLsn;
  }
  get recordLsn(): Lsn {
    return this.#positions.recordLsn;
  }
  get flushLsn(): Lsn {
    return this.#positions.flushLsn;
  }
  /** Whether a flush has something to do. */
  get dirty(): boolean {
    return this.#positions.dirty;
  }

  #decoderAt(lsn: Lsn): WalStreamDecoder {
    const { version, segmentSize } = this.#options;
    return new WalStreamDecoder(lsn, segmentSize, version, { checkBlocks: false });
  }

  /** Finds the end of the last whole record and makes everything up to it durable. */
  #recover(): Lsn {
    const { directory, commitLsn, localStartLsn } = this.#options;
    const files = listSegments(directory, this.#segmentSize);
    const first = segmentNumber(addLsn(commitLsn, -1), this.#segmentSize);
    if (commitLsn > localStartLsn && !files.some((file) => file.segment === first)) {
      throw new Corrupt(
        `Cannot open the WAL in "${directory}": it is committed up to ${formatLsn(commitLsn)}, ` +
          `but that segment is missing`,
      );
    }
    const end = this.#findEnd();
    const last = segmentNumber(end, this.#segmentSize);
    for (const { segment, path, partial } of files) {
      if (segment < first || segment > last) continue;
      const file = Deno.openSync(path, { read: true, write: true });
      try {
        const begin = segmentStart(segment, this.#segmentSize);
        writeAnew(file, Math.max(commitLsn - begin, 0), Math.min(end - begin, this.#segmentSize));
        file.syncSync();
      } finally {
        file.close();
      }
      if (partial && segment < last) completeSegment(directory, segment, this.#segmentSize);
    }
    fsyncDirectory(directory);
    return end;
  }

  #findEnd(): Lsn {
    const joins = new Set(this.#options.joinLsns ?? []);
    joins.delete(this.#options.commitLsn);
    for (;;) {
      this.#decodeToEnd();
      const end = this.#decoder.recordLsn;
      if (!joins.delete(end)) return end;
      this.#decoder = this.#decoderAt(end);
    }
  }

  /** Feeds the decoder what is on disk, up to the first byte that is not WAL. */
  #decodeToEnd(): void {
    const reader = new WalReader(this.#options.directory, this.#segmentSize);
    const buffer = new Uint8Array(SCAN_BYTES);
    try {
      for (;;) {
        const count = reader.read(this.#decoder.fedLsn, buffer);
        if (count === 0) return;
        this.#decoder.feed(buffer.subarray(0, count));
        while (this.#decoder.next(this.#cursor));
      }
    } catch (thrown) {
      if (!(thrown instanceof Corrupt)) throw thrown;
    } finally {
      reader.close();
    }
  }

  /**
   * Appends WAL at writeLsn, not yet durable. Throws Unavailable if it cannot be written (and then
   * nothing was appended), Corrupt if it is no WAL.
   */
  write(lsn: Lsn, bytes: Uint8Array): void {
    assert(lsn === this.writeLsn, "appends continue the WAL");
    this.#checkOpen();
    const { unclean } = this.#positions;
    if (unclean !== undefined) {
      throw new Unavailable(`Cannot write WAL at ${formatLsn(lsn)}: ${unclean}`);
    }
    try {
      this.#writeBytes(lsn, bytes);
      this.#decoder.feed(bytes);
      while (this.#decoder.next(this.#cursor));
    } catch (thrown) {
      this.#positions.writeFailed();
      this.#spare.discard(); // so that on a full disk there is room for what makes room
      if (thrown instanceof Corrupt) throw thrown;
      throw new Unavailable(`Cannot write WAL at ${formatLsn(lsn)}: ${messageOf(thrown)}`);
    }
    this.#positions.written(addLsn(lsn, bytes.length), this.#decoder.recordLsn);
  }

  #writeBytes(lsn: Lsn, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length;) {
      const at = addLsn(lsn, done);
      const offset = at % this.#segmentSize;
      const open = this.#openForWrite(at);
      const count = Math.min(bytes.length - done, this.#segmentSize - offset);
      if (open.position !== offset) open.file.seekSync(offset, Deno.SeekMode.Start);
      open.position = -1; // unknown, should the write fail
      writeAll(open.file, count === bytes.length ? bytes : bytes.subarray(done, done + count));
      open.position = offset + count;
      done += count;
      if (open.position > this.#segmentSize * PREPARE_AT) this.#spare.prepare();
      if (open.position === this.#segmentSize) this.#complete(open);
    }
  }

  #openForWrite(lsn: Lsn): OpenSegment {
    const segment = segmentNumber(lsn, this.#segmentSize);
    if (this.#open?.segment === segment) return this.#open;
    assert(this.#open === undefined, "a segment is completed before the next");
    const { directory, version, segmentSize, systemId } = this.#options;
    const identity = { version, segmentSize, systemId: systemId() };
    let file = reopenAsPartial(directory, segment, segmentSize);
    if (file === undefined) {
      file = createSegment(directory, segment, identity, lsn, this.#spare.take());
      this.#hasNewFile = true;
    }
    const syncFile = openSegment(directory, segment, this.#segmentSize, {
      read: true,
      write: true,
    })!;
    this.#open = { segment, file, syncFile, position: -1 };
    return this.#open;
  }

  /** The open segment is full. */
  #complete(open: OpenSegment): void {
    this.#open = undefined;
    this.#full.push(open);
    if (this.#full.length > FULL_SEGMENTS_MAX) this.#syncAll();
  }

  /** Runs a sync. */
  #synced(sync: () => void): void {
    try {
      sync();
    } catch (thrown) {
      throw this.#syncFailed(thrown);
    }
  }

  #syncFailed(thrown: unknown): Error {
    this.#positions.syncFailed();
    const why = `Cannot sync the WAL in "${this.#options.directory}": ${messageOf(thrown)}`;
    return new Unavailable(why);
  }

  #checkOpen(): void {
    if (!this.#closed) return;
    throw new Unavailable(`The WAL in "${this.#options.directory}" is closed`);
  }

  /**
   * Makes what is written so far durable before it returns, if that takes a moment only; returns
   * how many ms it took. Undefined, and nothing is done, if it may take longer. `nowMs` is the time
   * of `performance.now`.
   */
  flushInPlace(nowMs: number): number | undefined {
    this.#checkOpen();
    const open = this.#open;
    const busy = busySyncs.note(this, nowMs);
    const isShort = this.#syncMs !== undefined && this.#syncMs * busy < IN_PLACE_MS_MAX &&
      busy <= IN_PLACE_TIMELINES_MAX && this.writeLsn - this.flushLsn <= IN_PLACE_BYTES_MAX;
    if (!isShort || open === undefined || this.#hasNewFile || this.#full.length > 0) {
      return undefined;
    }
    const ticket = this.#positions.syncBegins();
    try {
      open.syncFile.syncDataSync();
    } catch (thrown) {
      throw this.#syncFailed(thrown);
    }
    const tookMs = performance.now() - nowMs;
    this.#tookMs(tookMs);
    this.#positions.synced(ticket);
    return tookMs;
  }

  #tookMs(ms: number): void {
    const before = this.#syncMs;
    this.#syncMs = before === undefined ? ms : before + (ms - before) * SYNC_WEIGHT;
  }

  /** Makes what is written so far durable without holding anybody up. */
  async flush(): Promise<Lsn> {
    this.#checkOpen();
    const ticket = this.#positions.syncBegins();
    const full = [...this.#full];
    const open = this.#open;
    const hasNewFile = this.#hasNewFile;
    this.#hasNewFile = false;
    for (const each of full) if (this.#holds(each)) await this.#inBackground(each, hasNewFile);
    if (open !== undefined && this.#holds(open)) {
      const begunMs = performance.now();
      await this.#inBackground(open, hasNewFile);
      this.#tookMs(performance.now() - begunMs);
    }
    const named = this.#nameComplete(full);
    if (hasNewFile || named) await this.#syncNames();
    this.#positions.synced(ticket);
    return this.flushLsn;
  }

  /** False if a truncation has closed it meanwhile, or it was completed. */
  #holds(segment: OpenSegment): boolean {
    return this.#open === segment || this.#full.includes(segment);
  }

  async #inBackground({ syncFile }: OpenSegment, withSize: boolean): Promise<void> {
    try {
      await (withSize ? syncFile.sync() : syncFile.syncData());
    } catch (thrown) {
      throw this.#syncFailed(thrown);
    }
  }

  /** Gives those of `synced` that are full their complete names; whether there were any. */
  #nameComplete(synced: readonly OpenSegment[]): boolean {
    const complete = this.#full.filter((each) => synced.includes(each));
    for (const each of complete) {
      completeSegment(this.#options.directory, each.segment, this.#segmentSize);
      this.#full.splice(this.#full.indexOf(each), 1);
      closeSegment(each);
    }
    return complete.length > 0;
  }

  async #syncNames(): Promise<void> {
    try {
      await syncDirectory(this.#options.directory);
    } catch (thrown) {
      throw this.#syncFailed(thrown);
    }
  }

  /** Makes everything written durable before it returns. */
  flushSync(): Lsn {
    this.#checkOpen();
    this.#syncAll();
    this.#positions.synced(this.#positions.syncBegins());
    return this.flushLsn;
  }

  /** Syncs all files, and their names, in place. */
  #syncAll(): void {
    this.#synced(() => {
      const hasNewFile = this.#hasNewFile;
      this.#hasNewFile = false;
      for (const { file } of this.#full) file.syncSync();
      if (hasNewFile) this.#open?.file.syncSync();
      else this.#open?.file.syncDataSync();
      if (this.#nameComplete(this.#full) || hasNewFile) fsyncDirectory(this.#options.directory);
    });
  }

  /**
   * Cuts the WAL at `lsn`, durably: later segments go first, from the highest down, so that a crash
   * leaves a WAL without holes; then the rest of this one becomes zeros.
   */
  truncate(lsn: Lsn): void {
    this.#checkOpen();
    if (this.#positions.endsCleanlyAt(lsn)) return;
    this.#positions.truncationBegins(lsn);
    this.#closeOpen();
    const { directory } = this.#options;
    const last = segmentNumber(addLsn(lsn, -1), this.#segmentSize);
    for (const file of listSegments(directory, this.#segmentSize).reverse()) {
      if (file.segment > last) Deno.removeSync(file.path);
    }
    fsyncDirectory(directory);
    const offset = lsn % this.#segmentSize;
    const file = offset === 0 ? undefined : reopenAsPartial(directory, last, this.#segmentSize);
    if (file !== undefined) {
      try {
        file.truncateSync(offset);
        file.truncateSync(this.#segmentSize);
        this.#synced(() => file.syncSync());
      } finally {
        file.close();
      }
    }
    this.#decoder = this.#decoderAt(lsn);
    this.#positions.truncated();
  }

  /**
   * Removes whole segments below `lsn` but for the one that ends there, one in each turn of the
   * event loop, since that takes milliseconds; resolves to how many.
   */
  async removeBelow(lsn: Lsn): Promise<number> {
    const keep = segmentNumber(addLsn(lsn, -1), this.#segmentSize);
    const { directory } = this.#options;
    const old = listSegments(directory, this.#segmentSize).filter((file) => file.segment < keep);
    let removed = 0;
    for (const { path } of old) {
      if (this.#closed) break; // others may use the directory
      ifThere(() => {
        Deno.removeSync(path);
        removed++;
      });
      await setImmediate();
    }
    return removed;
  }

  #closeOpen(): void {
    for (const each of this.#full) closeSegment(each);
    this.#full = [];
    if (this.#open !== undefined) closeSegment(this.#open);
    this.#open = undefined;
  }

  /** Closes the files. What is not flushed may be lost. */
  close(): void {
    this.#positions.closed();
    this.#closed = true;
    this.#spare.close();
    this.#closeOpen();
  }
}

function closeSegment({ file, syncFile }: OpenSegment): void {
  file.close();
  syncFile.close();
}

/** Writes a part of a file again, as it is, so that the next sync is about all of it. */
function writeAnew(file: Deno.FsFile, from: number, to: number): void {
  const buffer = new Uint8Array(Math.min(SCAN_BYTES, Math.max(to - from, 0)));
  for (let at = from; at < to;) {
    const piece = buffer.subarray(0, Math.min(buffer.length, to - at));
    const count = readAt(file, at, piece);
    if (count === 0) return;
    file.seekSync(at, Deno.SeekMode.Start);
    writeAll(file, piece.subarray(0, count));
    at += count;
  }
}
