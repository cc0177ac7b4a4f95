/**
 * Everything that `neon status` shows: daemons and endpoints with their processes and disk, and for
 * each branch how far its WAL has come. Whether a daemon answers at all is asked first and waited
 * for ANSWER_MS; one that did not answer a question is not asked another, so the whole is there in
 * little more than a second when something hangs. What could not be learnt is null; a daemon that
 * does not know the key of our tokens hides what it has, and no more.
 */
import { TimedOut, Unauthorized, Unavailable } from "../../libs/utils/errors.ts";
import type { TenantId, TimelineId } from "../../libs/utils/id.ts";
import { type Lsn, maxLsn, parseLsn } from "../../libs/utils/lsn.ts";
import type { StorageLocation } from "../../libs/remote_storage/location.ts";
import type { TimelineInfo } from "../../pageserver/client.ts";
import { computeClient, pageserverClient, safekeeperClient } from "./clients.ts";
import { branchName, safekeeperConfig } from "./config.ts";
import { diskUsage } from "./disk_usage.ts";
import { type ListedEndpoint, listEndpoints } from "./endpoints.ts";
import { type Environment, repoPath } from "./environment.ts";
import { allRoles, type RoleStatus, roleStatus } from "./lifecycle.ts";
import { processInfo } from "./process_info.ts";
import { treeRows } from "../timeline_tree.ts";
import { changeOf, type SafekeeperChange } from "./safekeeper_set.ts";
import { listTenantRecords, loadTenantRecord, type TimelineRecord } from "./tenant_records.ts";

/** Longest wait for one answer. */
const ANSWER_MS = 1000;
/** Longest wait for the pageserver's list of a tenant's timelines, which takes as they are many. */
const LIST_MS = 3000;
/** Longest time to add up sizes on disk, all together. */
const DISK_MS = 500;
/** Timelines that are asked for at the same time. */
const QUESTIONS_MAX = 32;

/** A process and its files; what is not known is null. */
interface Footprint {
  /** ISO 8601. */
  started_at: string | null;
  uptime_seconds: number | null;
  memory_bytes: number | null;
  disk_bytes: number;
  /** False: it takes more than that; adding it up took too long. */
  disk_is_complete: boolean;
  log_file: string;
}

/** A daemon. */
type DaemonStatus = RoleStatus & Footprint & { addresses: string[]; directory: string };

/** A branch, and how far its WAL has come. LSNs are text, lags bytes. */
export interface BranchStatus {
  branch_name: string | null;
  timeline_id: TimelineId;
  pg_version: number;
  ancestor_timeline_id: string | null;
  ancestor_lsn: string | null;
  /** What a majority of safekeepers has, as far as the ones that answered know. */
  commit_lsn: string | null;
  /** What the pageserver has received, and what of it is on its disk. */
  received_lsn: string | null;
  durable_lsn: string | null;
  /** Committed, but not received; received, but not on disk. */
  receive_lag_bytes: number | null;
  durable_lag_bytes: number | null;
  logical_size_bytes: number | null;
  /** Why it cannot be read, or what is received not be moved to disk. */
  problem: string | null;
}

/** A tenant and its branches. */
interface TenantStatus {
  tenant_id: TenantId;
  is_default: boolean;
  pg_version: number;
  /** Why the pageserver does not serve it. */
  problem: string | null;
  branches: BranchStatus[];
}

/** The whole; the keys are those of `neon status --json`. */
export interface NeonStatus {
  repo_dir: string;
  daemons: DaemonStatus[];
  tenants: TenantStatus[];
  endpoints: (ListedEndpoint & Footprint)[];
  /** Safekeepers that a command is replacing, adding or removing, or has not finished with. */
  safekeeper_changes: { id: number; change: SafekeeperChange }[];
  remote_storage: StorageLocation | null;
  /** Why daemons that run do not say what they have: they do not take our tokens. */
  refused: string | null;
}

function footprint(
  pid: number | null,
  log_file: string,
  disk: ReturnType<typeof diskUsage>,
): Footprint {
  const found = pid === null ? undefined : processInfo(pid);
  const started = found === undefined ? null : new Date(found.startedAt * 1000);
  return {
    started_at: started?.toISOString() ?? null,
    uptime_seconds: started === null ? null : Math.max(0, (Date.now() - Number(started)) / 1000),
    memory_bytes: found?.memoryBytes ?? null,
    disk_bytes: disk.bytes,
    disk_is_complete: disk.isComplete,
    log_file,
  };
}

/** Asks `questions` in turn, a few at a time; a daemon in `silent` is not asked any more. */
class Questions {
  readonly #silent: Set<string>;
  /** What the first one said that does not take our tokens. */
  refused: string | null = null;

  constructor(silent: Iterable<string>) {
    this.#silent = new Set(silent);
  }

