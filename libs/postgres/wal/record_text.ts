/**
 * A record for people and for programs: one line in the form of pg_waldump, or one JSON object.
 *
 *   rmgr: Heap        len (rec/tot):     59/    59, tx:        736, lsn: 0/14EDE28, prev 0/14EDDE8,
 *   desc: INSERT off: 3, flags: 0x00, blkref #0: rel 1663/5/16384 blk 0
 *
 * Lengths are the record's bytes without its page images, and with them.
 */
import { formatLsn, type Lsn } from "../../utils/lsn.ts";
import { BKPBLOCK_WILL_INIT, FORK_MAIN } from "../constants.ts";
import { opcodeName, rmgrName } from "../rmgr_names.ts";
import type { PgVersion } from "../versions.ts";
import type { RecordCursor } from "./record_cursor.ts";
import { type Details, recordDetails } from "./record_details.ts";

const FORK_NAMES = ["main", "fsm", "vm", "init"];

/** Name of a fork: "main", "fsm", "vm" or "init". */
function forkName(fork: number): string {
  return FORK_NAMES[fork] ?? `fork${fork}`;
}

/** The inverse; undefined for a name that is none. */
export function parseForkName(text: string): number | undefined {
  const fork = FORK_NAMES.indexOf(text);
  return fork < 0 ? undefined : fork;
}

/** Bytes of all page images in the record. */
export function imageBytes(cursor: RecordCursor): number {
  let bytes = 0;
  for (let id = 0; id <= cursor.maxBlockId; id++) {
    if (cursor.blockPresent[id] === 1) bytes += cursor.imageLength[id]!;
  }
  return bytes;
}

function relation(cursor: RecordCursor, id: number): string {
  return `${cursor.blockSpc[id]}/${cursor.blockDb[id]}/${cursor.blockRel[id]}`;
}

function detailsText(details: Details): string {
  return Object.entries(details).map(([name, value]) =>
    `${name}: ${Array.isArray(value) ? `[${value.join(", ")}]` : value}`
  ).join(", ");
}

/** The record as one line. */
export function recordLine(cursor: RecordCursor, version: PgVersion): string {
  const total = cursor.length;
  const rest = total - imageBytes(cursor);
  const number = (value: number, width: number) => String(value).padStart(width);
  let line = `rmgr: ${rmgrName(cursor.rmid).padEnd(11)} ` +
    `len (rec/tot): ${number(rest, 6)}/${number(total, 6)}, tx: ${number(cursor.xid, 10)}, ` +
    `lsn: ${formatLsn(cursor.lsn)}, prev ${formatLsn(cursor.prevLsn)}, ` +
    `desc: ${opcodeName(version, cursor.rmid, cursor.info)}`;
  const details = detailsText(recordDetails(cursor, version));
  if (details !== "") line += ` ${details}`;
  for (let id = 0; id <= cursor.maxBlockId; id++) {
    if (cursor.blockPresent[id] === 0) continue;
    const fork = cursor.blockFork[id]!;
    const forkText = fork === FORK_MAIN ? "" : ` fork ${forkName(fork)}`;
    line += `, blkref #${id}: rel ${relation(cursor, id)}${forkText} blk ${cursor.blockNumber[id]}`;
    if (cursor.hasImage[id] === 1) {
      line += cursor.applyImage[id] === 1 ? " FPW" : " FPW for WAL verification";
    }
  }
  return line;
}

function compressionName(info: number, version: PgVersion): string {
  if ((info & version.imageCompressed) === 0) return "none";
  if ((info & version.imagePglz) !== 0) return "pglz";
  return (info & version.imageLz4) !== 0 ? "lz4" : "zstd";
}

function blockJson(cursor: RecordCursor, id: number, version: PgVersion): object {
  const image = cursor.hasImage[id] === 0 ? {} : {
    image: {
      bytes: cursor.imageLength[id],
      apply: cursor.applyImage[id] === 1,
      compression: compressionName(cursor.imageInfo[id]!, version),
      hole_offset: cursor.holeOffset[id],
      hole_length: cursor.holeLength[id],
    },
  };
  return {
    id,
    relation: relation(cursor, id),
    fork: forkName(cursor.blockFork[id]!),
    block: cursor.blockNumber[id],
    will_init: (cursor.blockFlags[id]! & BKPBLOCK_WILL_INIT) !== 0,
    data_bytes: cursor.dataLength[id],
    ...image,
  };
}

/** The record as a JSON object; LSNs as text. */
export function recordJson(cursor: RecordCursor, version: PgVersion): object {
  const blocks: object[] = [];
  for (let id = 0; id <= cursor.maxBlockId; id++) {
    if (cursor.blockPresent[id] === 1) blocks.push(blockJson(cursor, id, version));
  }
  const lsn = (value: Lsn) => formatLsn(value);
  return {
    lsn: lsn(cursor.lsn),
    end_lsn: lsn(cursor.endLsn),
    prev_lsn: lsn(cursor.prevLsn),
    rmgr: rmgrName(cursor.rmid),
    opcode: opcodeName(version, cursor.rmid, cursor.info),
    info: cursor.info,
    xid: cursor.xid,
    length: cursor.length,
    image_length: imageBytes(cursor),
    main_length: cursor.mainLength,
    ...(cursor.origin === 0 ? {} : { origin: cursor.origin }),
    ...(cursor.toplevelXid === 0 ? {} : { toplevel_xid: cursor.toplevelXid }),
    details: recordDetails(cursor, version),
    blocks,
  };
}
