/**
 * Payloads of the streaming replication protocol, inside CopyData
 * (PostgreSQL 17 documentation, "Streaming Replication Protocol").
 *
 *   'w' u64 start, u64 end of WAL at the sender, i64 time, WAL bytes
 *   'k' u64 end of WAL at the sender, i64 time, u8 reply wanted
 *   'r' u64 written, u64 flushed, u64 applied (positions after the last byte), i64 time,
 *       u8 reply wanted
 *   'h' i64 time, u32 xmin, u32 epoch, u32 catalog xmin, u32 epoch
 *   'z' u64 length, pageserver feedback (ours and Neon's; not PostgreSQL's)
 *
 * Times are microseconds since 2000-01-01, and come from the caller.
 */
import { ByteReader } from "../utils/bytes.ts";
import { type Lsn, lsnHigh, lsnLow } from "../utils/lsn.ts";
import type { CopyBoth } from "./copy_both.ts";

/** First bytes of the payloads. */
export const ReplicationTag = {
  xlogData: 0x77,
  keepalive: 0x6b,
  standbyStatus: 0x72,
  hotStandbyFeedback: 0x68,
  pageserverFeedback: 0x7a,
} as const;

/** Bytes before the WAL in an 'w' payload. */
export const XLOG_DATA_HEADER_BYTES = 25;

const TWO_32 = 4294967296;
const POSTGRES_EPOCH_MS = 946684800000;

/** Microseconds since 2000-01-01 for a Unix time in milliseconds. */
export function postgresTime(unixMs: number): bigint {
  return BigInt(Math.round((unixMs - POSTGRES_EPOCH_MS) * 1000));
}

/** Writes a 64-bit position, big endian. */
function setLsn(view: DataView, at: number, lsn: Lsn): void {
  view.setUint32(at, lsnHigh(lsn));
  view.setUint32(at + 4, lsnLow(lsn));
}

/** Assembles the header of 'w' and reserves the WAL bytes; returns where in `sendBytes` they go. */
export function reserveXlogData(
  copy: CopyBoth,
  start: Lsn,
  endOfWal: Lsn,
  time: bigint,
  walBytes: number,
): number {
  const at = copy.reserve(XLOG_DATA_HEADER_BYTES + walBytes);
  const view = copy.sendView;
  view.setUint8(at, ReplicationTag.xlogData);
  setLsn(view, at + 1, start);
  setLsn(view, at + 9, endOfWal);
  view.setBigInt64(at + 17, time);
  return at + XLOG_DATA_HEADER_BYTES;
}

/** Assembles 'k'. */
export function queueKeepalive(
  copy: CopyBoth,
  endOfWal: Lsn,
  time: bigint,
  replyWanted: boolean,
): void {
  const at = copy.reserve(18);
  const view = copy.sendView;
  view.setUint8(at, ReplicationTag.keepalive);
  setLsn(view, at + 1, endOfWal);
  view.setBigInt64(at + 9, time);
  view.setUint8(at + 17, replyWanted ? 1 : 0);
}

/**
 * Assembles 'r' with the same position three times: what we acknowledge is durable and all there
 * is. With `replyWanted` the sender is to send at once what it has.
 */
export function queueStandbyStatus(
  copy: CopyBoth,
  position: Lsn,
  time: bigint,
  replyWanted = false,
): void {
  const at = copy.reserve(34);
  const view = copy.sendView;
  view.setUint8(at, ReplicationTag.standbyStatus);
  setLsn(view, at + 1, position);
  setLsn(view, at + 9, position);
  setLsn(view, at + 17, position);
  view.setBigInt64(at + 25, time);
  view.setUint8(at + 33, replyWanted ? 1 : 0);
}

/** Assembles 'h' of full transaction ids; 0 = none. */
export function queueHotStandbyFeedback(
  copy: CopyBoth,
  xmin: number,
  catalogXmin: number,
  time: bigint,
): void {
  const at = copy.reserve(25);
  const view = copy.sendView;
  view.setUint8(at, ReplicationTag.hotStandbyFeedback);
  view.setBigInt64(at + 1, time);
  [xmin, catalogXmin].forEach((full, i) => {
    view.setUint32(at + 9 + 8 * i, full % TWO_32);
    view.setUint32(at + 13 + 8 * i, Math.floor(full / TWO_32));
  });
}

/** Assembles 'z' around an encoded feedback. */
export function queuePageserverFeedback(copy: CopyBoth, feedback: Uint8Array): void {
  const at = copy.reserve(9 + feedback.length);
  const view = copy.sendView;
  view.setUint8(at, ReplicationTag.pageserverFeedback);
  view.setBigUint64(at + 1, BigInt(feedback.length));
  copy.sendBytes.set(feedback, at + 9);
}

/** What a sender says. */
type SenderMessage =
  | {
    readonly kind: "xlogData";
    readonly start: Lsn;
    readonly endOfWal: Lsn;
    readonly wal: Uint8Array;
  }
  | { readonly kind: "keepalive"; readonly endOfWal: Lsn; readonly replyWanted: boolean };

/** Reads 'w' or 'k'; the WAL is a view into `payload`. Throws Corrupt. */
export function readSenderMessage(payload: Uint8Array): SenderMessage {
  const reader = new ByteReader(payload, "big", "a replication message");
  const tag = reader.u8();
  if (tag === ReplicationTag.xlogData) {
    const start = reader.lsn();
    const endOfWal = reader.lsn();
    reader.i64();
    return { kind: "xlogData", start, endOfWal, wal: reader.raw(reader.remaining) };
  }
  if (tag === ReplicationTag.keepalive) {
    const endOfWal = reader.lsn();
    reader.i64();
    return { kind: "keepalive", endOfWal, replyWanted: reader.u8() !== 0 };
  }
  throw new SyntaxError(`Cannot read a replication message: its tag is ${tag}`);
}

/** What a receiver says. */
export type ReceiverMessage =
  | {
    readonly kind: "status";
    readonly written: Lsn;
    readonly flushed: Lsn;
    readonly applied: Lsn;
    readonly replyWanted: boolean;
  }
  | {
    readonly kind: "hotStandbyFeedback";
    readonly time: bigint;
    readonly xmin: bigint;
    readonly catalogXmin: bigint;
  }
  | { readonly kind: "pageserverFeedback"; readonly feedback: Uint8Array };

/** Reads 'r', 'h' or 'z'. Throws Corrupt or SyntaxError. */
export function readReceiverMessage(payload: Uint8Array): ReceiverMessage {
  const reader = new ByteReader(payload, "big", "a replication reply");
  const tag = reader.u8();
  switch (tag) {
    case ReplicationTag.standbyStatus: {
      const written = reader.lsn();
      const flushed = reader.lsn();
      const applied = reader.lsn();
      reader.i64();
      return { kind: "status", written, flushed, applied, replyWanted: reader.u8() !== 0 };
    }
    case ReplicationTag.hotStandbyFeedback: {
      const time = reader.i64();
      const xmin = BigInt(reader.u32());
      const xminEpoch = BigInt(reader.u32());
      const catalogXmin = BigInt(reader.u32());
      const catalogEpoch = BigInt(reader.u32());
      return {
        kind: "hotStandbyFeedback",
        time,
        xmin: (xminEpoch << 32n) | xmin,
        catalogXmin: (catalogEpoch << 32n) | catalogXmin,
      };
    }
    case ReplicationTag.pageserverFeedback:
      return { kind: "pageserverFeedback", feedback: reader.raw(Number(reader.u64())) };
    default:
      throw new SyntaxError(`Cannot read a replication reply: its tag is ${tag}`);
  }
}
