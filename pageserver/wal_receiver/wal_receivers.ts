/**
 * Keeps every timeline of this pageserver supplied with WAL.
 *
 * The broker tells where each safekeeper stands. When one has WAL that a timeline lacks, a
 * connection is made; it lasts until the safekeeper ends it (nothing more to come), fails, or
 * another safekeeper is clearly better. There is at most one connection per timeline.
 */
import type { SafekeeperTimelineInfo } from "../../broker/client.ts";
import { messageOf, NotFound, Unavailable } from "../../libs/utils/errors.ts";
import type { TenantId, TimelineId } from "../../libs/utils/id.ts";
import { logger } from "../../libs/utils/log.ts";
import { formatLsn, type Lsn } from "../../libs/utils/lsn.ts";
import type { TokenSource } from "../../libs/utils/token_source.ts";
import { ingestMetrics } from "../metrics.ts";
import type { PageReader } from "../page_service/page_reader.ts";
import type { TenantManager } from "../repository/tenant_manager.ts";
import type { Timeline } from "../repository/timeline.ts";
import { servedTimeline } from "../served_timeline.ts";
import { type Candidate, chooseKnown, chooseSource, shouldSwitch } from "./source_choice.ts";
import { streamWal } from "./wal_stream.ts";

const log = logger("pageserver", "walreceiver");

/** Waits after failures: the first, the factor, the last. */
const RETRY_FIRST_MS = 100;
const RETRY_FACTOR = 1.5;
const RETRY_MAX_MS = 15_000;

/** What the receivers work with. */
interface WalReceiversOptions {
  readonly manager: TenantManager;
  readonly reader: PageReader;
  readonly pageserverId: number;
  /** For safekeepers that want one. */
  readonly token?: TokenSource | undefined;
  readonly now: () => number;
  readonly unixNow: () => number;
  readonly pause: () => Promise<void>;
  /** Whether the broker can tell us anything now. */
  readonly brokerIsThere: () => boolean;
}

/** The receiver of one timeline. */
interface Receiver {
  readonly tenantId: TenantId;
  readonly timelineId: TimelineId;
  readonly candidates: Map<number, Candidate>;
  paused: boolean;
  connection: {
    readonly safekeeperId: number;
    readonly connstr: string;
    readonly abort: AbortController;
    readonly done: Promise<void>;
    progressMs: number;
    progressLsn: Lsn;
  } | undefined;
  /** The last stream did not end because there was nothing more to send. */
  isBroken: boolean;
  retryDelayMs: number;
  retryTimer: ReturnType<typeof setTimeout> | undefined;
}

/** All receivers. */
export class WalReceivers {
  readonly #options: WalReceiversOptions;
  readonly #receivers = new Map<string, Receiver>();
  readonly #forbidden = new Set<TenantId>();
  #stopped = false;

  constructor(options: WalReceiversOptions) {
    this.#options = options;
  }

