/**
 * Timelines of which a sync failed begin again at what is on disk, without a restart: their ingest
 * is stopped, what is in doubt is thrown away (repository/timeline.ts startOver()), and the WAL
 * comes again from the safekeepers, which keep it until the pageserver has it on disk.
 */
import { messageOf } from "../libs/utils/errors.ts";
import { logger } from "../libs/utils/log.ts";
import { formatLsn } from "../libs/utils/lsn.ts";
import { flushMetrics } from "./metrics.ts";
import type { Timeline } from "./repository/timeline.ts";
import type { TenantManager } from "./repository/tenant_manager.ts";
import { servedTimeline } from "./served_timeline.ts";
import type { WalReceivers } from "./wal_receiver/wal_receivers.ts";

const log = logger("pageserver", "flush");

/** See the head of the file. */
export class StartOver {
  readonly #manager: TenantManager;
  readonly #receivers: WalReceivers;
  readonly #underWay = new Set<Timeline>();

  constructor(manager: TenantManager, receivers: WalReceivers) {
    this.#manager = manager;
    this.#receivers = receivers;
  }

  /** To be called about once a second; resolves when those that were due have begun again. */
  async tick(): Promise<void> {
    const due = this.#manager.list().flatMap(({ tenant }) =>
      [...tenant?.timelines.values() ?? []].filter((timeline) => timeline.isStartOverDue)
    );
    await Promise.all(due.map((timeline) => this.#startOver(timeline)));
  }

  async #startOver(timeline: Timeline): Promise<void> {
    if (this.#underWay.has(timeline)) return;
    this.#underWay.add(timeline);
    const { tenantId, timelineId } = timeline;
    const before = timeline.lastRecordLsn;
    await this.#receivers.pause(tenantId, timelineId);
    try {
      if (!timeline.isStartOverDue) return; // closed meanwhile
      timeline.startOver();
      servedTimeline(timeline).relations.forget();
      flushMetrics.startedOver.inc();
      log.warn("timeline {id} begins again at {lsn}: WAL up to {before} has to come once more", {
        id: timelineId,
        lsn: formatLsn(timeline.lastRecordLsn),
        before: formatLsn(before),
      });
    } catch (thrown) {
      log.error("timeline {id} cannot begin again: {why}", {
        id: timelineId,
        why: messageOf(thrown),
      });
    } finally {
      this.#underWay.delete(timeline);
      this.#receivers.resume(tenantId, timelineId);
    }
  }
}
