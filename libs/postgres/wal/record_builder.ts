/**
 * Builds WAL: one record from its parts, and a run of WAL with page headers from records.
 *
 * A record is the 24-byte header, the block headers, the main data header, then the blocks'
 * images and data and the main data, without padding (xlogrecord.h). Used for the synthetic
 * records that a start needs, and by tests, which is why it can express everything that the
 * decoder reads.
 */
import { assert } from "../../utils/assert.ts";
import { ByteWriter } from "../../utils/bytes.ts";
import { addLsn, alignLsn, type Lsn, lsnHigh, lsnLow } from "../../utils/lsn.ts";
import {
  BKPBLOCK_HAS_DATA,
  BKPBLOCK_HAS_IMAGE,
  BKPBLOCK_SAME_REL,
  PAGE_SIZE,
  RECORD_HEADER_SIZE,
} from "../constants.ts";
import type { RelTag } from "../relation.ts";
import { type WalIdentity, writePageHeader } from "./page_header.ts";
import { RECORD_CRC_OFFSET, recordCrc } from "./record_crc.ts";
import { pageHeaderSize } from "./segment.ts";

/** Ids of the record parts that are not block references. */
const ID_DATA_SHORT = 255;
const ID_DATA_LONG = 254;
const ID_ORIGIN = 253;
const ID_TOPLEVEL_XID = 252;

/** An image as it is stored: already compressed and without its hole. */
interface BlockImage {
  info: number;
  bytes: Uint8Array;
  holeOffset: number;
  /** Only written where the image is compressed and has a hole. */
  compressedHoleLength?: number;
}

/** One block reference. */
export interface BlockReference {
  id: number;
  tag: RelTag;
  block: number;
  /** BKPBLOCK_WILL_INIT or nothing; the other flags follow from the parts. */
  flags?: number;
  /** Leave out the relation: it is the previous reference's. */
  sameRelation?: boolean;
  data?: Uint8Array;
  image?: BlockImage;
}

/** The parts of a record. */
export interface RecordParts {
  rmid: number;
  info: number;
  xid?: number;
  previous: Lsn;
  main?: Uint8Array;
  blocks?: BlockReference[];
  origin?: number;
  toplevelXid?: number;
}

function writeBlockHeader(writer: ByteWriter, block: BlockReference): void {
  const { data, image } = block;
  const flags = block.tag.fork | (block.flags ?? 0) | (image ? BKPBLOCK_HAS_IMAGE : 0) |
    (data ? BKPBLOCK_HAS_DATA : 0) | (block.sameRelation ? BKPBLOCK_SAME_REL : 0);
  writer.u8(block.id).u8(flags).u16(data?.length ?? 0);
  if (image) {
    writer.u16(image.bytes.length).u16(image.holeOffset).u8(image.info);
    if (image.compressedHoleLength !== undefined) writer.u16(image.compressedHoleLength);
  }
  if (!block.sameRelation) writer.u32(block.tag.spc).u32(block.tag.db).u32(block.tag.rel);
  writer.u32(block.block);
}

/** The bytes of a record, CRC included. */
export function buildRecord(parts: RecordParts): Uint8Array<ArrayBuffer> {
  const main = parts.main ?? new Uint8Array(0);
  const writer = new ByteWriter("little", RECORD_HEADER_SIZE + 64 + main.length);
  writer.u32(0).u32(parts.xid ?? 0).u32(lsnLow(parts.previous)).u32(lsnHigh(parts.previous));
  writer.u8(parts.info).u8(parts.rmid).u16(0).u32(0);
  for (const block of parts.blocks ?? []) writeBlockHeader(writer, block);
  if (parts.origin !== undefined) writer.u8(ID_ORIGIN).u16(parts.origin);
  if (parts.toplevelXid !== undefined) writer.u8(ID_TOPLEVEL_XID).u32(parts.toplevelXid);
  if (main.length > 255) writer.u8(ID_DATA_LONG).u32(main.length);
  else if (main.length > 0) writer.u8(ID_DATA_SHORT).u8(main.length);
  for (const block of parts.blocks ?? []) {
    if (block.image) writer.raw(block.image.bytes);
    if (block.data) writer.raw(block.data);
  }
  writer.raw(main).patchU32(0, writer.length);
  const bytes = writer.bytes();
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  view.setUint32(RECORD_CRC_OFFSET, recordCrc(bytes, view, 0, bytes.length), true);
  return bytes;
}

/** Lays records out as WAL, page headers included, from any 8-aligned position on. */
export class WalWriter {
  readonly start: Lsn;
  readonly #identity: WalIdentity;
  readonly #writer = new ByteWriter("little", 2 * PAGE_SIZE);
  readonly #header = new Uint8Array(64);

  /** `start` is a record end or a page boundary: where the first byte of `bytes()` belongs. */
  constructor(start: Lsn, identity: WalIdentity) {
    assert(start % 8 === 0, "WAL starts at a multiple of 8");
    this.start = start;
    this.#identity = identity;
  }

  /** End of what was written. */
  get end(): Lsn {
    return addLsn(this.start, this.#writer.length);
  }

  /** Where the next record will start, behind the page header if one is due. */
  get nextRecordLsn(): Lsn {
    const end = this.end;
    return end % PAGE_SIZE === 0
      ? addLsn(end, pageHeaderSize(end, this.#identity.segmentSize))
      : end;
  }

  /** All bytes from `start` to `end`; valid until the next append. */
  bytes(): Uint8Array<ArrayBuffer> {
    return this.#writer.bytes();
  }

  /** Appends a page header where one is due. `flags` are added to its info. */
  #startPage(remaining: number, flags = 0): void {
    const view = new DataView(this.#header.buffer);
    const size = writePageHeader(view, 0, this.#identity, this.end, remaining);
    view.setUint16(2, view.getUint16(2, true) | flags, true);
    this.#writer.raw(this.#header.subarray(0, size));
  }

  /** Appends one record and its padding; returns where it starts. */
  append(record: Uint8Array): Lsn {
    if (this.end % PAGE_SIZE === 0) this.#startPage(0);
    const recordLsn = this.end;
    this.appendPart(record, record.length);
    this.#writer.zeros(alignLsn(this.end) - this.end);
    return recordLsn;
  }

  /** Appends only the first `count` bytes of a record, as a crash leaves it. */
  appendPart(record: Uint8Array, count: number): void {
    for (let done = 0; done < count;) {
      if (this.end % PAGE_SIZE === 0) this.#startPage(done === 0 ? 0 : record.length - done);
      const taken = Math.min(count - done, PAGE_SIZE - this.end % PAGE_SIZE);
      this.#writer.raw(record.subarray(done, done + taken));
      done += taken;
    }
  }

  /** Zeros up to the position, as behind an XLOG_SWITCH. */
  padTo(lsn: Lsn): void {
    assert(lsn >= this.end, "padding goes forward");
    this.#writer.zeros(lsn - this.end);
  }

  /** Starts a page that gives up the record before it (XLP_FIRST_IS_OVERWRITE_CONTRECORD). */
  startOverwritingPage(flag: number): void {
    assert(this.end % PAGE_SIZE === 0, "a page starts on a page boundary");
    this.#startPage(0, flag);
  }
}
