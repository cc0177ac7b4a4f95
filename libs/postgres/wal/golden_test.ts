/**
 * The decoder against PostgreSQL itself: two segments of WAL that PostgreSQL 17.11 wrote, and
 * what its pg_waldump said about each record and each full page image in them.
 *
 *   testdata/pg17_11.wal.zst   WAL from 0/1A000000 on, Zstandard
 *   testdata/pg17_11.txt       "rmgr length xid lsn prev", then for each block reference
 *                              "| id relation fork block [image CRC-32C of the restored page]"
 *
 * The workload has images of all four kinds, subtransactions, prepared transactions, a multixact,
 * a WAL switch, a dropped database, and visibility map references as 17.11 writes them.
 */
import assert from "node:assert/strict";
import { zstdDecompressSync } from "node:zlib";
import { crc32c } from "../../utils/crc32c.ts";
import { formatLsn, parseLsn } from "../../utils/lsn.ts";
import { CheckpointTracker } from "../checkpoint_tracker.ts";
import { PAGE_SIZE, Rmgr, WAL_SEGMENT_SIZE } from "../constants.ts";
import { pgVersion } from "../versions.ts";
import { XactRecord } from "../xact_record.ts";
import {
  DBASE_CREATE_FILE_COPY,
  readDatabaseCreate,
  readDatabaseDrop,
  readDatabaseSource,
  readSmgrCreate,
  readSmgrTruncate,
  readStandbyLocks,
  SmgrInfo,
  SmgrTruncateFlag,
} from "./file_records.ts";
import { RecordCursor } from "./record_cursor.ts";
import { restoreImage } from "./restore_image.ts";
import { readMultiXactCreate, StandbyInfo } from "./small_records.ts";
import { WalStreamDecoder } from "./stream_decoder.ts";
import { defaultWalParameters, emptyCheckPoint } from "../empty_cluster_fixture.ts";

const START = parseLsn("0/1A000000");
const VERSION = pgVersion(17);
const RMGR_NAMES: Record<number, string> = {
  0: "XLOG",
  1: "Transaction",
  2: "Storage",
  4: "Database",
  6: "MultiXact",
  8: "Standby",
  9: "Heap2",
  10: "Heap",
  11: "Btree",
  12: "Hash",
  14: "Gist",
  15: "Sequence",
  21: "LogicalMessage",
};
const FORKS = ["main", "fsm", "vm", "init"];

const file = (name: string) => Deno.readFileSync(new URL(`../testdata/${name}`, import.meta.url));

/** Decodes the WAL in pieces of `chunk` bytes. */
function forEachRecord(chunk: number, visit: (cursor: RecordCursor) => void): WalStreamDecoder {
  const wal: Uint8Array = zstdDecompressSync(file("pg17_11.wal.zst"));
  const decoder = new WalStreamDecoder(START, WAL_SEGMENT_SIZE, VERSION);
  const cursor = new RecordCursor();
  for (let at = 0; at < wal.length; at += chunk) {
    decoder.feed(wal.subarray(at, at + chunk));
    while (decoder.next(cursor)) visit(cursor);
  }
  return decoder;
}

function lsnText(text: string): string {
  return formatLsn(parseLsn(text));
}

function describe(cursor: RecordCursor, page: Uint8Array): string {
  const { rmid, length, xid, lsn, prevLsn } = cursor;
  let text = `${RMGR_NAMES[rmid]} ${length} ${xid} ${formatLsn(lsn)} ${formatLsn(prevLsn)}`;
  for (let id = 0; id <= cursor.maxBlockId; id++) {
    if (cursor.blockPresent[id] === 0) continue;
    const { blockSpc, blockDb, blockRel, blockFork, blockNumber } = cursor;
    const relation = `${blockSpc[id]}/${blockDb[id]}/${blockRel[id]} ${FORKS[blockFork[id]!]}`;
    text += ` | ${id} ${relation} ${blockNumber[id]}`;
    if (cursor.hasImage[id] === 0) continue;
    page.fill(0xee);
    restoreImage(cursor, id, page, PAGE_SIZE, VERSION);
    const image = page.subarray(PAGE_SIZE, 2 * PAGE_SIZE);
    assert.equal(page[PAGE_SIZE - 1]! + page[2 * PAGE_SIZE]!, 2 * 0xee, "written past the page");
    text += ` image ${crc32c(image).toString(16)}`;
  }
  return text;
}

