/**
 * All of redo and nothing else: WAL records in, the final pages out, in memory, as crash recovery
 * of PostgreSQL leaves them. No images are compared and no versions kept.
 *
 * A page is read from the files of the base the first time that a record changes it, unless the
 * record makes it anew. Visibility maps grow with zeros, as redo extends them; any other page that
 * is not there is an error. What redo does to files (drop, truncate, CREATE DATABASE by file copy)
 * matters here only as far as pages come from them: truncation is followed, file copies are
 * refused.
 */
import {
  BKPBLOCK_WILL_INIT,
  FORK_FSM,
  FORK_MAIN,
  FORK_VM,
  PAGE_SIZE,
  Rmgr,
  XactInfo,
} from "../../libs/postgres/constants.ts";
import {
  MEMBERS_PER_PAGE,
  OFFSETS_PER_PAGE,
  SLRU_SEGMENT_PAGES,
  SlruKind,
  XIDS_PER_PAGE,
} from "../../libs/postgres/slru.ts";
import type { PgVersion } from "../../libs/postgres/versions.ts";
import {
  DBASE_CREATE_FILE_COPY,
  readSmgrTruncate,
  SmgrInfo,
  SmgrTruncateFlag,
} from "../../libs/postgres/wal/file_records.ts";
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import {
  ClogInfo,
  MultiXactInfo,
  readMultiXactCreate,
  readSlruPage,
} from "../../libs/postgres/wal/small_records.ts";
import { XACT_OPCODE_MASK, XactRecord } from "../../libs/postgres/xact_record.ts";
import type { ObjectId } from "../../pageserver/repository/key_interner.ts";
import { Heap2Info, HEAP_OPCODE_MASK, HeapInfo } from "../../pageserver/walredo/heap_records.ts";
import { applyRecord, applyReference } from "../../pageserver/walredo/redo.ts";
import { describeKey } from "../../pageserver/walredo/redo_error.ts";
import { fsmBlocksAfterTruncate, vmBlocksAfterTruncate } from "../../pageserver/walredo/smgr.ts";
import { newRedoKey, type PageTarget, type RedoKey } from "../../pageserver/walredo/types.ts";
import { vmBlockOf } from "../../pageserver/walredo/visibility_map.ts";
import { PageStore } from "./page_store.ts";

const CLEARED = 0x01;
const NEW_CLEARED = 0x02;

/** Reads a page of the base into its slot; false if it is not there. */
type LoadPage = (key: RedoKey, page: PageTarget) => boolean;

/** Replays. Feed it every record, in order. */
export class Replay {
  readonly store: PageStore = new PageStore();
  /** Pages that were read from the base. */
  loaded = 0;
  readonly #version: PgVersion;
  readonly #load: LoadPage;
  readonly #xact = new XactRecord();
  readonly #key: RedoKey = newRedoKey();
  /** Blocks of the base that still count, of objects that were cut; 0 = all gone. */
  readonly #cutAt = new Map<ObjectId, number>();

  constructor(version: PgVersion, load: LoadPage) {
    this.#version = version;
    this.#load = load;
  }

  /** Applies one record to every page that it changes. */
  apply(cursor: RecordCursor): void {
    for (let id = 0; id <= cursor.maxBlockId; id++) {
      if (cursor.blockPresent[id] !== 0) this.#applyToReference(cursor, id);
    }
    switch (cursor.rmid) {
      case Rmgr.HEAP:
        return this.#clearMaps(cursor, heapFlagsAt(cursor));
      case Rmgr.HEAP2:
        return this.#clearMaps(cursor, heap2FlagsAt(cursor));
      case Rmgr.XACT:
        return this.#endTransaction(cursor);
      case Rmgr.SMGR:
        return this.#truncate(cursor);
      case Rmgr.CLOG:
        if ((cursor.info & 0xf0) !== ClogInfo.ZEROPAGE) return;
        return this.#applyToSlru(cursor, SlruKind.CLOG, readSlruPage(cursor, this.#version), true);
      case Rmgr.MULTIXACT:
        return this.#multixact(cursor);
      case Rmgr.DBASE:
        if ((cursor.info & 0xf0) !== DBASE_CREATE_FILE_COPY) return;
        throw new Error("Cannot replay CREATE DATABASE by file copy");
    }
  }

