/**
 * Replacing, adding and removing safekeepers while everything runs. What is wanted is written into
 * the configuration first; then each timeline gets the safekeepers that it is to have
 * (member_change.ts), and what nobody needs any more is stopped and removed. Every step can be done
 * again: whatever interrupts a command, the same command, or another one of these, goes on.
 */
import { BadRequest, Conflict, NotFound, Unavailable } from "../../libs/utils/errors.ts";
import type { TenantId, TimelineId } from "../../libs/utils/id.ts";
import { ifThere } from "../../libs/utils/if_there.ts";
import { isMajority } from "../../libs/safekeeper_protocol/membership_change.ts";
import { makeDirectory } from "../../libs/utils/durable.ts";
import { safekeeperClient } from "./clients.ts";
import { branchName, type Config, loadConfig, type SafekeeperConfig } from "./config.ts";
import { SAFEKEEPERS_MAX } from "./config_shape.ts";
import { changeConfig, type Environment, repoPath } from "./environment.ts";
import {
  type LifecycleReport,
  type RoleStatus,
  roleStatus,
  startSafekeeper,
  stopRole,
} from "./lifecycle.ts";
import { changeMembers, majorityMissing } from "./member_change.ts";
import { withDirectoryLock } from "./repo_dir.ts";
import { safekeeperRole } from "./roles.ts";
import {
  addSafekeeper,
  changeOf,
  forgetSafekeeper,
  isLeaving,
  type SafekeeperChange,
  wantedMembers,
} from "./safekeeper_set.ts";
import {
  changeTimelineRecord,
  listTenantRecords,
  loadTenantRecord,
  type TimelineRecord,
} from "./tenant_records.ts";

/** Longest wait for a safekeeper's answer before anything is begun. */
const ALIVE_MS_MAX = 2000;

/** What is told while safekeepers change. */
export interface SafekeeperReport extends LifecycleReport {
  /** A timeline gets other safekeepers, as the first, second... of so many. */
  moving?(move: {
    readonly number: number;
    readonly count: number;
    readonly branch: string | undefined;
    readonly timeline: TimelineId;
    readonly from: readonly number[];
    readonly to: readonly number[];
  }): void;
}

/** A timeline and its record. */
interface Known {
  readonly tenant: TenantId;
  readonly timeline: TimelineId;
  readonly record: TimelineRecord;
}

function allTimelines(env: Environment): Known[] {
  return listTenantRecords(env.repoDir).flatMap((tenant) =>
    Object.entries(loadTenantRecord(env.repoDir, tenant).timelines)
      .map(([timeline, record]) => ({ tenant, timeline: timeline as TimelineId, record }))
  );
}

function refresh(env: Environment): Environment {
  return { repoDir: env.repoDir, config: loadConfig(env.repoDir) };
}

/** One command at a time: the next one goes on where this one has ended. */
function alone<T>(env: Environment, run: (env: Environment) => Promise<T>): Promise<T> {
  const directory = repoPath(env, "safekeepers");
  makeDirectory(directory);
  return withDirectoryLock(directory, () => run(refresh(env)));
}

/** Throws Unavailable unless a majority of the safekeepers of each of these timelines answers. */
async function checkMajorities(env: Environment, known: readonly Known[]): Promise<void> {
  const answers = await Promise.all(env.config.safekeepers.map(async (config) => {
    try {
      return (await safekeeperClient(env, config, ALIVE_MS_MAX).status()).id;
    } catch {
      return undefined;
    }
  }));
  for (const { timeline, record: { safekeepers, missing = [] } } of known) {
    const answering = safekeepers.filter((id) => answers.includes(id) && !missing.includes(id));
    if (isMajority(safekeepers, (id) => answering.includes(id))) continue;
    throw new Unavailable(majorityMissing(timeline, safekeepers, answering));
  }
}

function known(config: Config, id: number): SafekeeperConfig {
  const found = config.safekeepers.find((safekeeper) => safekeeper.id === id);
  if (found !== undefined) return found;
  const former = config.former_safekeepers?.find((safekeeper) => safekeeper.id === id);
  const ids = config.safekeepers.map((safekeeper) => safekeeper.id).join(", ");
  const what = former === undefined
    ? ""
    : former.replaced_by === undefined
    ? "; it was removed"
    : `; it was replaced by ${former.replaced_by}`;
  throw new NotFound(`Cannot find safekeeper ${id}: known are ${ids}${what}`);
}