Deno.test("decoder agrees with pg_waldump on every record, reference and page image", () => {
  const expected = new TextDecoder().decode(file("pg17_11.txt")).trim().split("\n")
    .map((line) => line.replace(/\d\/[0-9A-F]{8}/g, lsnText));
  const page = new Uint8Array(3 * PAGE_SIZE);
  for (const chunk of [128 * 1024, 997]) {
    const seen: string[] = [];
    const methods = new Set<number>();
    const decoder = forEachRecord(chunk, (cursor) => {
      seen.push(describe(cursor, page));
      for (let id = 0; id <= cursor.maxBlockId; id++) {
        if (cursor.blockPresent[id] === 1 && cursor.hasImage[id] === 1) {
          methods.add(cursor.imageInfo[id]! & VERSION.imageCompressed);
        }
      }
    });
    assert.deepEqual(seen, expected);
    assert.deepEqual([...methods].sort((a, b) => a - b), [0, 4, 8, 16]);
    assert.equal(formatLsn(decoder.recordLsn), "0/1B029B50");
  }
});

Deno.test("tracker and transaction records follow the golden WAL", () => {
  const start = { ...emptyCheckPoint(), nextXid: 12885, nextMulti: 3, nextMultiOffset: 5 };
  const tracker = new CheckpointTracker(VERSION, start, defaultWalParameters());
  const record = new XactRecord();
  const gids: string[] = [];
  const dropped: string[] = [];
  let subxacts = 0;
  forEachRecord(1 << 20, (cursor) => {
    tracker.apply(cursor);
    if (cursor.rmid !== Rmgr.XACT || (cursor.info & 0x70) === 0x60) return;
    record.decode(cursor, VERSION);
    subxacts += record.subxactCount;
    if (record.gid() !== "") gids.push(`${record.opcode.toString(16)} ${record.gid()}`);
    for (let i = 0; i < record.relationCount; i++) dropped.push(`${record.relationRel(i)}`);
  });
  // At the shutdown behind this WAL PostgreSQL's pg_controldata said NextXID 0:12910.
  assert.equal(tracker.checkPoint.nextXid, 12910);
  assert.equal(tracker.checkPoint.nextMulti, 4);
  assert.equal(tracker.preparedXids.size, 0);
  assert.ok(gids.includes("10 golden one") && gids.includes("10 golden two"));
  assert.ok(subxacts >= 4 && dropped.length >= 2);
});

Deno.test("file records read as pg_waldump describes them", () => {
  const seen = new Set<string>();
  forEachRecord(1 << 20, (cursor) => {
    const opcode = cursor.info & 0xf0;
    if (cursor.rmid === Rmgr.SMGR && opcode === SmgrInfo.CREATE) {
      const { spc, db } = readSmgrCreate(cursor);
      seen.add(`create in ${spc}/${db}`);
    } else if (cursor.rmid === Rmgr.SMGR && opcode === SmgrInfo.TRUNCATE) {
      const { blocks, flags } = readSmgrTruncate(cursor);
      seen.add(`truncate to ${blocks} ${(flags & SmgrTruncateFlag.HEAP) !== 0}`);
    } else if (cursor.rmid === Rmgr.DBASE && opcode === DBASE_CREATE_FILE_COPY) {
      const { spc } = readDatabaseCreate(cursor);
      seen.add(`copy ${readDatabaseSource(cursor).db} in ${spc}`);
    } else if (cursor.rmid === Rmgr.DBASE && opcode === VERSION.dbaseDrop) {
      seen.add(`drop in ${readDatabaseDrop(cursor).tablespaces}`);
    } else if (cursor.rmid === Rmgr.STANDBY && opcode === StandbyInfo.LOCK) {
      seen.add(`lock by a transaction: ${readStandbyLocks(cursor)[0]!.xid === cursor.xid}`);
    } else if (cursor.rmid === Rmgr.MULTIXACT) {
      const { multi, firstMember, count } = readMultiXactCreate(cursor);
      seen.add(`multixact ${multi} at ${firstMember} of ${count}`);
    }
  });
  assert.deepEqual([...seen].sort(), [
    "copy 1 in 1663",
    "create in 1663/16688",
    "drop in 1663",
    "lock by a transaction: true",
    "multixact 3 at 5 of 2",
  ]);
});
