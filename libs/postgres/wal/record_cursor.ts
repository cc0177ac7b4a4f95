/**
 * A WAL record, looked at in place.
 *
 *   0 length u32 | 4 xid u32 | 8 previous u64 | 16 info u8 | 17 rmid u8 | 18 pad | 20 CRC u32
 *   24 block headers, origin (253), top-level xid (252), main data header (255 short, 254 long)
 *   then for each block its image and its data, then the main data            (xlogrecord.h)
 *
 *   block header: id u8 | fork and flags u8 | data length u16 |
 *     [image: length u16 | hole offset u16 | info u8 | [hole length u16 if compressed]]
 *     [relation: tablespace u32 | database u32 | relfilenode u32, unless SAME_REL] | block u32
 *
 * There is one cursor per reader, reused for every record: decode() allocates nothing and copies
 * nothing, it fills typed arrays indexed by block id. Ids are sparse (17.11 uses 1 for a visibility
 * map page where 0 is the heap page): ask blockPresent, and never count positions.
 */
import { Corrupt } from "../../utils/errors.ts";
import { formatLsn, INVALID_LSN, type Lsn, lsnFromHalves } from "../../utils/lsn.ts";
import {
  BKPBLOCK_HAS_DATA,
  BKPBLOCK_HAS_IMAGE,
  BKPBLOCK_SAME_REL,
  BLOCK_ID_MAX,
  PAGE_SIZE,
  RECORD_HEADER_SIZE,
} from "../constants.ts";
import { PG_VERSIONS, type PgVersion } from "../versions.ts";

const SLOTS = BLOCK_ID_MAX + 1;

const ID_DATA_SHORT = 255;
const ID_DATA_LONG = 254;
const ID_ORIGIN = 253;
const ID_TOPLEVEL_XID = 252;

/** One record. All offsets are absolute in `bytes`. */
export class RecordCursor {
  bytes: Uint8Array = new Uint8Array(0);
  view: DataView = new DataView(this.bytes.buffer);
  /** Whose record it is; set by decode(). */
  version: PgVersion = PG_VERSIONS.at(-1)!;
  /** The raw record is [start, start + length) of bytes. */
  start = 0;
  length = 0;
  /** Where the record starts, behind a page header. */
  lsn: Lsn = INVALID_LSN;
  /** 8-aligned end; after XLOG_SWITCH the start of the next segment. What pd_lsn is set to. */
  endLsn: Lsn = INVALID_LSN;
  /** Start of the record before this one. */
  prevLsn: Lsn = INVALID_LSN;
  rmid = 0;
  /** The full byte: the low four bits are flags, the high four the opcode (mask 0xf0). */
  info = 0;
  xid = 0;
  /** Replication origin; 0 = none. */
  origin = 0;
  /** Set on the first record of a subtransaction at wal_level logical; 0 = none. */
  toplevelXid = 0;
  mainOffset = 0;
  mainLength = 0;
  /** Highest block id that is present; -1 = none. */
  maxBlockId = -1;
  readonly blockPresent: Uint8Array = new Uint8Array(SLOTS);
  readonly blockFork: Uint8Array = new Uint8Array(SLOTS);
  /** BKPBLOCK_* bits with the fork in the low four. */
  readonly blockFlags: Uint8Array = new Uint8Array(SLOTS);
  readonly blockSpc: Uint32Array = new Uint32Array(SLOTS);
  readonly blockDb: Uint32Array = new Uint32Array(SLOTS);
  readonly blockRel: Uint32Array = new Uint32Array(SLOTS);
  readonly blockNumber: Uint32Array = new Uint32Array(SLOTS);
  readonly hasImage: Uint8Array = new Uint8Array(SLOTS);
  /** Whether redo restores the image; otherwise it is only there for consistency checks. */
  readonly applyImage: Uint8Array = new Uint8Array(SLOTS);
  readonly imageInfo: Uint8Array = new Uint8Array(SLOTS);
  readonly imageOffset: Uint32Array = new Uint32Array(SLOTS);
  readonly imageLength: Uint32Array = new Uint32Array(SLOTS);
  readonly holeOffset: Uint32Array = new Uint32Array(SLOTS);
  readonly holeLength: Uint32Array = new Uint32Array(SLOTS);
  readonly dataOffset: Uint32Array = new Uint32Array(SLOTS);
  readonly dataLength: Uint32Array = new Uint32Array(SLOTS);

