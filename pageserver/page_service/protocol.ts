/**
 * The pagestream protocol: requests and responses inside the CopyData messages of COPY BOTH.
 *
 * All integers are big endian, nothing is padded. Version 3 adds a request id and echoes the whole
 * request in every answer, so that a client can tell answers apart; version 2 does neither.
 *
 *   request   u8 tag | (v3: u64 request id) | u64 request LSN | u64 not modified since | body
 *   relation  u32 tablespace | u32 database | u32 relation | u8 fork
 *   0 exists: relation          1 nblocks: relation        2 get page: relation, u32 block
 *   3 database size: u32 database                          4 SLRU segment: u8 kind, u32 segment
 *
 *   answer    u8 tag | (v3: the request after its tag) | payload
 *   100 exists: u8     101 nblocks: u32     102 page: 8192 bytes    104 database size: i64 bytes
 *   105 SLRU segment: u32 blocks, blocks x 8192 bytes
 *   103 error: NUL-terminated UTF-8; in v3 only request id and the two LSNs come before it
 *
 * A request LSN of 2^64-1 means "latest". Called by pagestream.ts.
 */
import { BadRequest } from "../../libs/utils/errors.ts";
import { type Lsn, lsnFromHalves } from "../../libs/utils/lsn.ts";
import type { CopyBoth, Received } from "../../libs/pgwire/copy_both.ts";

/** Protocol versions of this page service. */
export type PagestreamVersion = 2 | 3;

/** Request tags. */
export const RequestTag = {
  exists: 0,
  nblocks: 1,
  getPage: 2,
  databaseSize: 3,
  slruSegment: 4,
} as const;

/** Answer tags. */
const AnswerTag = {
  exists: 100,
  nblocks: 101,
  getPage: 102,
  error: 103,
  databaseSize: 104,
  slruSegment: 105,
} as const;

/** Bytes of the body by request tag. */
const BODY_BYTES = [13, 13, 17, 4, 5];
/** Request id and both LSNs, the most that an error echoes. */
const ERROR_ECHO_BYTES = 24;
/** An LSN whose high half is beyond this exceeds 2^53: only 2^64-1, "latest", is sent like that. */
const LSN_HIGH_MAX = 0x1fffff;
const encoder = new TextEncoder();

/** One decoded request; reused. Fields that its tag does not have keep old values. */
export class PagestreamRequest {
  tag = 0;
  /** The version wanted; Infinity for "latest". */
  requestLsn = 0;
  notModifiedSince = 0 as Lsn;
  spc = 0;
  db = 0;
  rel = 0;
  fork = 0;
  block = 0;
  slruKind = 0;
  segment = 0;
  /**
   * What a version 3 answer echoes: the request after its tag, echo[echoStart, +echoBytes). It is
   * where the request arrived, so an answer is assembled before the next request is received.
   */
  echo: Uint8Array = new Uint8Array(0);
  echoStart = 0;
  echoBytes = 0;

  /** Reads what was received. Throws BadRequest for an unknown tag or a wrong length. */
  decode(version: PagestreamVersion, received: Received): void {
    const { bytes, view, bodyStart } = received;
    const length = received.bodyEnd - bodyStart;
    const tag = length > 0 ? bytes[bodyStart]! : -1;
    const bodyBytes = BODY_BYTES[tag];
    if (bodyBytes === undefined) {
      throw new BadRequest(`Cannot handle a page service request: its tag is ${tag}`);
    }
    const headerBytes = version === 3 ? 25 : 17;
    if (length !== headerBytes + bodyBytes) {
      throw new BadRequest(
        `Cannot handle a page service request with tag ${tag}: it has ${length} bytes, ` +
          `expected ${headerBytes + bodyBytes}`,
      );
    }
    let at = bodyStart + (version === 3 ? 9 : 1);
    const high = view.getUint32(at);
    this.requestLsn = high > LSN_HIGH_MAX ? Infinity : lsnFromHalves(high, view.getUint32(at + 4));
    this.notModifiedSince = lsnFromHalves(view.getUint32(at + 8), view.getUint32(at + 12));
    at += 16;
    this.tag = tag;
    this.echo = bytes;
    this.echoStart = bodyStart + 1;
    this.echoBytes = version === 3 ? length - 1 : 0;
    this.#decodeBody(view, at);
  }

  #decodeBody(view: DataView, at: number): void {
    if (this.tag === RequestTag.databaseSize) {
      this.db = view.getUint32(at);
    } else if (this.tag === RequestTag.slruSegment) {
      this.slruKind = view.getUint8(at);
      this.segment = view.getUint32(at + 1);
    } else {
      this.spc = view.getUint32(at);
      this.db = view.getUint32(at + 4);
      this.rel = view.getUint32(at + 8);
      this.fork = view.getUint8(at + 12);
      if (this.tag === RequestTag.getPage) this.block = view.getUint32(at + 13);
    }
  }
}

/** Reserves an answer and writes what goes before its payload; returns the payload's offset. */
function reserve(copy: CopyBoth, request: PagestreamRequest, tag: number, bytes: number): number {
  const at = copy.reserve(1 + request.echoBytes + bytes);
  const out = copy.sendBytes;
  const { echo, echoStart, echoBytes } = request;
  out[at] = tag;
  for (let i = 0; i < echoBytes; i++) out[at + 1 + i] = echo[echoStart + i]!;
  return at + 1 + echoBytes;
}

/** Reserves a page answer; the page goes to the returned offset of `copy.sendBytes`. */
export function reservePage(copy: CopyBoth, request: PagestreamRequest, bytes: number): number {
  return reserve(copy, request, AnswerTag.getPage, bytes);
}

/** Reserves an SLRU segment answer of `blocks`; the pages go to the returned offset. */
export function reserveSlruSegment(
  copy: CopyBoth,
  request: PagestreamRequest,
  blocks: number,
  bytes: number,
): number {
  const at = reserve(copy, request, AnswerTag.slruSegment, 4 + bytes);
  copy.sendView.setUint32(at, blocks);
  return at + 4;
}

/** Assembles the answer to "exists". */
export function queueExists(copy: CopyBoth, request: PagestreamRequest, exists: boolean): void {
  const at = reserve(copy, request, AnswerTag.exists, 1);
  copy.sendBytes[at] = exists ? 1 : 0;
}

/** Assembles the answer to "nblocks". */
export function queueBlocks(copy: CopyBoth, request: PagestreamRequest, blocks: number): void {
  const at = reserve(copy, request, AnswerTag.nblocks, 4);
  copy.sendView.setUint32(at, blocks);
}

/** Assembles the answer to "database size". */
export function queueDatabaseSize(
  copy: CopyBoth,
  request: PagestreamRequest,
  sizeBytes: number,
): void {
  const at = reserve(copy, request, AnswerTag.databaseSize, 8);
  copy.sendView.setBigInt64(at, BigInt(sizeBytes));
}

/** Assembles an error answer. */
export function queueError(copy: CopyBoth, request: PagestreamRequest, message: string): void {
  const text = encoder.encode(message);
  const echoBytes = Math.min(request.echoBytes, ERROR_ECHO_BYTES);
  const at = copy.reserve(1 + echoBytes + text.length + 1);
  const out = copy.sendBytes;
  out[at] = AnswerTag.error;
  out.set(request.echo.subarray(request.echoStart, request.echoStart + echoBytes), at + 1);
  out.set(text, at + 1 + echoBytes);
  out[at + 1 + echoBytes + text.length] = 0;
}
