/**
 * Redo on the pages of pg_multixact (PostgreSQL 17, multixact_redo, RecordNewMultiXact).
 *
 * The pages are described in libs/postgres/slru.ts, the records in wal/small_records.ts there.
 *
 * CREATE_ID also writes the offset of the *next* id, on the next page if need be: a reader takes
 * the length of an id's members from it, and the next id's own record may have been lost in a
 * crash.
 */
import { FIRST_MULTIXACT, PAGE_SIZE } from "../../libs/postgres/constants.ts";
import {
  memberFlagOffset,
  MEMBERS_PER_PAGE,
  memberXidOffset,
  OFFSETS_PER_PAGE,
  SlruKind,
  slruPageNumber,
} from "../../libs/postgres/slru.ts";
import type { PgVersion } from "../../libs/postgres/versions.ts";
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import {
  type MultiXactCreate,
  MultiXactInfo,
  readMultiXactCreate,
  readSlruPage,
} from "../../libs/postgres/wal/small_records.ts";
import type { PageTarget, RedoKey } from "./types.ts";

/** Whether the record makes exactly this offsets or members page out of zeros. */
export function multixactZeroes(cursor: RecordCursor, key: RedoKey, version: PgVersion): boolean {
  const opcode = cursor.info & 0xf0;
  const kind = opcode === MultiXactInfo.ZERO_OFFSETS_PAGE
    ? SlruKind.OFFSETS
    : opcode === MultiXactInfo.ZERO_MEMBERS_PAGE
    ? SlruKind.MEMBERS
    : -1;
  return kind === key.slruKind &&
    readSlruPage(cursor, version) === slruPageNumber(key.segno, key.block);
}

/** Applies a MultiXact record to a page of offsets or of members. */
export function redoMultixact(
  page: PageTarget,
  cursor: RecordCursor,
  key: RedoKey,
  version: PgVersion,
): void {
  if (multixactZeroes(cursor, key, version)) {
    page.bytes.fill(0, page.offset, page.offset + PAGE_SIZE);
    return;
  }
  if ((cursor.info & 0xf0) !== MultiXactInfo.CREATE_ID) return;
  const created = readMultiXactCreate(cursor);
  if (key.slruKind === SlruKind.MEMBERS) return setMembers(page, cursor, key, created);
  const { multi, firstMember, count } = created;
  setOffset(page, key, multi, firstMember);
  // Ids skip 0 when they wrap around, and so do member numbers: 0 means "not known yet".
  const next = Math.max((multi + 1) >>> 0, FIRST_MULTIXACT);
  setOffset(page, key, next, (firstMember + count) >>> 0 || 1);
}

function setOffset(page: PageTarget, key: RedoKey, id: number, value: number): void {
  if (Math.floor(id / OFFSETS_PER_PAGE) !== slruPageNumber(key.segno, key.block)) return;
  page.view.setUint32(page.offset + 4 * (id % OFFSETS_PER_PAGE), value, true);
}

function setMembers(
  page: PageTarget,
  cursor: RecordCursor,
  key: RedoKey,
  { firstMember, count, membersAt }: MultiXactCreate,
): void {
  const pageNumber = slruPageNumber(key.segno, key.block);
  for (let i = 0; i < count; i++) {
    const member = (firstMember + i) >>> 0;
    if (Math.floor(member / MEMBERS_PER_PAGE) !== pageNumber) continue;
    const from = membersAt + 8 * i;
    page.bytes[page.offset + memberFlagOffset(member)] = cursor.bytes[from + 4]!;
    const xid = cursor.view.getUint32(from, true);
    page.view.setUint32(page.offset + memberXidOffset(member), xid, true);
  }
}
