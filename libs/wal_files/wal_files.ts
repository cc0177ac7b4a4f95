/**
 * Reads WAL from segment files: a single one, or all that continue each other in a directory (an
 * archive, a pg_wal, a data directory with a pg_wal).
 *
 * The version of PostgreSQL is told by the magic of the first page, the segment size by its long
 * header. Where several timelines have a segment, the newest one's is read.
 *
 * Reading starts at the first record at or behind a position: the page there may begin with the
 * rest of a record, which is passed over. It ends at a given position, where the files end, or
 * where no valid record follows, which is how all WAL that was not archived ends.
 *
 * Called by `neon wal dump|stats` and by the verification of redo. Synchronous, because decoding
 * is.
 */
import { basename, dirname, join } from "node:path";
import { PAGE_SIZE, WAL_LONG_HEADER_SIZE } from "../postgres/constants.ts";
import { PG_VERSIONS, type PgVersion } from "../postgres/versions.ts";
import { firstRecordOnPage } from "../postgres/wal/page_header.ts";
import { RecordCursor } from "../postgres/wal/record_cursor.ts";
import { parseSegmentName, segmentNumber, segmentStart } from "../postgres/wal/segment.ts";
import { WalStreamDecoder } from "../postgres/wal/stream_decoder.ts";
import { BadRequest, Corrupt, NotFound } from "../utils/errors.ts";
import { ifThere } from "../utils/if_there.ts";
import { addLsn, formatLsn, type Lsn, maxLsn } from "../utils/lsn.ts";

/** Bytes read at once. */
const CHUNK_BYTES = 256 * 1024;
const SEGMENT_FILE = /^[0-9A-F]{24}$/;
/** Segment sizes that initdb accepts. */
const SEGMENT_BYTES_MIN = 1024 * 1024;
const SEGMENT_BYTES_MAX = 1024 * 1024 * 1024;

/** Where reading ended. */
export interface WalEnd {
  /** End of the last record that was read. */
  readonly lsn: Lsn;
  /** Why no further record was read; undefined if the caller or the end position stopped it. */
  readonly reason: string | undefined;
}

/** What to read. Without `start` from the first segment on, without `end` as far as it goes. */
interface WalRange {
  readonly start?: Lsn | undefined;
  /** Records that end behind it are not read. */
  readonly end?: Lsn | undefined;
}

/** Segment files that continue each other. */
export class WalFiles {
  readonly version: PgVersion;
  readonly segmentSize: number;
  /** The cluster's system identifier. */
  readonly systemId: bigint;
  /** Paths by segment number. */
  readonly #segments: Map<number, string>;
  readonly #first: number;
  /** The one segment that was named, if it was a file. */
  readonly only: number | undefined;

  private constructor(paths: string[], header: SegmentHeader, only: string | undefined) {
    this.version = header.version;
    this.segmentSize = header.segmentSize;
    this.systemId = header.systemId;
    this.#segments = new Map();
    for (const path of paths) {
      const segment = parseSegmentName(basename(path), this.segmentSize)?.segment;
      if (segment !== undefined) this.#segments.set(segment, path);
    }
    this.#first = Math.min(...this.#segments.keys());
    this.only = only === undefined
      ? undefined
      : parseSegmentName(basename(only), this.segmentSize)?.segment;
  }

  /**
   * Opens a segment file or a directory. Throws NotFound if there is no WAL there, BadRequest for a
   * file that is no WAL segment of a supported version.
   */
  static open(path: string): WalFiles {
    const isFile = Deno.statSync(path).isFile;
    if (isFile && !SEGMENT_FILE.test(basename(path))) {
      throw new BadRequest(`Cannot read WAL from "${path}": it is not named as a WAL segment is`);
    }
    const paths = isFile ? segmentFiles(dirname(path)) : segmentFilesBelow(path);
    const first = isFile ? path : paths[0];
    if (first === undefined) {
      throw new NotFound(`Cannot read WAL from "${path}": there is no WAL segment`);
    }
    return new WalFiles(paths, readSegmentHeader(first), isFile ? path : undefined);
  }

