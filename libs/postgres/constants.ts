/**
 * Sizes and numbers that are the same in every supported PostgreSQL version and build.
 * (A build with another block or segment size is refused when its pg_control is read.)
 */

/** Bytes in a data page, and in a WAL page. */
export const PAGE_SIZE = 8192;

/** Pages in one file of a relation (1 GiB); a larger relation continues in `.1`, `.2`, ... */
export const RELATION_SEGMENT_PAGES = 131072;

/** Bytes in a WAL segment unless initdb was told otherwise (pg_control says). */
export const WAL_SEGMENT_SIZE = 16 * 1024 * 1024;

/** Header of a WAL page that is not the first of its segment. */
export const WAL_SHORT_HEADER_SIZE = 24;

/** Header of the first page of a WAL segment. */
export const WAL_LONG_HEADER_SIZE = 40;

/** Fixed header of a WAL record. */
export const RECORD_HEADER_SIZE = 24;

/** Records are refused beyond this length (XLogRecordMaxSize, xlogrecord.h). */
export const RECORD_SIZE_MAX = 1020 * 1024 * 1024;

/** Highest block reference id in a record (XLR_MAX_BLOCK_ID). */
export const BLOCK_ID_MAX = 32;

/** The WAL timeline id: we never promote, so there is one. */
export const WAL_TIMELINE_ID = 1;

/** Fork numbers (relpath.h). */
export const FORK_MAIN = 0;
export const FORK_FSM = 1;
export const FORK_VM = 2;
export const FORK_INIT = 3;

/** Tablespace oids of pg_default and pg_global (pg_tablespace.dat). */
export const DEFAULT_TABLESPACE = 1663;
export const GLOBAL_TABLESPACE = 1664;

/** The lowest transaction id that is not reserved (FirstNormalTransactionId). */
export const FIRST_NORMAL_XID = 3;
/** The lowest multixact id (FirstMultiXactId). */
export const FIRST_MULTIXACT = 1;

/** Resource manager ids (rmgrlist.h). */
export const Rmgr = {
  XLOG: 0,
  XACT: 1,
  SMGR: 2,
  CLOG: 3,
  DBASE: 4,
  TBLSPC: 5,
  MULTIXACT: 6,
  RELMAP: 7,
  STANDBY: 8,
  HEAP2: 9,
  HEAP: 10,
  BTREE: 11,
  HASH: 12,
  GIN: 13,
  GIST: 14,
  SEQ: 15,
  SPGIST: 16,
  BRIN: 17,
  COMMIT_TS: 18,
  REPLORIGIN: 19,
  GENERIC: 20,
  LOGICALMSG: 21,
} as const;

/** Flags of a block reference (xlogrecord.h); the low four bits are the fork. */
export const BKPBLOCK_HAS_IMAGE = 0x10;
export const BKPBLOCK_HAS_DATA = 0x20;
export const BKPBLOCK_WILL_INIT = 0x40;
export const BKPBLOCK_SAME_REL = 0x80;

/** Opcodes of the XLOG resource manager (pg_control.h), in the high four bits of info. */
export const XlogInfo = {
  CHECKPOINT_SHUTDOWN: 0x00,
  CHECKPOINT_ONLINE: 0x10,
  NOOP: 0x20,
  NEXTOID: 0x30,
  SWITCH: 0x40,
  BACKUP_END: 0x50,
  PARAMETER_CHANGE: 0x60,
  RESTORE_POINT: 0x70,
  FPW_CHANGE: 0x80,
  END_OF_RECOVERY: 0x90,
  FPI_FOR_HINT: 0xa0,
  FPI: 0xb0,
  OVERWRITE_CONTRECORD: 0xd0,
  CHECKPOINT_REDO: 0xe0,
} as const;

/** Opcodes of the XACT resource manager (xact.h), in info & 0x70. */
export const XactInfo = {
  COMMIT: 0x00,
  PREPARE: 0x10,
  ABORT: 0x20,
  COMMIT_PREPARED: 0x30,
  ABORT_PREPARED: 0x40,
  ASSIGNMENT: 0x50,
  INVALIDATIONS: 0x60,
} as const;
