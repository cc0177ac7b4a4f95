/** Makes a server's WAL end at a chosen position, by a logical message of the right size. */
import assert from "node:assert/strict";
import {
  PAGE_SIZE,
  WAL_LONG_HEADER_SIZE,
  WAL_SEGMENT_SIZE,
  WAL_SHORT_HEADER_SIZE,
} from "../../libs/postgres/constants.ts";
import { type Lsn, parseLsn, toLsn } from "../../libs/utils/lsn.ts";
import type { Sql } from "../harness.ts";

/** Record header, long data header, a logical message's own fields, the prefix "x" with its zero. */
const MESSAGE_OVERHEAD_BYTES = 24 + 5 + 24 + 2;
/** A smaller message would have the short data header. */
const MESSAGE_BYTES_MIN = 256;

/** Bytes of records before a position: everything but page headers (xlog.c, XLogRecPtrToBytePos). */
function recordBytesBefore(lsn: number): number {
  const perPage = PAGE_SIZE - WAL_SHORT_HEADER_SIZE;
  const longer = WAL_LONG_HEADER_SIZE - WAL_SHORT_HEADER_SIZE;
  const perSegment = WAL_SEGMENT_SIZE / PAGE_SIZE * perPage - longer;
  const inSegment = lsn % WAL_SEGMENT_SIZE;
  const page = Math.floor(inSegment / PAGE_SIZE);
  const inPage = inSegment % PAGE_SIZE;
  const header = page === 0 ? WAL_LONG_HEADER_SIZE : WAL_SHORT_HEADER_SIZE;
  const before = page === 0 ? 0 : page * perPage - longer;
  return Math.floor(lsn / WAL_SEGMENT_SIZE) * perSegment + before + Math.max(0, inPage - header);
}

/**
 * Writes WAL until `left` bytes are left before a multiple of `unit` (a page or a segment), and
 * returns that position. Nobody else may write.
 */
export async function endWalBefore(sql: Sql, unit: number, left: number): Promise<Lsn> {
  const [row] = await sql`select pg_current_wal_insert_lsn()::text as lsn`;
  const now = parseLsn(row!["lsn"]);
  let target = Math.ceil(now / unit) * unit - left;
  const bytes = () => recordBytesBefore(target) - recordBytesBefore(now) - MESSAGE_OVERHEAD_BYTES;
  while (bytes() < MESSAGE_BYTES_MIN) target += unit;
  const [written] = await sql`
    select pg_logical_emit_message(false, 'x', repeat('a', ${bytes()}::int), true)::text as lsn`;
  const end = parseLsn(written!["lsn"]);
  assert.equal(end, target, "nobody else wrote WAL");
  return toLsn(end);
}
