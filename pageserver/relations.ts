/**
 * Which relations and SLRU segments a timeline has, and how many blocks each.
 *
 * Sizes are stored as values of the key classes 61 (relation forks) and 66 (SLRU segments): a u32,
 * little endian; a tombstone means that the thing does not exist. This class keeps the latest size
 * of every object that was asked for, together with the LSN since which it holds:
 *
 *   Invariant: for every LSN >= since, up to whatever ingest has put, the size is `blocks`.
 *
 * Ingest writes through it before its batch becomes visible. That does no harm to readers: they
 * read at or below last_record_lsn, which is below the `since` of such an entry, and then the
 * stored value as of their LSN is looked up instead.
 */
import { FORK_MAIN } from "../libs/postgres/constants.ts";
import type { RelTag } from "../libs/postgres/relation.ts";
import type { Lsn } from "../libs/utils/lsn.ts";
import {
  databaseKey,
  type Key,
  KeyClass,
  makeKey,
  relationSizeKey,
  slruSizeKey,
} from "./repository/key.ts";
import { type KeyInterner, NO_OBJECT, type ObjectId } from "./repository/key_interner.ts";
import type { Timeline } from "./repository/timeline.ts";

/** Size of an object that does not exist. */
export const ABSENT = -1;

/** Sizes kept in memory per timeline (about 100 bytes each); the cache restarts when it is full. */
const SIZES_MAX = 500_000;

const U32_MAX = 0xffffffff;

interface SizeEntry {
  blocks: number;
  since: Lsn;
}

/** One database directory. */
export interface Database {
  readonly spc: number;
  readonly db: number;
  /** Whether it has a relation map (pg_filenode.map): so its default tablespace is this one. */
  readonly hasRelmap: boolean;
}

/** Sizes and directories of one timeline. */
export class Relations {
  readonly interner: KeyInterner;
  readonly #timeline: Timeline;
  readonly #sizes = new Map<ObjectId, SizeEntry>();
  readonly #fields = makeKey(0, 0, 0, 0, 0, 0);
  readonly #encoded = new Uint8Array(4);
  readonly #encodedView = new DataView(this.#encoded.buffer);

  constructor(timeline: Timeline) {
    this.#timeline = timeline;
    this.interner = timeline.interner;
  }

  /** Newest size of an object, what ingest has put and not yet advanced included; or ABSENT. */
  latestBlocks(object: ObjectId): number {
    return this.#latest(object).blocks;
  }

  /**
   * The relation fork that a reader names, or NO_OBJECT where there is none at `lsn`: what anybody
   * may ask for is not interned, or the table of objects would be full some day.
   */
  relationAt({ spc, db, rel, fork }: RelTag, lsn: Lsn): ObjectId {
    const known = this.interner.find(KeyClass.relation, spc, db, rel, fork);
    if (known !== NO_OBJECT || !this.#isStored(relationSizeKey(spc, db, rel, fork), lsn)) {
      return known;
    }
    return this.interner.relation(spc, db, rel, fork);
  }

  /** The SLRU segment that a reader names, likewise. */
  slruAt(kind: number, segno: number, lsn: Lsn): ObjectId {
    const known = this.interner.find(KeyClass.slru, kind, 1, segno, 0);
    if (known !== NO_OBJECT || !this.#isStored(slruSizeKey(kind, segno), lsn)) return known;
    return this.interner.slru(kind, segno);
  }

  #isStored(key: Key, lsn: Lsn): boolean {
    return this.#timeline.getValue(key, lsn) !== undefined;
  }

  /** Size of an object as of `lsn` (<= last_record_lsn), or ABSENT; also for NO_OBJECT. */
  blocksAt(object: ObjectId, lsn: Lsn): number {
    if (object === NO_OBJECT) return ABSENT;
    const latest = this.#latest(object);
    return lsn >= latest.since ? latest.blocks : this.#stored(object, lsn);
  }

  /** Ingest only: the object has `blocks` from `lsn` on. */
  setBlocks(object: ObjectId, blocks: number, lsn: Lsn): void {
    this.#remember(object, blocks, lsn);
    this.#encodedView.setUint32(0, blocks, true);
    this.#timeline.putValue(this.#sizeKey(object), lsn, this.#encoded);
  }

  /** Ingest only: the object is gone from `lsn` on. No effect on one that does not exist. */
  drop(object: ObjectId, lsn: Lsn): void {
    if (this.latestBlocks(object) === ABSENT) return;
    this.#remember(object, ABSENT, lsn);
    this.#timeline.putValue(this.#sizeKey(object), lsn, null);
  }

