/**
 * Names of resource managers and opcodes as pg_waldump prints them, for messages and statistics.
 */
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";

const RMGR_NAMES = [
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

/** Opcode names by info >> 4; names with "" or beyond the list print as hex digits. */
const OPCODE_NAMES: Readonly<Record<string, readonly string[]>> = {
  XLOG: ["CHECKPOINT_SHUTDOWN", "CHECKPOINT_ONLINE", "NOOP", "NEXTOID", "SWITCH", "BACKUP_END"]
    .concat(["PARAMETER_CHANGE", "RESTORE_POINT", "FPW_CHANGE", "END_OF_RECOVERY"])
    .concat(["FPI_FOR_HINT", "FPI", "", "OVERWRITE_CONTRECORD", "CHECKPOINT_REDO"]),
  Heap2: ["REWRITE", "PRUNE_ON_ACCESS", "PRUNE_VACUUM_SCAN", "PRUNE_VACUUM_CLEANUP", "VISIBLE"]
    .concat(["MULTI_INSERT", "LOCK_UPDATED", "NEW_CID"]),
  Heap: ["INSERT", "DELETE", "UPDATE", "TRUNCATE", "HOT_UPDATE", "HEAP_CONFIRM", "LOCK", "INPLACE"],
  Btree: ["INSERT_LEAF", "INSERT_UPPER", "INSERT_META", "SPLIT_L", "SPLIT_R", "INSERT_POST"]
    .concat(["DEDUP", "DELETE", "UNLINK_PAGE", "UNLINK_PAGE_META", "NEWROOT"])
    .concat(["MARK_PAGE_HALFDEAD", "VACUUM", "REUSE_PAGE", "META_CLEANUP"]),
  Hash: ["INIT_META_PAGE", "INIT_BITMAP_PAGE", "INSERT", "ADD_OVFL_PAGE", "SPLIT_ALLOCATE_PAGE"]
    .concat(["SPLIT_PAGE", "SPLIT_COMPLETE", "MOVE_PAGE_CONTENTS", "SQUEEZE_PAGE", "DELETE"])
    .concat(["SPLIT_CLEANUP", "UPDATE_META_PAGE", "VACUUM_ONE_PAGE"]),
  BRIN: ["CREATE_INDEX", "INSERT", "UPDATE", "SAMEPAGE_UPDATE", "REVMAP_EXTEND", "DESUMMARIZE"],
  Gin: ["", "CREATE_PTREE", "INSERT", "SPLIT", "VACUUM_PAGE", "DELETE_PAGE", "UPDATE_META_PAGE"]
    .concat(["INSERT_LISTPAGE", "DELETE_LISTPAGE", "VACUUM_DATA_LEAF_PAGE"]),
  Generic: ["Generic"],
  Sequence: ["LOG"],
  Storage: ["", "CREATE", "TRUNCATE"],
  CLOG: ["ZEROPAGE", "TRUNCATE"],
  MultiXact: ["ZERO_OFF_PAGE", "ZERO_MEM_PAGE", "CREATE_ID", "TRUNCATE_ID"],
  Transaction: ["COMMIT", "PREPARE", "ABORT", "COMMIT_PREPARED", "ABORT_PREPARED", "ASSIGNMENT"]
    .concat(["INVALIDATION"]),
};

/** In these the top bit of info is a flag; the name says so with "+INIT", or not at all. */
const TOP_BIT_IS_FLAG = new Set(["Heap", "Heap2", "Transaction", "BRIN"]);

/** Name of a resource manager: "Btree", or "rmgr 133" for one of an extension. */
function rmgrName(rmid: number): string {
  return RMGR_NAMES[rmid] ?? `rmgr ${rmid}`;
}

/** "Btree SPLIT_L", "Heap INSERT+INIT", "rmgr 133 0x20". */
export function describeRecord(cursor: RecordCursor): string {
  const rmgr = rmgrName(cursor.rmid);
  const opcode = cursor.info >> 4;
  const flagged = TOP_BIT_IS_FLAG.has(rmgr);
  const name = OPCODE_NAMES[rmgr]?.[flagged ? opcode & 7 : opcode];
  if (name === undefined || name === "") return `${rmgr} 0x${(opcode << 4).toString(16)}`;
  return flagged && opcode > 7 && rmgr !== "Transaction"
    ? `${rmgr} ${name}+INIT`
    : `${rmgr} ${name}`;
}
