/**
 * Starting and stopping the daemons of a local Neon, and what has to happen around it: a pageserver
 * serves no tenant before it is told to, each time under a new generation; endpoints stop before
 * the compute host does.
 */
import { messageOf, NotFound, Unavailable } from "../../libs/utils/errors.ts";
import { describeOsError } from "../../libs/utils/os_errors.ts";
import type { TenantId } from "../../libs/utils/id.ts";
import type { PageserverClient } from "../../pageserver/client.ts";
import { pageserverClient, safekeeperClient } from "./clients.ts";
import type { PageserverConfig, SafekeeperConfig } from "./config.ts";
import { undoInterrupted } from "./creations.ts";
import { stopAllEndpoints } from "./endpoint_stop.ts";
import type { Environment } from "./environment.ts";
import { withDirectoryLock } from "./repo_dir.ts";
import {
  brokerRole,
  computeRole,
  pageserverRole,
  type Role,
  safekeeperRole,
  writeSettings,
} from "./roles.ts";
import { createMissing } from "./safekeeper_timelines.ts";
import {
  daemonPid,
  isServing,
  portConflict,
  START_TIMEOUT_MS,
  startDaemon,
  type Started,
  stopDaemon,
  type StopMode,
  takenAddresses,
} from "./supervisor.ts";
import {
  listTenantRecords,
  loadTenantRecord,
  raiseGeneration,
  type TimelineRecord,
} from "./tenant_records.ts";
import { isDirectory } from "./pg_download.ts";
import { writeTokenFile } from "./tokens.ts";

/** Tenants that are attached at the same time. */
const ATTACHES_MAX = 8;

/** Every daemon, in the order in which they are reported. */
export function allRoles(env: Environment): Role[] {
  return [
    brokerRole(env),
    ...env.config.pageservers.map((config) => pageserverRole(env, config)),
    ...env.config.safekeepers.map((config) => safekeeperRole(env, config)),
    computeRole(env),
  ];
}

/** What is told while daemons start and stop. */
export interface LifecycleReport {
  starting?(role: Role): void;
  started?(role: Role, started: Started): void;
  stopping?(role: Role, pid: number, mode: StopMode | "kill"): void;
  stopped?(role: Role, pid: number | undefined): void;
}

/** Starts one daemon unless it runs; one that does reads its public keys again, if it has any. */
export async function startRole(role: Role, timeoutMs = START_TIMEOUT_MS): Promise<Started> {
  writeSettings(role);
  if (role.token !== undefined) await writeTokenFile(role.token.path, role.token.make);
  const started = await startDaemon(role, timeoutMs);
  if (started.already) await role.reloadKeys?.();
  return started;
}

/**
 * Throws NotFound if a daemon's directory is gone although it holds a timeline: an empty one in its
 * place would answer that there is nothing.
 */
function checkDataThere(
  env: Environment,
  role: Role,
  holds: (timeline: TimelineRecord) => boolean,
): void {
  if (isDirectory(role.directory)) return;
  for (const tenant of listTenantRecords(env.repoDir)) {
    const { timelines } = loadTenantRecord(env.repoDir, tenant);
    const [timeline] = Object.entries(timelines).find(([_, record]) => holds(record)) ?? [];
    if (timeline === undefined) continue;
    throw new NotFound(
      `Cannot start ${role.name}: "${role.directory}" is gone, which held timeline ${timeline}; ` +
        `put it back, or a copy of it`,
    );
  }
}

/** Starts a pageserver unless it runs, and attaches every tenant that it does not serve yet. */
export async function startPageserver(
  env: Environment,
  config: PageserverConfig,
  timeoutMs = START_TIMEOUT_MS,
): Promise<Started> {
  const role = pageserverRole(env, config);
  checkDataThere(env, role, () => true);
  const started = await startRole(role, timeoutMs);
  await attachTenants(env, pageserverClient(env));
  return started;
}

/** Starts a safekeeper unless it runs, and gives it the timelines that it missed. */
export async function startSafekeeper(
  env: Environment,
  config: SafekeeperConfig,
  timeoutMs = START_TIMEOUT_MS,
): Promise<Started> {
  const role = safekeeperRole(env, config);
  checkDataThere(
    env,
    role,
    ({ safekeepers, missing = [] }) =>
      safekeepers.includes(config.id) && !missing.includes(config.id),
  );
  const started = await startRole(role, timeoutMs);
  await createMissing(env, config);
  await checkServed(env, config);
  return started;
}

/** Throws Unavailable if the safekeeper has timelines that it cannot serve; it serves the others. */
async function checkServed(env: Environment, config: SafekeeperConfig): Promise<void> {
  const timelines = await safekeeperClient(env, config).listTimelines();
  const broken = timelines.flatMap(({ state_reason }) => state_reason ?? []);
  if (broken.length > 1) {
    throw new Unavailable(`Cannot serve ${broken.length} timelines, for example: ${broken[0]}`);
  }
  if (broken.length > 0) throw new Unavailable(broken[0]);
}