function checkRoom(config: Config): void {
  if (config.safekeepers.length < SAFEKEEPERS_MAX) return;
  throw new Unavailable(`Cannot add a safekeeper: there are ${SAFEKEEPERS_MAX} already`);
}

/** A safekeeper that took another one's place. */
interface Replacement {
  readonly id: number;
  /** It had taken it before. */
  readonly already: boolean;
}

/**
 * Gives the timelines of a safekeeper to another one, `by`, or to a new one, and removes it. Throws
 * Unavailable if too few of the others answer.
 */
export function replaceSafekeeper(
  env: Environment,
  id: number,
  by: number | undefined,
  report: SafekeeperReport,
): Promise<Replacement> {
  return alone(env, async (now) => {
    const former = now.config.former_safekeepers?.find((safekeeper) => safekeeper.id === id);
    if (former?.replaced_by !== undefined && (by ?? former.replaced_by) === former.replaced_by) {
      return { id: former.replaced_by, already: true };
    }
    const concerned = allTimelines(now).filter(({ record }) => record.safekeepers.includes(id));
    const old = known(now.config, id);
    if (!isLeaving(old)) await checkMajorities(now, concerned);
    const changed = await changeConfig(
      now,
      (config) => beginReplacement(config, id, by, concerned),
    );
    await settle(changed, report);
    return { id: known(changed.config, id).replaced_by!, already: false };
  });
}

function beginReplacement(
  config: Config,
  id: number,
  by: number | undefined,
  concerned: readonly Known[],
): void {
  const old = known(config, id);
  if (old.leaving === true) {
    throw new Conflict(
      `Cannot replace safekeeper ${id}: it is being removed; "neon safekeeper remove ${id}" ` +
        `goes on`,
    );
  }
  if (old.replaced_by !== undefined) {
    if (by === undefined || by === old.replaced_by) return;
    throw new Conflict(
      `Cannot replace safekeeper ${id} by ${by}: ${old.replaced_by} is taking its place; ` +
        `"neon safekeeper replace ${id}" goes on`,
    );
  }
  if (by === undefined) {
    checkRoom(config);
    old.replaced_by = addSafekeeper(config).id;
    return;
  }
  const other = known(config, by);
  const holds = concerned.some(({ record }) => record.safekeepers.includes(by));
  if (by === id || isLeaving(other) || holds) {
    const why = by === id
      ? "that is the same one"
      : isLeaving(other)
      ? "that one is leaving"
      : "that one has the same timelines";
    throw new BadRequest(`Cannot replace safekeeper ${id} by ${by}: ${why}`);
  }
  old.replaced_by = by;
}

/** Makes one more safekeeper, which every timeline gets. Returns its id. */
export function joinSafekeeper(env: Environment, report: SafekeeperReport): Promise<number> {
  return alone(env, async (now) => {
    const joining = now.config.safekeepers.find((safekeeper) => safekeeper.joining === true);
    if (joining === undefined) await checkMajorities(now, allTimelines(now));
    let id = joining?.id;
    const changed = await changeConfig(now, (config) => {
      if (id !== undefined) return;
      checkRoom(config);
      const added = addSafekeeper(config);
      added.joining = true;
      id = added.id;
    });
    await settle(changed, report);
    return id!;
  });
}

/** Takes a safekeeper's timelines off it, and removes it. */
export function removeSafekeeper(
  env: Environment,
  id: number,
  report: SafekeeperReport,
): Promise<void> {
  return alone(env, async (now) => {
    const former = now.config.former_safekeepers?.find((safekeeper) => safekeeper.id === id);
    if (former !== undefined) return;
    const concerned = allTimelines(now).filter(({ record }) => record.safekeepers.includes(id));
    const old = known(now.config, id);
    if (!isLeaving(old)) await checkMajorities(now, concerned);
    const changed = await changeConfig(now, (config) => {
      const leaving = known(config, id);
      if (leaving.replaced_by !== undefined) {
        throw new Conflict(
          `Cannot remove safekeeper ${id}: ${leaving.replaced_by} is taking its place; ` +
            `"neon safekeeper replace ${id}" goes on`,
        );
      }
      if (config.safekeepers.filter((safekeeper) => !isLeaving(safekeeper)).length === 1) {
        throw new BadRequest(`Cannot remove safekeeper ${id}: it is the last one`);
      }
      leaving.leaving = true;
    });
    await settle(changed, report);
  });
}

