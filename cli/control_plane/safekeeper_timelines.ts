/** Timelines on the safekeepers: creation, and where they end. */
import { NotFound, Unavailable } from "../../libs/utils/errors.ts";
import {
  parseTenantId,
  parseTimelineId,
  type TenantId,
  type TimelineId,
} from "../../libs/utils/id.ts";
import { alignLsn, type Lsn, parseLsn } from "../../libs/utils/lsn.ts";
import type { TimelineInfo } from "../../pageserver/client.ts";
import { type LogEnd, quorumOf, settledEnd } from "./branch_position.ts";
import { safekeeperClient } from "./clients.ts";
import { LOOPBACK, type SafekeeperConfig, safekeeperConfig } from "./config.ts";
import type { Environment } from "./environment.ts";
import { loadTenantRecord } from "./tenant_records.ts";

/** Creates a timeline on every safekeeper; returns their ids. Creating it again is fine. */
export async function createOnSafekeepers(
  env: Environment,
  timeline: TimelineInfo,
): Promise<number[]> {
  await Promise.all(env.config.safekeepers.map((config) =>
    safekeeperClient(config).createTimeline({
      tenantId: parseTenantId(timeline.tenant_id),
      timelineId: parseTimelineId(timeline.timeline_id),
      pgVersion: timeline.pg_version,
      systemId: BigInt(timeline.system_id),
      walSegmentSize: timeline.wal_segment_size,
      startLsn: alignLsn(parseLsn(timeline.last_record_lsn)),
    })
  ));
  return env.config.safekeepers.map((config) => config.id);
}

/** The safekeepers of a timeline. */
function safekeepersOf(
  env: Environment,
  tenant: TenantId,
  timeline: TimelineId,
): SafekeeperConfig[] {
  const known = loadTenantRecord(env.repoDir, tenant).timelines[timeline];
  if (known !== undefined) return known.safekeepers.map((id) => safekeeperConfig(env.config, id));
  throw new NotFound(`Cannot find timeline ${timeline} of tenant ${tenant} on any safekeeper`);
}

async function logEnd(
  config: SafekeeperConfig,
  tenant: TenantId,
  timeline: TimelineId,
): Promise<LogEnd> {
  const status = await safekeeperClient(config).timelineStatus(tenant, timeline);
  return {
    lastLogTerm: status.acceptor_state.epoch,
    flushLsn: parseLsn(status.flush_lsn),
    commitLsn: parseLsn(status.commit_lsn),
  };
}

/** The safekeepers of a timeline, as the compute host is told them. */
export function safekeeperTargets(env: Environment, tenant: TenantId, timeline: TimelineId) {
  return safekeepersOf(env, tenant, timeline)
    .map((config) => ({ id: config.id, host: LOOPBACK, pg_port: config.pg_port }));
}

/**
 * The end of a timeline that nobody writes, if its safekeepers are sure of it. Throws Unavailable
 * when too few answer.
 */
export async function safekeepersEnd(
  env: Environment,
  tenant: TenantId,
  timeline: TimelineId,
): Promise<Lsn | undefined> {
  const safekeepers = safekeepersOf(env, tenant, timeline);
  const answers = await Promise.allSettled(
    safekeepers.map((config) => logEnd(config, tenant, timeline)),
  );
  const ends = answers.filter((answer) => answer.status === "fulfilled")
    .map((answer) => answer.value);
  if (ends.length >= quorumOf(safekeepers.length)) return settledEnd(ends, safekeepers.length);
  throw new Unavailable(
    `Cannot tell where timeline ${timeline} ends: ${ends.length} of ${safekeepers.length} ` +
      `safekeepers answer, needed are ${quorumOf(safekeepers.length)}; "neon start" starts them`,
  );
}
