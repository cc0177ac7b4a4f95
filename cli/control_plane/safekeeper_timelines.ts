/** Timelines on the safekeepers: creation, and where they end. */
import { NotFound, TimedOut, Unavailable } from "../../libs/utils/errors.ts";
import {
  parseTenantId,
  parseTimelineId,
  type TenantId,
  type TimelineId,
} from "../../libs/utils/id.ts";
import { alignLsn, type Lsn, parseLsn } from "../../libs/utils/lsn.ts";
import { settleWithoutStragglers } from "../../libs/utils/stragglers.ts";
import type { TimelineInfo } from "../../pageserver/client.ts";
import { type LogEnd, quorumOf, settledEnd } from "./branch_position.ts";
import { safekeeperClient } from "./clients.ts";
import { LOOPBACK, type SafekeeperConfig, safekeeperConfig } from "./config.ts";
import type { Environment } from "./environment.ts";
import { withDirectoryLock } from "./repo_dir.ts";
import {
  listTenantRecords,
  loadTenantRecord,
  recordTimeline,
  type TimelineRecord,
} from "./tenant_records.ts";

/** Once a majority has answered, the others have this long: one of them may hang. */
const STRAGGLERS_MS = 2000;

/**
 * Creates a timeline on every safekeeper, at least on a majority; creating it again is fine.
 * Returns what is to be recorded. Throws Unavailable when fewer take it.
 */
export async function createOnSafekeepers(
  env: Environment,
  timeline: TimelineInfo,
): Promise<TimelineRecord> {
  const { safekeepers } = env.config;
  const args = {
    tenantId: parseTenantId(timeline.tenant_id),
    timelineId: parseTimelineId(timeline.timeline_id),
    pgVersion: timeline.pg_version,
    systemId: BigInt(timeline.system_id),
    walSegmentSize: timeline.wal_segment_size,
    startLsn: alignLsn(parseLsn(timeline.last_record_lsn)),
  };
  const outcomes = await settleWithoutStragglers(
    safekeepers.map((config) => safekeeperClient(env, config).createTimeline(args)),
    quorumOf(safekeepers.length),
    STRAGGLERS_MS,
  );
  const failures = outcomes.flatMap((outcome, i) =>
    outcome.status === "rejected"
      ? [{ id: safekeepers[i]!.id, reason: outcome.reason as Error }]
      : []
  );
  const isAway = (reason: Error) => reason instanceof Unavailable || reason instanceof TimedOut;
  const fatal = failures.find(({ reason }) => !isAway(reason));
  if (fatal !== undefined) throw fatal.reason;
  const ids = safekeepers.map((config) => config.id);
  const record = { pg_version: timeline.pg_version, safekeepers: ids };
  if (failures.length === 0) return record;
  if (ids.length - failures.length < quorumOf(ids.length)) throw failures[0]!.reason;
  return { ...record, missing: failures.map(({ id }) => id) };
}

/** Gives a safekeeper that was down the timelines that were created meanwhile. */
export async function createMissing(env: Environment, config: SafekeeperConfig): Promise<void> {
  for (const tenant of listTenantRecords(env.repoDir)) {
    const { timelines } = loadTenantRecord(env.repoDir, tenant);
    for (const [id, { missing, ...record }] of Object.entries(timelines)) {
      if (missing?.includes(config.id) !== true) continue;
      const timeline = id as TimelineId;
      const source = record.safekeepers.find((other) => !missing.includes(other));
      if (source === undefined) continue;
      const client = safekeeperClient(env, safekeeperConfig(env.config, source));
      const status = await client.timelineStatus(tenant, timeline);
      await safekeeperClient(env, config).createTimeline({
        tenantId: tenant,
        timelineId: timeline,
        pgVersion: status.pg_info.pg_version,
        systemId: BigInt(status.pg_info.system_id),
        walSegmentSize: status.pg_info.wal_seg_size,
        startLsn: parseLsn(status.timeline_start_lsn),
      });
      await withDirectoryLock(env.repoDir, () => {
        const still = loadTenantRecord(env.repoDir, tenant).timelines[timeline]?.missing ?? [];
        const left = still.filter((other) => other !== config.id);
        const changed = left.length === 0 ? record : { ...record, missing: left };
        recordTimeline(env.repoDir, tenant, timeline, changed);
      });
    }
  }
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
  env: Environment,
  config: SafekeeperConfig,
  tenant: TenantId,
  timeline: TimelineId,
): Promise<LogEnd> {
  const status = await safekeeperClient(env, config).timelineStatus(tenant, timeline);
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
  const answers = await settleWithoutStragglers(
    safekeepers.map((config) => logEnd(env, config, tenant, timeline)),
    quorumOf(safekeepers.length),
    STRAGGLERS_MS,
  );
  const ends = answers.filter((answer) => answer.status === "fulfilled")
    .map((answer) => answer.value);
  if (ends.length >= quorumOf(safekeepers.length)) return settledEnd(ends, safekeepers.length);
  throw new Unavailable(
    `Cannot tell where timeline ${timeline} ends: ${ends.length} of ${safekeepers.length} ` +
      `safekeepers answer, needed are ${quorumOf(safekeepers.length)}; "neon start" starts them`,
  );
}
