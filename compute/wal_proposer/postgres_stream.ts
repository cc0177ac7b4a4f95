/**
 * Takes the WAL out of a running Postgres: physical replication over the endpoint's Unix socket.
 *
 * Postgres sends bytes from the start LSN on, and its commits wait until this "standby" (the only
 * one that synchronous_standby_names accepts) has acknowledged them. We acknowledge what a quorum
 * of safekeepers has on disk: written = flushed = applied, at once when it rises and whenever
 * Postgres asks; later, if the pageserver is too far behind (backpressure.ts). What waits then is
 * only the acknowledgement, the WAL goes on to the safekeepers.
 *
 * The physical slot makes Postgres keep in pg_wal what is not acknowledged, and rows that replicas
 * still read, of which we tell it as a standby would of its own queries.
 */
import { Corrupt, messageOf, TimedOut, Unavailable } from "../../libs/utils/errors.ts";
import { logger } from "../../libs/utils/log.ts";
import { formatLsn, maxLsn } from "../../libs/utils/lsn.ts";
import { Turns } from "../../libs/utils/turns.ts";
import type { PgClient } from "../../libs/pgwire/client.ts";
import type { CopyBoth } from "../../libs/pgwire/copy_both.ts";
import {
  postgresTime,
  queueHotStandbyFeedback,
  queueStandbyStatus,
  ReplicationTag,
  XLOG_DATA_HEADER_BYTES,
} from "../../libs/pgwire/replication.ts";
import type { PageserverLag } from "../client.ts";
import { Backpressure, type LagLimits } from "./backpressure.ts";
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
/** Safekeepers are asked for the pageserver's progress this often while commits wait for it. */
const ASK_MS = 50;
/** Commits that have not waited for the pageserver for so long do not wait any more. */
const UNDELAYED_MS = 5000;

/** Opens a connection over the endpoint's own socket; it is closed when `signal` aborts. */
type Connect = (parameters: Record<string, string>, signal: AbortSignal) => Promise<PgClient>;

/** See the head of the file. */
export class PostgresStream {
  /** Resolves when the first stream is open and acknowledged. */
  readonly opened: Promise<void>;
  readonly #opened = Promise.withResolvers<void>();
  readonly #proposer: WalProposer;
  readonly #connect: Connect;
  readonly #standbyName: string;
  #slotExists: boolean;
  readonly #backpressure: Backpressure;
  #askTimer: ReturnType<typeof setTimeout> | undefined;
  /** When commits began to wait for the pageserver, and when they were last seen to. */
  #delayed: { readonly sinceMs: number; lastMs: number } | undefined;
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

  /**
   * `limits` are those of the pageserver's lag; `connect` opens a connection over the endpoint's
   * own socket with these startup parameters; `catalogXmin` is what `holdCatalog` will say,
   * undefined if that follows later.
   */
  constructor(
    proposer: WalProposer,
    standbyName: string,
    limits: LagLimits,
    slotExists: boolean,
    catalogXmin: number | undefined,
    connect: Connect,
  ) {
    this.#proposer = proposer;
    this.#standbyName = standbyName;
    this.#slotExists = slotExists;
    this.#catalogXmin = catalogXmin;
    this.#connect = connect;
    this.opened = this.#opened.promise;
    this.opened.catch(() => {});
    const { startLsn, endLsn, pageserver } = proposer;
    // A stream that is resumed goes on where Postgres was last acknowledged
    this.#backpressure = new Backpressure(limits, startLsn, maxLsn(startLsn, endLsn));
    if (pageserver !== undefined) this.#backpressure.note(pageserver);
    proposer.onCommit = () => this.#release();
    proposer.onPageserver = (feedback) => {
      this.#backpressure.note(feedback);
      this.#release();
    };
    proposer.onStandbyFeedback = () => {
      this.#tellFeedback();
      this.#tellDelay();
    };
  }

