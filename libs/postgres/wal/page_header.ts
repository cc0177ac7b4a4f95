/**
 * Headers of WAL pages (XLogPageHeaderData and XLogLongPageHeaderData, xlog_internal.h).
 *
 *   0 magic u16 | 2 info u16 | 4 timeline u32 | 8 page address u64 | 16 rem_len u32 | 20 pad
 *   24 system id u64 | 32 segment size u32 | 36 WAL page size u32   only on a segment's first page
 *
 * rem_len counts the bytes still missing, headers excluded, of a record that began on an earlier
 * page.
 */
import { Corrupt } from "../../utils/errors.ts";
import {
  addLsn,
  alignLsn,
  formatLsn,
  type Lsn,
  lsnFromHalves,
  lsnHigh,
  lsnLow,
} from "../../utils/lsn.ts";
import { PAGE_SIZE, WAL_LONG_HEADER_SIZE, WAL_TIMELINE_ID } from "../constants.ts";
import type { PgVersion } from "../versions.ts";
import { pageHeaderSize } from "./segment.ts";

/** info: the page starts with the rest of a record. */
export const XLP_FIRST_IS_CONTRECORD = 0x0001;
/** info: the header is the long one. */
const XLP_LONG_HEADER = 0x0002;
/** info: the record that the previous page began was never completed; a new one starts here. */
export const XLP_FIRST_IS_OVERWRITE_CONTRECORD = 0x0008;

const XLP_ALL_FLAGS = 0x000f;

/** A cluster's constant part of every page header. */
export interface WalIdentity {
  readonly version: PgVersion;
  readonly segmentSize: number;
  readonly systemId: bigint;
}

/** What one page's header says. systemId is undefined in a short header. */
interface WalPageHeader {
  readonly info: number;
  readonly timelineId: number;
  readonly pageStart: Lsn;
  readonly remaining: number;
  readonly systemId: bigint | undefined;
}

/**
 * Writes the header of the page at `pageStart` into `view` at `offset` (24 or 40 bytes); the long
 * flag is added where it belongs. `remaining` > 0 sets the continuation flag.
 */
export function writePageHeader(
  view: DataView,
  offset: number,
  identity: WalIdentity,
  pageStart: Lsn,
  remaining: number,
): number {
  const size = pageHeaderSize(pageStart, identity.segmentSize);
  const long = pageStart % identity.segmentSize === 0;
  const info = (remaining > 0 ? XLP_FIRST_IS_CONTRECORD : 0) | (long ? XLP_LONG_HEADER : 0);
  view.setUint16(offset, identity.version.walPageMagic, true);
  view.setUint16(offset + 2, info, true);
  view.setUint32(offset + 4, WAL_TIMELINE_ID, true);
  view.setUint32(offset + 8, lsnLow(pageStart), true);
  view.setUint32(offset + 12, lsnHigh(pageStart), true);
  view.setUint32(offset + 16, remaining, true);
  view.setUint32(offset + 20, 0, true);
  if (long) {
    view.setBigUint64(offset + 24, identity.systemId, true);
    view.setUint32(offset + 32, identity.segmentSize, true);
    view.setUint32(offset + 36, PAGE_SIZE, true);
  }
  return size;
}

/**
 * Why the bytes at `offset` are not the header of the page at `pageStart`, or undefined if they
 * are. The caller has the whole header (24 or 40 bytes) in the view.
 */
export function pageHeaderFault(
  view: DataView,
  offset: number,
  version: PgVersion,
  pageStart: Lsn,
  segmentSize: number,
): string | undefined {
  const magic = view.getUint16(offset, true);
  if (magic !== version.walPageMagic) {
    const [found, wanted] = [magic, version.walPageMagic].map((m) => m.toString(16).toUpperCase());
    return `its magic is ${found}, not ${wanted}`;
  }
  const info = view.getUint16(offset + 2, true);
  if ((info & ~XLP_ALL_FLAGS) !== 0) return `it has unknown flags ${info.toString(16)}`;
  const low = view.getUint32(offset + 8, true);
  const high = view.getUint32(offset + 12, true);
  if (high * 4294967296 + low !== pageStart) return "it is the header of another page";
  const long = pageStart % segmentSize === 0;
  if (((info & XLP_LONG_HEADER) !== 0) !== long) return "its size does not fit its place";
  if (long) {
    const size = view.getUint32(offset + 32, true);
    if (size !== segmentSize) return `its segment size is ${size}, not ${segmentSize}`;
    const pageSize = view.getUint32(offset + 36, true);
    if (pageSize !== PAGE_SIZE) return `its WAL page size is ${pageSize}, not ${PAGE_SIZE}`;
  }
  return undefined;
}

/** Reads a header that pageHeaderFault found none with. */
export function readPageHeader(view: DataView, offset: number): WalPageHeader {
  const info = view.getUint16(offset + 2, true);
  return {
    info,
    timelineId: view.getUint32(offset + 4, true),
    pageStart: lsnFromHalves(view.getUint32(offset + 12, true), view.getUint32(offset + 8, true)),
    remaining: view.getUint32(offset + 16, true),
    systemId: (info & XLP_LONG_HEADER) !== 0 ? view.getBigUint64(offset + 24, true) : undefined,
  };
}

/**
 * Where the first record starts that begins on the page at `pageStart` (the page itself, if it
 * begins with one: its header is then read with the record) or on one of those that follow in
 * `bytes`; undefined if more bytes are needed to know. Throws Corrupt for what is no WAL page.
 */
export function firstRecordOnPage(
  bytes: Uint8Array,
  pageStart: Lsn,
  version: PgVersion,
  segmentSize: number,
): Lsn | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0; at + WAL_LONG_HEADER_SIZE <= bytes.length; at += PAGE_SIZE) {
    const page = addLsn(pageStart, at);
    const fault = pageHeaderFault(view, at, version, page, segmentSize);
    if (fault !== undefined) {
      throw new Corrupt(`Cannot read the WAL page at ${formatLsn(page)}: ${fault}`);
    }
    const { info, remaining } = readPageHeader(view, at);
    if ((info & XLP_FIRST_IS_CONTRECORD) === 0) return page;
    const rest = alignLsn(addLsn(page, pageHeaderSize(page, segmentSize) + remaining));
    if (rest <= page + PAGE_SIZE) return rest;
  }
  return undefined;
}
