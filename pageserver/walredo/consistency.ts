/**
 * The judge of redo: PostgreSQL itself. With wal_consistency_checking=all every WAL record carries
 * an image of each page it changed, as it was afterwards. This replays records with our redo,
 * keeping all pages in memory, and compares each page with the image in the record that changed
 * it.
 *
 * It decides for itself which pages a record touches, in the simplest way that can be right (all
 * references, the map pages of the heap blocks, every SLRU page it has): it shares no code with
 * ingest.
 *
 * Before a record that makes a page from nothing, the page is filled with garbage, to see that
 * nothing of it stays. Pages that only other resource managers know are taken over from the
 * images. Pages of relations and databases that are gone are forgotten.
 */
import {
  FIRST_NORMAL_XID,
  FORK_FSM,
  FORK_MAIN,
  FORK_VM,
  PAGE_SIZE,
  Rmgr,
  XactInfo,
  XlogInfo,
} from "../../libs/postgres/constants.ts";
import { PAGE_HEADER_SIZE } from "../../libs/postgres/page.ts";
import {
  COMMIT_TS_PER_PAGE,
  MEMBERS_PER_PAGE,
  OFFSETS_PER_PAGE,
  SlruKind,
  XIDS_PER_PAGE,
} from "../../libs/postgres/slru.ts";
import type { PgVersion } from "../../libs/postgres/versions.ts";
import {
  type DatabaseDirectory,
  DBASE_CREATE_FILE_COPY,
  readDatabaseCreate,
  readDatabaseDrop,
  readDatabaseSource,
} from "../../libs/postgres/wal/file_records.ts";
import { restoreImage } from "../../libs/postgres/wal/restore_image.ts";
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import {
  mainU32,
  MultiXactInfo,
  readMultiXactCreate,
  readParameterChange,
} from "../../libs/postgres/wal/small_records.ts";
import { XACT_OPCODE_MASK, XactRecord } from "../../libs/postgres/xact_record.ts";
import { formatLsn } from "../../libs/utils/lsn.ts";
import { type HeldPage, HeldPages, type PageSpill } from "./held_pages.ts";
import { canMask, maskPage } from "./masking.ts";
import { describeRecord } from "./record_names.ts";
import { applyRecord, initialises } from "./redo.ts";
import { describeKey, RedoError } from "./redo_error.ts";
import { fsmBlocksAfterTruncate, vmBlocksAfterTruncate } from "./smgr.ts";
import type { PageTarget, RedoKey } from "./types.ts";
import { vmBlockOf } from "./visibility_map.ts";

/** What a page is filled with before it is made from nothing. */
const GARBAGE = 0xa5;
/** Pages whose first difference is kept for the report; a wrong page goes on being wrong. */
const DIFFERENCES_KEPT_MAX = 50;
/** Messages of failed redo that are kept for the report. */
const FAILURES_KEPT_MAX = 50;
const SMGR_TRUNCATE = 0x20;
const PAGES_PER_SEGMENT = 32;

/** What the caller provides. */
export interface ConsistencyInput {
  readonly version: PgVersion;
  /** Fills in the page as it was when the WAL begins; false if there was none. */
  loadPage(key: RedoKey, page: PageTarget): boolean;
  /**
   * Called after each record applied to a page, before the comparison: to sabotage, or to record.
   */
  afterApply?(key: RedoKey, page: PageTarget, cursor: RecordCursor): void;
  /**
   * Count a record that cannot be applied and go on, with the page from its image or, without one,
   * without the page; otherwise that throws.
   */
  readonly keepGoing?: boolean;
  /** Pages that are held in memory, if there is a place for the others; default: all. */
  readonly pagesMax?: number | undefined;
  readonly spill?: PageSpill | undefined;
  /** Whether the cluster tracks commit timestamps when the WAL begins. */
  readonly tracksCommits?: boolean;
}

/** A page of ours that is not what PostgreSQL had. */
interface Difference {
  readonly record: string;
  readonly page: string;
  /** Offset in the page of the first byte that differs after masking, and how many do. */
  readonly offset: number;
  readonly bytes: number;
  /** Both versions, masked. */
  readonly ours: Uint8Array;
  readonly theirs: Uint8Array;
  readonly fork: number;
}

function newTarget(bytes: Uint8Array, offset: number): PageTarget {
  return { bytes, view: new DataView(bytes.buffer), offset };
}

