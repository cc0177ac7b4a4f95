/**
 * What a pageserver tells about a timeline, relayed by safekeepers to the proposer.
 *
 * Wire form: u8 number of pairs, then each pair as NUL-terminated key, i32 length (big endian),
 * value. Unknown keys are skipped by their length, so either side may be newer. It is the payload
 * of the 'z' message of a replication connection and the tail of an AppendResponse.
 */
import { ByteReader, ByteWriter } from "../utils/bytes.ts";
import { Corrupt } from "../utils/errors.ts";
import { INVALID_LSN, type Lsn } from "../utils/lsn.ts";
import { readSafeI64, readSafeU64 } from "./wire.ts";

/** Progress of a pageserver on one timeline. */
export interface PageserverFeedback {
  /** Logical size of the timeline in bytes; 0 when unknown. */
  readonly currentTimelineSize: number;
  /** End of the last record received and ingested. */
  readonly lastReceivedLsn: Lsn;
  /** WAL below is on the pageserver's disk. */
  readonly diskConsistentLsn: Lsn;
  /** WAL below is where it must be before safekeepers may remove it. */
  readonly remoteConsistentLsn: Lsn;
  /** Microseconds since 2000-01-01 UTC. */
  readonly replyTime: number;
  /** 0 for an unsharded tenant. */
  readonly shardNumber: number;
  /** The pageserver refused a record as corrupt and stopped there. */
  readonly corruptionDetected: boolean;
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** Appends feedback to a message. */
export function writeFeedback(writer: ByteWriter, feedback: PageserverFeedback): void {
  const optional = (feedback.shardNumber > 0 ? 1 : 0) + (feedback.corruptionDetected ? 1 : 0);
  writer.u8(5 + optional);
  writer.cstr("current_timeline_size").i32(8).u64(BigInt(feedback.currentTimelineSize));
  writer.cstr("ps_writelsn").i32(8).lsn(feedback.lastReceivedLsn);
  writer.cstr("ps_flushlsn").i32(8).lsn(feedback.diskConsistentLsn);
  writer.cstr("ps_applylsn").i32(8).lsn(feedback.remoteConsistentLsn);
  writer.cstr("ps_replytime").i32(8).i64(BigInt(feedback.replyTime));
  if (feedback.shardNumber > 0) writer.cstr("shard_number").i32(4).u32(feedback.shardNumber);
  if (feedback.corruptionDetected) writer.cstr("corruption_detected").i32(1).u8(1);
}

const VALUE_BYTES: Readonly<Record<string, number>> = {
  current_timeline_size: 8,
  ps_writelsn: 8,
  last_received_lsn: 8,
  ps_flushlsn: 8,
  disk_consistent_lsn: 8,
  ps_applylsn: 8,
  remote_consistent_lsn: 8,
  ps_replytime: 8,
  replytime: 8,
  shard_number: 4,
  corruption_detected: 1,
};

function readPair(into: Mutable<PageserverFeedback>, key: string, value: ByteReader): void {
  switch (key) {
    case "current_timeline_size":
      into.currentTimelineSize = readSafeU64(value);
      break;
    case "ps_writelsn":
    case "last_received_lsn":
      into.lastReceivedLsn = value.lsn();
      break;
    case "ps_flushlsn":
    case "disk_consistent_lsn":
      into.diskConsistentLsn = value.lsn();
      break;
    case "ps_applylsn":
    case "remote_consistent_lsn":
      into.remoteConsistentLsn = value.lsn();
      break;
    case "ps_replytime":
    case "replytime":
      into.replyTime = readSafeI64(value);
      break;
    case "shard_number":
      into.shardNumber = value.u32();
      break;
    case "corruption_detected":
      into.corruptionDetected = value.u8() !== 0;
      break;
  }
}

/** Reads feedback up to the end of its pairs. Throws Corrupt on a known key of a wrong length. */
export function readFeedback(reader: ByteReader): PageserverFeedback {
  const feedback: Mutable<PageserverFeedback> = {
    currentTimelineSize: 0,
    lastReceivedLsn: INVALID_LSN,
    diskConsistentLsn: INVALID_LSN,
    remoteConsistentLsn: INVALID_LSN,
    replyTime: 0,
    shardNumber: 0,
    corruptionDetected: false,
  };
  for (let pairs = reader.u8(); pairs > 0; pairs--) {
    const key = reader.cstr();
    const value = reader.raw(reader.i32());
    const expected = VALUE_BYTES[key];
    if (expected === undefined) continue;
    if (value.length !== expected) {
      throw new Corrupt(
        `Cannot read pageserver feedback: "${key}" has ${value.length} bytes, expected ${expected}`,
      );
    }
    readPair(feedback, key, new ByteReader(value, "big", `pageserver feedback "${key}"`));
  }
  return feedback;
}

/** Feedback as bytes of its own. */
export function encodeFeedback(feedback: PageserverFeedback): Uint8Array<ArrayBuffer> {
  const writer = new ByteWriter("big");
  writeFeedback(writer, feedback);
  return writer.bytes();
}

/** Reads feedback that fills `bytes`. */
export function decodeFeedback(bytes: Uint8Array): PageserverFeedback {
  const reader = new ByteReader(bytes, "big", "pageserver feedback");
  const feedback = readFeedback(reader);
  reader.end();
  return feedback;
}
