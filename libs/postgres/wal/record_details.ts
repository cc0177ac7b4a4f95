/**
 * What a record's main data says, for people: the fields that pg_waldump prints of the records
 * that people look at most, with its names. Records that are not here have none.
 *
 * Most main data is a C structure of a few integers, so most of this is a table: field, type and
 * offset. x8 is a u8 shown in hexadecimal, rel is three u32: tablespace/database/relfilenode.
 */
import { messageOf } from "../../utils/errors.ts";
import { formatLsn } from "../../utils/lsn.ts";
import { Rmgr, XactInfo } from "../constants.ts";
import { formatRel } from "../relation.ts";
import { recordName } from "../rmgr_names.ts";
import { formatTimestamp } from "../timestamp.ts";
import {
  formatPosition,
  OriginInfo,
  readOriginDrop,
  readOriginSet,
} from "../replication_origin.ts";
import type { PgVersion } from "../versions.ts";
import { XACT_OPCODE_MASK, XactRecord } from "../xact_record.ts";
import {
  readDatabaseCreate,
  readDatabaseDrop,
  readDatabaseSource,
  readSmgrCreate,
  readSmgrTruncate,
  readStandbyLocks,
} from "./file_records.ts";
import type { RecordCursor } from "./record_cursor.ts";
import {
  mainU32,
  readCheckPoint,
  readClogTruncate,
  readCommitTsTruncate,
  readMultiXactCreate,
  readRunningXacts,
  readSlruPage,
} from "./small_records.ts";

/** Fields by name, in the order to print them. */
export type Details = Record<string, string | number | boolean | string[] | number[]>;

type FieldType = "u8" | "u16" | "u32" | "x8" | "rel";

/** "name type offset" triples. Structures of heapam_xlog.h, nbtxlog.h, ginxlog.h and so on. */
const LAYOUTS: Readonly<Record<string, string>> = {
  "Heap INSERT": "off u16 0, flags x8 2",
  "Heap DELETE": "xmax u32 0, off u16 4, infobits x8 6, flags x8 7",
  "Heap UPDATE":
    "old_xmax u32 0, old_off u16 4, old_infobits x8 6, flags x8 7, new_xmax u32 8, new_off u16 12",
  "Heap TRUNCATE": "db u32 0, nrelids u32 4, flags x8 8",
  "Heap HEAP_CONFIRM": "off u16 0",
  "Heap LOCK": "xmax u32 0, off u16 4, infobits x8 6, flags x8 7",
  "Heap INPLACE": "off u16 0",
  "Heap2 PRUNE": "snapshotConflictHorizon u32 0, nredirected u16 4, ndead u16 6",
  "Heap2 VACUUM": "nunused u16 0",
  "Heap2 FREEZE_PAGE": "snapshotConflictHorizon u32 0, nplans u16 4",
  "Heap2 PRUNE_ON_ACCESS": "reason u8 0, flags x8 1",
  "Heap2 PRUNE_VACUUM_SCAN": "reason u8 0, flags x8 1",
  "Heap2 PRUNE_VACUUM_CLEANUP": "reason u8 0, flags x8 1",
  "Heap2 VISIBLE": "snapshotConflictHorizon u32 0, flags x8 4",
  "Heap2 MULTI_INSERT": "ntuples u16 2, flags x8 0",
  "Heap2 LOCK_UPDATED": "xmax u32 0, off u16 4, infobits x8 6, flags x8 7",
  "Heap2 NEW_CID": "cmin u32 4, cmax u32 8, combo u32 12, rel rel 16",
  "Btree INSERT_LEAF": "off u16 0",
  "Btree INSERT_UPPER": "off u16 0",
  "Btree INSERT_META": "off u16 0",
  "Btree INSERT_POST": "off u16 0",
  "Btree SPLIT_L": "level u32 0, firstrightoff u16 4, newitemoff u16 6, postingoff u16 8",
  "Btree SPLIT_R": "level u32 0, firstrightoff u16 4, newitemoff u16 6, postingoff u16 8",
  "Btree DEDUP": "nintervals u16 0",
  "Btree VACUUM": "ndeleted u16 0, nupdated u16 2",
  "Btree DELETE": "snapshotConflictHorizon u32 0, ndeleted u16 4, nupdated u16 6",
  "Btree MARK_PAGE_HALFDEAD": "topparent u32 12, leaf u32 0, left u32 4, right u32 8",
  "Btree NEWROOT": "root u32 0, level u32 4",
  "Btree REUSE_PAGE": "rel rel 0, block u32 12",
  "Hash INSERT": "off u16 0",
  "BRIN CREATE_INDEX": "pagesPerRange u32 0, version u16 4",
  "BRIN INSERT": "heapBlk u32 0, pagesPerRange u32 4, off u16 8",
  "BRIN SAMEPAGE_UPDATE": "off u16 0",
  "BRIN REVMAP_EXTEND": "targetBlk u32 0",
  "BRIN DESUMMARIZE": "pagesPerRange u32 0, heapBlk u32 4, regOffset u16 8",
  "Sequence LOG": "rel rel 0",
  "XLOG NEXTOID": "oid u32 0",
  "XLOG FPW_CHANGE": "full_page_writes u8 0",
  "MultiXact TRUNCATE_ID": "oldestMultiDb u32 0, offsets_from u32 4, offsets_to u32 8",
};

