/**
 * A safekeeper's disk in the simulation. It keeps the control file as a whole; of the WAL it knows
 * what was written and what is durable. A crash keeps any part of the writes that were not synced,
 * in any combination, and tears the last of them; a truncation may be cut short. A sync that fails
 * loses some of what it covered, and leaves all of it to be read, as clean: no later sync writes
 * it. The positions are the real ones (safekeeper/wal_positions.ts).
 */
import type { TimelineDisk } from "../../safekeeper/timeline_core.ts";
import type { TimelineState } from "../../safekeeper/timeline_state.ts";
import { type SyncTicket, WalPositions } from "../../safekeeper/wal_positions.ts";
import { Unavailable } from "../../libs/utils/errors.ts";
import { addLsn, type Lsn } from "../../libs/utils/lsn.ts";
import {
  endOfRecords,
  LOG_BYTES_MAX,
  LOG_START,
  type LogBytes,
  lsnAt,
  RECORD_BYTES,
} from "./model_wal.ts";
import type { Random } from "./random.ts";

/** Power is lost: thrown out of any step of a driver. */
export class Crash extends Error {}

interface Unsynced {
  readonly begin: number;
  readonly end: number;
  readonly number: number;
}

/** See the head of the file. Offsets count from LOG_START. */
export class SimDisk implements TimelineDisk {
  /** The control file; undefined before the timeline was created. */
  control: TimelineState | undefined;
  /** What a reader sees. */
  readonly cached: LogBytes = new Uint8Array(LOG_BYTES_MAX);
  /** What is there after a crash. */
  readonly durable: LogBytes = new Uint8Array(LOG_BYTES_MAX);
  /** A write fails, after some bytes. */
  full = false;
  /** The next sync fails. */
  syncFails = false;
  /** Steps until power is lost; 0 = it stays. */
  stepsToCrash = 0;
  /** Called by startFlush. */
  onFlushStarted: (ticket: SyncTicket, lastWrite: number) => void = () => {};
  /** The lowest durable byte that changed since it was last set to Infinity. */
  changedFrom = 0;
  readonly #random: Random;
  #positions = new WalPositions(LOG_START);
  #unsynced: Unsynced[] = [];
  /** In the cache from here on are bytes that look clean and never reached the disk. */
  #lostFrom = Infinity;
  #writes = 0;

  constructor(control: TimelineState | undefined, random: Random) {
    this.control = control;
    this.#random = random;
  }

  get writeLsn(): Lsn {
    return this.#positions.writeLsn;
  }
  get recordLsn(): Lsn {
    return this.#positions.recordLsn;
  }
  get flushLsn(): Lsn {
    return this.#positions.flushLsn;
  }
  get dirty(): boolean {
    return this.#positions.dirty;
  }
  /** Every byte below is as durable as it is written. */
  get durableEnd(): Lsn {
    const first = this.#unsynced[0]?.begin ?? Infinity;
    const end = Math.min(first, this.#lostFrom);
    return end === Infinity ? this.writeLsn : lsnAt(end);
  }

  /** Opens the timeline `control`: the end of its last whole record. */
  open(control: TimelineState): Lsn {
    const end = lsnAt(endOfRecords(this.durable, control.commitLsn - LOG_START));
    this.#positions = new WalPositions(end);
    return end;
  }

  persist(state: TimelineState): void {
    this.#step();
    this.control = state;
    this.#step();
  }

  write(lsn: Lsn, bytes: Uint8Array): void {
    if (this.#positions.unclean !== undefined) throw new Unavailable(this.#positions.unclean);
    this.#step();
    const begin = lsn - LOG_START;
    const count = this.full ? this.#random.below(bytes.length) : bytes.length;
    this.cached.set(count === bytes.length ? bytes : bytes.subarray(0, count), begin);
    this.#unsynced.push({ begin, end: begin + count, number: ++this.#writes });
    if (this.full) {
      this.#positions.writeFailed();
      throw new Unavailable("no space left on device");
    }
    const end = addLsn(lsn, bytes.length);
    this.#positions.written(end, addLsn(end, -((end - LOG_START) % RECORD_BYTES)));
    this.#step();
  }

  truncate(lsn: Lsn): void {
    if (this.#positions.endsCleanlyAt(lsn)) return;
    this.#step();
    this.#positions.truncationBegins(lsn);
    const offset = lsn - LOG_START;
    if (this.stepsToCrash === 1) this.#cut(offset + this.#random.below(LOG_BYTES_MAX - offset));
    this.#step();
    this.#sync(Infinity);
    this.#cut(offset);
    this.#positions.truncated();
    this.#step();
  }

  #cut(offset: number): void {
    if (this.#lostFrom >= offset) this.#lostFrom = Infinity;
    this.cached.fill(0, offset);
    this.durable.fill(0, offset);
    this.changedFrom = Math.min(this.changedFrom, offset);
  }

  flushSync(): Lsn {
    this.#step();
    this.#sync(Infinity);
    this.#positions.synced(this.#positions.syncBegins());
    this.#step();
    return this.flushLsn;
  }

  startFlush(): void {
    this.onFlushStarted(this.#positions.syncBegins(), this.#writes);
  }

  /** A sync that began behind write number `lastWrite` has ended. */
  finishFlush(ticket: SyncTicket, lastWrite: number): Lsn {
    this.#sync(lastWrite);
    this.#positions.synced(ticket);
    return this.flushLsn;
  }

  #sync(lastWrite: number): void {
    const fails = this.syncFails;
    this.syncFails = false;
    while (this.#unsynced.length > 0 && this.#unsynced[0]!.number <= lastWrite) {
      const { begin, end } = this.#unsynced.shift()!;
      if (fails && this.#random.chance(0.7)) this.#lostFrom = Math.min(this.#lostFrom, begin);
      else this.#keep(begin, end);
    }
    if (!fails) return;
    this.#positions.syncFailed();
    throw new Unavailable("input/output error");
  }

  #keep(begin: number, end: number): void {
    for (let i = begin; i < end; i++) this.durable[i] = this.cached[i]!;
    this.changedFrom = Math.min(this.changedFrom, begin);
  }

  /** The timeline is put here as a whole, durably; undefined: it is removed. */
  install(control: TimelineState | undefined, log: LogBytes): void {
    for (const bytes of [this.cached, this.durable]) {
      bytes.fill(0);
      bytes.set(log);
    }
    this.control = control;
    this.#unsynced = [];
    this.#lostFrom = Infinity;
    this.changedFrom = 0;
    this.stepsToCrash = 0;
  }

  /** Power is lost. */
  crash(): void {
    const kept = this.#random.pick([0, 0.5, 0.5, 1]);
    const last = this.#unsynced.at(-1);
    for (const { begin, end, number } of this.#unsynced) {
      if (!this.#random.chance(kept)) continue;
      this.#keep(
        begin,
        number === last!.number ? begin + this.#random.below(end - begin + 1) : end,
      );
    }
    this.#unsynced = [];
    this.#lostFrom = Infinity;
    this.cached.set(this.durable);
    this.stepsToCrash = 0;
  }

  /** Between any two steps power may be lost. */
  #step(): void {
    if (this.stepsToCrash > 0 && --this.stepsToCrash === 0) throw new Crash("power lost");
  }
}
