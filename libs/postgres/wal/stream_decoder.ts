/**
 * Cuts a stream of WAL bytes into whole, checked records.
 *
 * feed() takes bytes that continue each other from a start position on, in pieces of any size,
 * and copies what is not page header into one buffer, so that in the buffer every record is
 * contiguous, whichever pages and segments it crosses in the stream. What the headers said is
 * kept beside, as one mark for each page start, until next() passes it.
 *
 *   stream   |header| ..record A..... | record B, fir|header|st part ends here | ...
 *   buffer           ..record A.....   record B, fir         st part ends here
 *   marks    ^ page 0, remaining 0                   ^ page 1, remaining 17
 *
 * Special cases: behind XLOG_SWITCH the rest of the segment is padding, in which even page
 * headers may be zeros, so a bad header is an error only when a record needs it. A page flagged
 * as "overwriting" gives up the unfinished record before it (PostgreSQL crashed while writing
 * that record and went on).
 *
 * After an error the decoder stays where it was: recordLsn is the end of the valid WAL.
 */
import { assert } from "../../utils/assert.ts";
import { Corrupt } from "../../utils/errors.ts";
import { addLsn, alignLsn, formatLsn, INVALID_LSN, type Lsn } from "../../utils/lsn.ts";
import {
  PAGE_SIZE,
  RECORD_HEADER_SIZE,
  RECORD_SIZE_MAX,
  Rmgr,
  WAL_LONG_HEADER_SIZE,
  XlogInfo,
} from "../constants.ts";
import type { PgVersion } from "../versions.ts";
import {
  pageHeaderFault,
  XLP_FIRST_IS_CONTRECORD,
  XLP_FIRST_IS_OVERWRITE_CONTRECORD,
} from "./page_header.ts";
import { RECORD_CRC_OFFSET, recordCrc } from "./record_crc.ts";
import type { RecordCursor } from "./record_cursor.ts";
import { advanceOverHeaders, pageHeaderSize, segmentNumber, segmentStart } from "./segment.ts";

/** First capacity; it doubles when records or feeds need more, up to one record and one feed. */
const BUFFER_BYTES = 256 * 1024;

/** Set in a mark's info when the header was no valid header of its page. */
const MARK_BAD = 0x8000;

/** What else to do. */
interface StreamDecoderOptions {
  /** False: next() fills only the cursor's fixed header fields (the safekeeper needs no more). */
  readonly checkBlocks?: boolean;
}

/** Fed with WAL, yields records. */
export class WalStreamDecoder {
  readonly #segmentSize: number;
  readonly #version: PgVersion;
  readonly #checkBlocks: boolean;
  #bytes = new Uint8Array(BUFFER_BYTES);
  #view = new DataView(this.#bytes.buffer);
  // Invariant: 0 <= begin <= end <= bytes.length; [begin, end) is record bytes not yet returned.
  #begin = 0;
  #end = 0;
  #fedLsn: Lsn;
  #recordLsn: Lsn;
  #previousLsn: Lsn = INVALID_LSN;
  /** Padding behind an XLOG_SWITCH that is still to be dropped. */
  #padding = 0;

  readonly #header = new Uint8Array(WAL_LONG_HEADER_SIZE);
  readonly #headerView = new DataView(this.#header.buffer);
  #headerFill = 0;

  // Marks: a queue in parallel arrays, [markHead, markTail). markAt is an offset in #bytes.
  #markAt = new Uint32Array(64);
  #markInfo = new Uint16Array(64);
  #markRemaining = new Uint32Array(64);
  #markHead = 0;
  #markTail = 0;

  /**
   * `startLsn` is the end of a record: in a page, on a page boundary (the stream begins with that
   * page's header), or right behind a header that the stream then does not contain.
   */
  constructor(
    startLsn: Lsn,
    segmentSize: number,
    version: PgVersion,
    options: StreamDecoderOptions = {},
  ) {
    const inPage = startLsn % PAGE_SIZE;
    const inHeader = inPage > 0 && inPage < pageHeaderSize(startLsn - inPage, segmentSize);
    assert(startLsn % 8 === 0 && !inHeader, `a record can end at ${formatLsn(startLsn)}`);
    this.#segmentSize = segmentSize;
    this.#version = version;
    this.#checkBlocks = options.checkBlocks ?? true;
    this.#fedLsn = startLsn;
    this.#recordLsn = startLsn;
  }

  /** End of the bytes that were fed. */
  get fedLsn(): Lsn {
    return this.#fedLsn;
  }

  /** End of the last whole record that was returned: where the next one starts, before any header. */
  get recordLsn(): Lsn {
    return this.#recordLsn;
  }

  /** Start of the last record that was returned; 0 before the first. */
  get previousLsn(): Lsn {
    return this.#previousLsn;
  }

