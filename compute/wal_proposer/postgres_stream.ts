/**
 * Takes the WAL out of a running Postgres: physical replication over the endpoint's Unix socket.
 *
 * Postgres sends bytes from the start LSN on, and its commits wait until this "standby" (the only
 * one that synchronous_standby_names accepts) has acknowledged them. We acknowledge what a quorum
 * of safekeepers has on disk: written = flushed = applied, at once when it rises and whenever
 * Postgres asks. The physical slot makes Postgres keep in pg_wal what is not acknowledged, and rows
 * that replicas still read, of which we tell it as a standby would of its own queries.
 */
import { Corrupt, messageOf } from "../../libs/utils/errors.ts";
import { logger } from "../../libs/utils/log.ts";
import { formatLsn, type Lsn } from "../../libs/utils/lsn.ts";
import type { PgClient } from "../../libs/pgwire/client.ts";
import type { CopyBoth } from "../../libs/pgwire/copy_both.ts";
import {
  postgresTime,
  queueHotStandbyFeedback,
  queueStandbyStatus,
  ReplicationTag,
  XLOG_DATA_HEADER_BYTES,
} from "../../libs/pgwire/replication.ts";
import type { WalProposer } from "./driver.ts";
import { lowestXid } from "./standby_feedback.ts";
import { readU64 } from "./wire.ts";

const log = logger("compute", "wal_proposer");

/** Name of the physical replication slot. */
export const SLOT_NAME = "neon_wal_proposer";

/** Offset of "reply wanted" in a keepalive: tag, u64 end, i64 time. */
const KEEPALIVE_REPLY_AT = 17;
/** Pause before the stream is opened again after it broke. */
const RECONNECT_MS = 50;

/** See the head of the file. */
export class PostgresStream {
  /** Resolves when the first stream is open and acknowledged. */
  readonly opened: Promise<void>;
  readonly #opened = Promise.withResolvers<void>();
  readonly #proposer: WalProposer;
  readonly #connect: (parameters: Record<string, string>) => Promise<PgClient>;
  readonly #standbyName: string;
  #slotExists: boolean;
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
   * `connect` opens a connection over the endpoint's own socket with these startup parameters;
   * `catalogXmin` is what `holdCatalog` will say, undefined if that follows later.
   */
  constructor(
    proposer: WalProposer,
    standbyName: string,
    slotExists: boolean,
    catalogXmin: number | undefined,
    connect: (parameters: Record<string, string>) => Promise<PgClient>,
  ) {
    this.#proposer = proposer;
    this.#standbyName = standbyName;
    this.#slotExists = slotExists;
    this.#catalogXmin = catalogXmin;
    this.#connect = connect;
    this.opened = this.#opened.promise;
    this.opened.catch(() => {});
    proposer.onCommit = (lsn) => this.#acknowledge(lsn);
    proposer.onStandbyFeedback = () => this.#tellFeedback();
  }

  /** Streams until `stop`, opening the stream again when it breaks. */
  start(): void {
    this.#done = this.#run();
  }

  /** Closes the stream; Postgres's commits wait from now on. */
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
    this.#tellFeedback();
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      try {
        await this.#stream();
      } catch (thrown) {
        // A crashed or stopping Postgres also ends up here; the endpoint sees its exit
        if (!this.#stopped) {
          log.info("the WAL stream from Postgres broke: {why}", { why: messageOf(thrown) });
        }
        if (thrown instanceof Corrupt) {
          this.#opened.reject(thrown);
          return;
        }
      } finally {
        this.#copy?.close();
        this.#copy = undefined;
      }
      if (!this.#stopped) await new Promise((resolve) => setTimeout(resolve, RECONNECT_MS));
    }
  }

  async #stream(): Promise<void> {
    const client = await this.#connect({
      replication: "true",
      application_name: this.#standbyName,
      // While WAL is held back we do not read, which must not count as a dead standby
      options: "-c wal_sender_timeout=0",
    });
    let copy: CopyBoth;
    try {
      if (!this.#slotExists) {
        await client.query(`CREATE_REPLICATION_SLOT ${SLOT_NAME} PHYSICAL RESERVE_WAL`);
        this.#slotExists = true;
      }
      const from = formatLsn(this.#proposer.endLsn);
      copy = await client.copyBoth(
        `START_REPLICATION SLOT ${SLOT_NAME} PHYSICAL ${from} TIMELINE 1`,
      );
    } catch (thrown) {
      client.close();
      throw thrown;
    }
    if (this.#stopped) return copy.close();
    this.#copy = copy;
    this.#toldXmin = undefined;
    this.#acknowledge(this.#proposer.acknowledgedLsn);
    this.#tellFeedback();
    this.#opened.resolve();
    await this.#receive(copy);
  }

  async #receive(copy: CopyBoth): Promise<void> {
    const proposer = this.#proposer;
    for (;;) {
      let payload = copy.tryReceive();
      if (payload === undefined) {
        proposer.pump();
        payload = await copy.receive();
        if (payload === undefined) return;
      }
      if (payload[0] === ReplicationTag.xlogData) {
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
      } else if (payload[0] === ReplicationTag.keepalive && payload[KEEPALIVE_REPLY_AT] !== 0) {
        this.#statusTime = postgresTime(Date.now());
        this.#acknowledge(proposer.acknowledgedLsn);
      }
    }
  }

  #acknowledge(lsn: Lsn): void {
    const copy = this.#copy;
    if (copy === undefined) return;
    queueStandbyStatus(copy, lsn, this.#statusTime);
    copy.flush().catch(() => copy.close()); // the receiving loop sees the end
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
    copy.flush().catch(() => copy.close()); // the receiving loop sees the end
  }
}
