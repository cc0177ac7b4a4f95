/**
 * Names of resource managers and of their records' opcodes, as pg_waldump prints them: one table
 * for PostgreSQL 14 to 18 (rmgrlist.h and the *_identify functions of access/rmgrdesc), with the
 * few names that differ between versions beside it.
 *
 * An opcode is the high four bits of a record's info byte. In Heap, Heap2 and BRIN the highest of
 * them says that the record makes its page from nothing, and shows as "+INIT"; in Transaction it
 * says that more data follows, and does not show.
 *
 * Called by `neon wal`, by redo's error messages and by the counts of `neon wal verify`.
 */
import { Rmgr } from "./constants.ts";
import type { PgVersion } from "./versions.ts";

/** By id. */
const RMGR_NAMES: readonly string[] = [
  "XLOG",
  "Transaction",
  "Storage",
  "CLOG",
  "Database",
  "Tablespace",
  "MultiXact",
  "RelMap",
  "Standby",
  "Heap2",
  "Heap",
  "Btree",
  "Hash",
  "Gin",
  "Gist",
  "Sequence",
  "SPGist",
  "BRIN",
  "CommitTs",
  "ReplicationOrigin",
  "Generic",
  "LogicalMessage",
];

const words = (text: string): string[] => text.split(" ").map((word) => word === "-" ? "" : word);

/** By resource manager, then by opcode >> 4; "" where there is none. Version 17 and 18. */
const OPCODES: Readonly<Record<number, readonly string[]>> = {
  [Rmgr.XLOG]: [
    ...words("CHECKPOINT_SHUTDOWN CHECKPOINT_ONLINE NOOP NEXTOID SWITCH BACKUP_END"),
    ...words("PARAMETER_CHANGE RESTORE_POINT FPW_CHANGE END_OF_RECOVERY FPI_FOR_HINT FPI -"),
    ...words("OVERWRITE_CONTRECORD CHECKPOINT_REDO"),
  ],
  [Rmgr.XACT]: words(
    "COMMIT PREPARE ABORT COMMIT_PREPARED ABORT_PREPARED ASSIGNMENT INVALIDATION",
  ),
  [Rmgr.SMGR]: words("- CREATE TRUNCATE"),
  [Rmgr.CLOG]: words("ZEROPAGE TRUNCATE"),
  [Rmgr.DBASE]: words("CREATE_FILE_COPY CREATE_WAL_LOG DROP"),
  [Rmgr.TBLSPC]: words("CREATE DROP"),
  [Rmgr.MULTIXACT]: words("ZERO_OFF_PAGE ZERO_MEM_PAGE CREATE_ID TRUNCATE_ID"),
  [Rmgr.RELMAP]: words("UPDATE"),
  [Rmgr.STANDBY]: words("LOCK RUNNING_XACTS INVALIDATIONS"),
  [Rmgr.HEAP2]: [
    ...words("REWRITE PRUNE_ON_ACCESS PRUNE_VACUUM_SCAN PRUNE_VACUUM_CLEANUP VISIBLE"),
    ...words("MULTI_INSERT LOCK_UPDATED NEW_CID"),
  ],
  [Rmgr.HEAP]: words("INSERT DELETE UPDATE TRUNCATE HOT_UPDATE HEAP_CONFIRM LOCK INPLACE"),
  [Rmgr.BTREE]: [
    ...words("INSERT_LEAF INSERT_UPPER INSERT_META SPLIT_L SPLIT_R INSERT_POST DEDUP DELETE"),
    ...words("UNLINK_PAGE UNLINK_PAGE_META NEWROOT MARK_PAGE_HALFDEAD VACUUM REUSE_PAGE"),
    ...words("META_CLEANUP"),
  ],
  [Rmgr.HASH]: [
    ...words("INIT_META_PAGE INIT_BITMAP_PAGE INSERT ADD_OVFL_PAGE SPLIT_ALLOCATE_PAGE"),
    ...words("SPLIT_PAGE SPLIT_COMPLETE MOVE_PAGE_CONTENTS SQUEEZE_PAGE DELETE SPLIT_CLEANUP"),
    ...words("UPDATE_META_PAGE VACUUM_ONE_PAGE"),
  ],
  [Rmgr.GIN]: [
    ...words("- CREATE_PTREE INSERT SPLIT VACUUM_PAGE DELETE_PAGE UPDATE_META_PAGE"),
    ...words("INSERT_LISTPAGE DELETE_LISTPAGE VACUUM_DATA_LEAF_PAGE"),
  ],
  [Rmgr.GIST]: words("PAGE_UPDATE DELETE PAGE_REUSE PAGE_SPLIT - - PAGE_DELETE ASSIGN_LSN"),
  [Rmgr.SEQ]: words("LOG"),
  [Rmgr.SPGIST]: [
    ...words("- ADD_LEAF MOVE_LEAFS ADD_NODE SPLIT_TUPLE PICKSPLIT VACUUM_LEAF VACUUM_ROOT"),
    ...words("VACUUM_REDIRECT"),
  ],
  [Rmgr.BRIN]: words("CREATE_INDEX INSERT UPDATE SAMEPAGE_UPDATE REVMAP_EXTEND DESUMMARIZE"),
  [Rmgr.COMMIT_TS]: words("ZEROPAGE TRUNCATE"),
  [Rmgr.REPLORIGIN]: words("SET DROP"),
  [Rmgr.GENERIC]: words("Generic"),
  [Rmgr.LOGICALMSG]: words("MESSAGE"),
};

