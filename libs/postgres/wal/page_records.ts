/**
 * Where the records end on the page that was written last. PostgreSQL writes whole pages of its WAL
 * buffers (XLogWrite, access/transam/xlog.c): everything before the last one is final, while on the
 * last one other processes may still be copying their records into the buffer. Those that are there
 * whole, as their checksums say, are final as well.
 */
import { addLsn, INVALID_LSN, type Lsn } from "../../utils/lsn.ts";
import { PAGE_SIZE, RECORD_HEADER_SIZE, Rmgr, XlogInfo } from "../constants.ts";
import { XLP_FIRST_IS_CONTRECORD } from "./page_header.ts";
import { RECORD_CRC_OFFSET, recordCrc } from "./record_crc.ts";
import { pageHeaderSize } from "./segment.ts";

/** Reads WAL that is final: `into.length` bytes from `from` on. */
type ReadWal = (from: Lsn, into: Uint8Array) => void;

/** Looks at one page after the other. */
export class PageRecords {
  readonly bytes = new Uint8Array(PAGE_SIZE);
  readonly #view = new DataView(this.bytes.buffer);
  readonly #segmentSize: number;
  readonly #read: ReadWal;
  /** A record header that is on two pages. */
  readonly #header = new Uint8Array(RECORD_HEADER_SIZE);
  readonly #headerView = new DataView(this.#header.buffer);
  /** End of the last record that ends on the page; INVALID_LSN if none does. */
  recordEnd: Lsn = INVALID_LSN;
  /** End of what is final on the page: `recordEnd`, or padding behind it. */
  finalEnd: Lsn = INVALID_LSN;

  /** `read` is for the page before. */
  constructor(segmentSize: number, read: ReadWal) {
    this.#segmentSize = segmentSize;
    this.#read = read;
  }

  /**
   * Looks at `bytes`, the page at `pageStart`. `boundary` is the end of a record where one is known
   * on this page, else anything before it. PostgreSQL has synced WAL up to some position on this
   * page, so what the page begins with is complete: the rest of a record, a record, or else the
   * padding behind an XLOG_SWITCH, which goes on to the end of the segment: there that record ends.
   */
  scan(pageStart: Lsn, boundary: Lsn): void {
    const header = pageHeaderSize(pageStart, this.#segmentSize);
    this.recordEnd = INVALID_LSN;
    let at = boundary - pageStart;
    if (at < header) {
      const isContinued = (this.#view.getUint16(2, true) & XLP_FIRST_IS_CONTRECORD) !== 0;
      const remaining = isContinued ? this.#view.getUint32(16, true) : 0;
      at = header + aligned(remaining);
      if (at > PAGE_SIZE) return void (this.finalEnd = pageStart);
      if (this.#isRestOfSwitch(pageStart, header, remaining)) return this.#padded(pageStart);
      if (at === header && !this.#isWhole(at)) {
        const isPadding = this.#view.getUint32(at, true) === 0;
        if (isPadding) return this.#padded(pageStart);
        return void (this.finalEnd = addLsn(pageStart, PAGE_SIZE));
      }
    }
    while (this.#isWhole(at) && !isSwitch(this.bytes, at)) at += this.#storedLength(at);
    // On a page that begins with a switch no record ends
    if (at > header) this.recordEnd = addLsn(pageStart, at);
    if (this.#isWhole(at)) this.#padded(pageStart); // then it is a switch
    else this.finalEnd = addLsn(pageStart, at);
  }

  /** The page ends with the padding behind a switch. */
  #padded(pageStart: Lsn): void {
    this.finalEnd = addLsn(pageStart, PAGE_SIZE);
    if (this.finalEnd % this.#segmentSize === 0) this.recordEnd = this.finalEnd;
  }

  /** Whether the page begins with the last `remaining` bytes of a switch, which has a header only. */
  #isRestOfSwitch(pageStart: Lsn, at: number, remaining: number): boolean {
    const before = RECORD_HEADER_SIZE - remaining;
    if (remaining === 0 || before <= 0) return false;
    const record = this.#header;
    record.set(this.bytes.subarray(at, at + remaining), before);
    if (!isSwitch(record, 0)) return false;
    this.#read(addLsn(pageStart, -before), record.subarray(0, before));
    const crc = this.#headerView.getUint32(RECORD_CRC_OFFSET, true);
    return this.#headerView.getUint32(0, true) === RECORD_HEADER_SIZE &&
      recordCrc(record, this.#headerView, 0, RECORD_HEADER_SIZE) === crc;
  }

  #storedLength(at: number): number {
    return aligned(this.#view.getUint32(at, true));
  }

  #isWhole(at: number): boolean {
    if (at + RECORD_HEADER_SIZE > PAGE_SIZE) return false;
    const length = this.#view.getUint32(at, true);
    if (length < RECORD_HEADER_SIZE || length > PAGE_SIZE - at) return false;
    const crc = this.#view.getUint32(at + RECORD_CRC_OFFSET, true);
    return recordCrc(this.bytes, this.#view, at, length) === crc;
  }
}

function isSwitch(record: Uint8Array, at: number): boolean {
  return record[at + 17] === Rmgr.XLOG && (record[at + 16]! & 0xf0) === XlogInfo.SWITCH;
}

/** Records begin at multiples of 8. */
function aligned(length: number): number {
  return (length + 7) & ~7;
}
