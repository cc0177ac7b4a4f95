/**
 * Messages between a WAL proposer and a safekeeper (acceptor), protocol version 3, as Neon's.
 *
 * The proposer connects over the PostgreSQL protocol, sends
 * `START_WAL_PUSH (proto_version '3', allow_timeline_creation 'false')`, gets a CopyBoth response,
 * and from then on each message is the payload of one CopyData. Everything is big endian, unpadded,
 * and starts with a one-byte tag:
 *
 *   P->A 'g' greeting   tenant cstr, timeline cstr, membership, u32 PG_VERSION_NUM, u64 system id,
 *                       u32 WAL segment size
 *   A->P 'g' greeting   u64 node id, membership, u64 term
 *   P->A 'v' vote       u32 generation, u64 term
 *   A->P 'v' vote       u32 generation, u64 term, u8 given, u64 flush LSN, u64 truncate LSN,
 *                       history
 *   P->A 'e' elected    u32 generation, u64 term, u64 start of streaming, history
 *   P->A 'a' append     u32 generation, u64 term, u64 begin, u64 end, u64 commit, u64 truncate LSN,
 *                       then end - begin bytes of WAL (at most 128 KiB; none = heartbeat)
 *   A->P 'a' append     u32 generation, u64 term, u64 flush, u64 commit LSN, i64 time, u64 xmin,
 *                       u64 catalog xmin, then optionally pageserver feedback to the end
 *
 * Users: compute/wal_proposer (encodes P->A, decodes A->P) and safekeeper (the other way round).
 */
import { assert } from "../utils/assert.ts";
import { ByteReader, ByteWriter } from "../utils/bytes.ts";
import { Corrupt } from "../utils/errors.ts";
import { parseTenantId, parseTimelineId, type TenantId, type TimelineId } from "../utils/id.ts";
import { type Lsn, lsnFromHalves, lsnHigh, lsnLow } from "../utils/lsn.ts";
import { type PageserverFeedback, readFeedback, writeFeedback } from "./feedback.ts";
import { type MembershipConfiguration, readMembership, writeMembership } from "./membership.ts";
import { readTermHistory, type Term, type TermHistory, writeTermHistory } from "./term_history.ts";
import { readSafeI64, readSafeU64 } from "./wire.ts";

/** The command that turns a connection to a safekeeper into a stream of these messages. */
export const START_WAL_PUSH_COMMAND =
  "START_WAL_PUSH (proto_version '3', allow_timeline_creation 'false')";

/** Most WAL bytes in one AppendRequest: 16 pages. */
export const APPEND_WAL_BYTES_MAX = 131072;

/** Bytes of an AppendRequest before its WAL. */
export const APPEND_HEADER_BYTES = 45;

/** Bytes of an AppendResponse before its feedback. */
export const APPEND_RESPONSE_BYTES = 53;

const TAG_GREETING = 0x67; // 'g'
const TAG_VOTE = 0x76; // 'v'
const TAG_ELECTED = 0x65; // 'e'
const TAG_APPEND = 0x61; // 'a'

export interface ProposerGreeting {
  readonly kind: "greeting";
  readonly tenantId: TenantId;
  readonly timelineId: TimelineId;
  readonly membership: MembershipConfiguration;
  /** PG_VERSION_NUM, for example 170011. */
  readonly pgVersionNum: number;
  /** 0 while unknown. */
  readonly systemId: bigint;
  readonly walSegmentSize: number;
}

export interface VoteRequest {
  readonly kind: "vote";
  readonly generation: number;
  readonly term: Term;
}

export interface ProposerElected {
  readonly kind: "elected";
  readonly generation: number;
  readonly term: Term;
  /** Where this acceptor's log and the proposer's part: WAL follows from here. */
  readonly startStreamingAt: Lsn;
  /** The donor's history and this term's own entry. */
  readonly termHistory: TermHistory;
}

export interface AppendRequest {
  readonly kind: "append";
  readonly generation: number;
  readonly term: Term;
  readonly beginLsn: Lsn;
  readonly endLsn: Lsn;
  readonly commitLsn: Lsn;
  /** All safekeepers have flushed up to here: nobody asks a peer for WAL below. */
  readonly truncateLsn: Lsn;
  /** endLsn - beginLsn bytes, a view into the received message; empty for a heartbeat. */
  readonly wal: Uint8Array;
}

export type ProposerMessage = ProposerGreeting | VoteRequest | ProposerElected | AppendRequest;

export interface AcceptorGreeting {
  readonly kind: "greeting";
  readonly nodeId: number;
  readonly membership: MembershipConfiguration;
  readonly term: Term;
}

export interface VoteResponse {
  readonly kind: "vote";
  readonly generation: number;
  /** The acceptor's term after the vote. */
  readonly term: Term;
  readonly voteGiven: boolean;
  readonly flushLsn: Lsn;
  readonly truncateLsn: Lsn;
  /** Cut at flushLsn. */
  readonly termHistory: TermHistory;
}

