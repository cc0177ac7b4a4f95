/**
 * Main data of records that create, cut and remove files: relations, databases, relation maps,
 * and the locks a standby takes for them. All fields are little endian u32; offsets count from
 * the start of the main data. Opcodes of the Database resource manager are in the version table,
 * a file copy is always 0.
 */
import type { RelTag } from "../relation.ts";
import type { RecordCursor } from "./record_cursor.ts";
import { mainU32 } from "./small_records.ts";

/** Opcodes of the Storage resource manager (storage_xlog.h). */
export const SmgrInfo = { CREATE: 0x10, TRUNCATE: 0x20 } as const;

/** Which forks an smgr truncation cuts. */
export const SmgrTruncateFlag = { HEAP: 1, VM: 2, FSM: 4 } as const;

/** Opcode of CREATE DATABASE with the file copy strategy (before 15 the only one). */
export const DBASE_CREATE_FILE_COPY = 0x00;

/** Storage CREATE: 0 tablespace, 4 database, 8 relfilenode, 12 fork. */
export function readSmgrCreate(cursor: RecordCursor): RelTag {
  return {
    spc: mainU32(cursor, 0),
    db: mainU32(cursor, 4),
    rel: mainU32(cursor, 8),
    fork: mainU32(cursor, 12),
  };
}

/** Storage TRUNCATE: 0 heap blocks that stay, 4 tablespace, 8 database, 12 relfilenode, 16 flags. */
export function readSmgrTruncate(
  cursor: RecordCursor,
): { spc: number; db: number; rel: number; blocks: number; flags: number } {
  return {
    blocks: mainU32(cursor, 0),
    spc: mainU32(cursor, 4),
    db: mainU32(cursor, 8),
    rel: mainU32(cursor, 12),
    flags: mainU32(cursor, 16),
  };
}

/** A database's directory in a tablespace. */
export interface DatabaseDirectory {
  readonly db: number;
  readonly spc: number;
}

/** Database CREATE, both strategies: 0 database, 4 tablespace. */
export function readDatabaseCreate(cursor: RecordCursor): DatabaseDirectory {
  return { db: mainU32(cursor, 0), spc: mainU32(cursor, 4) };
}

/** What a file copy copies: 8 database, 12 tablespace. */
export function readDatabaseSource(cursor: RecordCursor): DatabaseDirectory {
  return { db: mainU32(cursor, 8), spc: mainU32(cursor, 12) };
}

/** Database DROP: 0 database, 4 count, 8 tablespaces. */
export function readDatabaseDrop(cursor: RecordCursor): { db: number; tablespaces: number[] } {
  const tablespaces = Array.from(
    { length: mainU32(cursor, 4) },
    (_, i) => mainU32(cursor, 8 + 4 * i),
  );
  return { db: mainU32(cursor, 0), tablespaces };
}

/** RelMap UPDATE: 0 database (0 = the global map), 4 tablespace, 8 length, 12 the file's bytes. */
export function readRelMapUpdate(
  cursor: RecordCursor,
): { db: number; spc: number; dataAt: number; dataLength: number } {
  const dataLength = mainU32(cursor, 8);
  if (dataLength > 0) mainU32(cursor, 12 + dataLength - 4);
  return {
    db: mainU32(cursor, 0),
    spc: mainU32(cursor, 4),
    dataAt: cursor.mainOffset + 12,
    dataLength,
  };
}

/** Standby LOCK: 0 count, then xid, database and relation of each AccessExclusive lock. */
export function readStandbyLocks(
  cursor: RecordCursor,
): { xid: number; db: number; relation: number }[] {
  return Array.from({ length: mainU32(cursor, 0) }, (_, i) => ({
    xid: mainU32(cursor, 4 + 12 * i),
    db: mainU32(cursor, 8 + 12 * i),
    relation: mainU32(cursor, 12 + 12 * i),
  }));
}