const HEAP2_UNTIL_16 = [
  ...words("REWRITE PRUNE VACUUM FREEZE_PAGE VISIBLE MULTI_INSERT LOCK_UPDATED NEW_CID"),
];
const DATABASE_14 = words("CREATE DROP");

/** Records that exist with the "makes its page from nothing" bit. */
const INIT_FORMS: Readonly<Record<number, readonly string[]>> = {
  [Rmgr.HEAP]: ["INSERT", "UPDATE", "HOT_UPDATE"],
  [Rmgr.HEAP2]: ["MULTI_INSERT"],
  [Rmgr.BRIN]: ["INSERT", "UPDATE"],
};

function opcodes(version: PgVersion, rmid: number): readonly string[] {
  if (rmid === Rmgr.HEAP2 && version.major < 17) return HEAP2_UNTIL_16;
  if (rmid === Rmgr.DBASE && version.dbaseCreateWalLog < 0) return DATABASE_14;
  const known = OPCODES[rmid] ?? [];
  // CHECKPOINT_REDO, the last one, came with 17.
  return rmid === Rmgr.XLOG && version.major < 17 ? known.slice(0, -1) : known;
}

/** Name of a resource manager: "Btree"; "custom133" for one of an extension (rmgrdesc.c). */
export function rmgrName(rmid: number): string {
  return RMGR_NAMES[rmid] ?? `custom${String(rmid).padStart(3, "0")}`;
}

/** The inverse, in any case; undefined for a name that is none. */
export function parseRmgrName(text: string): number | undefined {
  const id = RMGR_NAMES.findIndex((name) => name.toLowerCase() === text.toLowerCase());
  if (id >= 0) return id;
  const custom = /^custom(\d{3})$/.exec(text.toLowerCase());
  const number = Number(custom?.[1] ?? 0);
  return number >= 128 && number <= 255 ? number : undefined;
}

/** Names of all resource managers of core PostgreSQL, by id. */
export function rmgrNames(): readonly string[] {
  return RMGR_NAMES;
}

/** "SPLIT_L", "INSERT+INIT", or "UNKNOWN (d0)" for a number that is none. */
export function opcodeName(version: PgVersion, rmid: number, info: number): string {
  const known = opcodes(version, rmid);
  const opcode = (info >> 4) & 0x0f;
  const whole = known[opcode];
  if (whole !== undefined && whole !== "") return whole;
  const short = known[opcode & 7] ?? "";
  if (opcode > 7 && short !== "") {
    if (rmid === Rmgr.XACT) return short;
    if (INIT_FORMS[rmid]?.includes(short)) return `${short}+INIT`;
  }
  return `UNKNOWN (${(info & 0xf0).toString(16)})`;
}

/** "Btree SPLIT_L", for counts and messages. */
export function recordName(version: PgVersion, rmid: number, info: number): string {
  return `${rmgrName(rmid)} ${opcodeName(version, rmid, info)}`;
}

/** The names of all records that a version has, by resource manager and opcode. */
export function allRecordNames(version: PgVersion): string[] {
  return RMGR_NAMES.flatMap((rmgr, rmid) =>
    opcodes(version, rmid).filter((name) => name !== "").flatMap((name) =>
      INIT_FORMS[rmid]?.includes(name) === true
        ? [`${rmgr} ${name}`, `${rmgr} ${name}+INIT`]
        : [`${rmgr} ${name}`]
    )
  );
}
