/**
 * How far one timeline's WAL is written, whole and durable: the bookkeeping of WalStorage, without
 * the files. A pure state machine.
 *
 * A sync covers what was written when it began. Appends go on meanwhile; a truncation in between
 * voids it, since the bytes that it covered may be gone and others written in their place.
 *
 * A sync that fails may leave bytes in the page cache that are not on the disk and that no later
 * sync writes, because the kernel takes them for clean (PostgreSQL panics for this reason, fd.c,
 * data_sync_elevel). So the WAL then ends where it was durable before, and has to be cut there and
 * written anew: no later sync counts for what a failed one covered.
 */
import { assert } from "../libs/utils/assert.ts";
import { type Lsn, maxLsn } from "../libs/utils/lsn.ts";

/** What a sync that has begun will have made durable. */
export interface SyncTicket {
  readonly epoch: number;
  readonly recordLsn: Lsn;
  readonly writeLsn: Lsn;
}

/** See the head of the file. */
export class WalPositions {
  // Invariant: flushLsn <= recordLsn <= writeLsn and syncedLsn <= writeLsn.
  #writeLsn: Lsn;
  #recordLsn: Lsn;
  #flushLsn: Lsn;
  #syncedLsn: Lsn;
  #epoch = 0;
  #unclean: string | undefined = "the WAL was not truncated since the start";

  /** WAL that was found, whole and durable, up to `end`; what lies behind it is not known. */
  constructor(end: Lsn) {
    this.#writeLsn =
      this.#recordLsn =
      this.#flushLsn =
      this.#syncedLsn =
        end;
  }

  /** End of what was written. */
  get writeLsn(): Lsn {
    return this.#writeLsn;
  }
  /** End of the last whole record written. */
  get recordLsn(): Lsn {
    return this.#recordLsn;
  }
  /** End of the last whole record that is durable. */
  get flushLsn(): Lsn {
    return this.#flushLsn;
  }
  /** Whether a sync has something to do. */
  get dirty(): boolean {
    return this.#writeLsn > this.#syncedLsn;
  }
  /** Why nothing may be written before a truncation has succeeded; undefined if it may. */
  get unclean(): string | undefined {
    return this.#unclean;
  }

  /** WAL was appended up to `writeLsn`; a record ends at `recordEnd`, perhaps an earlier one. */
  written(writeLsn: Lsn, recordEnd: Lsn): void {
    assert(writeLsn >= this.#writeLsn, "writing extends the WAL");
    this.#writeLsn = writeLsn;
    // Beyond what was written: a switch, whose padding is still to come
    if (recordEnd <= writeLsn) this.#recordLsn = maxLsn(this.#recordLsn, recordEnd);
  }

  /** A write failed: what lies behind the end of the WAL is not known. */
  writeFailed(): void {
    this.#unclean = "an earlier write failed";
  }

  /** A sync of what is written begins. */
  syncBegins(): SyncTicket {
    return { epoch: this.#epoch, recordLsn: this.#recordLsn, writeLsn: this.#writeLsn };
  }

  /** That sync succeeded. */
  synced(ticket: SyncTicket): void {
    if (ticket.epoch !== this.#epoch) return;
    this.#flushLsn = maxLsn(this.#flushLsn, ticket.recordLsn);
    this.#syncedLsn = maxLsn(this.#syncedLsn, ticket.writeLsn);
  }

  /** Whether the WAL ends at `lsn` already, with nothing unknown behind it. */
  endsCleanlyAt(lsn: Lsn): boolean {
    return this.#unclean === undefined && lsn === this.#writeLsn && !this.dirty;
  }

  /** A sync failed, any of them: nothing counts that was not durable before. */
  syncFailed(): void {
    this.#endAt(this.#flushLsn);
    this.#unclean = "an earlier sync failed";
  }

  /** A truncation begins: from now on nothing behind `lsn` counts, whether it succeeds or not. */
  truncationBegins(lsn: Lsn): void {
    assert(lsn <= this.#writeLsn, "truncation never extends the WAL");
    this.#endAt(lsn);
    this.#unclean = "an earlier truncation failed";
  }

  /** Nothing behind `lsn` counts, nor what a sync under way covers. */
  #endAt(lsn: Lsn): void {
    this.#epoch++;
    this.#writeLsn =
      this.#recordLsn =
      this.#flushLsn =
      this.#syncedLsn =
        lsn;
  }

  /** It succeeded: the WAL ends there, durably, with zeros behind it. */
  truncated(): void {
    this.#unclean = undefined;
  }

  /** The files are closed: syncs under way report nothing. */
  closed(): void {
    this.#epoch++;
  }
}
