/** Branching and listing timelines: the control plane's side of it. */
import { PAGE_SIZE, WAL_LONG_HEADER_SIZE } from "../../libs/postgres/constants.ts";
import { assert } from "../../libs/utils/assert.ts";
import { BadRequest, NotFound, Unavailable } from "../../libs/utils/errors.ts";
import { newTimelineId, type TenantId, type TimelineId } from "../../libs/utils/id.ts";
import { alignLsn, formatLsn, type Lsn, parseLsn } from "../../libs/utils/lsn.ts";
import type { CompactionResult, TimelineInfo } from "../../pageserver/client.ts";
import type { ListedTimeline } from "../timeline_tree.ts";
import { checkBranchName } from "./branch_names.ts";
import { computeClient, pageserverClient } from "./clients.ts";
import {
  branchName,
  branchTimeline,
  checkBranchNameFree,
  type Config,
  MAIN_BRANCH,
  mapBranch,
} from "./config.ts";
import { changeConfig, type Environment, timelineOfBranch } from "./environment.ts";
import { lsnAsOf } from "./point_in_time.ts";
import { creating, undoInterrupted } from "./creations.ts";
import {
  createOnSafekeepers,
  recordCreated,
  safekeepersEnd,
  safekeeperTargets,
} from "./safekeeper_timelines.ts";
import { timelinePgVersion } from "./tenant_records.ts";
import { checkTimelineNew } from "./timeline_check.ts";
import { signedToken } from "./tokens.ts";

/** What a branch can be made with. */
export interface BranchOptions {
  /** The branch to branch from; main by default. */
  ancestorBranch?: string;
  /** Where to branch; everything that is committed now by default. */
  ancestorLsn?: Lsn;
  /** Or with what was committed by then. */
  ancestorTime?: Temporal.Instant;
  timelineId?: TimelineId;
  /** An existing branch of that name is the answer instead of an error. */
  ifNotExists?: boolean;
  /** Called when it is being made: what takes time but needs nobody is done then. */
  whileMade?: () => void;
}

/** A branch that was made, or was there. */
export interface CreatedBranch {
  timelineId: TimelineId;
  lsn: string;
  ancestorBranch: string;
  /** It was there before. */
  already: boolean;
}

/**
 * The position that contains every row whose commit has returned: what the running writer has
 * committed; without one, what the safekeepers are sure of; else what an election finds.
 */
export async function committedPosition(
  env: Environment,
  tenant: TenantId,
  timeline: TimelineId,
): Promise<Lsn> {
  const compute = computeClient(env);
  const writer = await compute.timeline(tenant, timeline).catch((thrown) => {
    if (thrown instanceof Unavailable) return undefined; // no host: nothing is acknowledged either
    throw thrown;
  });
  if (writer !== undefined) return parseLsn(writer.commit_lsn);
  const settled = await safekeepersEnd(env, tenant, timeline);
  if (settled !== undefined) return settled;
  const token = await signedToken(env, { scope: "tenant", tenant_id: tenant });
  const { commit_lsn } = await compute.syncTimeline({
    tenant_id: tenant,
    timeline_id: timeline,
    pg_version: timelinePgVersion(env.repoDir, tenant, timeline),
    ...safekeeperTargets(env, tenant, timeline),
    ...(token === undefined ? {} : { storage_auth_token: token }),
  });
  return parseLsn(commit_lsn);
}

/** What a branch is made of. */
interface BranchSource {
  readonly ancestor: TimelineInfo;
  readonly lsn: Lsn;
  /** Whether that is the end of what is committed, whose records are whole. */
  readonly isEnd: boolean;
}

/**
 * Where a branch is to begin. Throws if that cannot be, or if the pageserver does not answer: where
 * it is down nothing begins; where all is, the safekeepers are named.
 */
async function branchSource(
  env: Environment,
  tenant: TenantId,
  ancestor: TimelineId,
  { ancestorBranch = MAIN_BRANCH, ancestorLsn, ancestorTime }: BranchOptions,
): Promise<BranchSource> {
  const [position, pageserver] = await Promise.allSettled([
    committedPosition(env, tenant, ancestor),
    pageserverClient(env).knownTimeline(tenant, ancestor),
  ]);
  if (position.status === "rejected") throw position.reason;
  if (pageserver.status === "rejected") throw pageserver.reason;
  const committed = position.value;
  const lsn = ancestorLsn ??
    (ancestorTime === undefined
      ? committed
      : await lsnAsOf(env, tenant, ancestor, ancestorTime, committed));
  if (lsn > committed) {
    throw new BadRequest(
      `Cannot branch "${ancestorBranch}" at ${formatLsn(lsn)}: it ends at ${formatLsn(committed)}`,
    );
  }
  return { ancestor: pageserver.value, lsn, isEnd: lsn === committed };
}

