/**
 * Receiving a safekeeper's log: START_REPLICATION, which serves what is committed; with a term, all
 * durable WAL for as long as that is the safekeeper's term. How a proposer feeds a safekeeper that
 * lags behind its memory, how safekeepers catch up from each other, and how new ones begin.
 */
import { TimedOut, Unavailable } from "../utils/errors.ts";
import { addLsn, formatLsn, type Lsn } from "../utils/lsn.ts";
import type { TokenSource } from "../utils/token_source.ts";
import { PgClient } from "./client.ts";
import { readSenderMessage } from "./replication.ts";

/** What to receive, and who takes it. */
interface WalStreamOptions {
  readonly hostname: string;
  readonly port: number;
  readonly tenantId: string;
  readonly timelineId: string;
  /** application_name: "wal_proposer_recovery", or the name of a safekeeper. */
  readonly name: string;
  /** For a safekeeper that wants one. */
  readonly token: TokenSource | undefined;
  /** Serves what is not committed, too, and ends with the term. */
  readonly term?: number;
  readonly from: Lsn;
  /** The longest silence; a sender that has nothing to send says so once a second. */
  readonly silenceMsMax: number;
  /** False when enough was received. Asked before each wait. */
  goesOn(): boolean;
  /** Takes the WAL that ends at `endLsn`; `wal` is valid until it is done. */
  take(wal: Uint8Array, endLsn: Lsn): Promise<void> | void;
}

/**
 * Receives in order until `goesOn` says no. Throws what the connection throws, Unavailable for a
 * stream that ends or skips, TimedOut for one that is silent.
 */
export async function receiveWal(options: WalStreamOptions): Promise<void> {
  const { hostname, port, tenantId, timelineId, silenceMsMax } = options;
  const attempt = new AbortController();
  let isSilent = true;
  let isLate = false;
  let isTaking = false; // then it is not the sender that holds things up
  const watch = setInterval(() => {
    if (isSilent && !isTaking) {
      isLate = true;
      attempt.abort();
    }
    isSilent = true;
  }, silenceMsMax);
  try {
    const startup = {
      user: options.name,
      database: "replication",
      application_name: options.name,
      options: `-c timeline_id=${timelineId} -c tenant_id=${tenantId}`,
    };
    const client = await PgClient.connect(
      { hostname, port },
      startup,
      attempt.signal,
      options.token,
    );
    let at = options.from;
    const term = options.term === undefined ? "" : ` (term='${options.term}')`;
    const copy = await client.copyBoth(`START_REPLICATION PHYSICAL ${formatLsn(at)}${term}`);
    while (options.goesOn()) {
      const payload = await copy.receive();
      isSilent = false;
      if (payload === undefined) {
        throw new Unavailable(`the stream of WAL ended at ${formatLsn(at)}`);
      }
      const message = readSenderMessage(payload);
      if (message.kind !== "xlogData") continue;
      if (message.start !== at) {
        throw new Unavailable(`WAL at ${formatLsn(message.start)} came, not at ${formatLsn(at)}`);
      }
      at = addLsn(at, message.wal.length);
      isTaking = true;
      await options.take(message.wal, at);
      isTaking = false;
    }
  } catch (thrown) {
    if (isLate) throw new TimedOut(`no WAL within ${silenceMsMax / 1000} s`);
    throw thrown;
  } finally {
    clearInterval(watch);
    attempt.abort();
  }
}