/** What hot standbys reported, as PostgreSQL's hot standby feedback; all 0 when none did. */
export interface HotStandbyFeedback {
  /** Microseconds since 2000-01-01 UTC. */
  readonly time: number;
  /** Full transaction ids; 0 = none. */
  readonly xmin: number;
  readonly catalogXmin: number;
}

export interface AppendResponse {
  readonly kind: "append";
  readonly generation: number;
  readonly term: Term;
  /** Durable WAL ends here, at a record boundary; 0 in the answer to a request of an old term. */
  readonly flushLsn: Lsn;
  readonly commitLsn: Lsn;
  readonly hotStandby: HotStandbyFeedback;
  readonly feedback?: PageserverFeedback;
}

export type AcceptorMessage = AcceptorGreeting | VoteResponse | AppendResponse;

/** No hot standby has reported. */
export const NO_HOT_STANDBY: HotStandbyFeedback = { time: 0, xmin: 0, catalogXmin: 0 };

/**
 * Encodes any message but an append, for which the caller lays out header and WAL in one buffer.
 */
export function encodeProposerMessage(
  message: ProposerGreeting | VoteRequest | ProposerElected,
): Uint8Array<ArrayBuffer> {
  const writer = new ByteWriter("big");
  switch (message.kind) {
    case "greeting":
      writer.u8(TAG_GREETING).cstr(message.tenantId).cstr(message.timelineId);
      writeMembership(writer, message.membership);
      writer.u32(message.pgVersionNum).u64(message.systemId).u32(message.walSegmentSize);
      break;
    case "vote":
      writer.u8(TAG_VOTE).u32(message.generation).u64(BigInt(message.term));
      break;
    case "elected":
      writer.u8(TAG_ELECTED).u32(message.generation).u64(BigInt(message.term));
      writer.lsn(message.startStreamingAt);
      writeTermHistory(writer, message.termHistory);
      break;
  }
  return writer.bytes();
}

function putU64(view: DataView, at: number, value: Lsn): void {
  view.setUint32(at, lsnHigh(value));
  view.setUint32(at + 4, lsnLow(value));
}

/**
 * Writes the 45 bytes of an append header at `at`; the caller puts endLsn - beginLsn bytes of WAL
 * right after. `view` covers a send buffer.
 */
export function writeAppendHeader(
  view: DataView,
  at: number,
  header: Omit<AppendRequest, "kind" | "wal">,
): void {
  const walBytes = header.endLsn - header.beginLsn;
  assert(walBytes >= 0 && walBytes <= APPEND_WAL_BYTES_MAX, "an append carries 0 to 128 KiB");
  view.setUint8(at, TAG_APPEND);
  view.setUint32(at + 1, header.generation);
  putU64(view, at + 5, header.term as Lsn);
  putU64(view, at + 13, header.beginLsn);
  putU64(view, at + 21, header.endLsn);
  putU64(view, at + 29, header.commitLsn);
  putU64(view, at + 37, header.truncateLsn);
}

/** Header and WAL as one message of its own (tests, small callers). */
export function encodeAppendRequest(message: AppendRequest): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(APPEND_HEADER_BYTES + message.wal.length);
  assert(message.wal.length === message.endLsn - message.beginLsn, "WAL fills begin..end");
  writeAppendHeader(new DataView(bytes.buffer), 0, message);
  bytes.set(message.wal, APPEND_HEADER_BYTES);
  return bytes;
}

function u32At(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 24 | bytes[at + 1]! << 16 | bytes[at + 2]! << 8 | bytes[at + 3]!) >>> 0;
}

/** A position or a term. Throws Corrupt beyond 2^53. */
function u64At(bytes: Uint8Array, at: number): Lsn {
  const high = u32At(bytes, at);
  if (high > 0x1fffff) throw new Corrupt("Cannot read an AppendRequest: a number is beyond 2^53");
  return lsnFromHalves(high, u32At(bytes, at + 4));
}

/** An AppendRequest in bytes[from, to), of which there are most: without a reader's objects. */
function readAppendRequest(bytes: Uint8Array, from: number, to: number): AppendRequest {
  const walAt = from + APPEND_HEADER_BYTES;
  if (to < walAt) throw new Corrupt(`Cannot read an AppendRequest: it has ${to - from} bytes`);
  const beginLsn = u64At(bytes, from + 13);
  const endLsn = u64At(bytes, from + 21);
  const size = endLsn - beginLsn;
  if (size < 0 || size > APPEND_WAL_BYTES_MAX || size !== to - walAt) {
    throw new Corrupt(
      `Cannot read an AppendRequest: its range has ${size} bytes, its WAL ${to - walAt}`,
    );
  }
  return {
    kind: "append",
    generation: u32At(bytes, from + 1),
    term: u64At(bytes, from + 5),
    beginLsn,
    endLsn,
    commitLsn: u64At(bytes, from + 29),
    truncateLsn: u64At(bytes, from + 37),
    wal: bytes.subarray(walAt, to),
  };
}

function parseId<T>(parse: (text: string) => T, text: string): T {
  try {
    return parse(text);
  } catch (thrown) {
    throw new Corrupt(`Cannot read a ProposerGreeting: ${(thrown as Error).message}`);
  }
}