  #applyToReference(cursor: RecordCursor, id: number): void {
    if (cursor.rmid === Rmgr.XLOG && cursor.hasImage[id] === 0) return;
    const spc = cursor.blockSpc[id]!;
    const db = cursor.blockDb[id]!;
    const rel = cursor.blockRel[id]!;
    const fork = cursor.blockFork[id]!;
    const block = cursor.blockNumber[id]!;
    const key = this.#key;
    key.kind = "relation";
    key.spc = spc;
    key.db = db;
    key.rel = rel;
    key.fork = fork;
    key.block = block;
    const object = this.store.interner.relation(spc, db, rel, fork);
    let slot = this.store.find(object, block);
    if (slot === 0) {
      const made = cursor.applyImage[id] !== 0 ||
        (cursor.blockFlags[id]! & BKPBLOCK_WILL_INIT) !== 0;
      slot = this.#add(object, made, true);
    }
    applyReference(id, key, this.store.page(slot), cursor, this.#version);
  }

  /**
   * Holds the page `key`: from the base, or zeros where redo extends; 0 where it is not there and
   * does not have to be.
   */
  #add(object: ObjectId, made: boolean, needed: boolean): number {
    const key = this.#key;
    const isMap = key.fork === FORK_VM || key.fork === FORK_FSM;
    const slot = this.store.add(object, key.block);
    const page = this.store.page(slot);
    if (made) return slot;
    const inBase = this.#cutAt.size === 0 || key.block < (this.#cutAt.get(object) ?? Infinity);
    if (inBase && this.#load(key, page)) {
      this.loaded++;
      return slot;
    }
    if (!needed || isMap) {
      page.bytes.fill(0, page.offset, page.offset + PAGE_SIZE);
      if (needed) return slot;
      this.store.forget(object, key.block);
      return 0;
    }
    throw new Error(`Cannot replay: there is no ${describeKey(key)}`);
  }

  /** Map pages that the record changes without naming them: by a flag, see visibility_map.ts. */
  #clearMaps(cursor: RecordCursor, flagsAt: number): void {
    if (flagsAt < 0 || cursor.mainLength <= flagsAt) return;
    const flags = cursor.bytes[cursor.mainOffset + flagsAt]!;
    if ((flags & (CLEARED | NEW_CLEARED)) === 0) return;
    const mapBlock = this.#clearMap(cursor, 0, -1);
    const hasOld = cursor.blockPresent[1] === 1 && cursor.blockFork[1] === FORK_MAIN;
    if (hasOld) this.#clearMap(cursor, 1, mapBlock);
  }

  /** The map page of heap block reference `id`, unless it is page `done`. */
  #clearMap(cursor: RecordCursor, id: number, done: number): number {
    if (cursor.blockPresent[id] === 0 || cursor.blockFork[id] !== FORK_MAIN) return -1;
    const mapBlock = vmBlockOf(cursor.blockNumber[id]!);
    if (mapBlock === done) return mapBlock;
    const key = this.#key;
    key.kind = "relation";
    key.spc = cursor.blockSpc[id]!;
    key.db = cursor.blockDb[id]!;
    key.rel = cursor.blockRel[id]!;
    key.fork = FORK_VM;
    key.block = mapBlock;
    if (cursor.findBlock(key.spc, key.db, key.rel, FORK_VM, mapBlock) >= 0) return mapBlock;
    const object = this.store.interner.relation(key.spc, key.db, key.rel, FORK_VM);
    const slot = this.store.find(object, mapBlock) || this.#add(object, false, false);
    if (slot !== 0) applyReference(-1, key, this.store.page(slot), cursor, this.#version);
    return mapBlock;
  }

  #endTransaction(cursor: RecordCursor): void {
    const opcode = cursor.info & XACT_OPCODE_MASK;
    if (opcode === XactInfo.PREPARE || opcode > XactInfo.ABORT_PREPARED) return;
    const xact = this.#xact;
    xact.decode(cursor, this.#version);
    const own = xact.xid === 0 ? -1 : Math.floor(xact.xid / XIDS_PER_PAGE);
    if (own >= 0) this.#applyToSlru(cursor, SlruKind.CLOG, own, false);
    let done = own;
    for (let i = 0; i < xact.subxactCount; i++) {
      const page = Math.floor(xact.subxact(i) / XIDS_PER_PAGE);
      if (page !== own && page !== done) this.#applyToSlru(cursor, SlruKind.CLOG, page, false);
      done = page;
    }
  }

  #multixact(cursor: RecordCursor): void {
    switch (cursor.info & 0xf0) {
      case MultiXactInfo.ZERO_OFFSETS_PAGE:
        return this.#zeroSlruPage(cursor, SlruKind.OFFSETS);
      case MultiXactInfo.ZERO_MEMBERS_PAGE:
        return this.#zeroSlruPage(cursor, SlruKind.MEMBERS);
      case MultiXactInfo.CREATE_ID: {
        const { multi, firstMember, count } = readMultiXactCreate(cursor);
        const page = Math.floor(multi / OFFSETS_PER_PAGE);
        this.#applyToSlru(cursor, SlruKind.OFFSETS, page, false);
        const next = Math.floor(((multi + 1) >>> 0) / OFFSETS_PER_PAGE);
        if (next !== page) this.#applyToSlru(cursor, SlruKind.OFFSETS, next, false);
        let done = -1;
        for (let i = 0; i < count; i++) {
          const member = Math.floor(((firstMember + i) >>> 0) / MEMBERS_PER_PAGE);
          if (member !== done) this.#applyToSlru(cursor, SlruKind.MEMBERS, member, false);
          done = member;
        }
      }
    }
  }

  /** A page that CREATE_ID has written before stays as it is (PostgreSQL 17.11, multixact_redo). */
  #zeroSlruPage(cursor: RecordCursor, kind: number): void {
    const page = readSlruPage(cursor, this.#version);
    const object = this.store.interner.slru(kind, Math.floor(page / SLRU_SEGMENT_PAGES));
    if (this.store.find(object, page % SLRU_SEGMENT_PAGES) !== 0) return;
    this.#applyToSlru(cursor, kind, page, true);
  }

  #applyToSlru(cursor: RecordCursor, kind: number, pageNumber: number, made: boolean): void {
    const key = this.#key;
    key.kind = "slru";
    key.slruKind = kind;
    key.segno = Math.floor(pageNumber / SLRU_SEGMENT_PAGES);
    key.block = pageNumber % SLRU_SEGMENT_PAGES;
    key.fork = FORK_MAIN;
    const object = this.store.interner.slru(kind, key.segno);
    let slot = this.store.find(object, key.block);
    if (slot === 0) {
      // The next offsets page is made by the first id on the one before (RecordNewMultiXact).
      slot = this.#add(object, made, kind === SlruKind.CLOG);
      if (slot === 0) {
        slot = this.store.add(object, key.block);
        const page = this.store.page(slot);
        page.bytes.fill(0, page.offset, page.offset + PAGE_SIZE);
      }
    }
    applyRecord(key, this.store.page(slot), cursor, this.#version);
  }

  #truncate(cursor: RecordCursor): void {
    if ((cursor.info & 0xf0) !== SmgrInfo.TRUNCATE) return;
    const { spc, db, rel, blocks, flags } = readSmgrTruncate(cursor);
    if (flags & SmgrTruncateFlag.HEAP) this.#cut(cursor, spc, db, rel, FORK_MAIN, blocks);
    if (flags & SmgrTruncateFlag.VM) {
      this.#cut(cursor, spc, db, rel, FORK_VM, vmBlocksAfterTruncate(blocks));
    }
    if (flags & SmgrTruncateFlag.FSM) {
      this.#cut(cursor, spc, db, rel, FORK_FSM, fsmBlocksAfterTruncate(blocks));
    }
  }

  /** Forgets all but the first `blocks` blocks of a fork; a map's last one is itself cut. */
  #cut(
    cursor: RecordCursor,
    spc: number,
    db: number,
    rel: number,
    fork: number,
    blocks: number,
  ): void {
    const object = this.store.interner.relation(spc, db, rel, fork);
    if (fork === FORK_VM && blocks > 0) {
      const key = this.#key;
      Object.assign(key, { kind: "relation", spc, db, rel, fork, block: blocks - 1 });
      const slot = this.store.find(object, key.block) || this.#add(object, false, false);
      if (slot !== 0) applyRecord(key, this.store.page(slot), cursor, this.#version);
    }
    this.store.forget(object, blocks);
    this.#cutAt.set(object, Math.min(blocks, this.#cutAt.get(object) ?? Infinity));
  }
}

/** Where a Heap record has the flags byte that says which map bits it cleared; -1: it clears none. */
function heapFlagsAt(cursor: RecordCursor): number {
  switch (cursor.info & HEAP_OPCODE_MASK) {
    case HeapInfo.INSERT:
      return 2;
    case HeapInfo.DELETE:
    case HeapInfo.LOCK:
    case HeapInfo.UPDATE:
    case HeapInfo.HOT_UPDATE:
      return 7;
    default:
      return -1;
  }
}

/** The same of a Heap2 record. */
function heap2FlagsAt(cursor: RecordCursor): number {
  switch (cursor.info & HEAP_OPCODE_MASK) {
    case Heap2Info.MULTI_INSERT:
      return 0;
    case Heap2Info.LOCK_UPDATED:
      return 7;
    default:
      return -1;
  }
}
