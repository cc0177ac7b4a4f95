/**
 * Redo on the pages of pg_multixact (PostgreSQL 17, multixact_redo, RecordNewMultiXact).
 *
 *   offsets page: 2048 u32, for each multixact id the number of its first member
 *   members page: 409 groups of 20 bytes: 4 status bytes, then 4 xids u32; 1636 members,
 *                 12 bytes unused
 *
 * ZERO pages, main data: page number (u32, u64 from 17 on). CREATE_ID: 0 multixact id u32, 4 first
 * member u32, 8 count u32, then for each member xid u32, status u32.
 *
 * CREATE_ID also writes the offset of the *next* id, on the next page if need be: a reader takes
 * the length of an id's members from it, and the next id's own record may have been lost in a
 * crash.
 */
import { PAGE_SIZE } from "../../libs/postgres/constants.ts";
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import { MultiXactInfo } from "../../libs/postgres/wal/small_records.ts";
import { fault } from "./redo_fault.ts";
import { readSlruPageNumber, SLRU_MEMBERS, SLRU_OFFSETS, slruPageNumber } from "./slru_page.ts";
import type { PageTarget, RedoKey } from "./types.ts";

const OFFSETS_PER_PAGE = 2048;
const MEMBERS_PER_PAGE = 1636;
const MEMBERS_PER_GROUP = 4;
const GROUP_SIZE = 20;
const FIRST_MULTIXACT = 1;

/** Whether the record makes exactly this offsets or members page out of zeros. */
export function multixactZeroes(cursor: RecordCursor, key: RedoKey): boolean {
  const opcode = cursor.info & 0xf0;
  const kind = opcode === MultiXactInfo.ZERO_OFFSETS_PAGE
    ? SLRU_OFFSETS
    : opcode === MultiXactInfo.ZERO_MEMBERS_PAGE
    ? SLRU_MEMBERS
    : -1;
  return kind === key.slruKind && readSlruPageNumber(cursor) === slruPageNumber(key);
}

/** Applies a MultiXact record to a page of offsets or of members. */
export function redoMultixact(page: PageTarget, cursor: RecordCursor, key: RedoKey): void {
  if (multixactZeroes(cursor, key)) {
    page.bytes.fill(0, page.offset, page.offset + PAGE_SIZE);
    return;
  }
  if ((cursor.info & 0xf0) !== MultiXactInfo.CREATE_ID) return;
  const id = cursor.view.getUint32(cursor.mainOffset, true);
  const first = cursor.view.getUint32(cursor.mainOffset + 4, true);
  const count = cursor.view.getUint32(cursor.mainOffset + 8, true);
  if (cursor.mainLength < 12 + 8 * count) fault(`multixact record too short for ${count} members`);
  if (key.slruKind === SLRU_OFFSETS) {
    setOffset(page, key, id, first);
    // Ids skip 0 when they wrap around, and so do member numbers: 0 means "not known yet".
    const next = (id + 1) >>> 0;
    setOffset(
      page,
      key,
      next < FIRST_MULTIXACT ? FIRST_MULTIXACT : next,
      (first + count) >>> 0 || 1,
    );
  } else {
    setMembers(page, cursor, key, first, count);
  }
}

function setOffset(page: PageTarget, key: RedoKey, id: number, value: number): void {
  if (Math.floor(id / OFFSETS_PER_PAGE) !== slruPageNumber(key)) return;
  page.view.setUint32(page.offset + 4 * (id % OFFSETS_PER_PAGE), value, true);
}

function setMembers(
  page: PageTarget,
  cursor: RecordCursor,
  key: RedoKey,
  first: number,
  count: number,
): void {
  const pageNumber = slruPageNumber(key);
  for (let i = 0; i < count; i++) {
    const member = (first + i) >>> 0;
    if (Math.floor(member / MEMBERS_PER_PAGE) !== pageNumber) continue;
    const inPage = member % MEMBERS_PER_PAGE;
    const group = page.offset + Math.floor(inPage / MEMBERS_PER_GROUP) * GROUP_SIZE;
    const inGroup = inPage % MEMBERS_PER_GROUP;
    const from = cursor.mainOffset + 12 + 8 * i;
    page.bytes[group + inGroup] = cursor.bytes[from + 4]!;
    const xid = cursor.view.getUint32(from, true);
    page.view.setUint32(group + MEMBERS_PER_GROUP + 4 * inGroup, xid, true);
  }
}
