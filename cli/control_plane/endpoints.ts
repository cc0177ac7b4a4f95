/**
 * Endpoints: their definitions are ours, their processes the compute host's. Starting one is a look
 * at what runs, one durable definition if it is new, and one call that returns when PostgreSQL has
 * answered a query.
 */
import {
  type ComputeClient,
  type EndpointMode,
  type EndpointSpec,
  type EndpointStatus,
  lagLimits,
  type PageserverLag,
  type StalledCommits,
} from "../../compute/client.ts";
import { parseAddress } from "../../libs/utils/address.ts";
import { BadRequest, Conflict, NotFound, TimedOut, Unavailable } from "../../libs/utils/errors.ts";
import type { TenantId, TimelineId } from "../../libs/utils/id.ts";
import { computeClient } from "./clients.ts";
import { branchName, branchTimeline, LOOPBACK, MAIN_BRANCH } from "./config.ts";
import { eagerReason, startAndWatch } from "./eager.ts";
import { checkStaticLsn, formatMode, modeAsOf } from "./endpoint_modes.ts";
import {
  checkEndpointName,
  type EndpointRecord,
  type EndpointSettings,
  isPortFree,
  listEndpointRecords,
  loadEndpointRecord,
  nextFreePort,
  storeEndpointRecord,
} from "./endpoint_records.ts";
import { stopEndpoint, strayPostgres } from "./endpoint_stop.ts";
import { type Environment, repoPath, timelineOfBranch } from "./environment.ts";
import { commandUser, postgresUser } from "./host_user.ts";
import { portHolder } from "./port_holder.ts";
import { withSettingNamed } from "./refused_settings.ts";
import { withDirectoryLock } from "./repo_dir.ts";
import { safekeeperTargets } from "./safekeeper_timelines.ts";
import { loadTenantRecord, timelinePgVersion } from "./tenant_records.ts";
import { endpointToken } from "./tokens.ts";
import { checkOldDirectory } from "./usable_directories.ts";

/** The superuser of every cluster that we make. */
export const SUPERUSER = "cloud_admin";

/** The connection string of an endpoint's port. */
export function connectionString(pgPort: number): string {
  return `postgresql://${SUPERUSER}@${LOOPBACK}:${pgPort}/postgres`;
}

/** What an endpoint can be created with. */
export interface EndpointOptions {
  tenant?: TenantId;
  branch?: string;
  pgPort?: number;
  /** A primary by default. */
  mode?: EndpointMode;
  /** Instead of a mode: a static endpoint of what was committed by then. */
  asOf?: Temporal.Instant;
  /** Fetch every page at the start; of an endpoint that exists, at this start. */
  eager?: boolean;
  /** Settings of PostgreSQL; its own file and ALTER SYSTEM go before them. */
  settings?: EndpointSettings;
}

/** What a start can be told. */
interface StartOptions extends EndpointOptions {
  /** What the compute host has, if it was asked already. */
  running?: Promise<EndpointStatus[]>;
}

/** The timeline of a new endpoint: its branch is the one named, the one of its name, or main. */
function timelineOfNew(
  env: Environment,
  tenant: TenantId,
  name: string,
  options: EndpointOptions,
): TimelineId {
  const named = branchTimeline(env.config, tenant, name) === undefined ? MAIN_BRANCH : name;
  return timelineOfBranch(env, tenant, options.branch ?? named);
}

/** The same options with a mode in place of a time. */
async function withMode(
  env: Environment,
  tenant: TenantId,
  timeline: TimelineId,
  options: EndpointOptions,
): Promise<EndpointOptions> {
  const { asOf, ...rest } = options;
  if (asOf === undefined) return rest;
  return { ...rest, mode: await modeAsOf(env, tenant, timeline, asOf) };
}

/**
 * Writes the definition of a new endpoint. Throws Conflict if there is one of that name, BadRequest
 * if the compute host could not read its settings, there is nothing as of the time, or its LSN is
 * not part of its timeline. (With the storage down the LSN is looked at by the start alone.)
 */
