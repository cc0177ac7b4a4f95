/**
 * The AccessExclusive locks of transactions in progress, as their WAL tells them one by one, and
 * how they are stored: under the transaction's id, in parts of LOCKS_PER_PART, so that a further
 * lock rewrites only the last part. In memory are only locks that are held.
 *
 * A part is u32 pairs, little endian: database (0 for a shared relation) and relation.
 */
import { ByteReader, ByteWriter } from "../../libs/utils/bytes.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import { standbyLockKey } from "../repository/key.ts";
import type { Timeline } from "../repository/timeline.ts";

const LOCKS_PER_PART = 16;
/** Beyond this, transactions that a crash ended are looked for. */
const TRANSACTIONS_MAX = 1024;

/** A relation. */
interface LockedRelation {
  readonly db: number;
  readonly rel: number;
}

/** Reads a part. */
function decodeLocks(bytes: Uint8Array): LockedRelation[] {
  const reader = new ByteReader(bytes, "little", "locks of a transaction");
  const locks: LockedRelation[] = [];
  while (reader.remaining > 0) locks.push({ db: reader.u32(), rel: reader.u32() });
  return locks;
}

function encodeLocks(locks: readonly LockedRelation[]): Uint8Array {
  const writer = new ByteWriter("little", 8 * locks.length);
  for (const { db, rel } of locks) writer.u32(db).u32(rel);
  return writer.bytes();
}

/** All locks of a transaction as of an LSN. */
export function storedLocks(timeline: Timeline, xid: number, lsn: Lsn): LockedRelation[] {
  const locks: LockedRelation[] = [];
  for (let part = 0;; part++) {
    const bytes = timeline.getValue(standbyLockKey(xid, part), lsn);
    if (bytes === undefined) return locks;
    locks.push(...decodeLocks(bytes));
  }
}

interface Transaction {
  readonly locks: LockedRelation[];
  /** The same as "db/rel". */
  readonly names: Set<string>;
}

/** Locks that are held at the position of one ingest. */
export class HeldLocks {
  readonly #timeline: Timeline;
  /** What transactions before this one hold may have been stored by an earlier ingest. */
  readonly #nextXidAtStart: number;
  readonly #transactions = new Map<number, Transaction>();

  constructor(timeline: Timeline, nextXid: number) {
    this.#timeline = timeline;
    this.#nextXidAtStart = nextXid;
  }

  /** Takes a lock; returns what is to be stored, undefined if it was known. */
  add(xid: number, db: number, rel: number): { part: number; bytes: Uint8Array } | undefined {
    let transaction = this.#transactions.get(xid);
    if (transaction === undefined) {
      transaction = this.#load(xid);
      this.#transactions.set(xid, transaction);
    }
    const { locks, names } = transaction;
    const name = `${db}/${rel}`;
    if (names.has(name)) return undefined;
    names.add(name);
    locks.push({ db, rel });
    const part = Math.floor((locks.length - 1) / LOCKS_PER_PART);
    return { part, bytes: encodeLocks(locks.slice(part * LOCKS_PER_PART)) };
  }

  #load(xid: number): Transaction {
    const locks = xid < this.#nextXidAtStart
      ? storedLocks(this.#timeline, xid, this.#timeline.lastRecordLsn)
      : [];
    return { locks, names: new Set(locks.map(({ db, rel }) => `${db}/${rel}`)) };
  }

  /** False if there is nothing that could be released. */
  get any(): boolean {
    return this.#transactions.size > 0;
  }

  /** The transaction has ended. */
  release(xid: number): void {
    this.#transactions.delete(xid);
  }

  /** Forgets transactions that `mayRun` denies, if there are suspiciously many. */
  prune(mayRun: (xid: number) => boolean): void {
    if (this.#transactions.size <= TRANSACTIONS_MAX) return;
    for (const xid of this.#transactions.keys()) if (!mayRun(xid)) this.release(xid);
  }
}