/** Attaches what is not attached, each under a generation that was made durable before. */
async function attachTenants(env: Environment, pageserver: PageserverClient): Promise<void> {
  const attached = new Set(
    (await pageserver.tenants()).filter(({ state }) => state.slug === "Active").map(({ id }) => id),
  );
  const waiting = listTenantRecords(env.repoDir).filter((tenant) => !attached.has(tenant));
  const failures: string[] = [];
  const attach = async (id: TenantId) => {
    const generation = await withDirectoryLock(
      env.repoDir,
      () => raiseGeneration(env.repoDir, id),
    );
    await pageserver.attach(id, generation);
  };
  const attachNext = async () => {
    for (let tenant = waiting.pop(); tenant !== undefined; tenant = waiting.pop()) {
      await attach(tenant).catch((thrown) => failures.push(messageOf(thrown)));
    }
  };
  await Promise.all(Array.from({ length: ATTACHES_MAX }, attachNext));
  if (failures.length > 0) throw new Error(failures.join("\n")); // the others are attached
}

/** The addresses of what is down that others listen at, such as another local Neon. */
export async function takenPorts(env: Environment): Promise<string[]> {
  const down = (role: Role) => daemonPid(role) === undefined;
  const found = await Promise.all(
    allRoles(env).filter(down).map(async (role) => {
      const taken = await takenAddresses(role);
      return down(role) ? taken : []; // else another command has started it meanwhile
    }),
  );
  return found.flat();
}

/**
 * Starts everything that is down. Throws Unavailable, and starts nothing, if a port is taken; else
 * one error that names all that failed.
 */
export async function startAll(
  env: Environment,
  report: LifecycleReport = {},
  timeoutMs = START_TIMEOUT_MS,
): Promise<void> {
  const taken = await takenPorts(env);
  if (taken.length > 0) throw portConflict(`the local Neon in "${env.repoDir}"`, taken);
  const begin = (role: Role) => ({ role, start: startRole(role, timeoutMs) });
  const starts = [
    begin(brokerRole(env)),
    ...env.config.pageservers.map((config) => ({
      role: pageserverRole(env, config),
      start: startPageserver(env, config, timeoutMs),
    })),
    ...env.config.safekeepers.map((config) => ({
      role: safekeeperRole(env, config),
      start: startSafekeeper(env, config, timeoutMs),
    })),
    begin(computeRole(env)),
  ];
  const outcomes = Promise.allSettled(starts.map(({ start }) => start));
  const failures: string[] = [];
  for (const { role, start } of starts) {
    report.starting?.(role);
    try {
      report.started?.(role, await start);
    } catch (thrown) {
      failures.push(describeOsError(thrown) ?? messageOf(thrown));
    }
  }
  await outcomes;
  await undoInterrupted(env);
  if (failures.length > 0) throw new Error(failures.join("\n"));
}

/** Stops one daemon if it runs. */
export async function stopRole(
  role: Role,
  mode: StopMode | "kill",
  report: LifecycleReport = {},
): Promise<void> {
  const pid = daemonPid(role);
  if (pid !== undefined) report.stopping?.(role, pid, mode);
  await stopDaemon(role, mode);
  report.stopped?.(role, pid);
}

/** Stops endpoints, then all daemons. Goes on after a failure and throws at the end. */
export async function stopAll(
  env: Environment,
  mode: StopMode,
  report: LifecycleReport = {},
): Promise<void> {
  const failures: string[] = [];
  const note = (thrown: unknown) => void failures.push(messageOf(thrown));
  await stopAllEndpoints(env, mode).catch(note);
  await stopRole(computeRole(env), mode, report).catch(note);
  const storage = allRoles(env).filter((role) => role.name !== "compute").reverse();
  await Promise.all(storage.map((role) => stopRole(role, mode, report).catch(note)));
  if (failures.length > 0) throw new Error(failures.join("\n"));
}

/** A daemon as `neon status` lists it. */
export interface RoleStatus {
  name: string;
  address: string;
  pid: number | null;
  status: "running" | "not answering" | "stopped";
}

/** Looks at one daemon; `timeoutMs` is how long it may take to answer. */
export async function roleStatus(role: Role, timeoutMs?: number): Promise<RoleStatus> {
  const pid = daemonPid(role);
  const status = pid === undefined
    ? "stopped"
    : await isServing(role, timeoutMs)
    ? "running"
    : "not answering";
  return { name: role.name, address: role.listen[0]!, pid: pid ?? null, status };
}