  /** The answer of `daemon`, or undefined if it gives none. */
  async ask<T>(daemon: string, question: () => Promise<T>): Promise<T | undefined> {
    if (this.#silent.has(daemon)) return undefined;
    try {
      return await question();
    } catch (thrown) {
      if (thrown instanceof TimedOut || thrown instanceof Unavailable) this.#silent.add(daemon);
      if (thrown instanceof Unauthorized) this.refused ??= thrown.message;
      return undefined; // also: it does not know the timeline yet
    }
  }
}

/** Runs `act` on every item, QUESTIONS_MAX at a time. */
async function forEach<T>(items: readonly T[], act: (item: T) => Promise<void>): Promise<void> {
  const rest = items.values();
  const worker = async () => {
    for (const item of rest) await act(item);
  };
  await Promise.all(Array.from({ length: QUESTIONS_MAX }, worker));
}

/** The furthest position that the timeline's safekeepers know to be committed. */
async function committed(
  env: Environment,
  questions: Questions,
  tenant: TenantId,
  timeline: TimelineId,
  safekeepers: readonly number[],
): Promise<{ text: string; lsn: Lsn } | undefined> {
  const answers = await Promise.all(
    safekeepers.map((id) =>
      questions.ask(`safekeeper ${id}`, () => {
        const config = safekeeperConfig(env.config, id);
        return safekeeperClient(env, config, ANSWER_MS).timelineStatus(tenant, timeline);
      })
    ),
  );
  const known = answers.flatMap((answer) => answer === undefined ? [] : [answer.commit_lsn])
    .map((text) => ({ text, lsn: parseLsn(text) }));
  return known.length === 0
    ? undefined
    : known.reduce((a, b) => maxLsn(a.lsn, b.lsn) === a.lsn ? a : b);
}

function branchStatus(
  env: Environment,
  tenant: TenantId,
  [id, record]: [TimelineId, TimelineRecord],
  info: TimelineInfo | undefined,
  commit: { text: string; lsn: Lsn } | undefined,
  problem: string | undefined,
): BranchStatus {
  const lag = (ahead: Lsn | undefined, behind: Lsn | undefined) =>
    ahead === undefined || behind === undefined ? null : Math.max(0, ahead - behind);
  const received = info === undefined ? undefined : parseLsn(info.last_record_lsn);
  const durable = info === undefined ? undefined : parseLsn(info.disk_consistent_lsn);
  return {
    branch_name: branchName(env.config, tenant, id) ?? null,
    timeline_id: id,
    pg_version: record.pg_version,
    ancestor_timeline_id: info?.ancestor_timeline_id ?? null,
    ancestor_lsn: info?.ancestor_lsn ?? null,
    commit_lsn: commit?.text ?? null,
    received_lsn: info?.last_record_lsn ?? null,
    durable_lsn: info?.disk_consistent_lsn ?? null,
    receive_lag_bytes: lag(commit?.lsn, received),
    durable_lag_bytes: lag(received, durable),
    logical_size_bytes: info?.current_logical_size ?? null,
    problem: problem ?? info?.state_reason ?? null,
  };
}

async function tenantStatus(
  env: Environment,
  questions: Questions,
  tenant: TenantId,
  positionsMax: number,
): Promise<TenantStatus> {
  const record = loadTenantRecord(env.repoDir, tenant);
  const pageserver = pageserverClient(env, LIST_MS);
  const about = await questions.ask("pageserver", () => pageserver.tenant(tenant));
  const broken = about?.state.slug === "Broken" ? about.state.data.reason : null;
  const infos = broken === null
    ? await questions.ask("pageserver", () => pageserver.timelines(tenant))
    : [];
  const byId = new Map(infos?.map((info) => [info.timeline_id, info]));
  const known = Object.keys(record.timelines).map((id) => ({
    timeline_id: id as TimelineId,
    ancestor_timeline_id: byId.get(id)?.ancestor_timeline_id ?? null,
  }));
  const asked = treeRows(known).slice(0, positionsMax);
  const commits = new Map<TimelineId, Awaited<ReturnType<typeof committed>>>();
  await forEach(asked, async ({ timeline: { timeline_id: id } }) => {
    const { safekeepers } = record.timelines[id]!;
    commits.set(id, await committed(env, questions, tenant, id, safekeepers));
  });
  const branches = known.map(({ timeline_id: id }) =>
    branchStatus(
      env,
      tenant,
      [id, record.timelines[id]!],
      byId.get(id),
      commits.get(id),
      about?.broken_timelines?.[id],
    )
  );
  return {
    tenant_id: tenant,
    is_default: tenant === env.config.default_tenant_id,
    pg_version: record.pg_version,
    problem: broken,
    branches: branches.sort((a, b) => a.timeline_id < b.timeline_id ? -1 : 1),
  };
}

/**
 * Looks at everything; safekeepers are asked where the first `positionsMax` branches of each tenant
 * are, in the order of the tree.
 */
export async function neonStatus(
  env: Environment,
  positionsMax = Infinity,
): Promise<NeonStatus> {
  const roles = allRoles(env);
  const states = await Promise.all(roles.map((role) => roleStatus(role, ANSWER_MS)));
  const silent = states.filter(({ status }) => status !== "running").map(({ name }) => name);
  const questions = new Questions(silent);
  const host = computeClient(env, ANSWER_MS);
  const listed = questions.ask("compute", () => listEndpoints(env, undefined, host));
  const [endpoints, tenants] = await Promise.all([
    listed.then((all) => all ?? listEndpoints(env, undefined, null)),
    Promise.all(
      listTenantRecords(env.repoDir).map((id) => tenantStatus(env, questions, id, positionsMax)),
    ),
  ]);
  const deadline = performance.now() + DISK_MS;
  const endpointFiles = repoPath(env, "compute", "endpoints");
  return {
    repo_dir: env.repoDir,
    daemons: states.map((state, i) => {
      const { directory, logFile, listen } = roles[i]!;
      const disk = diskUsage(directory, deadline, [endpointFiles]);
      return { ...state, ...footprint(state.pid, logFile, disk), addresses: listen, directory };
    }),
    tenants,
    endpoints: endpoints.map((endpoint) => {
      const directory = `${endpointFiles}/${endpoint.endpoint}`;
      const disk = diskUsage(directory, deadline);
      return { ...endpoint, ...footprint(endpoint.pid, `${directory}/postgres.log`, disk) };
    }),
    safekeeper_changes: env.config.safekeepers.flatMap((safekeeper) => {
      const change = changeOf(safekeeper);
      return change === null ? [] : [{ id: safekeeper.id, change }];
    }),
    remote_storage: env.config.remote_storage ?? null,
    refused: questions.refused,
  };
}
