/**
 * The layer file: versions of keys, written once, then only read.
 *
 *   page 0..     header (64 bytes), then blobs back to back, each aligned to 8 bytes
 *   then         zeros up to the next multiple of 8192
 *   then         index blocks, 8192 bytes each: entries sorted by key, LSN, order of arrival
 *   then         directory: the first key and LSN of every index block, 32 bytes each
 *   then         zeros up to the next multiple of 8192
 *   last page    trailer
 *
 * All integers little endian; keys in the trailer are their 18 big-endian bytes (key.ts).
 *
 *   header     u32 magic "NLAY" | u32 version | tenant 16 | timeline 16 | u32 CRC-32C of these
 *   blob       u32 length | u32 CRC-32 of the bytes, started with the length | bytes
 *   block      u32 CRC-32C of the rest | u32 block number | u16 objects | u16 entries | u32 0
 *              objects: u8 f1 | u8 f5 | u16 number of its first entry | u32 f2 | u32 f3 | u32 f4
 *              entries: u32 f6 | u32 word | u64 LSN
 *   directory  u8 f1 | u8 f5 | u16 0 | u32 f2 | u32 f3 | u32 f4 | u32 f6 | u32 0 | u64 LSN
 *   trailer    u32 CRC-32C of the rest of the page | u32 magic "NLTR" | u32 version | u8 kind (1
 *              delta, 2 image, 3 delta in key order) | u8[3] | tenant 16 | timeline 16 | first key
 *              18 | last key 18 | u32 index blocks | u64 LSN start | u64 LSN end | u32 first index
 *              page | u32 CRC-32C of the directory | u64 entries | u64 file bytes
 *
 * An entry's word is the blob's position (a multiple of 8, below 4 GiB) plus, in the low three
 * bits, what the blob is. Several entries may name one blob: a WAL record is stored once for all
 * the pages that it changes. A delta layer holds every change in (LSN start, LSN end]; an image
 * layer holds images at one LSN, LSN end = LSN start + 1.
 *
 * In a delta layer as it was flushed blobs lie in order of arrival, because it is the ephemeral
 * file of an open layer with an index put behind it: flushing moves no data. In one in key order
 * (compaction/) they lie as the entries do, so that a scan reads the file from front to back; what
 * is long and belongs to several pages is there once, with the first of them.
 *
 * Every byte that a read depends on is under a checksum that the read verifies. That of blobs is
 * CRC-32, as zlib has it, because Deno's takes a fourth of the time of CRC-32C, and scans spend on
 * little else. In version 1 it was CRC-32C.
 *
 * The name: <first key>-<last key>__<LSN start>-<LSN end>-<generation>, for example
 * 000000067F...00-03000000...01__00000000014E2F08-000000000153A1C0-00000001. That of a delta layer
 * in key order ends with -k: it may take the place of one with the same keys and LSNs.
 */
import { crc32c } from "../../libs/utils/crc32c.ts";
import { Corrupt } from "../../libs/utils/errors.ts";
import { decodeHex } from "../../libs/utils/hex.ts";
import type { TenantId, TimelineId } from "../../libs/utils/id.ts";
import { type Lsn, lsnFromHalves, lsnHigh, lsnLow } from "../../libs/utils/lsn.ts";
import { formatKey, type Key, keyFromBytes, writeKey } from "./key.ts";

/** Bytes of a page of a layer file, as it is cached and as an index block is long. */
export const CACHE_PAGE_BYTES = 8192;

const FORMAT_VERSION = 2;
const FORMAT_VERSION_MIN = 1;
const HEADER_MAGIC = 0x59414c4e; // "NLAY"
const TRAILER_MAGIC = 0x52544c4e; // "NLTR"

/** Bytes of the header; the first blob starts here. */
export const HEADER_BYTES = 64;
const HEADER_CHECKED_BYTES = 40;
/** Bytes before a blob's own. */
export const BLOB_HEADER_BYTES = 8;
/** The longest blob; no WAL record that changes a page comes near it. */
export const BLOB_BYTES_MAX = 512 * 1024 * 1024;
/** Blob positions are 32 bits. */
export const BLOB_REGION_BYTES_MAX = 4294967296;

