/**
 * What an arena says of the WAL of its Postgres (library/arena.h, from byte 576 on):
 *
 *   0    u64 end of the WAL that was written | u64 end of what is known to be committed
 *        | u64 number of the last request: the library's alone
 *   64   key (16 bytes) | u32 bytes of a segment | path of the socket (108 bytes, NUL padded)
 *        | u32 CRC-32C of these 128 bytes
 */
import { assert } from "../../libs/utils/assert.ts";
import { crc32c } from "../../libs/utils/crc32c.ts";
import { BadRequest, Corrupt } from "../../libs/utils/errors.ts";
import { type Lsn, lsnFromHalves } from "../../libs/utils/lsn.ts";

/** Bytes of the key that a Postgres shows where it sends its WAL. */
export const WAL_KEY_BYTES = 16;

const WRITTEN_AT = 0;
const FLUSHED_AT = 8;
const KEY_AT = 64;
const SEGMENT_BYTES_AT = KEY_AT + WAL_KEY_BYTES;
const SOCKET_AT = SEGMENT_BYTES_AT + 4;
const SOCKET_BYTES = 108;
const CRC_AT = SOCKET_AT + SOCKET_BYTES;

/** Bytes of all that. */
export const WAL_BYTES = CRC_AT + 4;

/** Where the WAL of a Postgres goes (library/wal_flush.c). */
export interface ArenaWal {
  /** Unix socket of the compute host, which Postgres's user can reach. */
  readonly socket: string;
  /** Tells the host whose WAL it is: WAL_KEY_BYTES, which nobody can guess. */
  readonly key: Uint8Array;
  readonly segmentBytes: number;
}

/** What an arena in use says. */
export interface ArenaWalState {
  readonly key: Uint8Array;
  /** Postgres has written its WAL up to here, at most: the end of a page. 0: none yet. */
  readonly written: Lsn;
  /** Postgres knows that its WAL is committed, all but the last page before here at least. */
  readonly flushed: Lsn;
}

/** For a new arena. Throws BadRequest for a path that is too long for a socket. */
export function encodeWal(wal: ArenaWal | undefined): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(WAL_BYTES);
  const view = new DataView(bytes.buffer);
  if (wal !== undefined) {
    const path = new TextEncoder().encode(wal.socket);
    if (path.length >= SOCKET_BYTES) {
      throw new BadRequest(
        `Cannot use the socket ${wal.socket}: its path has ${path.length} bytes, at most ` +
          `${SOCKET_BYTES - 1} are possible`,
      );
    }
    assert(wal.key.length === WAL_KEY_BYTES, "a key of the WAL channel has its length");
    bytes.set(wal.key, KEY_AT);
    view.setUint32(SEGMENT_BYTES_AT, wal.segmentBytes, true);
    bytes.set(path, SOCKET_AT);
  }
  view.setUint32(CRC_AT, crc32c(bytes.subarray(KEY_AT, CRC_AT)), true);
  return bytes;
}

/** The reverse, of the arena `path`. Throws Corrupt. */
export function decodeWal(bytes: Uint8Array, path: string): ArenaWalState {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (crc32c(bytes.subarray(KEY_AT, CRC_AT)) !== view.getUint32(CRC_AT, true)) {
    throw new Corrupt(`Cannot use the arena ${path}: its WAL channel fails its checksum`);
  }
  const lsn = (at: number) => lsnFromHalves(view.getUint32(at + 4, true), view.getUint32(at, true));
  return {
    key: bytes.subarray(KEY_AT, KEY_AT + WAL_KEY_BYTES),
    written: lsn(WRITTEN_AT),
    flushed: lsn(FLUSHED_AT),
  };
}