/** Makes a branch of a timeline. */
export async function createBranch(
  env: Environment,
  tenant: TenantId,
  branch: string,
  options: BranchOptions = {},
): Promise<CreatedBranch> {
  const ancestorBranch = options.ancestorBranch ?? MAIN_BRANCH;
  const existing = branchTimeline(env.config, tenant, branch);
  if (existing !== undefined && options.ifNotExists === true) {
    const info = await pageserverClient(env).timeline(tenant, existing);
    const lsn = info.ancestor_lsn ?? info.initdb_lsn;
    return { timelineId: existing, lsn, ancestorBranch, already: true };
  }
  await undoInterrupted(env);
  checkBranchName(branch);
  const timelineId = options.timelineId ?? newTimelineId();
  checkBranchNameFree(env.config, tenant, branch, timelineId);
  const source = branchSource(env, tenant, timelineOfBranch(env, tenant, ancestorBranch), options);
  const isAgain = existing === timelineId;
  const make = async ({ ancestor, lsn, isEnd }: BranchSource): Promise<CreatedBranch> => {
    const onPageserver = pageserverClient(env).createBranch(tenant, {
      new_timeline_id: timelineId,
      ancestor_timeline_id: ancestor.timeline_id,
      ancestor_start_lsn: formatLsn(lsn),
    });
    const foreseen = isEnd && !isAgain && isBehindHeader(lsn)
      ? { ...ancestor, timeline_id: timelineId, last_record_lsn: formatLsn(alignLsn(lsn)) }
      : undefined;
    const onSafekeepers = foreseen === undefined
      ? onPageserver.then((info) => createOnSafekeepers(env, info))
      : createOnSafekeepers(env, foreseen);
    options.whileMade?.();
    // Both have ended before anything is undone
    const [made, recorded] = await Promise.allSettled([onPageserver, onSafekeepers]);
    if (made.status === "rejected") throw made.reason;
    if (recorded.status === "rejected") throw recorded.reason;
    const { ancestor_lsn: start, last_record_lsn: end } = made.value;
    assert(foreseen === undefined || foreseen.last_record_lsn === end, "both begin where it ended");
    const name = (config: Config) => mapBranch(config, tenant, branch, timelineId);
    await recordCreated(env, tenant, timelineId, recorded.value, name);
    return { timelineId, lsn: start ?? formatLsn(lsn), ancestorBranch, already: false };
  };
  if (isAgain) return await make(await source); // there is nothing to undo
  if (options.timelineId !== undefined) {
    await source;
    // Before it is noted as one that is being made: what is there is not to be undone
    await checkTimelineNew(env, tenant, options.timelineId);
  }
  const creation = { tenant_id: tenant, timeline_id: timelineId, with_tenant: false };
  return await creating(env, creation, source, make);
}

/**
 * Whether a record can end there: the pageserver takes a position in a page's header, or right
 * behind one, for the end of the page before.
 */
function isBehindHeader(lsn: Lsn): boolean {
  const inPage = lsn % PAGE_SIZE;
  return inPage === 0 || inPage > WAL_LONG_HEADER_SIZE;
}

/** All timelines of a tenant. */
export async function listTimelines(env: Environment, tenant: TenantId): Promise<ListedTimeline[]> {
  const timelines = await pageserverClient(env).timelines(tenant);
  return timelines.map((timeline) => ({
    branch_name: branchName(env.config, tenant, timeline.timeline_id as TimelineId) ?? null,
    timeline_id: timeline.timeline_id,
    ancestor_timeline_id: timeline.ancestor_timeline_id,
    ancestor_lsn: timeline.ancestor_lsn,
    last_record_lsn: timeline.last_record_lsn,
  }));
}

/** Gives an existing timeline a branch name. Throws NotFound for an unknown timeline. */
export async function mapTimeline(
  env: Environment,
  tenant: TenantId,
  branch: string,
  timeline: TimelineId,
): Promise<void> {
  checkBranchName(branch);
  checkBranchNameFree(env.config, tenant, branch, timeline);
  const known = await pageserverClient(env).timelines(tenant);
  if (!known.some((info) => info.timeline_id === timeline)) {
    throw new NotFound(`Cannot find timeline ${timeline} of tenant ${tenant}`);
  }
  await changeConfig(env, (config) => mapBranch(config, tenant, branch, timeline));
}

/** Has the pageserver put on disk what it has of a branch, and compact it. */
export async function compactTimeline(
  env: Environment,
  tenant: TenantId,
  branch: string,
  { force }: { force: boolean },
): Promise<CompactionResult> {
  const timeline = timelineOfBranch(env, tenant, branch);
  const pageserver = pageserverClient(env);
  await pageserver.checkpoint(tenant, timeline);
  return await pageserver.compact(tenant, timeline, force);
}