/**
 * Decodes what a proposer sent, in bytes[from, to). Throws Corrupt. `wal` of an append is a view
 * into `bytes`.
 */
export function decodeProposerMessage(
  bytes: Uint8Array,
  from = 0,
  to = bytes.length,
): ProposerMessage {
  if (from < to && bytes[from] === TAG_APPEND) return readAppendRequest(bytes, from, to);
  const reader = new ByteReader(bytes.subarray(from, to), "big", "proposer message");
  const tag = reader.u8();
  let message: ProposerMessage;
  switch (tag) {
    case TAG_VOTE:
      message = { kind: "vote", generation: reader.u32(), term: readSafeU64(reader) };
      break;
    case TAG_ELECTED:
      message = {
        kind: "elected",
        generation: reader.u32(),
        term: readSafeU64(reader),
        startStreamingAt: reader.lsn(),
        termHistory: readTermHistory(reader),
      };
      break;
    case TAG_GREETING:
      message = {
        kind: "greeting",
        tenantId: parseId(parseTenantId, reader.cstr()),
        timelineId: parseId(parseTimelineId, reader.cstr()),
        membership: readMembership(reader),
        pgVersionNum: reader.u32(),
        systemId: reader.u64(),
        walSegmentSize: reader.u32(),
      };
      break;
    default:
      throw new Corrupt(`Cannot read a proposer message: unknown tag ${tag}`);
  }
  reader.end();
  return message;
}

/**
 * Writes an append response without its feedback at `at`, in APPEND_RESPONSE_BYTES. `view` covers a
 * send buffer.
 */
export function writeAppendResponse(
  view: DataView,
  at: number,
  { generation, term, flushLsn, commitLsn, hotStandby }: AppendResponse,
): void {
  view.setUint8(at, TAG_APPEND);
  view.setUint32(at + 1, generation);
  putU64(view, at + 5, term as Lsn);
  putU64(view, at + 13, flushLsn);
  putU64(view, at + 21, commitLsn);
  putU64(view, at + 29, hotStandby.time as Lsn); // before 2000, too: two's complement
  putU64(view, at + 37, hotStandby.xmin as Lsn);
  putU64(view, at + 45, hotStandby.catalogXmin as Lsn);
}

/** Encodes an acceptor's answer. */
export function encodeAcceptorMessage(message: AcceptorMessage): Uint8Array<ArrayBuffer> {
  const writer = new ByteWriter("big");
  writeAcceptorMessage(writer, message);
  return writer.bytes();
}

/** Appends an acceptor's answer to `writer` (big endian), for callers that reuse a buffer. */
export function writeAcceptorMessage(writer: ByteWriter, message: AcceptorMessage): void {
  switch (message.kind) {
    case "greeting":
      writer.u8(TAG_GREETING).u64(BigInt(message.nodeId));
      writeMembership(writer, message.membership);
      writer.lsn(message.term as Lsn);
      break;
    case "vote":
      writer.u8(TAG_VOTE).u32(message.generation).lsn(message.term as Lsn);
      writer.u8(message.voteGiven ? 1 : 0).lsn(message.flushLsn).lsn(message.truncateLsn);
      writeTermHistory(writer, message.termHistory);
      break;
    case "append": {
      const fixed = new Uint8Array(APPEND_RESPONSE_BYTES);
      writeAppendResponse(new DataView(fixed.buffer), 0, message);
      writer.raw(fixed);
      if (message.feedback !== undefined) writeFeedback(writer, message.feedback);
      break;
    }
  }
}

function readAppendResponse(reader: ByteReader): AppendResponse {
  const fixed = {
    kind: "append" as const,
    generation: reader.u32(),
    term: readSafeU64(reader),
    flushLsn: reader.lsn(),
    commitLsn: reader.lsn(),
    hotStandby: {
      time: readSafeI64(reader),
      xmin: readSafeU64(reader),
      catalogXmin: readSafeU64(reader),
    },
  };
  return reader.remaining === 0 ? fixed : { ...fixed, feedback: readFeedback(reader) };
}

/** Decodes what an acceptor sent. Throws Corrupt. */
export function decodeAcceptorMessage(bytes: Uint8Array): AcceptorMessage {
  const reader = new ByteReader(bytes, "big", "acceptor message");
  const tag = reader.u8();
  let message: AcceptorMessage;
  switch (tag) {
    case TAG_APPEND:
      message = readAppendResponse(reader);
      break;
    case TAG_GREETING:
      message = {
        kind: "greeting",
        nodeId: readSafeU64(reader),
        membership: readMembership(reader),
        term: readSafeU64(reader),
      };
      break;
    case TAG_VOTE:
      message = {
        kind: "vote",
        generation: reader.u32(),
        term: readSafeU64(reader),
        voteGiven: reader.u8() !== 0,
        flushLsn: reader.lsn(),
        truncateLsn: reader.lsn(),
        termHistory: readTermHistory(reader),
      };
      break;
    default:
      throw new Corrupt(`Cannot read an acceptor message: unknown tag ${tag}`);
  }
  reader.end();
  return message;
}