/** Replays and compares. Feed it every record, in order. */
export class ConsistencyChecker {
  /** Images compared, by record name. */
  readonly compared: Map<string, number> = new Map();
  /** Pages changed by redo, by record name, compared or not. */
  readonly applied: Map<string, number> = new Map();
  /** Images that could only be taken over, by record name. */
  readonly adopted: Map<string, number> = new Map();
  /** The first difference of each page that has any. */
  readonly differences: Difference[] = [];
  /** All differences, also of pages that were wrong before. */
  differenceCount = 0;
  /** The same by record name. */
  readonly different: Map<string, number> = new Map();
  /** With keepGoing: records that could not be applied to a page, by name; the first messages. */
  readonly failed: Map<string, number> = new Map();
  readonly failures: string[] = [];
  /** With keepGoing: changes to pages that are unknown since a failure, not judged. */
  skipped = 0;

  readonly #input: ConsistencyInput;
  readonly #pages: HeldPages;
  readonly #ours = newTarget(new Uint8Array(PAGE_SIZE), 0);
  readonly #theirs = newTarget(new Uint8Array(PAGE_SIZE), 0);
  readonly #oursWords = new Uint32Array(this.#ours.bytes.buffer);
  readonly #theirsWords = new Uint32Array(this.#theirs.bytes.buffer);
  readonly #xact = new XactRecord();
  readonly #wrong: Set<string> = new Set();
  /** Pages that are unknown until a record makes them anew. */
  readonly #lost: Set<string> = new Set();
  /** Databases ("spc/db") made by copying files, with the one whose base files are theirs. */
  readonly #copiedFrom: Map<string, DatabaseDirectory> = new Map();

  #tracksCommits: boolean;

  constructor(input: ConsistencyInput) {
    this.#input = input;
    this.#tracksCommits = input.tracksCommits ?? false;
    this.#pages = new HeldPages(input.pagesMax ?? Infinity, input.spill);
  }

  /** All pages that were touched, in their last version. */
  pages(): Iterable<HeldPage> {
    return this.#pages;
  }

  /** Applies one record to every page it changes, and compares where it has images. */
  apply(cursor: RecordCursor): void {
    for (let id = 0; id <= cursor.maxBlockId; id++) {
      if (cursor.blockPresent[id] !== 0) this.#applyToReference(cursor, id);
    }
    switch (cursor.rmid) {
      case Rmgr.HEAP:
      case Rmgr.HEAP2:
        return this.#applyToMaps(cursor);
      case Rmgr.SMGR:
        return this.#truncate(cursor);
      case Rmgr.XACT:
        return this.#endTransaction(cursor);
      case Rmgr.XLOG:
        if ((cursor.info & 0xf0) === XlogInfo.PARAMETER_CHANGE) this.#changeParameters(cursor);
        return;
      case Rmgr.CLOG:
        return this.#applyToSlru(cursor, SlruKind.CLOG);
      case Rmgr.COMMIT_TS:
        return this.#applyToSlru(cursor, SlruKind.COMMIT_TS);
      case Rmgr.MULTIXACT:
        this.#applyToSlru(cursor, SlruKind.OFFSETS);
        return this.#applyToSlru(cursor, SlruKind.MEMBERS);
      case Rmgr.DBASE:
        return this.#applyToDatabase(cursor);
    }
  }

  #endTransaction(cursor: RecordCursor): void {
    const opcode = cursor.info & XACT_OPCODE_MASK;
    if (opcode === XactInfo.PREPARE || opcode > XactInfo.ABORT_PREPARED) return;
    const xact = this.#xact;
    xact.decode(cursor, this.#input.version);
    this.#applyToXidPages(cursor, SlruKind.CLOG, XIDS_PER_PAGE);
    const commits = opcode === XactInfo.COMMIT || opcode === XactInfo.COMMIT_PREPARED;
    if (commits && this.#tracksCommits) {
      this.#applyToXidPages(cursor, SlruKind.COMMIT_TS, COMMIT_TS_PER_PAGE);
    }
    // Relations whose files go with it
    for (let i = 0; i < xact.relationCount; i++) {
      this.#pages.deleteRelation(xact.relationSpc(i), xact.relationDb(i), xact.relationRel(i));
    }
  }

