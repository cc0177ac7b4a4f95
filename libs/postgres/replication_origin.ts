/**
 * Replication origins: how far a subscriber has applied what each of its publishers sent
 * (PostgreSQL 17, replication/logical/origin.c). Positions are those of other servers, so they are
 * plain 64-bit numbers.
 *
 *   pg_logical/replorigin_checkpoint, read at start:
 *     u32 magic 0x1257DADE | { u16 origin | 6 zeros | u64 position } each | u32 CRC-32C of the rest
 *   SET record   0 position u64, 8 origin u16, 10 u8: go back, too
 *   DROP record  0 origin u16
 */
import { ByteReader, ByteWriter } from "../utils/bytes.ts";
import { crc32c } from "../utils/crc32c.ts";
import { Corrupt } from "../utils/errors.ts";
import type { RecordCursor } from "./wal/record_cursor.ts";
import { mainU32 } from "./wal/small_records.ts";

/** Path of the file in the data directory. */
export const ORIGIN_FILE = "pg_logical/replorigin_checkpoint";

/** Opcodes of the ReplicationOrigin resource manager (origin.h). */
export const OriginInfo = { SET: 0x00, DROP: 0x10 } as const;

/** Origins up to here have progress: 0 means none, 65535 "do not replicate". */
export const ORIGIN_MAX = 0xfffe;

const MAGIC = 0x1257dade;
const HEAD_BYTES = 4;
const ENTRY_BYTES = 16;
const CRC_BYTES = 4;

/** Position on the origin's own server, by origin. */
export type OriginProgress = ReadonlyMap<number, bigint>;

/** The file's bytes. */
export function encodeOriginFile(progress: OriginProgress): Uint8Array<ArrayBuffer> {
  const size = HEAD_BYTES + progress.size * ENTRY_BYTES + CRC_BYTES;
  const writer = new ByteWriter("little", size).u32(MAGIC);
  for (const [origin, position] of progress) writer.u16(origin).zeros(6).u64(position);
  return writer.u32(crc32c(writer.bytes())).bytes();
}

/** The inverse. Throws Corrupt for a wrong magic, size or checksum. */
export function decodeOriginFile(bytes: Uint8Array): Map<number, bigint> {
  const end = bytes.length - CRC_BYTES;
  const entries = (end - HEAD_BYTES) / ENTRY_BYTES;
  if (!Number.isInteger(entries) || entries < 0) {
    throw new Corrupt(`Cannot read "${ORIGIN_FILE}": it has ${bytes.length} bytes`);
  }
  const reader = new ByteReader(bytes, "little", ORIGIN_FILE);
  const magic = reader.u32();
  if (magic !== MAGIC) throw new Corrupt(`Cannot read "${ORIGIN_FILE}": its magic is ${magic}`);
  const progress = new Map<number, bigint>();
  for (let i = 0; i < entries; i++) {
    const origin = reader.u16();
    reader.raw(6);
    progress.set(origin, reader.u64());
  }
  if (reader.u32() !== crc32c(bytes.subarray(0, end))) {
    throw new Corrupt(`Cannot read "${ORIGIN_FILE}": checksum mismatch`);
  }
  return progress;
}

/** A SET record. */
export function readOriginSet(
  cursor: RecordCursor,
): { origin: number; position: bigint; goesBack: boolean } {
  const last = mainU32(cursor, 8);
  return {
    origin: last & 0xffff,
    position: cursor.view.getBigUint64(cursor.mainOffset, true),
    goesBack: (last & 0xff0000) !== 0,
  };
}

/** A DROP record: the origin that is gone. */
export function readOriginDrop(cursor: RecordCursor): number {
  if (cursor.mainLength < 2) throw new Corrupt("Cannot read a dropped origin: it is cut short");
  return cursor.view.getUint16(cursor.mainOffset, true);
}

/** A position as PostgreSQL prints it. */
export function formatPosition(position: bigint): string {
  const halves = [position >> 32n, position & 0xffff_ffffn];
  return halves.map((half) => half.toString(16).toUpperCase()).join("/");
}