export async function createEndpoint(
  env: Environment,
  tenant: TenantId,
  name: string,
  options: EndpointOptions = {},
): Promise<EndpointRecord> {
  checkEndpointName(name);
  lagLimits(options.settings); // the host would refuse every start
  const timeline = timelineOfNew(env, tenant, name, options);
  const pgVersion = timelinePgVersion(env.repoDir, tenant, timeline);
  const { mode = "Primary" } = await withMode(env, tenant, timeline, options);
  await checkStaticLsn(env, tenant, timeline, mode).catch((thrown) => {
    if (!(thrown instanceof Unavailable || thrown instanceof TimedOut)) throw thrown;
  });
  return await withDirectoryLock(env.repoDir, () => {
    if (loadEndpointRecord(env.repoDir, name) !== undefined) {
      throw new Conflict(`Cannot create endpoint "${name}": it exists already`);
    }
    const records = listEndpointRecords(env.repoDir);
    const record: EndpointRecord = {
      endpoint_id: name,
      tenant_id: tenant,
      timeline_id: timeline,
      mode,
      pg_port: options.pgPort ?? nextFreePort(records, env.config.compute.first_pg_port),
      pg_version: pgVersion,
      ...(options.settings === undefined ? {} : { settings: options.settings }),
      ...(options.eager === true ? { eager: true } : {}),
    };
    const holder = records.find((other) => other.pg_port === record.pg_port);
    if (holder !== undefined) {
      throw new Conflict(
        `Cannot give port ${record.pg_port} to endpoint "${name}": endpoint ` +
          `"${holder.endpoint_id}" has it`,
      );
    }
    storeEndpointRecord(env.repoDir, record);
    return record;
  });
}

/** Throws BadRequest if the options contradict the definition. */
function checkSame(env: Environment, record: EndpointRecord, options: EndpointOptions): void {
  const name = record.endpoint_id;
  if (options.tenant !== undefined && options.tenant !== record.tenant_id) {
    throw new BadRequest(
      `Cannot start endpoint "${name}" for tenant ${options.tenant}: it is one of tenant ` +
        `${record.tenant_id}; choose another name`,
    );
  }
  const branch = options.branch === undefined
    ? undefined
    : timelineOfBranch(env, record.tenant_id, options.branch);
  if (branch !== undefined && branch !== record.timeline_id) {
    throw new BadRequest(
      `Cannot start endpoint "${name}" on branch "${options.branch}": it exists on timeline ` +
        `${record.timeline_id}; choose another name, or first "neon endpoint stop ` +
        `${name} --destroy"`,
    );
  }
  if (options.pgPort !== undefined && options.pgPort !== record.pg_port) {
    throw new BadRequest(
      `Cannot start endpoint "${name}" on port ${options.pgPort}: it has port ${record.pg_port}`,
    );
  }
  if (options.mode !== undefined && formatMode(options.mode) !== formatMode(record.mode)) {
    throw new BadRequest(
      `Cannot start endpoint "${name}" as ${formatMode(options.mode)}: it exists as ` +
        `${formatMode(record.mode)}; choose another name, or first "neon endpoint stop ${name} ` +
        `--destroy"`,
    );
  }
  const before = record.settings ?? {};
  const changed = Object.entries(options.settings ?? {})
    .find(([key, value]) => before[key] !== value);
  if (changed !== undefined) {
    const other = changed[0].startsWith("neon.")
      ? `use "neon endpoint reconfigure ${name} --config ${changed.join("=")}"`
      : `use ALTER SYSTEM, or "${repoPath(env, "compute", "endpoints", name, "postgresql.conf")}"`;
    throw new BadRequest(
      `Cannot start endpoint "${name}" with ${changed.join("=")}: it exists without that; ${other}`,
    );
  }
}

/** Throws Conflict if an endpoint of another name writes to the timeline. */
function checkOnlyPrimary(
  name: string,
  tenant: TenantId,
  timeline: TimelineId,
  known: EndpointStatus[],
): void {
  const other = known.find((status) =>
    status.endpoint_id !== name && status.tenant_id === tenant &&
    status.timeline_id === timeline && status.mode === "Primary" &&
    (status.status === "running" || status.status === "starting")
  );
  if (other === undefined) return;
  throw new Conflict(
    `Cannot start endpoint "${name}": endpoint "${other.endpoint_id}" already is the primary of ` +
      `timeline ${timeline}; stop it, make a branch, or make this one a replica ` +
      `(--hot-standby true)`,
  );
}

function checkPortFree(name: string, port: number, isNew: boolean): void {
  if (isPortFree(LOOPBACK, port)) return;
  const other = isNew
    ? "choose another with --pg-port"
    : `make the endpoint anew on another port: "neon endpoint stop ${name} --destroy" (no data ` +
      `is lost), then "neon endpoint create ${name} --pg-port"`;
  throw new Unavailable(
    `Cannot start endpoint "${name}": port ${port} is in use by ${portHolder(port)}; stop that, ` +
      `or ${other}`,
  );
}