interface Field {
  readonly name: string;
  readonly type: FieldType;
  readonly offset: number;
}

const fields = new Map<string, readonly Field[]>();

function fieldsOf(name: string): readonly Field[] {
  let known = fields.get(name);
  if (known === undefined) {
    const text = LAYOUTS[name.replace("+INIT", "").replace("HOT_UPDATE", "UPDATE")] ?? "";
    known = text === "" ? [] : text.split(", ").map((part) => {
      const [field, type, offset] = part.split(" ");
      return { name: field!, type: type as FieldType, offset: Number(offset) };
    });
    fields.set(name, known);
  }
  return known;
}

const FIELD_BYTES: Readonly<Record<FieldType, number>> = { u8: 1, x8: 1, u16: 2, u32: 4, rel: 12 };

function tableDetails(cursor: RecordCursor, name: string): Details {
  const { view } = cursor;
  const details: Details = {};
  for (const field of fieldsOf(name)) {
    if (field.offset + FIELD_BYTES[field.type] > cursor.mainLength) continue;
    const at = cursor.mainOffset + field.offset;
    const u32 = (offset: number) => view.getUint32(at + offset, true);
    switch (field.type) {
      case "u8":
        details[field.name] = view.getUint8(at);
        break;
      case "x8":
        details[field.name] = `0x${view.getUint8(at).toString(16).toUpperCase().padStart(2, "0")}`;
        break;
      case "u16":
        details[field.name] = view.getUint16(at, true);
        break;
      case "u32":
        details[field.name] = u32(0);
        break;
      case "rel":
        details[field.name] = `${u32(0)}/${u32(4)}/${u32(8)}`;
    }
  }
  return details;
}

const xact = new XactRecord();

function xactDetails(cursor: RecordCursor, version: PgVersion): Details {
  const opcode = cursor.info & XACT_OPCODE_MASK;
  if (opcode > XactInfo.ABORT_PREPARED) return {};
  xact.decode(cursor, version);
  const { subxactCount, relationCount } = xact;
  const gid = xact.gid();
  const relations = Array.from(
    { length: relationCount },
    (_, i) => `${xact.relationSpc(i)}/${xact.relationDb(i)}/${xact.relationRel(i)}`,
  );
  return {
    ...(xact.xid === cursor.xid ? {} : { xid: xact.xid }),
    ...(gid === "" ? {} : { gid }),
    time: formatTimestamp(xact.time),
    ...(relationCount === 0 ? {} : { rels: relations }),
    ...(subxactCount === 0
      ? {}
      : { subxacts: Array.from({ length: subxactCount }, (_, i) => xact.subxact(i)) }),
    ...(cursor.origin === 0 ? {} : { origin_lsn: formatPosition(xact.originLsn) }),
  };
}

function originDetails(cursor: RecordCursor): Details {
  if ((cursor.info & 0xf0) !== OriginInfo.SET) return { origin: readOriginDrop(cursor) };
  const { origin, position, goesBack } = readOriginSet(cursor);
  return { origin, lsn: formatPosition(position), goesBack };
}