  /** How far the pageserver is behind, and whether commits wait for it. */
  get lag(): PageserverLag {
    return this.#backpressure.lag(this.#proposer.commitLsn);
  }

  /** Other limits of the pageserver's lag from now on. */
  setLimits(limits: LagLimits): void {
    this.#backpressure.setLimits(limits);
    this.#release();
  }

  /** Commits do not wait for the pageserver any more: Postgres is to stop. */
  lift(): void {
    this.#backpressure.lift();
    this.#release();
  }

  /** Streams until `stop`, opening the stream again when it breaks. */
  start(): void {
    this.#done = this.#run();
  }

  /** Closes the stream; Postgres's commits wait from now on. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#askTimer);
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
    this.#tellFeedback();
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
      if (!this.#slotExists) {
        await client.query(`CREATE_REPLICATION_SLOT ${SLOT_NAME} PHYSICAL RESERVE_WAL`);
        this.#slotExists = true;
      }
      const from = formatLsn(this.#proposer.endLsn);
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
    this.#tellFeedback();
    this.#opened.resolve();
    await this.#receive(copy);
  }

  async #receive(copy: CopyBoth): Promise<void> {
    const proposer = this.#proposer;
    const turns = new Turns();
    for (;;) {
      const payload = copy.tryReceive();
      if (payload === undefined) {
        proposer.pump();
        if (await copy.more()) continue;
        return;
      }
      if (payload[0] === ReplicationTag.xlogData && payload.length >= XLOG_DATA_HEADER_BYTES) {
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

  /** A quorum has more, or the pageserver: tells Postgres as far as that lets commits go on. */
  #release(): void {
    const { commitLsn } = this.#proposer;
    const before = this.#backpressure.released;
    const released = this.#backpressure.release(commitLsn);
    if (released > before) this.#acknowledge();
    if (released < commitLsn) this.#delay();
  }

  #acknowledge(): void {
    const copy = this.#copy;
    if (copy === undefined) return;
    queueStandbyStatus(copy, this.#backpressure.released, this.#statusTime);
    this.#send(copy);
  }

  #send(copy: CopyBoth): void {
    try {
      copy.push();
    } catch {
      copy.close(); // the receiving loop sees the end
    }
  }

  /** Commits wait for the pageserver: without new WAL nobody would tell how far it is. */
  #delay(): void {
    const now = performance.now();
    if (this.#delayed === undefined) {
      this.#delayed = { sinceMs: now, lastMs: now };
      const { write_bytes, flush_bytes, apply_bytes, has_reported } = this.lag;
      log.warning(
        "{timeline}: commits wait for the pageserver, which {state}: of the WAL it has not " +
          "received {write}, not on disk {flush}, not safe to remove {apply} bytes",
        {
          timeline: this.#proposer.options.timelineId,
          state: has_reported ? "is behind" : "has reported nothing since the start",
          write: write_bytes,
          flush: flush_bytes,
          apply: apply_bytes,
        },
      );
    }
    this.#delayed.lastMs = now;
    if (this.#askTimer !== undefined || this.#stopped) return;
    this.#askTimer = setTimeout(() => {
      this.#askTimer = undefined;
      this.#proposer.askPageserver();
      this.#release();
    }, ASK_MS);
  }

  #tellDelay(): void {
    const delayed = this.#delayed;
    if (delayed === undefined || performance.now() - delayed.lastMs < UNDELAYED_MS) return;
    this.#delayed = undefined;
    log.info("{timeline}: commits do not wait for the pageserver any more; they did for {s} s", {
      timeline: this.#proposer.options.timelineId,
      s: ((delayed.lastMs - delayed.sinceMs) / 1000).toFixed(1),
    });
  }

  /**
   * What logical slots and replicas need kept. Postgres's slot remembers what it was told, also by
   * an earlier stream, so each one tells it anew.
   */
  #tellFeedback(): void {
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