/** What the compute host needs to know to start an endpoint. */
async function specOf(env: Environment, record: EndpointRecord): Promise<EndpointSpec> {
  const pageserver = parseAddress(env.config.pageservers[0]!.listen_pg_addr);
  const binaries = env.config.postgres.find((known) => known.version === record.pg_version);
  if (binaries === undefined) {
    throw new NotFound(
      `Cannot start endpoint "${record.endpoint_id}": no PostgreSQL ` +
        `${record.pg_version} binaries are configured`,
    );
  }
  const { uid, gid } = commandUser(postgresUser());
  const token = await endpointToken(env, record.tenant_id, record.endpoint_id);
  return {
    endpoint_id: record.endpoint_id,
    tenant_id: record.tenant_id,
    timeline_id: record.timeline_id,
    mode: record.mode,
    pg_version: record.pg_version,
    pg_port: record.pg_port,
    pg_bin_dir: binaries.bin_dir,
    pageserver: { host: pageserver.hostname, port: pageserver.port },
    ...safekeeperTargets(env, record.tenant_id, record.timeline_id),
    ...(token === undefined ? {} : { storage_auth_token: token }),
    ...(record.settings === undefined ? {} : { settings: record.settings }),
    ...(record.eager === true ? { eager: true } : {}),
    ...(uid === undefined || gid === undefined ? {} : { postgres_user: { uid, gid } }),
  };
}

/** What is told while an endpoint starts. */
interface EndpointReport {
  starting?(record: EndpointRecord, isNew: boolean): void;
  /** It fetches all pages first though it was not asked to. */
  eager?(why: string): void;
  /** How far it has come with that. */
  fetched?(progress: { bytes: number; total_bytes: number }): void;
}

/** An endpoint that was started, or ran before. */
interface StartedEndpoint {
  record: EndpointRecord;
  status: EndpointStatus;
  already: boolean;
}

/** The spec of a start: eager if that is asked for, or there is no other way. */
function eagerIfNeeded(
  env: Environment,
  spec: EndpointSpec,
  options: EndpointOptions,
  report: EndpointReport,
): EndpointSpec {
  if (spec.eager === true) return spec;
  if (options.eager === true) return { ...spec, eager: true };
  const directory = repoPath(env, "compute");
  const why = eagerReason({ os: Deno.build.os, binDir: spec.pg_bin_dir, directory });
  if (why === undefined) return spec;
  report.eager?.(why);
  return { ...spec, eager: true };
}

/** Starts an endpoint, creating it when it does not exist; returns when a query was answered. */
export async function startEndpoint(
  env: Environment,
  tenant: TenantId | undefined,
  name: string,
  { running: asked, ...given }: StartOptions = {},
  report: EndpointReport = {},
): Promise<StartedEndpoint> {
  const existing = loadEndpointRecord(env.repoDir, name);
  const owner = existing?.tenant_id ?? tenant;
  if (owner === undefined) {
    throw new BadRequest(
      `Cannot create endpoint "${name}": name a tenant with --tenant-id, or make one with ` +
        `"neon tenant create --set-default"`,
    );
  }
  const timeline = existing?.timeline_id ?? timelineOfNew(env, owner, name, given);
  const options = await withMode(env, owner, timeline, given);
  if (existing !== undefined) checkSame(env, existing, options);
  const compute = computeClient(env);
  const running = await (asked ?? compute.endpoints());
  const before = running.find((status) => status.endpoint_id === name);
  const isUp = before?.status === "running" || before?.status === "starting";
  const mode = existing?.mode ?? options.mode ?? "Primary";
  if (!isUp && mode === "Primary") checkOnlyPrimary(name, owner, timeline, running);
  if (!isUp) await checkStaticLsn(env, owner, timeline, mode);
  const port = existing?.pg_port ?? options.pgPort;
  if (!isUp && port !== undefined) checkPortFree(name, port, existing === undefined);
  if (!isUp) checkOldDirectory(env.repoDir, postgresUser());
  const record = existing ?? await createEndpoint(env, owner, name, options);
  if (!isUp) {
    report.starting?.(record, existing === undefined);
  }
  // Also where it is said to run: the host answers when a query has been answered
  const made = await specOf(env, record);
  const spec = isUp ? made : eagerIfNeeded(env, made, options, report);
  const onFetched = report.fetched?.bind(report);
  const status = await startAndWatch(compute, spec, onFetched).catch(async (thrown) => {
    // One that never ran is not there afterwards; the failure is what is to be told
    if (existing === undefined) await stopEndpoint(env, name, "immediate", true).catch(() => {});
    throw withSettingNamed(thrown, name, spec.pg_bin_dir);
  });
  return { record, status, already: before?.pid !== null && before?.pid === status.pid };
}