  /** Id of the reference to this block, or -1. */
  findBlock(spc: number, db: number, rel: number, fork: number, block: number): number {
    for (let id = 0; id <= this.maxBlockId; id++) {
      if (
        this.blockPresent[id] === 1 && this.blockNumber[id] === block &&
        this.blockRel[id] === rel && this.blockFork[id] === fork && this.blockDb[id] === db &&
        this.blockSpc[id] === spc
      ) return id;
    }
    return -1;
  }

  /** Reads only the fixed header. The bytes are the caller's, who has checked length and CRC. */
  decodeHeader(
    bytes: Uint8Array,
    view: DataView,
    start: number,
    length: number,
    lsn: Lsn,
    endLsn: Lsn,
  ): void {
    this.bytes = bytes;
    this.view = view;
    this.start = start;
    this.length = length;
    this.lsn = lsn;
    this.endLsn = endLsn;
    this.xid = view.getUint32(start + 4, true);
    this.prevLsn = lsnFromHalves(
      view.getUint32(start + 12, true),
      view.getUint32(start + 8, true),
    );
    this.info = bytes[start + 16]!;
    this.rmid = bytes[start + 17]!;
    for (let id = 0; id <= this.maxBlockId; id++) this.blockPresent[id] = 0;
    this.maxBlockId = -1;
    this.origin = 0;
    this.toplevelXid = 0;
    this.mainOffset = start + length;
    this.mainLength = 0;
  }

  /**
   * Reads the whole record at [start, start + length) of `bytes`, of which `view` is the DataView
   * with the same origin. Throws Corrupt naming the LSN and the reason.
   */
  decode(
    version: PgVersion,
    bytes: Uint8Array,
    view: DataView,
    start: number,
    length: number,
    lsn: Lsn,
    endLsn: Lsn,
  ): void {
    if (length < RECORD_HEADER_SIZE) this.#fail(lsn, `its length is ${length}`);
    this.version = version;
    this.decodeHeader(bytes, view, start, length, lsn, endLsn);
    const end = start + length;
    let at = start + RECORD_HEADER_SIZE;
    let dataTotal = 0; // bytes announced so far that follow the headers
    let previousId = -1;
    while (end - at > dataTotal) {
      const id = bytes[at]!;
      if (id <= BLOCK_ID_MAX) {
        if (id <= previousId) this.#fail(lsn, `block reference ${id} is out of order`);
        at = this.#decodeBlock(version, id, previousId, at, end);
        dataTotal += this.imageLength[id]! + this.dataLength[id]!;
        previousId = id;
      } else if (id === ID_DATA_SHORT) {
        this.mainLength = bytes[at + 1]!;
        at += 2;
        dataTotal += this.mainLength;
        break; // by convention the main data header is the last
      } else if (id === ID_DATA_LONG) {
        if (at + 5 > end) this.#fail(lsn, "it is shorter than its headers");
        this.mainLength = view.getUint32(at + 1, true);
        at += 5;
        dataTotal += this.mainLength;
        break;
      } else if (id === ID_ORIGIN) {
        if (at + 3 > end) this.#fail(lsn, "it is shorter than its headers");
        this.origin = view.getUint16(at + 1, true);
        at += 3;
      } else if (id === ID_TOPLEVEL_XID) {
        if (at + 5 > end) this.#fail(lsn, "it is shorter than its headers");
        this.toplevelXid = view.getUint32(at + 1, true);
        at += 5;
      } else {
        this.#fail(lsn, `it has a part of unknown id ${id}`);
      }
    }
    if (end - at !== dataTotal) {
      this.#fail(lsn, `${end - at} bytes follow its headers, which announce ${dataTotal}`);
    }
    this.#placeData(at);
  }

