/**
 * What a read found of one page: the newest image at or below the wanted LSN and the WAL records
 * after it, copied side by side into one slab.
 *
 *   bytes:  | image (imageLength bytes at 0, if hasImage) | record 0 | record 1 | ...
 *
 * Records are oldest first. One object serves any number of reads: begin() empties it and keeps
 * the memory. Record 0 rebuilds the page from nothing when there is no image and the read did not
 * continue from the caller's page. The repository fills it (Timeline.collect), redo reads it.
 */
import { assert } from "../../libs/utils/assert.ts";
import { Unavailable } from "../../libs/utils/errors.ts";
import { INVALID_LSN, type Lsn } from "../../libs/utils/lsn.ts";

/** More than this for one page is refused rather than held in memory. */
const SLAB_BYTES_MAX = 512 * 1024 * 1024;
/** A slab larger than this is given back at the next begin(). */
const SLAB_BYTES_KEPT = 4 * 1024 * 1024;

/** Where a page is to be made. */
interface PagePlace {
  bytes: Uint8Array;
  view: DataView;
  offset: number;
}

/** The reusable result of Timeline.collect. */
export class Reconstruction {
  /** The slab; replaced when it grows, so take it anew after each collect. */
  bytes = new Uint8Array(64 * 1024);
  view = new DataView(this.bytes.buffer);
  /** Bytes of the slab in use. */
  length = 0;

  hasImage = false;
  /** LSN of the image; INVALID_LSN without one. */
  imageLsn: Lsn = INVALID_LSN;
  /** The image is bytes[0, imageLength), unless it lies elsewhere. */
  imageLength = 0;
  /**
   * Whether the image alone was collected and was left where it is: elsewhereBytes[elsewhereOffset,
   * + imageLength), not to be changed, and good until the next page is collected.
   */
  isElsewhere = false;
  elsewhereBytes: Uint8Array = this.bytes;
  elsewhereView: DataView = this.view;
  elsewhereOffset = 0;
  /**
   * The caller's own page (the `after` of collect) is the base: no image, apply the records to it.
   */
  continues = false;

  recordCount = 0;
  /** Offsets in the slab, lengths in bytes and end LSNs of the records, oldest first. */
  recordOffset = new Uint32Array(256);
  recordLength = new Uint32Array(256);
  recordLsn = new Float64Array(256);

  /** Whoever reads it repeats a collect() that throws Postponed, when that has come. */
  mayPostpone = false;

  /** `mayPoint`: whoever reads it looks at isElsewhere. */
  constructor(readonly mayPoint = false) {}

  /** Empties it. */
  begin(): void {
    this.isElsewhere = false;
    if (this.bytes.length > SLAB_BYTES_KEPT) {
      this.bytes = new Uint8Array(64 * 1024);
      this.view = new DataView(this.bytes.buffer);
    }
    this.length = 0;
    this.hasImage = false;
    this.imageLsn = INVALID_LSN;
    this.imageLength = 0;
    this.continues = false;
    this.recordCount = 0;
  }

  /** Makes room for `length` bytes and returns their offset; `bytes` may be replaced. */
  reserve(length: number): number {
    const at = this.length;
    if (at + length > this.bytes.length) this.#growSlab(at + length);
    this.length = at + length;
    return at;
  }

  /** Notes that bytes[offset, offset + length) is the image at `lsn`. */
  setImage(offset: number, length: number, lsn: Lsn): void {
    assert(offset === 0 && this.recordCount === 0, "the image is the first thing in the slab");
    this.hasImage = true;
    this.imageLsn = lsn;
    this.imageLength = length;
  }

  /** Notes that bytes[offset, offset + length) of another slab is the image. */
  pointAt(bytes: Uint8Array, view: DataView, offset: number, length: number): void {
    this.hasImage = true;
    this.imageLength = length;
    this.isElsewhere = true;
    this.elsewhereBytes = bytes;
    this.elsewhereView = view;
    this.elsewhereOffset = offset;
  }

  /** Copies an image that lies elsewhere to where images are otherwise. */
  bringHome(): void {
    if (!this.isElsewhere) return;
    this.isElsewhere = false;
    const end = this.elsewhereOffset + this.imageLength;
    const at = this.reserve(this.imageLength);
    this.bytes.set(this.elsewhereBytes.subarray(this.elsewhereOffset, end), at);
  }

  /**
   * Makes `place` one in the slab: the image itself, else new room of `length` bytes. A copy within
   * one array is cheaper than one into another, and makes no objects.
   */
  placeForPage(length: number, place: PagePlace): void {
    place.offset = this.hasImage ? 0 : this.reserve(length);
    place.bytes = this.bytes;
    place.view = this.view;
  }

  /** Notes that bytes[offset, offset + length) is the next record. */
  addRecord(offset: number, length: number, lsn: Lsn): void {
    if (this.recordCount === this.recordOffset.length) this.#growRecords();
    this.recordOffset[this.recordCount] = offset;
    this.recordLength[this.recordCount] = length;
    this.recordLsn[this.recordCount] = lsn;
    this.recordCount++;
  }

  #growSlab(needed: number): void {
    if (needed > SLAB_BYTES_MAX) {
      throw new Unavailable(
        `Cannot hold a page's records: ${needed} bytes, the limit is ${SLAB_BYTES_MAX}`,
      );
    }
    const grown = new Uint8Array(Math.max(needed, this.bytes.length * 2));
    grown.set(this.bytes.subarray(0, this.length));
    this.bytes = grown;
    this.view = new DataView(grown.buffer);
  }

  #growRecords(): void {
    const offsets = new Uint32Array(this.recordOffset.length * 2);
    const lengths = new Uint32Array(this.recordLength.length * 2);
    const lsns = new Float64Array(this.recordLsn.length * 2);
    offsets.set(this.recordOffset);
    lengths.set(this.recordLength);
    lsns.set(this.recordLsn);
    this.recordOffset = offsets;
    this.recordLength = lengths;
    this.recordLsn = lsns;
  }
}
