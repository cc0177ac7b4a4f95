/**
 * `standby_start`, the file of a lazy base backup for a standby that holds its synthetic WAL: the
 * pageserver, which knows what was in progress at the backup's LSN, makes it, and the compute host
 * puts it into pg_wal.
 *
 *   u32 magic "NSTB" | u32 version 1 | u32 length | u64 first LSN of the WAL |
 *   u32 transactions in progress | WAL bytes | u32 CRC-32C of all before            little endian
 */
import { ByteReader, ByteWriter } from "../utils/bytes.ts";
import type { Lsn } from "../utils/lsn.ts";
import { sealBytes, type SealedFormat, unsealBytes } from "../utils/sealed_file.ts";

/** Name of the file, relative to the data directory. */
export const STANDBY_START_NAME = "standby_start";

const FORMAT: SealedFormat = { magic: "NSTB", version: 1, what: "standby start" };
const HEADER_BYTES = 12;

/** See the head of the file. */
export interface StandbyStart {
  /** Where `wal` begins. */
  readonly start: Lsn;
  /** Transactions and subtransactions in progress, which the standby needs room for. */
  readonly transactions: number;
  readonly wal: Uint8Array;
}

/** The file's bytes. */
export function encodeStandbyStart(standby: StandbyStart): Uint8Array<ArrayBuffer> {
  const writer = new ByteWriter("little", HEADER_BYTES + standby.wal.length);
  writer.lsn(standby.start).u32(standby.transactions).raw(standby.wal);
  return sealBytes(FORMAT, writer.bytes());
}

/** The inverse. Throws Corrupt for bytes that are not such a file, whole and unchanged. */
export function decodeStandbyStart(bytes: Uint8Array): StandbyStart {
  const { body } = unsealBytes(FORMAT, bytes, STANDBY_START_NAME);
  const reader = new ByteReader(body, "little", STANDBY_START_NAME);
  const start = reader.lsn();
  const transactions = reader.u32();
  return { start, transactions, wal: reader.raw(reader.remaining) };
}