  /** Assigns offsets to what follows the headers: each block's image and data, the main data. */
  #placeData(from: number): void {
    let at = from;
    for (let id = 0; id <= this.maxBlockId; id++) {
      if (this.blockPresent[id] === 0) continue;
      this.imageOffset[id] = at;
      at += this.imageLength[id]!;
      this.dataOffset[id] = at;
      at += this.dataLength[id]!;
    }
    this.mainOffset = at;
  }

  #decodeBlock(
    version: PgVersion,
    id: number,
    previousId: number,
    from: number,
    end: number,
  ): number {
    const { bytes, view, lsn } = this;
    let at = from;
    if (at + 4 > end) this.#fail(lsn, "it is shorter than its headers");
    const flags = bytes[at + 1]!;
    const dataLength = view.getUint16(at + 2, true);
    if (((flags & BKPBLOCK_HAS_DATA) !== 0) !== (dataLength > 0)) {
      this.#fail(lsn, `block ${id} has ${dataLength} data bytes with flags ${flags.toString(16)}`);
    }
    this.maxBlockId = id;
    this.blockPresent[id] = 1;
    this.blockFlags[id] = flags;
    this.blockFork[id] = flags & 0x0f;
    this.dataLength[id] = dataLength;
    at += 4;
    if ((flags & BKPBLOCK_HAS_IMAGE) !== 0) {
      at = this.#decodeImage(version, id, at, end);
    } else {
      this.hasImage[id] = 0;
      this.applyImage[id] = 0;
      this.imageInfo[id] = 0;
      this.imageLength[id] = 0;
      this.holeOffset[id] = 0;
      this.holeLength[id] = 0;
    }
    if ((flags & BKPBLOCK_SAME_REL) === 0) {
      if (at + 16 > end) this.#fail(lsn, "it is shorter than its headers");
      this.blockSpc[id] = view.getUint32(at, true);
      this.blockDb[id] = view.getUint32(at + 4, true);
      this.blockRel[id] = view.getUint32(at + 8, true);
      at += 12;
    } else {
      if (previousId < 0) this.#fail(lsn, `block ${id} refers to a relation before it: none`);
      if (at + 4 > end) this.#fail(lsn, "it is shorter than its headers");
      this.blockSpc[id] = this.blockSpc[previousId]!;
      this.blockDb[id] = this.blockDb[previousId]!;
      this.blockRel[id] = this.blockRel[previousId]!;
    }
    this.blockNumber[id] = view.getUint32(at, true);
    return at + 4;
  }

  #decodeImage(version: PgVersion, id: number, from: number, end: number): number {
    const { view, lsn } = this;
    if (from + 5 > end) this.#fail(lsn, "it is shorter than its headers");
    const length = view.getUint16(from, true);
    const holeOffset = view.getUint16(from + 2, true);
    const info = view.getUint8(from + 4);
    const compressed = (info & version.imageCompressed) !== 0;
    const hasHole = (info & version.imageHasHole) !== 0;
    let at = from + 5;
    let holeLength = hasHole ? PAGE_SIZE - length : 0;
    if (compressed && hasHole) {
      if (at + 2 > end) this.#fail(lsn, "it is shorter than its headers");
      holeLength = view.getUint16(at, true);
      at += 2;
    }
    const fits = compressed ? length < PAGE_SIZE : length === PAGE_SIZE - holeLength;
    if (!fits || holeOffset + holeLength > PAGE_SIZE || (hasHole && holeLength <= 0)) {
      this.#fail(
        lsn,
        `block ${id} has an image of ${length} bytes with hole ${holeOffset}+${holeLength}`,
      );
    }
    this.hasImage[id] = 1;
    this.applyImage[id] = (info & version.imageApply) !== 0 ? 1 : 0;
    this.imageInfo[id] = info;
    this.imageLength[id] = length;
    this.holeOffset[id] = holeOffset;
    this.holeLength[id] = holeLength;
    return at;
  }

  #fail(lsn: Lsn, why: string): never {
    throw new Corrupt(`Cannot decode the WAL record at ${formatLsn(lsn)}: ${why}`);
  }
}
