/**
 * The WAL proposer as a standby of a running Postgres: physical replication over the endpoint's
 * Unix socket.
 *
 * Where Postgres has no preloaded library (wal_flushes.ts), its WAL comes this way: Postgres sends
 * bytes from the start LSN on, and its commits wait until this "standby" (the only one that
 * synchronous_standby_names accepts) has acknowledged them. We acknowledge what acknowledgement.ts
 * says: written = flushed = applied, at once when it rises and whenever Postgres asks.
 *
 * In any case Postgres keeps, for a standby, what we tell it to: rows that replicas still read, and
 * the catalogs of logical slots. The physical slot has it remember that, and keep in pg_wal what is
 * not acknowledged.
 */
import { Corrupt, messageOf, TimedOut, Unavailable } from "../../libs/utils/errors.ts";
import { logger } from "../../libs/utils/log.ts";
import { formatLsn, type Lsn, parseLsn } from "../../libs/utils/lsn.ts";
import { Turns } from "../../libs/utils/turns.ts";
import type { PgClient } from "../../libs/pgwire/client.ts";
import { ServerError } from "../../libs/pgwire/messages.ts";
import type { CopyBoth } from "../../libs/pgwire/copy_both.ts";
import {
  postgresTime,
  queueHotStandbyFeedback,
  queueStandbyStatus,
  ReplicationTag,
  XLOG_DATA_HEADER_BYTES,
} from "../../libs/pgwire/replication.ts";
import type { Acknowledgement } from "./acknowledgement.ts";
import type { WalProposer } from "./driver.ts";
import { lowestXid } from "./standby_feedback.ts";
import { withinLimit } from "./time_limit.ts";
import { readU64 } from "./wire.ts";

const log = logger("compute", "wal_proposer");

/** Name of the physical replication slot. */
export const SLOT_NAME = "neon_wal_proposer";

/** Offset of "reply wanted" in a keepalive: tag, u64 end, i64 time. */
const KEEPALIVE_REPLY_AT = 17;
const KEEPALIVE_BYTES = 18;
/** Pauses before the stream is opened again: after it broke, and longest, if it breaks at once. */
const RECONNECT_MS = 50;
const RECONNECT_MS_MAX = 2000;
/** Longest wait until Postgres has opened a stream. */
const OPEN_MS_MAX = 10_000;

/** SQLSTATE of a slot that is there already: an earlier host has made it. */
const DUPLICATE_OBJECT = "42710";

/** Opens a connection over the endpoint's own socket; it is closed when `signal` aborts. */
type Connect = (parameters: Record<string, string>, signal: AbortSignal) => Promise<PgClient>;

/** What a stream is made for. */
interface StreamOptions {
  /** Postgres's WAL comes this way; otherwise it is dropped here. */
  readonly takesWal: boolean;
  readonly standbyName: string;
  readonly slotExists: boolean;
  /** What `holdCatalog` will say, undefined if that follows later. */
  readonly catalogXmin: number | undefined;
  readonly connect: Connect;
}

/** See the head of the file. */
export class PostgresStream {
  /** Resolves when the first stream is open and acknowledged. */
  readonly opened: Promise<void>;
  readonly #opened = Promise.withResolvers<void>();
  readonly #proposer: WalProposer;
  readonly #connect: Connect;
  readonly #takesWal: boolean;
  readonly #standbyName: string;
  #slotExists: boolean;
  readonly #acknowledgement: Acknowledgement;
  #copy: CopyBoth | undefined;
  /** For logical slots, a full transaction id; undefined while that is not known. */
  #catalogXmin: number | undefined;
  /** Told on this connection: what replicas hold back. Undefined if nothing was. */
  #toldXmin: number | undefined;
  #toldCatalogXmin = 0;
  #statusTime = postgresTime(Date.now());
  #stopped = false;
  readonly #stopping = Promise.withResolvers<void>();
  #done: Promise<void> = Promise.resolve();