  /** Takes the bytes from fedLsn on. They are copied: the caller may reuse its buffer. */
  feed(bytes: Uint8Array): void {
    this.#reserve(bytes.length);
    for (let at = 0; at < bytes.length;) {
      const inPage = this.#fedLsn & (PAGE_SIZE - 1);
      const room = PAGE_SIZE - inPage;
      if (this.#headerFill > 0 || inPage === 0) {
        at += this.#feedHeader(bytes, at);
        continue;
      }
      const count = Math.min(room, bytes.length - at);
      this.#bytes.set(
        at === 0 && count === bytes.length ? bytes : bytes.subarray(at, at + count),
        this.#end,
      );
      this.#end += count;
      this.#fedLsn = addLsn(this.#fedLsn, count);
      at += count;
    }
  }

  #feedHeader(bytes: Uint8Array, from: number): number {
    const pageStart = addLsn(this.#fedLsn, -this.#headerFill);
    const size = pageHeaderSize(pageStart, this.#segmentSize);
    const count = Math.min(size - this.#headerFill, bytes.length - from);
    for (let i = 0; i < count; i++) this.#header[this.#headerFill + i] = bytes[from + i]!;
    this.#headerFill += count;
    this.#fedLsn = addLsn(this.#fedLsn, count);
    if (this.#headerFill === size) {
      this.#headerFill = 0;
      this.#pushMark(pageStart);
    }
    return count;
  }

  #pushMark(pageStart: Lsn): void {
    if (this.#markTail === this.#markAt.length) this.#makeRoomForMarks();
    const view = this.#headerView;
    const fault = pageHeaderFault(view, 0, this.#version, pageStart, this.#segmentSize);
    const tail = this.#markTail++;
    this.#markAt[tail] = this.#end;
    this.#markInfo[tail] = fault === undefined ? view.getUint16(2, true) : MARK_BAD;
    this.#markRemaining[tail] = view.getUint32(16, true);
  }

  #makeRoomForMarks(): void {
    const live = this.#markTail - this.#markHead;
    const grow = live > this.#markAt.length / 2;
    const move = <T extends Uint16Array | Uint32Array>(from: T, to: T): T => {
      to.set(from.subarray(this.#markHead, this.#markTail));
      return to;
    };
    const size = this.#markAt.length * (grow ? 2 : 1);
    this.#markAt = move(this.#markAt, new Uint32Array(size));
    this.#markInfo = move(this.#markInfo, new Uint16Array(size));
    this.#markRemaining = move(this.#markRemaining, new Uint32Array(size));
    this.#markHead = 0;
    this.#markTail = live;
  }

  /** Makes room for `count` more bytes: moves what is left to the front, or grows. */
  #reserve(count: number): void {
    if (this.#end + count <= this.#bytes.length) return;
    const live = this.#end - this.#begin;
    const wanted = live + count;
    if (wanted > this.#bytes.length) {
      let capacity = this.#bytes.length;
      while (capacity < wanted) capacity *= 2;
      const grown = new Uint8Array(capacity);
      grown.set(this.#bytes.subarray(this.#begin, this.#end));
      this.#bytes = grown;
      this.#view = new DataView(grown.buffer);
    } else {
      this.#bytes.copyWithin(0, this.#begin, this.#end);
    }
    for (let mark = this.#markHead; mark < this.#markTail; mark++) {
      this.#markAt[mark]! -= this.#begin;
    }
    this.#begin = 0;
    this.#end = live;
  }

  /**
   * Moves to the next record and points `cursor` at it (valid until the next next() or feed()).
   * Returns false if more bytes are needed. Throws Corrupt for bytes that are not the next record.
   */
  next(cursor: RecordCursor): boolean {
    if (this.#padding > 0 && !this.#dropPadding()) return false;
    while (this.#end - this.#begin >= 4) {
      const startsPage = this.#markHead < this.#markTail &&
        this.#markAt[this.#markHead] === this.#begin;
      const lsn = startsPage
        ? addLsn(this.#recordLsn, pageHeaderSize(this.#recordLsn, this.#segmentSize))
        : this.#recordLsn;
      if (startsPage) this.#checkFirstOfPage(lsn);
      const length = this.#view.getUint32(this.#begin, true);
      if (length < RECORD_HEADER_SIZE || length > RECORD_SIZE_MAX) {
        this.#fail(lsn, `its length is ${length}`);
      }
      const stored = (length + 7) & ~7;
      if (this.#dropOverwritten(lsn, length, stored, startsPage)) continue;
      if (this.#end - this.#begin >= RECORD_HEADER_SIZE) this.#checkPrevious(lsn);
      if (this.#end - this.#begin < stored) return false;
      this.#take(cursor, lsn, length, stored);
      return true;
    }
    return false;
  }

  /** A record starts a page: its header must be one, and must not continue something else. */
  #checkFirstOfPage(lsn: Lsn): void {
    const info = this.#markInfo[this.#markHead]!;
    if ((info & MARK_BAD) !== 0) this.#fail(lsn, "it follows bytes that are no page header");
    if ((info & XLP_FIRST_IS_CONTRECORD) !== 0) {
      this.#fail(lsn, "its page begins with the rest of another record");
    }
  }

  /**
   * Looks at the pages that this record runs into. If one of them overwrites it, moves there and
   * returns true. Throws Corrupt if one is no page or does not continue this record.
   */
  #dropOverwritten(lsn: Lsn, length: number, stored: number, startsPage: boolean): boolean {
    for (let mark = this.#markHead + (startsPage ? 1 : 0); mark < this.#markTail; mark++) {
      const done = this.#markAt[mark]! - this.#begin;
      if (done >= stored) break;
      const info = this.#markInfo[mark]!;
      if ((info & MARK_BAD) !== 0) {
        this.#fail(lsn, `it runs into bytes that are no page header after ${done} of ${length}`);
      }
      if ((info & XLP_FIRST_IS_OVERWRITE_CONTRECORD) !== 0) {
        const end = advanceOverHeaders(lsn, done, this.#segmentSize);
        assert(end % PAGE_SIZE === 0, "a mark is at a page boundary");
        this.#recordLsn = end;
        this.#begin = this.#markAt[mark]!;
        this.#markHead = mark;
        return true;
      }
      const remaining = this.#markRemaining[mark]!;
      if ((info & XLP_FIRST_IS_CONTRECORD) === 0 || remaining !== length - done) {
        this.#fail(
          lsn,
          `it runs into a page that continues ${remaining} bytes, not ${length - done}`,
        );
      }
    }
    return false;
  }

  /** The link to the record before: exact where we know that record. */
  #checkPrevious(lsn: Lsn): void {
    const high = this.#view.getUint32(this.#begin + 12, true);
    const previous = high * 4294967296 + this.#view.getUint32(this.#begin + 8, true);
    const known = this.#previousLsn !== INVALID_LSN;
    if (known ? previous !== this.#previousLsn : previous >= lsn) {
      const wanted = known ? formatLsn(this.#previousLsn) : "one before it";
      this.#fail(lsn, `it links to ${formatLsn(previous as Lsn)}, not to ${wanted}`);
    }
  }

  #take(cursor: RecordCursor, lsn: Lsn, length: number, stored: number): void {
    const begin = this.#begin;
    const crc = this.#view.getUint32(begin + RECORD_CRC_OFFSET, true);
    if (recordCrc(this.#bytes, this.#view, begin, length) !== crc) {
      this.#fail(lsn, "its checksum is wrong");
    }
    const inPage = lsn & (PAGE_SIZE - 1);
    let end = inPage + stored <= PAGE_SIZE
      ? addLsn(lsn, stored)
      : alignLsn(advanceOverHeaders(lsn, stored, this.#segmentSize));
    let padding = 0;
    const isSwitch = this.#bytes[begin + 17] === Rmgr.XLOG &&
      (this.#bytes[begin + 16]! & 0xf0) === XlogInfo.SWITCH;
    if (isSwitch && end % this.#segmentSize !== 0) {
      const next = segmentStart(segmentNumber(end, this.#segmentSize) + 1, this.#segmentSize);
      padding = next - end;
      end = next;
    }
    if (this.#checkBlocks) {
      cursor.decode(this.#version, this.#bytes, this.#view, begin, length, lsn, end);
    } else {
      cursor.decodeHeader(this.#bytes, this.#view, begin, length, lsn, end);
    }
    if (padding > 0) this.#padding = this.#recordBytesIn(addLsn(end, -padding), end);
    this.#recordLsn = end;
    this.#previousLsn = lsn;
    this.#begin = begin + stored;
    this.#dropMarksBefore(this.#begin);
  }

  /** Bytes from `from` to a segment's end that are not page headers. */
  #recordBytesIn(from: Lsn, segmentEnd: Lsn): number {
    let count = 0;
    for (let at: number = from; at < segmentEnd;) {
      const inPage = at % PAGE_SIZE;
      const skip = inPage === 0 ? pageHeaderSize(at, this.#segmentSize) : 0;
      count += PAGE_SIZE - inPage - skip;
      at += PAGE_SIZE - inPage;
    }
    return count;
  }

  #dropMarksBefore(offset: number): void {
    while (this.#markHead < this.#markTail && this.#markAt[this.#markHead]! < offset) {
      this.#markHead++;
    }
    if (this.#markHead === this.#markTail) this.#markHead = this.#markTail = 0;
  }

  /** Drops padding as far as it arrived; false if more of it is to come. */
  #dropPadding(): boolean {
    const count = Math.min(this.#padding, this.#end - this.#begin);
    this.#begin += count;
    this.#padding -= count;
    this.#dropMarksBefore(this.#begin);
    return this.#padding === 0;
  }

  #fail(lsn: Lsn, why: string): never {
    throw new Corrupt(`Cannot read the WAL record at ${formatLsn(lsn)}: ${why}`);
  }
}