  /** Ingest only, right after advance(): keeps the cache within its limit. */
  trim(): void {
    if (this.#sizes.size > SIZES_MAX) this.forget();
  }

  /** Ingest only: forgets sizes of which some were put and will never become visible. */
  forget(): void {
    this.#sizes.clear();
  }

  #latest(object: ObjectId): SizeEntry {
    const known = this.#sizes.get(object);
    if (known !== undefined) return known;
    const lsn = this.#timeline.lastRecordLsn;
    return this.#remember(object, this.#stored(object, lsn), lsn);
  }

  #remember(object: ObjectId, blocks: number, since: Lsn): SizeEntry {
    const known = this.#sizes.get(object);
    if (known !== undefined) {
      known.blocks = blocks;
      known.since = since;
      return known;
    }
    const entry = { blocks, since };
    this.#sizes.set(object, entry);
    return entry;
  }

  #stored(object: ObjectId, lsn: Lsn): number {
    const value = this.#timeline.getValue(this.#sizeKey(object), lsn);
    return value === undefined ? ABSENT : decodeSize(value);
  }

  #sizeKey(object: ObjectId): Key {
    this.interner.fields(object, this.#fields);
    const { f1, f2, f3, f4, f5 } = this.#fields;
    return f1 === KeyClass.slru ? slruSizeKey(f2, f4) : relationSizeKey(f2, f3, f4, f5);
  }

  /** Visits every relation fork that exists at `lsn`, in key order; `tag` is reused. */
  forEachRelation(lsn: Lsn, visit: (tag: RelTag, blocks: number) => void): void {
    this.#scanRelations(
      relationSizeKey(0, 0, 0, 0),
      relationSizeKey(U32_MAX, U32_MAX, U32_MAX, 255),
      lsn,
      visit,
    );
  }

  /** Visits every relation fork of one database directory at `lsn`; `tag` is reused. */
  forEachRelationOf(
    spc: number,
    db: number,
    lsn: Lsn,
    visit: (tag: RelTag, blocks: number) => void,
  ): void {
    const end = db === U32_MAX
      ? relationSizeKey(spc + 1, 0, 0, 0)
      : relationSizeKey(spc, db + 1, 0, 0);
    this.#scanRelations(relationSizeKey(spc, db, 0, 0), end, lsn, visit);
  }

  #scanRelations(
    from: Key,
    to: Key,
    lsn: Lsn,
    visit: (tag: RelTag, blocks: number) => void,
  ): void {
    const tag: RelTag = { spc: 0, db: 0, rel: 0, fork: FORK_MAIN };
    this.#timeline.scan(from, to, lsn, (key, value) => {
      tag.spc = key.f2;
      tag.db = key.f3;
      tag.rel = key.f4;
      tag.fork = key.f5;
      visit(tag, decodeSize(value));
    });
  }

  /** The database directories at `lsn`. */
  databases(lsn: Lsn): Database[] {
    const found: Database[] = [];
    this.#timeline.scan(databaseKey(0, 0), databaseKey(U32_MAX, U32_MAX), lsn, (key, value) => {
      found.push({ spc: key.f2, db: key.f3, hasRelmap: value[0] === 1 });
    });
    return found;
  }

  /** The segments of an SLRU at `lsn`, in order, with their blocks. */
  slruSegments(kind: number, lsn: Lsn): { segment: number; blocks: number }[] {
    const found: { segment: number; blocks: number }[] = [];
    this.#timeline.scan(slruSizeKey(kind, 0), slruSizeKey(kind, U32_MAX), lsn, (key, value) => {
      found.push({ segment: key.f3, blocks: decodeSize(value) });
    });
    return found;
  }

  /** Bytes of all relations in the default tablespace's directory of database `db` at `lsn`. */
  databaseSizeBytes(spc: number, db: number, lsn: Lsn, pageBytes: number): number {
    let blocksTotal = 0;
    this.forEachRelationOf(spc, db, lsn, (_tag, blocks) => blocksTotal += blocks);
    return blocksTotal * pageBytes;
  }
}

function decodeSize(value: Uint8Array): number {
  return (value[0]! | (value[1]! << 8) | (value[2]! << 16) | (value[3]! << 24)) >>> 0;
}

/** The stored form of a size, u32. */
export function encodeSize(blocks: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, blocks, true);
  return bytes;
}

/** The stored form of a database directory's flags. */
export function encodeDatabase(hasRelmap: boolean): Uint8Array {
  return new Uint8Array([hasRelmap ? 1 : 0]);
}