/** Does whatever the configuration asks for. */
async function settle(env: Environment, report: SafekeeperReport): Promise<void> {
  const { config } = env;
  for (const safekeeper of config.safekeepers) {
    const isNew = safekeeper.joining === true ||
      config.safekeepers.some(({ replaced_by }) => replaced_by === safekeeper.id);
    if (!isNew || isLeaving(safekeeper)) continue;
    report.starting?.(safekeeperRole(env, safekeeper));
    report.started?.(safekeeperRole(env, safekeeper), await startSafekeeper(env, safekeeper));
  }
  const wanted = (members: readonly number[]) => wantedMembers(config, members);
  const isToMove = ({ record }: Known) =>
    record.next_safekeepers !== undefined ||
    wanted(record.safekeepers).join() !== record.safekeepers.join() ||
    record.left_safekeepers !== undefined;
  for (let round = 0;; round++) {
    // Branches that were made meanwhile are for the next round
    const moving = allTimelines(env).filter(isToMove);
    const undone = moving.filter(({ record }) =>
      record.next_safekeepers !== undefined ||
      wanted(record.safekeepers).join() !== record.safekeepers.join()
    );
    if (round > 0 && undone.length === 0) break;
    for (const [i, { tenant, timeline, record }] of moving.entries()) {
      report.moving?.({
        number: i + 1,
        count: moving.length,
        branch: branchName(config, tenant, timeline),
        timeline,
        from: record.safekeepers,
        to: record.next_safekeepers ?? wanted(record.safekeepers),
      });
      await changeMembers(env, tenant, timeline, wanted);
    }
  }
  for (const safekeeper of config.safekeepers.filter(isLeaving)) {
    await retire(env, safekeeper, report);
  }
  await changeConfig(env, (now) => {
    for (const safekeeper of now.safekeepers) delete safekeeper.joining;
  });
}

/** Ends a safekeeper that no timeline has any more, and removes what it has. */
async function retire(
  env: Environment,
  safekeeper: SafekeeperConfig,
  report: SafekeeperReport,
): Promise<void> {
  const role = safekeeperRole(env, safekeeper);
  await stopRole(role, "kill", report); // it has nothing to keep, and may hang
  ifThere(() => Deno.removeSync(role.directory, { recursive: true }));
  await changeConfig(env, (config) => {
    for (const { tenant, timeline, record } of allTimelines(env)) {
      const { id } = safekeeper;
      if (record.safekeepers.includes(id) || record.next_safekeepers?.includes(id)) {
        throw new Conflict(`Cannot remove safekeeper ${id}: timeline ${timeline} still has it`);
      }
      if (!record.left_safekeepers?.includes(id)) continue;
      changeTimelineRecord(env.repoDir, tenant, timeline, (before) => ({
        ...before,
        left_safekeepers: (before.left_safekeepers ?? []).filter((other) => other !== id),
      }));
    }
    forgetSafekeeper(config, safekeeper);
  });
}

/** A safekeeper as it is listed; the keys are those of `safekeeper list --json`. */
export interface ListedSafekeeper extends RoleStatus {
  id: number;
  http_address: string;
  /** Timelines that are on record to be on it. */
  timelines: number;
  /** What is under way with it. */
  change: SafekeeperChange | null;
}

/** All safekeepers. */
export function listSafekeepers(env: Environment): Promise<ListedSafekeeper[]> {
  const records = allTimelines(env).map(({ record }) => record);
  return Promise.all(env.config.safekeepers.map(async (config) => {
    const role = safekeeperRole(env, config);
    return {
      id: config.id,
      ...await roleStatus(role),
      http_address: role.listen[1]!,
      timelines: records.filter(({ safekeepers }) => safekeepers.includes(config.id)).length,
      change: changeOf(config),
    };
  }));
}
