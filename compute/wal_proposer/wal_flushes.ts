/**
 * Takes the WAL of a Postgres that has the preloaded library: whenever Postgres syncs its WAL, the
 * library says how far it has been written to files (library/wal_flush.c). We read it there, send
 * it to the safekeepers, and answer when Postgres may count on it (acknowledgement.ts).
 *
 * Whoever syncs holds a lock meanwhile, so the files do not change between request and answer, and
 * commits that come together share one. A request names the end of a page. Pages before the last
 * one are final; of the last one we take the records that are whole (page_records.ts).
 */
import { PAGE_SIZE, WAL_SEGMENT_SIZE } from "../../libs/postgres/constants.ts";
import { PageRecords } from "../../libs/postgres/wal/page_records.ts";
import { Corrupt, messageOf } from "../../libs/utils/errors.ts";
import { logger } from "../../libs/utils/log.ts";
import {
  addLsn,
  formatLsn,
  INVALID_LSN,
  type Lsn,
  lsnFromHalves,
  maxLsn,
  minLsn,
} from "../../libs/utils/lsn.ts";
import { closeQuietly, readWhole } from "../../libs/utils/sockets.ts";
import { Turns } from "../../libs/utils/turns.ts";
import type { LocalWal } from "../local_wal.ts";
import type { Acknowledgement } from "./acknowledgement.ts";
import type { WalProposer } from "./driver.ts";

const log = logger("compute", "wal_proposer");

/** u64 end of the written WAL, u64 number; the answer is the same. */
const REQUEST_BYTES = 16;
/** Pause after WAL could not be taken. */
const AGAIN_MS = 500;
/** Bytes read from a file at once. */
const CHUNK_BYTES = 256 * 1024;

/** See the head of the file. */
export class WalFlushes {
  /** Resolves when Postgres has connected. */
  readonly connected: Promise<void>;
  readonly #connected = Promise.withResolvers<void>();
  readonly #wal: LocalWal;
  readonly #proposer: WalProposer;
  readonly #acknowledgement: Acknowledgement;
  readonly #connections = new Set<Deno.Conn>();
  readonly #page = new PageRecords(WAL_SEGMENT_SIZE, (from, into) => this.#read(from, into));
  #chunk: Uint8Array<ArrayBuffer> | undefined;
  /**
   * What a quorum is waited for: the end of the last record that was taken, at least. Safekeepers
   * count whole records only.
   */
  #recordEnd: Lsn;
  /** It is the end of the last record before here. More may be taken, where a file ended early. */
  #lookedUpTo: Lsn;
  /** WAL is taken in one place at a time. */
  #taking: Promise<unknown> = Promise.resolve();
  #waiting: (() => void)[] = [];
  #stopped = false;
  readonly #stopping = Promise.withResolvers<void>();