/** An endpoint as it is listed; the keys are those of `endpoint list --json`. */
export interface ListedEndpoint {
  endpoint: string;
  address: string;
  tenant_id: TenantId;
  timeline_id: TimelineId;
  branch_name: string | null;
  mode: EndpointMode;
  lsn: string | null;
  /** Of a running primary. */
  pageserver_lag: PageserverLag | null;
  /** Of a running primary whose commits wait for safekeepers. */
  stalled_commits: StalledCommits | null;
  status: "running" | "starting" | "stopped" | "crashed";
  /** Of the postmaster. */
  pid: number | null;
  /** Why it crashed or did not start. */
  error: string | null;
  /** What its start waits for that may take long. */
  waits_for: string | null;
}

/** The status for people: also whether commits wait, and for what. */
export function describeStatus(listed: ListedEndpoint): string {
  const { status, pageserver_lag: lag, stalled_commits: stalled } = listed;
  if (stalled !== null) return `${status}, commits wait: no majority of safekeepers`;
  if (lag === null || !lag.commits_delayed) return status;
  const behind = `${Math.ceil(lag.write_bytes / 2 ** 20)} MB behind`;
  return `${status}, commits wait: pageserver ${lag.has_reported ? behind : "does not report"}`;
}

/** What is wrong with an endpoint, and the way out of it, in a line for people. */
export function describeTrouble(listed: ListedEndpoint): string | undefined {
  const { endpoint, status, error, waits_for, stalled_commits } = listed;
  if (waits_for !== null) {
    return `endpoint ${endpoint} waits for ${waits_for}; "neon endpoint stop ${endpoint} -m ` +
      `immediate" ends that`;
  }
  if (stalled_commits !== null) {
    const { seconds, silent_safekeepers: silent } = stalled_commits;
    const who = silent.length === 0
      ? "all answer, but not enough have its WAL yet"
      : `no answer from ${silent.join(", ")}`;
    return `endpoint ${endpoint} has waited ${seconds} s for a majority of its safekeepers ` +
      `(${who}); commits go on when there is one: "neon start" starts those that are down`;
  }
  if (error === null || status === "running") return undefined;
  const what = status === "crashed" ? "crashed" : "did not start";
  return `endpoint ${endpoint} ${what}: ${
    error.split("\n")[0]
  }; "neon endpoint start ${endpoint}" ` +
    `starts it${status === "crashed" ? " again" : ""}`;
}

/**
 * All endpoints, those of one tenant if one is named, with the state of their processes. The host
 * is asked unless it is null, which says that it does not answer.
 */
export async function listEndpoints(
  env: Environment,
  tenant?: TenantId,
  host: ComputeClient | null = computeClient(env),
): Promise<ListedEndpoint[]> {
  const known = new Map<string, EndpointStatus>();
  let reachable = host !== null;
  try {
    for (const status of await host?.endpoints() ?? []) known.set(status.endpoint_id, status);
  } catch (thrown) {
    if (!(thrown instanceof Unavailable || thrown instanceof TimedOut)) throw thrown;
    reachable = false; // the host is down: what runs without it can be seen all the same
  }
  if (tenant !== undefined) loadTenantRecord(env.repoDir, tenant); // NotFound for an unknown one
  const records = listEndpointRecords(env.repoDir)
    .filter((record) => tenant === undefined || record.tenant_id === tenant);
  return records.map((record) => {
    const status = known.get(record.endpoint_id);
    const stray = reachable ? undefined : strayPostgres(env, record.endpoint_id);
    return {
      endpoint: record.endpoint_id,
      address: `${LOOPBACK}:${record.pg_port}`,
      tenant_id: record.tenant_id,
      timeline_id: record.timeline_id,
      branch_name: branchName(env.config, record.tenant_id, record.timeline_id) ?? null,
      mode: record.mode,
      lsn: typeof record.mode === "object"
        ? record.mode.Static
        : status?.status === "running"
        ? status.lsn
        : null,
      pageserver_lag: status?.pageserver_lag ?? null,
      stalled_commits: status?.stalled_commits ?? null,
      status: status?.status ?? stray?.state ?? "stopped",
      pid: status?.pid ?? stray?.pid ?? null,
      error: status?.error ?? null,
      waits_for: status?.waits_for ?? null,
    };
  });
}
