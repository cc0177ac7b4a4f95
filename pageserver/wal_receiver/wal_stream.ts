/**
 * One connection to a safekeeper: START_REPLICATION from last_record_lsn, WAL into ingest, progress
 * back. Ends when the safekeeper ends it, falls silent, or the caller aborts.
 *
 * The safekeeper lets small pieces gather, so that not each commit costs a message. When somebody
 * waits for WAL that has not come, it is asked to send at once what it has.
 */
import { PgClient } from "../../libs/pgwire/client.ts";
import type { CopyBoth } from "../../libs/pgwire/copy_both.ts";
import {
  postgresTime,
  queuePageserverFeedback,
  queueStandbyStatus,
  readSenderMessage,
} from "../../libs/pgwire/replication.ts";
import { encodeFeedback } from "../../libs/safekeeper_protocol/feedback.ts";
import { parseAddress } from "../../libs/utils/address.ts";
import { Corrupt, TimedOut } from "../../libs/utils/errors.ts";
import { addLsn, formatLsn, INVALID_LSN, type Lsn } from "../../libs/utils/lsn.ts";
import type { TokenSource } from "../../libs/utils/token_source.ts";
import { WalIngest, type WalIngestOptions } from "../ingest/wal_ingest.ts";

/** Safekeepers say something each second; this long without a word means that one is gone. */
const SILENCE_LIMIT_MS = 10_000;
const SILENCE_CHECK_MS = 2_000;
/** Least time between two feedbacks while WAL keeps coming. */
const FEEDBACK_INTERVAL_MS = 100;

/** Where to stream from and into. */
interface WalStreamOptions extends WalIngestOptions {
  /** host:port of the safekeeper's WAL service. */
  readonly safekeeper: string;
  readonly pageserverId: number;
  readonly token: TokenSource | undefined;
  readonly signal: AbortSignal;
  /** Unix time in milliseconds, for feedback. */
  readonly unixNow: () => number;
}

/**
 * Streams until the connection ends. Throws what connecting throws, TimedOut after silence, Corrupt
 * if the WAL cannot be read; returns when the safekeeper ends the stream or `signal` is aborted.
 */
export async function streamWal(options: WalStreamOptions): Promise<void> {
  const { served, safekeeper, signal, now } = options;
  const { tenantId, timelineId, lastRecordLsn } = served.timeline;
  const startup = {
    user: "pageserver",
    database: "replication",
    replication: "true",
    application_name: `pageserver-${options.pageserverId}`,
    options: `-c timeline_id=${timelineId} tenant_id=${tenantId}`,
  };
  // Closes the connection, also one that is being opened
  const attempt = new AbortController();
  const close = () => attempt.abort();
  signal.addEventListener("abort", close);
  let heardMs = now();
  let isBusy = false; // with what it sent: then it is not the safekeeper that is silent
  let silent = false;
  const watchdog = setInterval(() => {
    if (now() - heardMs < SILENCE_LIMIT_MS || isBusy) return;
    silent = true;
    close();
  }, SILENCE_CHECK_MS);
  try {
    if (signal.aborted) return;
    const address = parseAddress(safekeeper);
    const client = await PgClient.connect(address, startup, attempt.signal, options.token);
    const copy = await client.copyBoth(`START_REPLICATION PHYSICAL ${formatLsn(lastRecordLsn)}`);
    await pump(copy, options, (busy) => {
      heardMs = now();
      isBusy = busy;
    });
  } catch (thrown) {
    if (signal.aborted) return;
    if (silent) throw new TimedOut(`Cannot stream WAL from ${safekeeper}: it is silent`);
    throw thrown;
  } finally {
    clearInterval(watchdog);
    signal.removeEventListener("abort", close);
    close();
  }
}

/** `heard` is told of each message, whether it is being worked on. */
async function pump(
  copy: CopyBoth,
  options: WalStreamOptions,
  heard: (isBusy: boolean) => void,
): Promise<void> {
  const { timeline } = options.served;
  const ingest = new WalIngest(options);
  const replies = new Replies(copy, options);
  timeline.onWait = () => replies.ask();
  try {
    for (;;) {
      const payload = await copy.receive();
      if (payload === undefined) return;
      heard(false);
      const message = readSenderMessage(payload);
      if (message.kind === "keepalive") {
        await replies.send();
        continue;
      }
      if (message.start !== ingest.fedLsn) {
        throw new Corrupt(
          `Cannot ingest WAL at ${formatLsn(message.start)}: expected ${formatLsn(ingest.fedLsn)}`,
        );
      }
      const end = addLsn(message.start, message.wal.length);
      if (end > message.endOfWal) {
        throw new Corrupt(
          `Cannot ingest WAL up to ${formatLsn(end)}: its sender's ends at ${
            formatLsn(message.endOfWal)
          }`,
        );
      }
      heard(true);
      await ingest.feed(message.wal);
      heard(false);
      await replies.afterWal();
    }
  } finally {
    timeline.onWait = undefined;
  }
}

/** What the safekeeper hears. */
class Replies {
  readonly #copy: CopyBoth;
  readonly #options: WalStreamOptions;
  #sentMs = -Infinity;
  #sentDisk: Lsn = INVALID_LSN;
  /** It was asked for what there is, and sent no WAL since. */
  #hasAsked = false;

  constructor(copy: CopyBoth, options: WalStreamOptions) {
    this.#copy = copy;
    this.#options = options;
  }

  /** Has it send at once what it has. */
  ask(): void {
    if (this.#hasAsked) return;
    this.#queue(true);
    this.#copy.flush().catch(() => {}); // the next reply fails as well
  }

  /** Tells of progress, and asks for more if that is not all that somebody waits for. */
  async afterWal(): Promise<void> {
    this.#hasAsked = false;
    if (this.#copy.buffered) {
      const { diskConsistentLsn } = this.#options.served.timeline;
      const isDue = this.#options.now() - this.#sentMs >= FEEDBACK_INTERVAL_MS;
      if (!isDue && diskConsistentLsn === this.#sentDisk) return;
    }
    await this.send();
  }

  /** Tells of progress. */
  async send(): Promise<void> {
    const isAwaited = this.#options.served.timeline.waiterCount > 0;
    this.#queue(isAwaited && !this.#hasAsked);
    await this.#copy.flush();
  }

  #queue(asks: boolean): void {
    const { lastRecordLsn, diskConsistentLsn } = this.#options.served.timeline;
    const time = postgresTime(this.#options.unixNow());
    const feedback = encodeFeedback({
      currentTimelineSize: 0,
      lastReceivedLsn: lastRecordLsn,
      diskConsistentLsn,
      remoteConsistentLsn: diskConsistentLsn,
      replyTime: Number(time),
      shardNumber: 0,
      corruptionDetected: false,
    });
    queuePageserverFeedback(this.#copy, feedback);
    if (asks) {
      queueStandbyStatus(this.#copy, lastRecordLsn, time, true);
      this.#hasAsked = true;
    }
    this.#sentMs = this.#options.now();
    this.#sentDisk = diskConsistentLsn;
  }
}