  /** The first position of the first segment (of the one that was named). */
  get firstLsn(): Lsn {
    return segmentStart(this.only ?? this.#first, this.segmentSize);
  }

  /** Bytes of the files that follow each other from `start` on, to `end` at most. */
  bytesFrom(start: Lsn, end: Lsn | undefined): number {
    let segment = segmentNumber(start, this.segmentSize);
    while (this.#segments.has(segment)) segment++;
    const last = segmentStart(segment, this.segmentSize);
    return Math.max(0, Math.min(last, end ?? last) - start);
  }

  /**
   * Calls `visit` with the one cursor for each record of the range, in order, until it returns
   * false. Throws NotFound if there is no file with the first position.
   */
  read(range: WalRange, visit: (cursor: RecordCursor) => boolean): WalEnd {
    const start = maxLsn(range.start ?? this.firstLsn, this.firstLsn);
    const end = range.end ??
      (this.only === undefined ? undefined : addLsn(this.firstLsn, this.segmentSize));
    const first = this.#firstRecordFrom(start);
    const decoder = new WalStreamDecoder(first, this.segmentSize, this.version);
    const cursor = new RecordCursor();
    const chunk = new Uint8Array(CHUNK_BYTES);
    for (let last = first;;) {
      try {
        while (decoder.next(cursor)) {
          if (end !== undefined && cursor.endLsn > end) return { lsn: last, reason: undefined };
          last = cursor.endLsn;
          if (cursor.lsn < start) continue;
          if (!visit(cursor)) return { lsn: last, reason: undefined };
        }
      } catch (thrown) {
        // Only what the decoder itself says of the next record is an end.
        const isEnd = thrown instanceof Corrupt && thrown.message.startsWith("Cannot read the WAL");
        if (isEnd) return { lsn: last, reason: thrown.message };
        throw thrown;
      }
      if (end !== undefined && decoder.fedLsn >= end) return { lsn: last, reason: undefined };
      const count = this.#readAt(decoder.fedLsn, chunk);
      if (count === 0) {
        return { lsn: last, reason: `The files end at ${formatLsn(decoder.fedLsn)}` };
      }
      decoder.feed(chunk.subarray(0, count));
    }
  }

  /** Start of the first record that begins on the page of `from` or later. */
  #firstRecordFrom(from: Lsn): Lsn {
    const header = new Uint8Array(WAL_LONG_HEADER_SIZE);
    for (let page = addLsn(from, -(from % PAGE_SIZE));; page = addLsn(page, PAGE_SIZE)) {
      if (this.#readAt(page, header) < header.length) {
        throw new NotFound(`Cannot read WAL at ${formatLsn(page)}: there is no file with it`);
      }
      const first = firstRecordOnPage(header, page, this.version, this.segmentSize);
      if (first !== undefined) return first;
    }
  }

  /** Reads into `target` from a position on, within one segment; 0 if the file is not there. */
  #readAt(lsn: Lsn, target: Uint8Array): number {
    const path = this.#segments.get(segmentNumber(lsn, this.segmentSize));
    if (path === undefined) return 0;
    using file = Deno.openSync(path);
    file.seekSync(lsn % this.segmentSize, Deno.SeekMode.Start);
    let filled = 0;
    while (filled < target.length) {
      const count = file.readSync(target.subarray(filled));
      if (count === null) break;
      filled += count;
    }
    return filled;
  }
}

/** Segment files of a directory, in the order of their names: timeline, then position. */
function segmentFiles(directory: string): string[] {
  return [...Deno.readDirSync(directory)].map((entry) => entry.name)
    .filter((name) => SEGMENT_FILE.test(name)).sort().map((name) => join(directory, name));
}

function segmentFilesBelow(directory: string): string[] {
  const here = segmentFiles(directory);
  if (here.length > 0) return here;
  return ifThere(() => segmentFiles(join(directory, "pg_wal"))) ?? [];
}

/** What the first page of a segment says of all of them. */
interface SegmentHeader {
  readonly version: PgVersion;
  readonly segmentSize: number;
  readonly systemId: bigint;
}

function readSegmentHeader(path: string): SegmentHeader {
  const bytes = new Uint8Array(WAL_LONG_HEADER_SIZE);
  using file = Deno.openSync(path);
  const count = file.readSync(bytes) ?? 0;
  const view = new DataView(bytes.buffer);
  const magic = view.getUint16(0, true);
  const version = PG_VERSIONS.find((known) => known.walPageMagic === magic);
  if (count < bytes.length || version === undefined) {
    throw new BadRequest(
      `Cannot read WAL from "${path}": its first page has the magic ${magic.toString(16)}, ` +
        `which is none of PostgreSQL 14 to 18`,
    );
  }
  const segmentSize = view.getUint32(32, true);
  const isPower = (segmentSize & (segmentSize - 1)) === 0;
  if (!isPower || segmentSize < SEGMENT_BYTES_MIN || segmentSize > SEGMENT_BYTES_MAX) {
    throw new BadRequest(`Cannot read WAL from "${path}": its segment size is ${segmentSize}`);
  }
  return { version, segmentSize, systemId: view.getBigUint64(24, true) };
}
