/**
 * Reading blobs, whichever kind of layer they are in: the interface and the checks shared by the
 * append-only file of an open layer and the reader of a finished one.
 */
import { crc32 } from "node:zlib";
import { crc32cOf } from "../../libs/utils/crc32c.ts";
import { Corrupt } from "../../libs/utils/errors.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import { BLOB_BYTES_MAX, BLOB_HEADER_BYTES, CACHE_PAGE_BYTES } from "./layer_format.ts";
import type { Key } from "./key.ts";
import type { ObjectId } from "./key_interner.ts";
import type { Found } from "./found.ts";
import type { Reconstruction } from "./reconstruction.ts";

/** What a read looks for. The object is NO_OBJECT if no open layer can have it. */
export interface SearchKey extends Key {
  object: ObjectId;
}

/** A layer, open or finished, as a read sees it. */
export interface LayerSource {
  /** Its entries have lsnStart < LSN <= lsnEnd. */
  readonly lsnStart: Lsn;
  readonly lsnEnd: Lsn;
  /**
   * Adds the key's entries with found.after < LSN <= upTo to `found`, newest first; true once the
   * search is over (a base was found, or found.after reached).
   */
  gather(key: SearchKey, upTo: Lsn, found: Found): boolean;
  /** Every key of [from, to) that has an entry at or below `upTo`, with its newest such entry. */
  scan(from: Key, to: Key, upTo: Lsn, visit: (key: Key, word: number) => void): void;
  /**
   * Appends the blob at `position` to into.bytes and returns its offset there; it is `likelyBytes`
   * long, or anything else. Throws Corrupt.
   */
  readBlob(position: number, likelyBytes: number, into: Reconstruction): number;
  /**
   * Makes the blob at `position` the image of `into` where it lies in memory, without a copy; false
   * if it does not lie there in one piece. Throws Corrupt.
   */
  pointAtBlob(position: number, likelyBytes: number, into: Reconstruction): boolean;
}

/** How many pages of a layer file will be asked for, one or two, for the beginning of a blob. */
export function pagesOfBlob(position: number, likelyBytes: number): 1 | 2 {
  const end = position % CACHE_PAGE_BYTES + BLOB_HEADER_BYTES + likelyBytes;
  return end > CACHE_PAGE_BYTES ? 2 : 1;
}

/** Throws Corrupt unless a blob's length can be one. */
export function checkBlobLength(length: number, position: number, path: string): void {
  if (length > BLOB_BYTES_MAX) {
    throw new Corrupt(
      `Cannot read the value at ${position} of layer file "${path}": its length is wrong`,
    );
  }
}

/** The checksum of a blob of bytes[at, at + length). */
export function blobChecksum(bytes: Uint8Array, at: number, length: number): number {
  return crc32(bytes.subarray(at, at + length), length);
}

/**
 * Throws Corrupt unless bytes[at, at + length) have the blob's checksum: a CRC-32, or the CRC-32C
 * that layers of version 1 have, also where their blobs were copied into a later one.
 */
export function checkBlob(
  bytes: Uint8Array,
  at: number,
  length: number,
  crc: number,
  position: number,
  path: string,
): void {
  if (blobChecksum(bytes, at, length) === crc || crc32cOf(bytes, at, length, length) === crc) {
    return;
  }
  throw new Corrupt(
    `Cannot read the value at ${position} of layer file "${path}": checksum mismatch`,
  );
}