/** What an entry's blob is: the low three bits of its word. */
export const EntryKind = {
  /** A WAL record that needs the page as it was. */
  record: 0,
  /** A WAL record that rebuilds the page from nothing. */
  initRecord: 1,
  /** The whole value. */
  image: 2,
  /** The key is deleted; there is no blob. */
  tombstone: 3,
} as const;
/** The bits of EntryKind in a word. */
export const KIND_MASK = 7;

/** Offsets in an index block. */
export const BLOCK_ITEMS = 16;
/** Bytes of an object and of an entry in an index block. */
export const BLOCK_ITEM_BYTES = 16;
/** Objects plus entries that fit an index block. */
export const BLOCK_ITEMS_MAX = (CACHE_PAGE_BYTES - BLOCK_ITEMS) / BLOCK_ITEM_BYTES;
/** Bytes of a directory entry. */
export const DIRECTORY_ENTRY_BYTES = 32;

/** Delta: changes over a range of LSNs. Image: values at one LSN. */
export type LayerKind = "delta" | "image";

/** Whose layer it is; in header and trailer, so that a misplaced file is noticed. */
export interface LayerOwner {
  readonly tenantId: TenantId;
  readonly timelineId: TimelineId;
}

/** What index_part and the layer map know of a layer. */
export interface LayerDescription {
  readonly kind: LayerKind;
  /** Of a delta layer: its values lie as its entries do. False for an image layer. */
  readonly inKeyOrder: boolean;
  /** Smallest and greatest key in it, both inclusive. */
  readonly first: Key;
  readonly last: Key;
  /** Its entries have lsnStart < LSN <= lsnEnd. */
  readonly lsnStart: Lsn;
  readonly lsnEnd: Lsn;
  /** The tenant's generation when it was written. */
  readonly generation: number;
  readonly sizeBytes: number;
}

/** The trailer's fields beside the description's. */
export interface LayerTrailer {
  readonly kind: LayerKind;
  readonly inKeyOrder: boolean;
  readonly first: Key;
  readonly last: Key;
  readonly lsnStart: Lsn;
  readonly lsnEnd: Lsn;
  readonly indexBlocks: number;
  readonly firstIndexPage: number;
  readonly directoryCrc: number;
  readonly entries: number;
  readonly sizeBytes: number;
}

function hex(value: number, digits: number): string {
  return value.toString(16).toUpperCase().padStart(digits, "0");
}

/** The number of a layer's kind on disk. */
export function kindNumber(layer: { kind: LayerKind; inKeyOrder: boolean }): number {
  if (layer.kind === "image") return 2;
  return layer.inKeyOrder ? 3 : 1;
}

/** The kind with a number. Throws Corrupt naming `what` it is of. */
export function kindOf(number: number, what: string): { kind: LayerKind; inKeyOrder: boolean } {
  if (number < 1 || number > 3) {
    throw new Corrupt(`Cannot read ${what}: ${number} is no kind of layer`);
  }
  return { kind: number === 2 ? "image" : "delta", inKeyOrder: number === 3 };
}

/** The file name of a layer. */
export function layerFileName(layer: LayerDescription): string {
  const keys = `${formatKey(layer.first)}-${formatKey(layer.last)}`;
  const lsns = `${hex(layer.lsnStart, 16)}-${hex(layer.lsnEnd, 16)}`;
  const order = layer.inKeyOrder ? "-k" : "";
  return `${keys}__${lsns}-${hex(layer.generation, 8).toLowerCase()}${order}`;
}

/** The header of a layer of this timeline. */
export function encodeHeader(owner: LayerOwner): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, HEADER_MAGIC, true);
  view.setUint32(4, FORMAT_VERSION, true);
  bytes.set(decodeHex(owner.tenantId), 8);
  bytes.set(decodeHex(owner.timelineId), 24);
  view.setUint32(
    HEADER_CHECKED_BYTES,
    crc32c(bytes.subarray(0, HEADER_CHECKED_BYTES)),
    true,
  );
  return bytes;
}