  /** `proposer` is at the end of a record, or at a page's start. */
  constructor(wal: LocalWal, proposer: WalProposer, acknowledgement: Acknowledgement) {
    this.#wal = wal;
    this.#proposer = proposer;
    this.#acknowledgement = acknowledgement;
    this.#recordEnd = this.#lookedUpTo = proposer.endLsn;
    this.connected = this.#connected.promise;
    acknowledgement.onRisen(() => this.#wake());
  }

  /** Answers the requests of one connection of Postgres, until it ends. */
  async serve(connection: Deno.Conn): Promise<void> {
    if (this.#stopped) return closeQuietly(connection);
    this.#connections.add(connection);
    this.#connected.resolve();
    const request = new Uint8Array(REQUEST_BYTES);
    const view = new DataView(request.buffer);
    try {
      while (await readWhole(connection, request)) {
        const end = lsnFromHalves(view.getUint32(4, true), view.getUint32(0, true));
        const taken = await this.take(end);
        while (this.#acknowledgement.lsn < taken && !this.#stopped) await this.#risen();
        if (this.#stopped) return;
        await connection.write(request);
      }
    } catch (thrown) {
      const { ConnectionReset, BrokenPipe, BadResource } = Deno.errors;
      const ended = [ConnectionReset, BrokenPipe, BadResource].some((E) => thrown instanceof E);
      if (ended || this.#stopped) return; // the library connects again, or Postgres has ended
      const timeline = this.#proposer.options.timelineId;
      log.error("{timeline}: WAL is not taken: {why}", { timeline, why: messageOf(thrown) });
      await this.#pause(); // the library asks again at once
    } finally {
      this.#connections.delete(connection);
      closeQuietly(connection);
    }
  }

  /**
   * Takes what Postgres has written before `end`, the end of a page, as far as it is final; returns
   * where the last whole record ends. Throws Corrupt if the files end before.
   */
  async take(end: Lsn): Promise<Lsn> {
    const taking = this.#taking.then(() => this.#take(end));
    this.#taking = taking.catch(() => {});
    return await taking;
  }

  async #take(end: Lsn): Promise<Lsn> {
    if (end % PAGE_SIZE !== 0) {
      throw new Corrupt(`Cannot take WAL up to ${formatLsn(end)}: no page ends there`);
    }
    const lastPage = addLsn(end, -PAGE_SIZE);
    if (this.#proposer.endLsn < lastPage) await this.#takeFinal(lastPage);
    if (this.#stopped) return this.#recordEnd;
    if (this.#proposer.endLsn < end || this.#lookedUpTo < end) await this.#takeLast(lastPage);
    this.#lookedUpTo = maxLsn(this.#lookedUpTo, end);
    this.#proposer.pump();
    return this.#recordEnd;
  }

  /** Takes everything before `end`. */
  async #takeFinal(end: Lsn): Promise<void> {
    const proposer = this.#proposer;
    const chunk = this.#chunk ??= new Uint8Array(CHUNK_BYTES);
    const turns = new Turns();
    while (proposer.endLsn < end && !this.#stopped) {
      const from = proposer.endLsn;
      const bytes = chunk.subarray(0, minLsn(end, addLsn(from, CHUNK_BYTES)) - from);
      this.#read(from, bytes);
      await this.#append(from, bytes);
      proposer.pump();
      await turns.after(bytes.length);
    }
  }

  async #takeLast(pageStart: Lsn): Promise<void> {
    const page = this.#page;
    const from = this.#proposer.endLsn;
    this.#read(pageStart, page.bytes);
    page.scan(pageStart, this.#recordEnd);
    if (page.finalEnd > from) {
      await this.#append(from, page.bytes.subarray(from - pageStart, page.finalEnd - pageStart));
      if (this.#stopped) return; // meanwhile: its files are closed
    }
    // A long record only passes through; then the last one ended on a page before
    let before = pageStart;
    while (page.recordEnd === INVALID_LSN && before > this.#recordEnd) {
      before = addLsn(before, -PAGE_SIZE);
      this.#read(before, page.bytes);
      page.scan(before, this.#recordEnd);
    }
    this.#recordEnd = maxLsn(this.#recordEnd, page.recordEnd);
  }

  #read(from: Lsn, into: Uint8Array): void {
    if (this.#wal.read(from, into) === into.length) return;
    throw new Corrupt(`Cannot read ${into.length} bytes of WAL at ${formatLsn(from)}: no file`);
  }

  /** Waits for room, as long as that can come: nothing of an unfinished record is ever committed. */
  async #append(lsn: Lsn, bytes: Uint8Array): Promise<void> {
    const proposer = this.#proposer;
    const isAwaited = () => proposer.acknowledgedLsn < this.#recordEnd && !this.#stopped;
    while (!proposer.hasRoom(bytes.length) && isAwaited()) {
      proposer.pump();
      await Promise.race([proposer.room(), this.#stopping.promise]);
    }
    if (!this.#stopped) proposer.append(lsn, bytes);
  }

  async #pause(): Promise<void> {
    const over = Promise.withResolvers<void>();
    const timer = setTimeout(over.resolve, AGAIN_MS);
    await Promise.race([over.promise, this.#stopping.promise]);
    clearTimeout(timer);
  }

  #risen(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  #wake(): void {
    const waiting = this.#waiting;
    if (waiting.length === 0) return;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }

  /** Closes all connections; commits wait from now on. */
  stop(): void {
    this.#stopped = true;
    this.#stopping.resolve();
    for (const connection of this.#connections) closeQuietly(connection);
    this.#wake();
    this.#wal[Symbol.dispose]();
  }
}