function checkPointDetails(cursor: RecordCursor, version: PgVersion): Details {
  const point = readCheckPoint(cursor, version);
  return {
    redo: formatLsn(point.redo),
    tli: point.timelineId,
    fpw: point.fullPageWrites,
    ...(version.checkPointHasWalLevel ? { wal_level: point.walLevel } : {}),
    next_xid: point.nextXid,
    next_oid: point.nextOid,
    next_multi: point.nextMulti,
    next_offset: point.nextMultiOffset,
    oldest_xid: point.oldestXid,
    oldest_multi: point.oldestMulti,
    oldest_active_xid: point.oldestActiveXid,
  };
}

function fileDetails(cursor: RecordCursor, name: string): Details {
  switch (name) {
    case "Storage CREATE":
      return { rel: formatRel(readSmgrCreate(cursor)) };
    case "Storage TRUNCATE": {
      const { spc, db, rel, blocks, flags } = readSmgrTruncate(cursor);
      return { rel: `${spc}/${db}/${rel}`, blocks, flags };
    }
    case "Database CREATE":
    case "Database CREATE_FILE_COPY": {
      const [from, to] = [readDatabaseSource(cursor), readDatabaseCreate(cursor)];
      return { from: `${from.spc}/${from.db}`, to: `${to.spc}/${to.db}` };
    }
    case "Database CREATE_WAL_LOG": {
      const made = readDatabaseCreate(cursor);
      return { db: `${made.spc}/${made.db}` };
    }
    case "Database DROP": {
      const { db, tablespaces } = readDatabaseDrop(cursor);
      return { db: tablespaces.map((spc) => `${spc}/${db}`) };
    }
    case "RelMap UPDATE":
      return { db: mainU32(cursor, 0), spc: mainU32(cursor, 4), bytes: mainU32(cursor, 8) };
    default:
      return {};
  }
}

function counterDetails(cursor: RecordCursor, name: string, version: PgVersion): Details {
  switch (name) {
    case "CLOG ZEROPAGE":
    case "CommitTs ZEROPAGE":
    case "MultiXact ZERO_OFF_PAGE":
    case "MultiXact ZERO_MEM_PAGE":
      return { page: readSlruPage(cursor, version) };
    case "CLOG TRUNCATE":
      return { page: readSlruPage(cursor, version), ...readClogTruncate(cursor, version) };
    case "CommitTs TRUNCATE":
      return {
        page: readSlruPage(cursor, version),
        oldestXid: readCommitTsTruncate(cursor, version),
      };
    case "MultiXact CREATE_ID": {
      const { multi, firstMember, count, membersAt } = readMultiXactCreate(cursor);
      const xids = Array.from(
        { length: count },
        (_, i) => cursor.view.getUint32(membersAt + 8 * i, true),
      );
      return { multi, offset: firstMember, members: xids };
    }
    case "Standby RUNNING_XACTS": {
      const { count, overflowed, nextXid, oldestRunningXid, xidsAt } = readRunningXacts(cursor);
      const xids = Array.from(
        { length: count },
        (_, i) => cursor.view.getUint32(xidsAt + 4 * i, true),
      );
      return { nextXid, oldestRunningXid, overflowed, ...(count === 0 ? {} : { xids }) };
    }
    case "Standby LOCK":
      return {
        locks: readStandbyLocks(cursor).map(({ xid, db, relation }) => `${xid}:${db}/${relation}`),
      };
    default:
      return {};
  }
}

/** The fields; data that cannot be read shows as a field "error". */
export function recordDetails(cursor: RecordCursor, version: PgVersion): Details {
  const name = recordName(version, cursor.rmid, cursor.info);
  try {
    switch (cursor.rmid) {
      case Rmgr.XACT:
        return xactDetails(cursor, version);
      case Rmgr.SMGR:
      case Rmgr.DBASE:
      case Rmgr.RELMAP:
        return fileDetails(cursor, name);
      case Rmgr.REPLORIGIN:
        return originDetails(cursor);
      case Rmgr.CLOG:
      case Rmgr.COMMIT_TS:
      case Rmgr.MULTIXACT:
      case Rmgr.STANDBY:
        return { ...tableDetails(cursor, name), ...counterDetails(cursor, name, version) };
      default:
        return name.startsWith("XLOG CHECKPOINT_") && !name.endsWith("_REDO")
          ? checkPointDetails(cursor, version)
          : tableDetails(cursor, name);
    }
  } catch (thrown) {
    return { error: messageOf(thrown) };
  }
}