  constructor(
    proposer: WalProposer,
    acknowledgement: Acknowledgement,
    { takesWal, standbyName, slotExists, catalogXmin, connect }: StreamOptions,
  ) {
    this.#proposer = proposer;
    this.#acknowledgement = acknowledgement;
    this.#takesWal = takesWal;
    this.#standbyName = standbyName;
    this.#slotExists = slotExists;
    this.#catalogXmin = catalogXmin;
    this.#connect = connect;
    this.opened = this.#opened.promise;
    this.opened.catch(() => {});
    acknowledgement.onRisen(() => this.#acknowledge());
  }

  /** Streams until `stop`, opening the stream again when it breaks. */
  start(): void {
    this.#done = this.#run();
  }

  /** Closes the stream; commits that wait for it wait from now on. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#stopping.resolve();
    this.#copy?.close();
    this.#opened.reject(new Error("Cannot stream WAL from Postgres: the endpoint is stopping"));
    await this.#done;
  }

  /**
   * Has Postgres keep its catalogs as this transaction (a full id, 0: none) sees them, as it does
   * for a standby.
   */
  holdCatalog(catalogXmin: number): void {
    this.#catalogXmin = catalogXmin;
    this.tellFeedback();
  }

  async #run(): Promise<void> {
    let pauseMs = RECONNECT_MS;
    while (!this.#stopped) {
      const end = this.#proposer.endLsn;
      try {
        await this.#stream();
      } catch (thrown) {
        // A crashed or stopping Postgres also ends up here; the endpoint sees its exit
        if (!this.#stopped) this.#tellBroken(thrown);
      } finally {
        this.#copy?.close();
        this.#copy = undefined;
      }
      pauseMs = this.#proposer.endLsn > end
        ? RECONNECT_MS
        : Math.min(pauseMs * 2, RECONNECT_MS_MAX);
      if (!this.#stopped) await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
  }

  /** What nobody may take is said aloud: commits wait until Postgres sends what comes next. */
  #tellBroken(thrown: unknown): void {
    const timeline = this.#proposer.options.timelineId;
    const why = messageOf(thrown);
    if (thrown instanceof Corrupt) {
      log.error("{timeline}: the WAL stream from Postgres is not taken: {why}", { timeline, why });
      this.#opened.reject(thrown);
    } else log.info("{timeline}: the WAL stream from Postgres broke: {why}", { timeline, why });
  }

  /** Opens a stream. A Postgres that does not answer is given up after a while, or at the stop. */
  async #open(): Promise<CopyBoth> {
    const attempt = new AbortController();
    const given = withinLimit(
      Promise.race([this.#openFrom(attempt.signal), this.#stopping.promise]),
      OPEN_MS_MAX,
      () => new TimedOut(`Postgres does not open it within ${OPEN_MS_MAX / 1000} s`),
    );
    const copy = await given.catch((thrown) => {
      attempt.abort();
      throw thrown;
    });
    if (copy !== undefined) return copy;
    attempt.abort();
    throw new Unavailable("the endpoint is stopping");
  }

  async #openFrom(signal: AbortSignal): Promise<CopyBoth> {
    const client = await this.#connect({
      replication: "true",
      application_name: this.#standbyName,
      // While WAL is held back we do not read, which must not count as a dead standby
      options: "-c wal_sender_timeout=0",
    }, signal);
    try {
      if (!this.#slotExists) await createSlot(client);
      this.#slotExists = true;
      const from = formatLsn(this.#takesWal ? this.#proposer.endLsn : await flushedLsn(client));
      return await client.copyBoth(
        `START_REPLICATION SLOT ${SLOT_NAME} PHYSICAL ${from} TIMELINE 1`,
      );
    } catch (thrown) {
      client.close();
      throw thrown;
    }
  }

  async #stream(): Promise<void> {
    const copy = await this.#open();
    if (this.#stopped) return copy.close();
    this.#copy = copy;
    this.#toldXmin = undefined;
    this.#acknowledge();
    this.tellFeedback();
    this.#opened.resolve();
    await this.#receive(copy);
  }

  async #receive(copy: CopyBoth): Promise<void> {
    const proposer = this.#proposer;
    const turns = new Turns();
    for (;;) {
      const payload = copy.tryReceive();
      if (payload === undefined) {
        if (this.#takesWal) proposer.pump();
        if (await copy.more()) continue;
        return;
      }
      if (payload[0] === ReplicationTag.xlogData && payload.length >= XLOG_DATA_HEADER_BYTES) {
        if (!this.#takesWal) continue;
        const length = payload.length - XLOG_DATA_HEADER_BYTES;
        while (!proposer.hasRoom(length) && !this.#stopped) {
          proposer.pump();
          await Promise.race([proposer.room(), this.#stopping.promise]);
        }
        const lsn = readU64(payload, 1);
        if (lsn !== proposer.endLsn) {
          throw new Corrupt(
            `Cannot take WAL at ${formatLsn(lsn)}: ${formatLsn(proposer.endLsn)} is next`,
          );
        }
        proposer.append(lsn, payload.subarray(XLOG_DATA_HEADER_BYTES));
        const turn = turns.after(length);
        if (turn !== undefined) await turn;
      } else if (payload[0] === ReplicationTag.keepalive && payload.length === KEEPALIVE_BYTES) {
        if (payload[KEEPALIVE_REPLY_AT] === 0) continue;
        this.#statusTime = postgresTime(Date.now());
        this.#acknowledge();
      } else {
        const size = `${payload.length} bytes and tag ${payload[0]}`;
        throw new Corrupt(`Cannot take a message of ${size}: Postgres sends no such`);
      }
    }
  }

  /** Tells Postgres how far commits may go on. */
  #acknowledge(): void {
    const copy = this.#copy;
    if (copy === undefined) return;
    queueStandbyStatus(copy, this.#acknowledgement.lsn, this.#statusTime);
    this.#send(copy);
  }

  #send(copy: CopyBoth): void {
    try {
      copy.push();
    } catch {
      copy.close(); // the receiving loop sees the end
    }
  }

  /**
   * What logical slots and replicas need kept. Postgres's slot remembers what it was told, also by
   * an earlier stream, so each one tells it anew.
   */
  tellFeedback(): void {
    const copy = this.#copy;
    if (copy === undefined || this.#catalogXmin === undefined) return;
    const { xmin, catalogXmin: ofReplicas } = this.#proposer.standbyFeedback;
    const catalogXmin = lowestXid(ofReplicas, this.#catalogXmin);
    if (xmin === this.#toldXmin && catalogXmin === this.#toldCatalogXmin) return;
    this.#toldXmin = xmin;
    this.#toldCatalogXmin = catalogXmin;
    queueHotStandbyFeedback(copy, xmin, catalogXmin, postgresTime(Date.now()));
    this.#send(copy);
  }
}

async function createSlot(client: PgClient): Promise<void> {
  try {
    await client.query(`CREATE_REPLICATION_SLOT ${SLOT_NAME} PHYSICAL RESERVE_WAL`);
  } catch (thrown) {
    const exists = thrown instanceof ServerError && thrown.code === DUPLICATE_OBJECT;
    if (!exists) throw thrown;
  }
}

async function flushedLsn(client: PgClient): Promise<Lsn> {
  const { rows } = await client.query("IDENTIFY_SYSTEM");
  return parseLsn(rows[0]![2]!); // xlogpos
}
