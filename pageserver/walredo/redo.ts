/**
 * Redo: what one WAL record does to one page, in place.
 *
 * A record may change several pages, and a page may be changed without being named in the record
 * (its visibility map, a commit's status bits), so the question is always "record and key": the
 * key says which page this is, and the resource manager's file says what the record does to that
 * page.
 *
 *   block reference with an image to apply -> restore it, whatever the resource manager
 *   relation page    Heap, Heap2 (map pages: visibility_map.ts), Btree, Hash, BRIN, Generic,
 *                    GIN, GiST, SP-GiST, Sequence, XLOG, Storage
 *   SLRU page        Transaction and CLOG (clog.ts), or CommitTs (commit_ts.ts) on a page of commit
 *                    timestamps; MultiXact (multixact.ts)
 *
 * Everything else (resource managers of extensions) is a RedoError that names it, and so is a page
 * that CREATE DATABASE could not copy because of one of these. Records that do nothing to the page
 * are applied as such; that a record has to do with the key is the caller's word.
 *
 * Called for every record of every page version that somebody reads; allocates nothing for the
 * frequent ones.
 */
import { BKPBLOCK_WILL_INIT, FORK_VM, PAGE_SIZE, Rmgr } from "../../libs/postgres/constants.ts";
import { isNewPage } from "../../libs/postgres/page.ts";
import { SlruKind } from "../../libs/postgres/slru.ts";
import type { PgVersion } from "../../libs/postgres/versions.ts";
import { restoreImage } from "../../libs/postgres/wal/restore_image.ts";
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import { assert } from "../../libs/utils/assert.ts";
import { redoBrin } from "./brin.ts";
import { redoBtree } from "./btree.ts";
import { clogZeroes, redoClog } from "./clog.ts";
import { commitTsZeroes, redoCommitTs } from "./commit_ts.ts";
import { redoGeneric } from "./generic.ts";
import { redoGin } from "./gin.ts";
import { redoGist, redoGistAfterImage } from "./gist.ts";
import { redoHash } from "./hash.ts";
import { redoHeap } from "./heap.ts";
import { redoHeap2 } from "./heap2.ts";
import { multixactZeroes, redoMultixact } from "./multixact.ts";
import { stampLsn } from "./page_items.ts";
import { redoError } from "./redo_error.ts";
import { fault } from "./redo_fault.ts";
import { redoSequence } from "./sequence.ts";
import { redoSmgr, truncateEmpties } from "./smgr.ts";
import { redoSpgist } from "./spgist.ts";
import type { PageTarget, RedoKey } from "./types.ts";
import { redoVisibilityMap } from "./visibility_map.ts";
import { redoXlog } from "./xlog.ts";

/** Whether the record makes the page from nothing: no older image or record matters. */
export function initialises(cursor: RecordCursor, key: RedoKey, version: PgVersion): boolean {
  if (key.kind === "slru") {
    if (cursor.rmid === Rmgr.CLOG) return clogZeroes(cursor, key, version);
    if (cursor.rmid === Rmgr.COMMIT_TS) return commitTsZeroes(cursor, key, version);
    return cursor.rmid === Rmgr.MULTIXACT && multixactZeroes(cursor, key, version);
  }
  if (cursor.rmid === Rmgr.SMGR) return truncateEmpties(cursor, key);
  if (cursor.rmid === Rmgr.DBASE) return true;
  const id = cursor.findBlock(key.spc, key.db, key.rel, key.fork, key.block);
  if (id < 0) return false;
  return cursor.applyImage[id] !== 0 || (cursor.blockFlags[id]! & BKPBLOCK_WILL_INIT) !== 0;
}

/**
 * Applies the record that `cursor` stands on to the page `key` in `page`; sets pd_lsn to the
 * record's end where PostgreSQL does. Throws RedoError naming page, record and reason; the slot's
 * content is then undefined, other slots of the slab are untouched.
 */
export function applyRecord(
  key: RedoKey,
  page: PageTarget,
  cursor: RecordCursor,
  version: PgVersion,
): void {
  const id = key.kind === "slru"
    ? -1
    : cursor.findBlock(key.spc, key.db, key.rel, key.fork, key.block);
  applyReference(id, key, page, cursor, version);
}

/**
 * As applyRecord, for a caller who knows that the page is block reference `id` of the record (which
 * does not matter for an SLRU page).
 */
export function applyReference(
  id: number,
  key: RedoKey,
  page: PageTarget,
  cursor: RecordCursor,
  version: PgVersion,
): void {
  assert(page.offset >= 0 && page.offset + PAGE_SIZE <= page.bytes.length, "page slot in its slab");
  try {
    if (key.kind === "slru") applyToSlru(key, page, cursor, version);
    else applyToRelation(id, key, page, cursor, version);
  } catch (thrown) {
    throw redoError(key, cursor, thrown);
  }
}

function applyToRelation(
  id: number,
  key: RedoKey,
  page: PageTarget,
  cursor: RecordCursor,
  version: PgVersion,
): void {
  if (id >= 0 && cursor.applyImage[id] !== 0) {
    restoreImage(cursor, id, page.bytes, page.offset, version);
    // A page that was never initialised has no LSN: setting one would make it look used.
    if (!isNewPage(page.view, page.offset)) stampLsn(page, cursor.endLsn);
    if (cursor.rmid === Rmgr.GIST) redoGistAfterImage(page, cursor, id);
    return;
  }
  const { rmid } = cursor;
  if ((rmid === Rmgr.HEAP || rmid === Rmgr.HEAP2) && key.fork === FORK_VM) {
    return redoVisibilityMap(page, cursor, key);
  }
  switch (rmid) {
    case Rmgr.HEAP:
      return redoHeap(page, cursor, id, key);
    case Rmgr.BTREE:
      return redoBtree(page, cursor, id);
    case Rmgr.HEAP2:
      return redoHeap2(page, cursor, id, key, version);
    case Rmgr.HASH:
      return redoHash(page, cursor, id, version);
    case Rmgr.BRIN:
      return redoBrin(page, cursor, id);
    case Rmgr.GIN:
      return redoGin(page, cursor, id);
    case Rmgr.GIST:
      return redoGist(page, cursor, id);
    case Rmgr.SPGIST:
      return redoSpgist(page, cursor, id);
    case Rmgr.GENERIC:
      return redoGeneric(page, cursor, id);
    case Rmgr.SEQ:
      return redoSequence(page, cursor, id);
    case Rmgr.XLOG:
      return redoXlog(cursor, id);
    case Rmgr.SMGR:
      return redoSmgr(page, cursor, key);
    case Rmgr.DBASE: // all that ingest stores of it, see ingest/database.ts
      return fault("the page that this one was copied from could not be rebuilt");
    default:
      fault("redo of this resource manager is not supported");
  }
}

function applyToSlru(
  key: RedoKey,
  page: PageTarget,
  cursor: RecordCursor,
  version: PgVersion,
): void {
  switch (cursor.rmid) {
    case Rmgr.COMMIT_TS:
      return redoCommitTs(page, cursor, key, version);
    case Rmgr.XACT:
      if (key.slruKind === SlruKind.COMMIT_TS) return redoCommitTs(page, cursor, key, version);
      return redoClog(page, cursor, key, version);
    case Rmgr.CLOG:
      return redoClog(page, cursor, key, version);
    case Rmgr.MULTIXACT:
      return redoMultixact(page, cursor, key, version);
    default:
      fault("this resource manager has nothing to do with an SLRU page");
  }
}
