/**
 * WAL positions against pages and segments.
 *
 * A segment file is named `<timeline><high><low>`, three times eight hex digits, where high and low
 * are the segment number divided by the segments in 4 GiB, for example 000000010000000000000003.
 * Every page starts with a header, so "n record bytes after this position" is not a plain addition.
 */
import { type Lsn, toLsn } from "../../utils/lsn.ts";
import { PAGE_SIZE, WAL_LONG_HEADER_SIZE, WAL_SHORT_HEADER_SIZE } from "../constants.ts";

const TWO_32 = 4294967296;

function hex8(value: number): string {
  return value.toString(16).toUpperCase().padStart(8, "0");
}

/** Number of the segment that contains `lsn`. */
export function segmentNumber(lsn: Lsn, segmentSize: number): number {
  return Math.floor(lsn / segmentSize);
}

/** First position of a segment. */
export function segmentStart(segment: number, segmentSize: number): Lsn {
  return toLsn(segment * segmentSize);
}

/** File name of a segment. */
export function segmentName(timelineId: number, segment: number, segmentSize: number): string {
  const perHigh = TWO_32 / segmentSize;
  return hex8(timelineId) + hex8(Math.floor(segment / perHigh)) + hex8(segment % perHigh);
}

const SEGMENT_NAME = /^[0-9A-F]{24}$/;

/** The inverse of segmentName; undefined for another name. */
export function parseSegmentName(
  name: string,
  segmentSize: number,
): { timelineId: number; segment: number } | undefined {
  if (!SEGMENT_NAME.test(name)) return undefined;
  const [timelineId, high, low] = [0, 8, 16].map((at) => parseInt(name.slice(at, at + 8), 16)) as [
    number,
    number,
    number,
  ];
  const perHigh = TWO_32 / segmentSize;
  return low < perHigh ? { timelineId, segment: high * perHigh + low } : undefined;
}

/** Size of the header of the page that starts at `pageStart`. */
export function pageHeaderSize(pageStart: number, segmentSize: number): number {
  return pageStart % segmentSize === 0 ? WAL_LONG_HEADER_SIZE : WAL_SHORT_HEADER_SIZE;
}

/** The end of the page with the bytes before `lsn`. */
export function pageEndAfter(lsn: Lsn): Lsn {
  return (Math.ceil(lsn / PAGE_SIZE) * PAGE_SIZE) as Lsn;
}

/** `lsn`, or the first position behind the page header if `lsn` is on a page boundary. */
export function skipPageHeader(lsn: Lsn, segmentSize: number): Lsn {
  return (lsn % PAGE_SIZE === 0 ? lsn + pageHeaderSize(lsn, segmentSize) : lsn) as Lsn;
}

/**
 * Where `count` record bytes end that start at `lsn`, page headers in between not counted. A run
 * that fills its page ends on the page boundary: the next header belongs to what follows.
 */
export function advanceOverHeaders(lsn: Lsn, count: number, segmentSize: number): Lsn {
  let at: number = lsn;
  let left = count;
  while (left > 0) {
    if (at % PAGE_SIZE === 0) at += pageHeaderSize(at, segmentSize);
    const taken = Math.min(left, PAGE_SIZE - at % PAGE_SIZE);
    at += taken;
    left -= taken;
  }
  return at as Lsn;
}

/**
 * Where `count` record bytes begin that end at `lsn`: the inverse of advanceOverHeaders. A position
 * right behind a page header counts as the page boundary before it; the result is one where a
 * record can begin, never within a header.
 */
export function retreatOverHeaders(lsn: Lsn, count: number, segmentSize: number): Lsn {
  let at: number = lsn;
  let left = count;
  for (;;) {
    const pageStart = at - 1 - (at - 1) % PAGE_SIZE;
    const first = pageStart + pageHeaderSize(pageStart, segmentSize);
    if (left <= at - first) return (at - left) as Lsn;
    left -= Math.max(0, at - first);
    at = pageStart;
  }
}

/** How many record bytes there are from `from` to `to`, page headers not counted. */
export function recordBytesBetween(from: Lsn, to: Lsn, segmentSize: number): number {
  let bytes = 0;
  for (let at: number = from; at < to;) {
    const pageStart = at - at % PAGE_SIZE;
    const first = Math.max(at, pageStart + pageHeaderSize(pageStart, segmentSize));
    const end = Math.min(to, pageStart + PAGE_SIZE);
    bytes += Math.max(0, end - first);
    at = end;
  }
  return bytes;
}