function checkVersion(version: number, path: string): void {
  if (version < FORMAT_VERSION_MIN || version > FORMAT_VERSION) {
    throw new Corrupt(
      `Cannot read layer file "${path}": format version ${version} is not ` +
        `${FORMAT_VERSION_MIN} or ${FORMAT_VERSION}`,
    );
  }
}

function checkOwner(bytes: Uint8Array, offset: number, owner: LayerOwner, path: string): void {
  const ids = decodeHex(owner.tenantId + owner.timelineId);
  for (let i = 0; i < 32; i++) {
    if (bytes[offset + i] !== ids[i]) {
      throw new Corrupt(`Cannot read layer file "${path}": it belongs to another timeline`);
    }
  }
}

/** Checks the header. Throws Corrupt naming `path`. */
export function checkHeader(bytes: Uint8Array, owner: LayerOwner, path: string): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, HEADER_BYTES);
  if (view.getUint32(0, true) !== HEADER_MAGIC) {
    throw new Corrupt(`Cannot read layer file "${path}": it is not a layer file (wrong magic)`);
  }
  checkVersion(view.getUint32(4, true), path);
  const crc = crc32c(bytes.subarray(0, HEADER_CHECKED_BYTES));
  if (view.getUint32(HEADER_CHECKED_BYTES, true) !== crc) {
    throw new Corrupt(`Cannot read layer file "${path}": checksum mismatch in its header`);
  }
  checkOwner(bytes, 8, owner, path);
}

/** Writes a 64-bit LSN. */
export function writeLsn(view: DataView, offset: number, lsn: number): void {
  view.setUint32(offset, lsnLow(lsn as Lsn), true);
  view.setUint32(offset + 4, lsnHigh(lsn as Lsn), true);
}

/** Reads a 64-bit LSN. */
export function readLsn(view: DataView, offset: number): Lsn {
  return lsnFromHalves(view.getUint32(offset + 4, true), view.getUint32(offset, true));
}

/** The last page of a layer file. */
export function encodeTrailer(
  trailer: LayerTrailer,
  owner: LayerOwner,
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(CACHE_PAGE_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(4, TRAILER_MAGIC, true);
  view.setUint32(8, FORMAT_VERSION, true);
  view.setUint8(12, kindNumber(trailer));
  bytes.set(decodeHex(owner.tenantId), 16);
  bytes.set(decodeHex(owner.timelineId), 32);
  writeKey(trailer.first, view, 48);
  writeKey(trailer.last, view, 66);
  view.setUint32(84, trailer.indexBlocks, true);
  writeLsn(view, 88, trailer.lsnStart);
  writeLsn(view, 96, trailer.lsnEnd);
  view.setUint32(104, trailer.firstIndexPage, true);
  view.setUint32(108, trailer.directoryCrc, true);
  writeLsn(view, 112, trailer.entries);
  writeLsn(view, 120, trailer.sizeBytes);
  view.setUint32(0, crc32c(bytes.subarray(4)), true);
  return bytes;
}

/** Checks and reads the last page. Throws Corrupt naming `path`. */
export function decodeTrailer(
  bytes: Uint8Array,
  owner: LayerOwner,
  path: string,
): LayerTrailer {
  const view = new DataView(bytes.buffer, bytes.byteOffset, CACHE_PAGE_BYTES);
  if (
    view.getUint32(4, true) !== TRAILER_MAGIC ||
    view.getUint32(0, true) !== crc32c(bytes.subarray(4, CACHE_PAGE_BYTES))
  ) {
    throw new Corrupt(`Cannot read layer file "${path}": checksum mismatch in its trailer`);
  }
  checkVersion(view.getUint32(8, true), path);
  checkOwner(bytes, 16, owner, path);
  return {
    ...kindOf(view.getUint8(12), `layer file "${path}"`),
    first: keyFromBytes(bytes, 48),
    last: keyFromBytes(bytes, 66),
    indexBlocks: view.getUint32(84, true),
    lsnStart: readLsn(view, 88),
    lsnEnd: readLsn(view, 96),
    firstIndexPage: view.getUint32(104, true),
    directoryCrc: view.getUint32(108, true),
    entries: readLsn(view, 112),
    sizeBytes: readLsn(view, 120),
  };
}
