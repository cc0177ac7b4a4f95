/**
 * Where PostgreSQL's "simple LRU" files keep what: transaction status, multixacts, commit times.
 *
 *   pg_xact/0000               2 bits a transaction, 32768 a page, low bits first
 *   pg_multixact/offsets/0000  u32 first member of each multixact, 2048 a page
 *   pg_multixact/members/0000  groups of 20 bytes: four flag bytes, then four xids; 409 groups a page
 *   pg_commit_ts/0000          10 bytes a transaction, time and origin, 819 a page
 *
 * 32 pages a file; names are the segment number in at least four hex digits. These pages have no
 * header. All functions are pure arithmetic on 32-bit counters (clog.c, multixact.c and
 * commit_ts.c of PostgreSQL 17).
 */
import { PAGE_SIZE } from "./constants.ts";
import { circlePrecedes } from "./xid.ts";

/** The SLRUs that storage keeps; the numbers are part of the page service's protocol. */
export const SlruKind = { CLOG: 0, MEMBERS: 1, OFFSETS: 2, COMMIT_TS: 3 } as const;

/** Pages in one file. */
export const SLRU_SEGMENT_PAGES = 32;

/** Number of a page over all segments. */
export function slruPageNumber(segment: number, block: number): number {
  return segment * SLRU_SEGMENT_PAGES + block;
}

export const XIDS_PER_PAGE = PAGE_SIZE * 4;
export const XIDS_PER_BYTE = 4;
export const OFFSETS_PER_PAGE = PAGE_SIZE / 4;
const MEMBERS_PER_GROUP = 4;
const MEMBER_GROUP_BYTES = 20;
export const MEMBERS_PER_PAGE = Math.floor(PAGE_SIZE / MEMBER_GROUP_BYTES) * MEMBERS_PER_GROUP;
/** Bytes of a transaction's entry in pg_commit_ts. */
export const COMMIT_TS_BYTES = 10;
export const COMMIT_TS_PER_PAGE = Math.floor(PAGE_SIZE / COMMIT_TS_BYTES);

/** Status of a transaction in pg_xact. */
export const XidStatus = { IN_PROGRESS: 0, COMMITTED: 1, ABORTED: 2, SUB_COMMITTED: 3 } as const;

/** Directory of each kind, below the data directory. */
export const SLRU_DIRECTORIES: readonly string[] = [
  "pg_xact",
  "pg_multixact/members",
  "pg_multixact/offsets",
  "pg_commit_ts",
];
const IDS_PER_PAGE = [XIDS_PER_PAGE, MEMBERS_PER_PAGE, OFFSETS_PER_PAGE, COMMIT_TS_PER_PAGE];
/** What the page comparison adds so that the ids compared are never reserved ones. */
const FIRST_ID = [4, 0, 2, 4];

/** Path of a segment file in the data directory. */
export function slruSegmentPath(kind: number, segment: number): string {
  return `${SLRU_DIRECTORIES[kind]!}/${segment.toString(16).toUpperCase().padStart(4, "0")}`;
}

const SEGMENT_PATH = /^(pg_xact|pg_multixact\/(?:members|offsets)|pg_commit_ts)\/([0-9A-F]{4,6})$/;

/** The inverse of slruSegmentPath; undefined for another path. */
export function parseSlruSegmentPath(path: string): { kind: number; segment: number } | undefined {
  const match = SEGMENT_PATH.exec(path);
  if (match === null) return undefined;
  return { kind: SLRU_DIRECTORIES.indexOf(match[1]!), segment: parseInt(match[2]!, 16) };
}

/** Where on its page a multixact member's xid is, and where its flag byte is. */
export function memberXidOffset(member: number): number {
  const inPage = member % MEMBERS_PER_PAGE;
  const inGroup = inPage % MEMBERS_PER_GROUP;
  return memberFlagOffset(member) - inGroup + 4 + 4 * inGroup;
}

/** Where on its page a multixact member's flag byte (its status) is. */
export function memberFlagOffset(member: number): number {
  const inPage = member % MEMBERS_PER_PAGE;
  return Math.floor(inPage / MEMBERS_PER_GROUP) * MEMBER_GROUP_BYTES + inPage % MEMBERS_PER_GROUP;
}

/** Whether page `a` is older than page `b` of this SLRU, counters being circular. */
export function slruPagePrecedes(kind: number, a: number, b: number): boolean {
  const ids = IDS_PER_PAGE[kind]!;
  const firstA = (a * ids + FIRST_ID[kind]!) >>> 0;
  const firstB = (b * ids + FIRST_ID[kind]!) >>> 0;
  return circlePrecedes(firstA, firstB) && circlePrecedes(firstA, (firstB + ids - 1) >>> 0);
}

/** Whether truncation before `cutoffPage` removes this segment (SlruMayDeleteSegment, slru.c). */
export function slruSegmentIsBefore(kind: number, segment: number, cutoffPage: number): boolean {
  const first = segment * SLRU_SEGMENT_PAGES;
  return slruPagePrecedes(kind, first, cutoffPage) &&
    slruPagePrecedes(kind, first + SLRU_SEGMENT_PAGES - 1, cutoffPage);
}