  /** To be called with everything that the broker tells. */
  onInfo(info: SafekeeperTimelineInfo): void {
    if (this.#stopped || this.#forbidden.has(info.tenantId)) return;
    const timeline = this.#timeline(info.tenantId, info.timelineId);
    if (timeline === undefined) return;
    const receiver = this.#receiver(info.tenantId, info.timelineId);
    const known = receiver.candidates.get(info.safekeeperId);
    receiver.candidates.set(info.safekeeperId, {
      safekeeperId: info.safekeeperId,
      connstr: info.safekeeperConnstr,
      commitLsn: info.commitLsn,
      heardMs: this.#options.now(),
      retryMs: known?.retryMs ?? -Infinity,
    });
    this.#consider(receiver, timeline);
  }

  /** host:port of the safekeeper that a timeline is streaming from. */
  sourceOf(timeline: Timeline): string | undefined {
    return this.#receivers.get(name(timeline.tenantId, timeline.timelineId))?.connection?.connstr;
  }

  /** Stops receiving for a timeline until resume(), and waits until its ingest has ended. */
  async pause(tenantId: TenantId, timelineId: TimelineId): Promise<void> {
    const receiver = this.#receiver(tenantId, timelineId);
    receiver.paused = true;
    await endConnection(receiver);
  }

  /** Undoes pause(); forgets the receiver of a timeline that is gone. */
  resume(tenantId: TenantId, timelineId: TimelineId): void {
    const receiver = this.#receiver(tenantId, timelineId);
    receiver.paused = false;
    const timeline = this.#timeline(tenantId, timelineId);
    if (timeline === undefined) this.#receivers.delete(name(tenantId, timelineId));
    else this.#consider(receiver, timeline);
  }

  /** Ends and forgets all receivers of a tenant, until allow(). */
  async forgetTenant(tenantId: TenantId): Promise<void> {
    this.#forbidden.add(tenantId);
    for (const [key, receiver] of this.#receivers) {
      if (receiver.tenantId !== tenantId) continue;
      this.#receivers.delete(key);
      await endConnection(receiver);
    }
  }

  /** Undoes forgetTenant(). */
  allow(tenantId: TenantId): void {
    this.#forbidden.delete(tenantId);
  }

  /** Ends all connections and waits until ingest has ended everywhere. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all([...this.#receivers.values()].map(endConnection));
    this.#receivers.clear();
  }

  #timeline(tenantId: TenantId, timelineId: TimelineId): Timeline | undefined {
    try {
      return this.#options.manager.tenant(tenantId).timelines.get(timelineId);
    } catch (thrown) {
      if (thrown instanceof NotFound || thrown instanceof Unavailable) return undefined;
      throw thrown;
    }
  }

  #receiver(tenantId: TenantId, timelineId: TimelineId): Receiver {
    const key = name(tenantId, timelineId);
    let receiver = this.#receivers.get(key);
    if (receiver === undefined) {
      receiver = {
        tenantId,
        timelineId,
        candidates: new Map(),
        paused: false,
        connection: undefined,
        isBroken: false,
        retryDelayMs: RETRY_FIRST_MS,
        retryTimer: undefined,
      };
      this.#receivers.set(key, receiver);
    }
    return receiver;
  }

  /** Connects, or gives up a connection for a better one. */
  #consider(receiver: Receiver, timeline: Timeline): void {
    if (this.#stopped || receiver.paused) return;
    const nowMs = this.#options.now();
    const { lastRecordLsn } = timeline;
    const { connection } = receiver;
    const best = chooseSource(receiver.candidates.values(), lastRecordLsn, nowMs) ??
      (connection === undefined ? this.#knownSource(receiver, nowMs) : undefined);
    if (connection !== undefined) {
      if (connection.progressLsn !== lastRecordLsn) {
        connection.progressLsn = lastRecordLsn;
        connection.progressMs = nowMs;
      }
      if (shouldSwitch(connection, best, lastRecordLsn, nowMs)) connection.abort.abort();
    } else if (best !== undefined) {
      this.#connect(receiver, timeline, best);
    }
  }

  /**
   * Without a broker nobody tells of a safekeeper that is there again: after a stream has broken,
   * those that we know are tried again and again.
   */
  #knownSource(receiver: Receiver, nowMs: number): Candidate | undefined {
    if (!receiver.isBroken || this.#options.brokerIsThere()) return undefined;
    return chooseKnown(receiver.candidates.values(), nowMs);
  }

  #connect(receiver: Receiver, timeline: Timeline, source: Candidate): void {
    const abort = new AbortController();
    const done = this.#stream(receiver, timeline, source, abort.signal);
    receiver.connection = {
      safekeeperId: source.safekeeperId,
      connstr: source.connstr,
      abort,
      done,
      progressMs: this.#options.now(),
      progressLsn: timeline.lastRecordLsn,
    };
  }

  async #stream(
    receiver: Receiver,
    timeline: Timeline,
    source: Candidate,
    signal: AbortSignal,
  ): Promise<void> {
    const fields = { timeline: timeline.timelineId, safekeeper: source.connstr };
    const before = timeline.lastRecordLsn;
    ingestMetrics.connections.inc();
    log.info("timeline {timeline}: streaming from {safekeeper} at {lsn}", {
      ...fields,
      lsn: formatLsn(before),
    });
    let isBroken = true;
    try {
      const { reader, pageserverId, now, unixNow, pause } = this.#options;
      await streamWal({
        served: servedTimeline(timeline),
        reader,
        safekeeper: source.connstr,
        pageserverId,
        token: this.#options.token,
        signal,
        now,
        unixNow,
        pause,
      });
    } catch (thrown) {
      // A safekeeper says this when nobody writes and everything is stored: a good end.
      if (messageOf(thrown).includes("ending streaming")) isBroken = false;
      else {
        log.warning("timeline {timeline}: stream from {safekeeper} ended: {message}", {
          ...fields,
          message: messageOf(thrown),
        });
      }
    }
    ingestMetrics.connections.dec();
    receiver.connection = undefined;
    receiver.isBroken = isBroken && !signal.aborted;
    const isFruitless = timeline.lastRecordLsn === before && !signal.aborted;
    this.#afterStream(receiver, timeline, source, isFruitless);
  }

  /**
   * Schedules the next attempt, at once with another safekeeper. After each attempt that brought
   * nothing the wait for the same one grows.
   */
  #afterStream(
    receiver: Receiver,
    timeline: Timeline,
    source: Candidate,
    isFruitless: boolean,
  ): void {
    const delayMs = receiver.retryDelayMs;
    if (!isFruitless) {
      receiver.retryDelayMs = RETRY_FIRST_MS;
    } else {
      receiver.retryDelayMs = Math.min(delayMs * RETRY_FACTOR, RETRY_MAX_MS);
      const known = receiver.candidates.get(source.safekeeperId);
      if (known !== undefined) {
        const retryMs = this.#options.now() + delayMs;
        receiver.candidates.set(source.safekeeperId, { ...known, retryMs });
      }
    }
    clearTimeout(receiver.retryTimer);
    receiver.retryTimer = setTimeout(() => this.#retry(receiver, timeline), 0);
  }

  /** Connects to whoever may be tried now; otherwise comes back when somebody may be tried again. */
  #retry(receiver: Receiver, timeline: Timeline): void {
    this.#consider(receiver, timeline);
    if (this.#stopped || receiver.paused || receiver.connection !== undefined) return;
    const nowMs = this.#options.now();
    const waitsMs = [...receiver.candidates.values()].map(({ retryMs }) => retryMs - nowMs);
    const waitMs = Math.min(
      ...waitsMs.filter((ms) => ms > 0),
      receiver.isBroken ? RETRY_MAX_MS : Infinity, // the broker may be gone by then
    );
    if (waitMs === Infinity) return;
    receiver.retryTimer = setTimeout(() => this.#retry(receiver, timeline), waitMs);
  }
}

async function endConnection(receiver: Receiver): Promise<void> {
  receiver.connection?.abort.abort();
  await receiver.connection?.done;
  clearTimeout(receiver.retryTimer);
  receiver.retryTimer = undefined;
}

function name(tenantId: TenantId, timelineId: TimelineId): string {
  return `${tenantId}/${timelineId}`;
}
