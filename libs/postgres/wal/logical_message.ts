/**
 * Logical messages (PostgreSQL 17, replication/message.h, xl_logical_message): bytes under a prefix
 * that anybody may put into the WAL with pg_logical_emit_message(). Redo passes over them.
 *
 *   0 u32 database | 4 u8 transactional | 8 u64 prefix bytes | 16 u64 message bytes |
 *   24 prefix, with its final zero | message
 */
import type { RecordCursor } from "./record_cursor.ts";

const HEADER_BYTES = 24;

/** A message; `content` is a view of the record. */
export interface LogicalMessage {
  /** Where it was emitted; 0 for a record that no session wrote. */
  readonly database: number;
  readonly transactional: boolean;
  readonly prefix: string;
  readonly content: Uint8Array;
}

/** Reads a record of the LogicalMessage resource manager; undefined if it is not as described. */
export function readLogicalMessage(cursor: RecordCursor): LogicalMessage | undefined {
  const { view, bytes, mainOffset: at, mainLength } = cursor;
  if (mainLength <= HEADER_BYTES) return undefined;
  const prefixBytes = Number(view.getBigUint64(at + 8, true));
  const contentBytes = Number(view.getBigUint64(at + 16, true));
  if (prefixBytes === 0 || HEADER_BYTES + prefixBytes + contentBytes !== mainLength) {
    return undefined;
  }
  const prefixAt = at + HEADER_BYTES;
  return {
    database: view.getUint32(at, true),
    transactional: bytes[at + 4] !== 0,
    prefix: new TextDecoder().decode(bytes.subarray(prefixAt, prefixAt + prefixBytes - 1)),
    content: bytes.subarray(prefixAt + prefixBytes, at + mainLength),
  };
}

/**
 * The main data of a message that is of no transaction and no database, so that no consumer of
 * logical decoding is given it (PostgreSQL 17, decode.c, logicalmsg_decode).
 */
export function encodeLogicalMessage(prefix: string, content: Uint8Array): Uint8Array<ArrayBuffer> {
  const name = new TextEncoder().encode(`${prefix}\0`);
  const main = new Uint8Array(HEADER_BYTES + name.length + content.length);
  const view = new DataView(main.buffer);
  view.setBigUint64(8, BigInt(name.length), true);
  view.setBigUint64(16, BigInt(content.length), true);
  main.set(name, HEADER_BYTES);
  main.set(content, HEADER_BYTES + name.length);
  return main;
}