  /** The pages with the decoded transaction and its subtransactions. */
  #applyToXidPages(cursor: RecordCursor, slruKind: number, perPage: number): void {
    const xact = this.#xact;
    const pages = new Set<number>();
    if (xact.xid >= FIRST_NORMAL_XID) pages.add(Math.floor(xact.xid / perPage));
    for (let i = 0; i < xact.subxactCount; i++) pages.add(Math.floor(xact.subxact(i) / perPage));
    for (const number of pages) {
      const key = slruKey(slruKind, number);
      let page = this.#pageFor(key, cursor);
      if (page === undefined && slruKind === SlruKind.COMMIT_TS) {
        // Made without a record when tracking began (ActivateCommitTs)
        page = this.#pages.add(key);
        page.target.bytes.fill(0, page.target.offset, page.target.offset + PAGE_SIZE);
      }
      if (page === undefined) this.#fail(cursor, noSuchPage(cursor, key));
      else this.#tryToApply(page, cursor, -1);
    }
  }

  #changeParameters(cursor: RecordCursor): void {
    this.#tracksCommits = readParameterChange(cursor).trackCommitTimestamp;
    if (!this.#tracksCommits) this.#pages.deleteSlru(SlruKind.COMMIT_TS);
  }

  #applyToDatabase(cursor: RecordCursor): void {
    const opcode = cursor.info & 0xf0;
    if (opcode === DBASE_CREATE_FILE_COPY) return this.#copyDatabase(cursor);
    if (opcode === this.#input.version.dbaseCreateWalLog) return;
    const { db, tablespaces } = readDatabaseDrop(cursor);
    for (const spc of tablespaces) {
      this.#pages.deleteDatabase(spc, db);
      this.#copiedFrom.delete(`${spc}/${db}`);
    }
  }

  /** CREATE DATABASE by file copy: all pages of the source as they are now, held or in its files. */
  #copyDatabase(cursor: RecordCursor): void {
    const [from, to] = [readDatabaseSource(cursor), readDatabaseCreate(cursor)];
    const origin = this.#copiedFrom.get(`${from.spc}/${from.db}`) ?? from;
    this.#copiedFrom.set(`${to.spc}/${to.db}`, origin);
    for (const held of this.#pages.ofDatabase(from.spc, from.db)) {
      const copy = this.#pages.add({ ...held.key, db: to.db, spc: to.spc });
      copy.adopted = held.adopted;
      copy.bitsLost = held.bitsLost;
      setPage(copy, held.target);
    }
  }

  /** Takes a page's image for the page; without one the page is unknown from here on. */
  #giveUp(cursor: RecordCursor, id: number, key: RedoKey): void {
    const name = describeKey(key);
    const page = this.#pages.get(key);
    if (id < 0 || cursor.hasImage[id] === 0) {
      if (page !== undefined) this.#pages.delete(page);
      this.#lost.add(name);
      return;
    }
    this.#lost.delete(name);
    const { target } = page ?? this.#pages.add(key);
    restoreImage(cursor, id, target.bytes, target.offset, this.#input.version);
  }

  #fail(cursor: RecordCursor, thrown: unknown): void {
    if (this.#input.keepGoing !== true || !(thrown instanceof RedoError)) throw thrown;
    count(this.failed, describeRecord(cursor));
    if (this.failures.length < FAILURES_KEPT_MAX) this.failures.push(thrown.message);
  }

  #applyToReference(cursor: RecordCursor, id: number): void {
    // FPI_FOR_HINT of a cluster with checksums, for any page, also one that no record made
    if (cursor.rmid === Rmgr.XLOG && cursor.hasImage[id] === 0) return;
    const key = relationKey(cursor, id, cursor.blockFork[id]!, cursor.blockNumber[id]!);
    const opaque = !canMask(cursor.rmid) && cursor.rmid !== Rmgr.XLOG;
    if (opaque && cursor.applyImage[id] === 0) return this.#adopt(cursor, id, key);
    const page = this.#pageFor(key, cursor);
    if (page === undefined && this.#isLost(key)) {
      this.skipped++;
      return this.#giveUp(cursor, id, key);
    }
    if (page === undefined) {
      this.#fail(cursor, noSuchPage(cursor, key));
      return this.#giveUp(cursor, id, key);
    }
    if (!this.#tryToApply(page, cursor, id)) return;
    if (cursor.rmid === Rmgr.XLOG && key.fork === FORK_VM && cursor.holeLength[id]! > 0) {
      page.bitsLost = true;
    }
    const comparable = cursor.hasImage[id] !== 0 && cursor.applyImage[id] === 0;
    if (comparable && canMask(cursor.rmid)) this.#compare(page, cursor, id);
  }

  #isLost(key: RedoKey): boolean {
    return this.#lost.size > 0 && this.#lost.has(describeKey(key));
  }

  /** The page, loaded or made; undefined if it does not exist and the record does not make it. */
  #pageFor(key: RedoKey, cursor: RecordCursor): HeldPage | undefined {
    const held = this.#pages.get(key);
    if (held !== undefined) return held;
    const extends_ = key.kind === "relation" && key.fork === FORK_VM &&
      cursor.findBlock(key.spc, key.db, key.rel, key.fork, key.block) >= 0;
    const made = initialises(cursor, key, this.#input.version) || extends_;
    const lost = this.#isLost(key);
    if (lost && made) this.#lost.delete(describeKey(key));
    const loaded = this.#ours;
    loaded.bytes.fill(0);
    const exists = (!lost && this.#load(key, loaded)) || made;
    if (!exists) return undefined;
    const page = this.#pages.add(key);
    setPage(page, loaded);
    return page;
  }

  #load(key: RedoKey, target: PageTarget): boolean {
    if (this.#input.loadPage(key, target)) return true;
    if (key.kind !== "relation") return false;
    const source = this.#copiedFrom.get(`${key.spc}/${key.db}`);
    return source !== undefined && this.#input.loadPage({ ...key, ...source }, target);
  }

  #applyTo(page: HeldPage, cursor: RecordCursor): void {
    const { key, target } = page;
    if (initialises(cursor, key, this.#input.version)) {
      target.bytes.fill(GARBAGE, target.offset, target.offset + PAGE_SIZE);
    }
    applyRecord(key, target, cursor, this.#input.version);
    count(this.applied, describeRecord(cursor));
    this.#input.afterApply?.(key, target, cursor);
  }

  /** As #applyTo; false if that failed and the page is given up. `id` is its reference, or -1. */
  #tryToApply(page: HeldPage, cursor: RecordCursor, id: number): boolean {
    try {
      this.#applyTo(page, cursor);
      return true;
    } catch (thrown) {
      this.#fail(cursor, thrown);
      this.#giveUp(cursor, id, page.key);
      return false;
    }
  }

  /** Map pages that follow from the heap blocks, where the record does not name them. */
  #applyToMaps(cursor: RecordCursor): void {
    for (let id = 0; id <= 1; id++) {
      if (cursor.blockPresent[id] === 0 || cursor.blockFork[id] !== FORK_MAIN) continue;
      const mapBlock = vmBlockOf(cursor.blockNumber[id]!);
      const key = relationKey(cursor, id, FORK_VM, mapBlock);
      if (cursor.findBlock(key.spc, key.db, key.rel, FORK_VM, mapBlock) >= 0) continue;
      const page = this.#pageFor(key, cursor);
      if (page !== undefined) this.#tryToApply(page, cursor, -1);
    }
  }

  #applyToSlru(cursor: RecordCursor, slruKind: number): void {
    if (cursor.rmid === Rmgr.MULTIXACT && (cursor.info & 0xf0) === MultiXactInfo.CREATE_ID) {
      const { multi, firstMember, count: members } = readMultiXactCreate(cursor);
      const isOffsets = slruKind === SlruKind.OFFSETS;
      const perPage = isOffsets ? OFFSETS_PER_PAGE : MEMBERS_PER_PAGE;
      const ends = isOffsets ? [multi, multi + 1] : [firstMember, firstMember + members - 1];
      for (const end of ends) {
        this.#pageFor(slruKey(slruKind, Math.floor((end >>> 0) / perPage)), cursor);
      }
    } else if ((cursor.info & 0xf0) <= 0x10) {
      const key = slruKey(slruKind, mainU32(cursor, 0));
      if (initialises(cursor, key, this.#input.version)) this.#pageFor(key, cursor);
    }
    for (const page of this.#pages.ofSlru(slruKind)) this.#tryToApply(page, cursor, -1);
  }

  #truncate(cursor: RecordCursor): void {
    if ((cursor.info & 0xf0) !== SMGR_TRUNCATE) return;
    const { view, mainOffset: main } = cursor;
    const heapBlocks = view.getUint32(main, true);
    const flags = view.getUint32(main + 16, true);
    const spc = view.getUint32(main + 4, true);
    const db = view.getUint32(main + 8, true);
    const rel = view.getUint32(main + 12, true);
    const sizes = new Map<number, number>();
    if (flags & 1) sizes.set(FORK_MAIN, heapBlocks);
    if (flags & 2) sizes.set(FORK_VM, vmBlocksAfterTruncate(heapBlocks));
    if (flags & 4) sizes.set(FORK_FSM, fsmBlocksAfterTruncate(heapBlocks));
    for (const [fork, blocks] of sizes) {
      const last = { ...emptyKey(), spc, db, rel, fork, block: blocks - 1 };
      const page = fork === FORK_MAIN || blocks === 0 ? undefined : this.#pageFor(last, cursor);
      if (page !== undefined) this.#tryToApply(page, cursor, -1);
      for (const held of this.#pages.ofRelation(spc, db, rel)) {
        if (held.key.fork === fork && held.key.block >= blocks) this.#pages.delete(held);
      }
    }
  }

  /** A page of a resource manager without redo: its image, if there is one, becomes the page. */
  #adopt(cursor: RecordCursor, id: number, key: RedoKey): void {
    const held = this.#pages.get(key);
    if (cursor.hasImage[id] === 0) {
      if (held !== undefined) this.#pages.delete(held);
      return;
    }
    const page = held ?? this.#pages.add(key);
    page.adopted = true;
    restoreImage(cursor, id, page.target.bytes, page.target.offset, this.#input.version);
    count(this.adopted, describeRecord(cursor));
  }

  #compare(page: HeldPage, cursor: RecordCursor, id: number): void {
    const { key, target } = page;
    const ours = this.#ours;
    const theirs = this.#theirs;
    ours.bytes.set(target.bytes.subarray(target.offset, target.offset + PAGE_SIZE));
    restoreImage(cursor, id, theirs.bytes, 0, this.#input.version);
    maskPage(ours, cursor.rmid, key.fork, key.block);
    maskPage(theirs, cursor.rmid, key.fork, key.block);
    const record = describeRecord(cursor);
    count(this.compared, key.fork === FORK_VM ? `${record} (visibility map)` : record);
    if (page.bitsLost) forgetMissingBits(ours.bytes, theirs.bytes);
    if (equalWords(this.#oursWords, this.#theirsWords)) return;
    const difference = compareBytes(ours.bytes, theirs.bytes)!;
    this.differenceCount++;
    count(this.different, record);
    const name = describeKey(key);
    if (this.#wrong.has(name) || this.#wrong.size >= DIFFERENCES_KEPT_MAX) return;
    this.#wrong.add(name);
    this.differences.push({
      record: `${record} at ${formatLsn(cursor.lsn)}`,
      page: name,
      ours: ours.bytes.slice(),
      theirs: theirs.bytes.slice(),
      fork: key.fork,
      ...difference,
    });
  }
}

/** Clears bits of `theirs` that `ours` lacks; the ones that only `ours` has stay a difference. */
function forgetMissingBits(ours: Uint8Array, theirs: Uint8Array): void {
  for (let i = PAGE_HEADER_SIZE; i < theirs.length; i++) theirs[i]! &= ours[i]!;
}

/** Replaces a page's contents. */
function setPage(page: HeldPage, from: PageTarget): void {
  const { target } = page;
  target.bytes.set(from.bytes.subarray(from.offset, from.offset + PAGE_SIZE), target.offset);
}

function equalWords(a: Uint32Array, b: Uint32Array): boolean {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** First differing offset and count of differing bytes; undefined if equal. */
export function compareBytes(
  a: Uint8Array,
  b: Uint8Array,
): { offset: number; bytes: number } | undefined {
  let offset = -1;
  let bytes = 0;
  for (let i = 0; i < a.length; i++) {
    if (a[i] === b[i]) continue;
    if (offset < 0) offset = i;
    bytes++;
  }
  return bytes === 0 ? undefined : { offset, bytes };
}

function noSuchPage(cursor: RecordCursor, key: RedoKey): RedoError {
  const record = `${describeRecord(cursor)} at ${formatLsn(cursor.lsn)}`;
  return new RedoError(`Cannot redo ${record}: there is no ${describeKey(key)}`);
}

function count(map: Map<string, number>, name: string): void {
  map.set(name, (map.get(name) ?? 0) + 1);
}

function emptyKey(): RedoKey {
  return { kind: "relation", spc: 0, db: 0, rel: 0, fork: 0, slruKind: 0, segno: 0, block: 0 };
}

function relationKey(cursor: RecordCursor, id: number, fork: number, block: number): RedoKey {
  return {
    ...emptyKey(),
    spc: cursor.blockSpc[id]!,
    db: cursor.blockDb[id]!,
    rel: cursor.blockRel[id]!,
    fork,
    block,
  };
}

function slruKey(slruKind: number, pageNumber: number): RedoKey {
  return {
    ...emptyKey(),
    kind: "slru",
    slruKind,
    segno: Math.floor(pageNumber / PAGES_PER_SEGMENT),
    block: pageNumber % PAGES_PER_SEGMENT,
  };
}
