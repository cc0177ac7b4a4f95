/** Timelines on the safekeepers: creation, and where they end. */
import { membershipJson } from "../../libs/safekeeper_protocol/membership.ts";
import { Conflict, NotFound, TimedOut, Unavailable } from "../../libs/utils/errors.ts";
import {
  parseTenantId,
  parseTimelineId,
  type TenantId,
  type TimelineId,
} from "../../libs/utils/id.ts";
import { alignLsn, type Lsn, parseLsn } from "../../libs/utils/lsn.ts";
import { retry } from "../../libs/utils/polling.ts";
import { settleWithoutStragglers } from "../../libs/utils/stragglers.ts";
import type { TimelineInfo } from "../../pageserver/client.ts";
import { type LogEnd, quorumOf, settledEnd } from "./branch_position.ts";
import { safekeeperClient } from "./clients.ts";
import { type Config, LOOPBACK, type SafekeeperConfig, safekeeperConfig } from "./config.ts";
import { changeConfig, type Environment } from "./environment.ts";
import { configurations, dropLeft, targetsOf } from "./member_change.ts";
import { withDirectoryLock } from "./repo_dir.ts";
import { lastingSafekeepers } from "./safekeeper_set.ts";
import {
  changeTimelineRecord,
  listTenantRecords,
  loadTenantRecord,
  recordTimeline,
  type TimelineRecord,
} from "./tenant_records.ts";

/** Longest wait for a safekeeper that has a timeline, and how often it is looked for. */
const SOURCES = { pauseMs: [200, 200], limitMs: 10_000 } as const;

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
  const safekeepers = lastingSafekeepers(env.config);
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

/**
 * Remembers a timeline that was made, and then what `change` does with the configuration: its name.
 * Throws Conflict if one of its safekeepers is gone meanwhile: making it anew takes those that are
 * there.
 */
export async function recordCreated(
  env: Environment,
  tenant: TenantId,
  timeline: TimelineId,
  record: TimelineRecord,
  change: (config: Config) => void,
): Promise<void> {
  await changeConfig(env, (config) => {
    const { safekeepers } = config;
    const gone = record.safekeepers.find((id) => !safekeepers.some((known) => known.id === id));
    if (gone !== undefined) {
      throw new Conflict(
        `Cannot make timeline ${timeline}: safekeeper ${gone} was removed meanwhile; try again`,
      );
    }
    change(config);
    recordTimeline(env.repoDir, tenant, timeline, record);
  });
}

/**
 * Gives a safekeeper that was down the timelines that it should have got meanwhile, and has it drop
 * those that it has left.
 */
export async function createMissing(env: Environment, config: SafekeeperConfig): Promise<void> {
  for (const tenant of listTenantRecords(env.repoDir)) {
    const { timelines } = loadTenantRecord(env.repoDir, tenant);
    for (const [id, record] of Object.entries(timelines)) {
      const timeline = id as TimelineId;
      if (record.missing?.includes(config.id)) await pullMissing(env, tenant, timeline, config);
      if (record.left_safekeepers?.includes(config.id)) await dropLeft(env, tenant, timeline);
    }
  }
}

async function pullMissing(
  env: Environment,
  tenant: TenantId,
  timeline: TimelineId,
  config: SafekeeperConfig,
): Promise<void> {
  const record = loadTenantRecord(env.repoDir, tenant).timelines[timeline];
  const missing = record?.missing ?? [];
  const sources = record?.safekeepers.filter((other) => !missing.includes(other)) ?? [];
  if (record === undefined || sources.length === 0) return;
  const hosts = sources.map((id) => `${LOOPBACK}:${safekeeperConfig(env.config, id).http_port}`);
  const { current } = configurations(env, record);
  const safekeeper = safekeeperClient(env, config);
  const areStarting = (thrown: unknown) => thrown instanceof Unavailable;
  await retry(
    SOURCES,
    areStarting,
    () => safekeeper.pullTimeline(tenant, timeline, hosts, current),
  );
  await withDirectoryLock(
    env.repoDir,
    () =>
      changeTimelineRecord(env.repoDir, tenant, timeline, (before) => ({
        ...before,
        missing: (before.missing ?? []).filter((other) => other !== config.id),
      })),
  );
}

function recordOf(env: Environment, tenant: TenantId, timeline: TimelineId): TimelineRecord {
  const known = loadTenantRecord(env.repoDir, tenant).timelines[timeline];
  if (known !== undefined) return known;
  throw new NotFound(`Cannot find timeline ${timeline} of tenant ${tenant} on any safekeeper`);
}

async function logEnd(
  env: Environment,
  config: SafekeeperConfig,
  tenant: TenantId,
  timeline: TimelineId,
): Promise<LogEnd & { generation: number }> {
  const status = await safekeeperClient(env, config).timelineStatus(tenant, timeline);
  return {
    lastLogTerm: status.acceptor_state.epoch,
    flushLsn: parseLsn(status.flush_lsn),
    commitLsn: parseLsn(status.commit_lsn),
    generation: status.mconf.generation,
  };
}

/** The safekeepers of a timeline, and what makes a quorum, as the compute host is told them. */
export function safekeeperTargets(env: Environment, tenant: TenantId, timeline: TimelineId) {
  const { current, joint = current } = configurations(env, recordOf(env, tenant, timeline));
  const safekeepers = targetsOf(joint);
  return joint.generation === 0 ? { safekeepers } : { safekeepers, mconf: membershipJson(joint) };
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
  const record = recordOf(env, tenant, timeline);
  if (record.next_safekeepers !== undefined) return undefined; // others may have more by now
  const safekeepers = record.safekeepers.map((id) => safekeeperConfig(env.config, id));
  const answers = await settleWithoutStragglers(
    safekeepers.map((config) => logEnd(env, config, tenant, timeline)),
    quorumOf(safekeepers.length),
    STRAGGLERS_MS,
  );
  const ends = answers.filter((answer) => answer.status === "fulfilled")
    .map((answer) => answer.value);
  const { membership_generation: known = 0 } = record;
  if (ends.some(({ generation }) => generation > known)) return undefined;
  if (ends.length >= quorumOf(safekeepers.length)) return settledEnd(ends, safekeepers.length);
  throw new Unavailable(
    `Cannot tell where timeline ${timeline} ends: ${ends.length} of ${safekeepers.length} ` +
      `safekeepers answer, needed are ${quorumOf(safekeepers.length)}; "neon start" starts them`,
  );
}
