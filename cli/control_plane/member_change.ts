/**
 * Changing the safekeepers of one timeline while it is written, by the rules of
 * libs/safekeeper_protocol/membership_change.ts. What is under way is in the timeline's record
 * before anybody hears of it (`next_safekeepers`), so that a command that was interrupted, or
 * another one, goes on with the same change under the same generation:
 *
 *   1. new members get the timeline from the old ones
 *   2. all, and the compute host, are told the joint configuration; new members the term
 *   3. a majority of the new ones has what may be committed: the writer brings it to them, or
 *      without one an election of the compute host's
 *   4. the new ones, and the compute host, are told the final configuration; it is recorded
 *   5. those that have left drop the timeline
 */
import {
  allMembers,
  type MembershipConfiguration,
  membershipJson,
} from "../../libs/safekeeper_protocol/membership.ts";
import { MembershipChange } from "../../libs/safekeeper_protocol/membership_change.ts";
import { Conflict, messageOf, NotFound, TimedOut, Unavailable } from "../../libs/utils/errors.ts";
import type { TenantId, TimelineId } from "../../libs/utils/id.ts";
import { parseLsn } from "../../libs/utils/lsn.ts";
import { poll } from "../../libs/utils/polling.ts";
import { settleWithoutStragglers } from "../../libs/utils/stragglers.ts";
import type { MembershipAnswer } from "../../safekeeper/client.ts";
import { quorumOf } from "./branch_position.ts";
import { computeClient, safekeeperClient } from "./clients.ts";
import { LOOPBACK, type SafekeeperConfig, safekeeperConfig } from "./config.ts";
import type { Environment } from "./environment.ts";
import { withDirectoryLock } from "./repo_dir.ts";
import { memberOf } from "./safekeeper_set.ts";
import { signedToken } from "./tokens.ts";
import { changeTimelineRecord, loadTenantRecord, type TimelineRecord } from "./tenant_records.ts";

/** A safekeeper that does not answer a change for so long counts as away. */
const ANSWER_MS_MAX = 5000;
/** Once a majority has answered, the others have this long: one of them may hang. */
const STRAGGLERS_MS = 1000;
/** A change that nobody has brought further for so long is given up, for now. */
const STUCK_MS_MAX = 30_000;
/** At the new members. */
const LOOKS = { pauseMs: [20, 500], limitMs: STUCK_MS_MAX } as const;

/** The configurations of a timeline by its record. */
interface Configurations {
  /** What is in force, before a change that is under way. */
  readonly current: MembershipConfiguration;
  /** Of a change that is under way. */
  readonly joint?: MembershipConfiguration;
  readonly final?: MembershipConfiguration;
}

/** See Configurations. */
export function configurations(env: Environment, record: TimelineRecord): Configurations {
  const { safekeepers, next_safekeepers: next, membership_generation: generation = 0 } = record;
  const list = (ids: readonly number[]) =>
    ids.map((id) => memberOf(safekeeperConfig(env.config, id)));
  const current = { generation, members: list(safekeepers) };
  if (next === undefined) return { current };
  return {
    current,
    joint: { ...current, generation: generation + 1, newMembers: list(next) },
    final: { generation: generation + 2, members: list(next) },
  };
}

/** One change of one timeline. */
class Change {
  readonly #env: Environment;
  readonly #tenant: TenantId;
  readonly #timeline: TimelineId;
  readonly #joint: MembershipConfiguration;
  readonly #final: MembershipConfiguration;
  readonly #pgVersion: number;
  readonly #change: MembershipChange;
  /** Why safekeepers are away. */
  readonly #problems = new Map<number, string>();
  /** Those that have the timeline, as far as is known. */
  readonly #holders = new Set<number>();

  constructor(env: Environment, tenant: TenantId, timeline: TimelineId, record: TimelineRecord) {
    const { joint, final } = configurations(env, record);
    this.#env = env;
    this.#tenant = tenant;
    this.#timeline = timeline;
    this.#joint = joint!;
    this.#final = final!;
    this.#pgVersion = record.pg_version;
    this.#change = new MembershipChange(record.safekeepers, record.next_safekeepers!);
  }

  /** Brings it to its end; returns the new members that could not be given the timeline. */
  async carryOut(needed: readonly number[]): Promise<number[]> {
    const { from, to } = this.#change;
    await Promise.all(to.map((id) => this.#give(id, needed.includes(id))));
    await this.#tellHost(this.#joint);
    if (!(await this.#reachJoint())) await this.#catchUp();
    await this.#tellHost(this.#final);
    await this.#finish();
    return to.filter((id) => !this.#holders.has(id) && !from.includes(id));
  }

  #config(id: number): SafekeeperConfig {
    return safekeeperConfig(this.#env.config, id);
  }

  /** Gives the timeline to a new member. */
  async #give(id: number, isNeeded: boolean): Promise<void> {
    const { from } = this.#change;
    const sources = from.filter((other) => other !== id)
      .map((other) => `${LOOPBACK}:${this.#config(other).http_port}`);
    try {
      if (!from.includes(id)) {
        const client = safekeeperClient(this.#env, this.#config(id));
        await client.pullTimeline(this.#tenant, this.#timeline, sources, this.#joint);
      }
      this.#holders.add(id);
    } catch (thrown) {
      if (isNeeded) throw thrown;
      this.#problems.set(id, messageOf(thrown));
    }
  }

  /** A running endpoint goes over at once; one that cannot be told learns it from a safekeeper. */
  async #tellHost(conf: MembershipConfiguration): Promise<void> {
    const compute = computeClient(this.#env, ANSWER_MS_MAX);
    await compute.reconfigure(this.#tenant, this.#timeline, membershipJson(conf)).catch(() => {});
  }

  /** Tells safekeepers a configuration; those that are away are noted. */
  async #tell(
    ids: readonly number[],
    conf: MembershipConfiguration,
    take: (id: number, answer: MembershipAnswer) => void,
  ): Promise<void> {
    const outcomes = await settleWithoutStragglers(
      ids.map((id) => {
        const client = safekeeperClient(this.#env, this.#config(id), ANSWER_MS_MAX);
        return client.switchMembership(this.#tenant, this.#timeline, conf);
      }),
      quorumOf(ids.length),
      STRAGGLERS_MS,
    );
    for (const [i, outcome] of outcomes.entries()) {
      const id = ids[i]!;
      if (outcome.status === "fulfilled") {
        this.#problems.delete(id);
        take(id, outcome.value);
      } else if (isAway(outcome.reason)) this.#problems.set(id, messageOf(outcome.reason));
      else throw outcome.reason;
    }
  }

  /** Tells all the joint configuration; true if the final one is in force somewhere already. */
  async #reachJoint(): Promise<boolean> {
    const { from, to } = this.#change;
    let isBeyond = false;
    await this.#tell([...new Set([...from, ...to])], this.#joint, (id, answer) => {
      const { generation } = answer.current_conf;
      if (generation > this.#final.generation) {
        throw new Conflict(
          `Cannot change the safekeepers of timeline ${this.#timeline}: safekeeper ${id} has ` +
            `membership generation ${generation}, which is not on record`,
        );
      }
      if (generation === this.#final.generation) isBeyond = true;
      else this.#adopted(id, answer);
    });
    if (isBeyond || this.#change.goal !== undefined) return isBeyond;
    const answering = from.filter((id) => !this.#problems.has(id));
    throw new Unavailable(majorityMissing(this.#timeline, from, answering));
  }

  #adopted(id: number, { term, last_log_term, flush_lsn }: MembershipAnswer): void {
    const log = { term, lastLogTerm: last_log_term, flushLsn: parseLsn(flush_lsn) };
    this.#change.jointAdopted(id, log);
  }

  /** Until a majority of the new members has what a majority of the old ones may have committed. */
  async #catchUp(): Promise<void> {
    let isFirst = true;
    let problem: string | undefined;
    const hasCaughtUp = await poll(LOOKS, async () => {
      if (!isFirst && await this.#reachJoint()) return true;
      isFirst = false;
      await this.#carryTerm();
      if (this.#change.mayFinish) return true;
      problem = await this.#settle();
      return undefined;
    });
    if (hasCaughtUp) return;
    throw new TimedOut(
      `Cannot change the safekeepers of timeline ${this.#timeline} now: ` +
        `${this.#change.to.filter((id) => !this.#change.isReady(id)).join(", ")} do not have ` +
        `its WAL (${problem ?? [...this.#problems.values()].join("; ")})`,
    );
  }

  /** Raises the term of new members that do not know as high a one as the old ones do. */
  async #carryTerm(): Promise<void> {
    const { goal, to } = this.#change;
    const behind = to.filter((id) => this.#change.lacksTerm(id));
    if (behind.length === 0) return;
    await Promise.all(behind.map(async (id) => {
      const client = safekeeperClient(this.#env, this.#config(id), ANSWER_MS_MAX);
      await client.bumpTerm(this.#tenant, this.#timeline, goal!.term)
        .catch((thrown) => this.#problems.set(id, messageOf(thrown)));
    }));
    await this.#reachJoint();
  }

  /** Without a writer nobody else brings the newest log to all; returns why it could not be done. */
  async #settle(): Promise<string | undefined> {
    try {
      const token = await signedToken(this.#env, { scope: "tenant", tenant_id: this.#tenant });
      await computeClient(this.#env, STUCK_MS_MAX).syncTimeline({
        tenant_id: this.#tenant,
        timeline_id: this.#timeline,
        pg_version: this.#pgVersion,
        mconf: membershipJson(this.#joint),
        safekeepers: targetsOf(this.#joint),
        ...(token === undefined ? {} : { storage_auth_token: token }),
      });
      return undefined;
    } catch (thrown) {
      return messageOf(thrown);
    }
  }

  /** Tells the new members the final configuration, until it is in force. */
  async #finish(): Promise<void> {
    const { to } = this.#change;
    const isFinal = await poll(LOOKS, async () => {
      await this.#tell(to, this.#final, (id) => this.#change.finalAdopted(id));
      return this.#change.isFinal || undefined;
    });
    if (isFinal) return;
    const answering = to.filter((id) => !this.#problems.has(id));
    throw new Unavailable(majorityMissing(this.#timeline, to, answering));
  }
}

function isAway(reason: unknown): boolean {
  return reason instanceof Unavailable || reason instanceof TimedOut || reason instanceof NotFound;
}

/** Says which safekeepers have to answer. */
export function majorityMissing(
  timeline: TimelineId,
  members: readonly number[],
  answering: readonly number[],
): string {
  const silent = members.filter((id) => !answering.includes(id));
  const who = answering.length === 0 ? "none does" : `only ${answering.join(", ")} answer`;
  return `Cannot change the safekeepers of timeline ${timeline}: a majority of ` +
    `${members.join(", ")} has to answer, ${who}; "neon safekeeper start ${silent[0]}" starts one`;
}

/** Safekeepers as the compute host is told them. */
export function targetsOf(membership: MembershipConfiguration) {
  return allMembers(membership)
    .map(({ id, host, pgPort }) => ({ id, host, pg_port: pgPort }));
}

function recordOf(env: Environment, tenant: TenantId, timeline: TimelineId) {
  return loadTenantRecord(env.repoDir, tenant).timelines[timeline];
}

function change(
  env: Environment,
  tenant: TenantId,
  timeline: TimelineId,
  how: (record: TimelineRecord) => TimelineRecord,
): Promise<TimelineRecord | undefined> {
  return withDirectoryLock(
    env.repoDir,
    () => changeTimelineRecord(env.repoDir, tenant, timeline, how),
  );
}

async function carryOut(
  env: Environment,
  tenant: TenantId,
  timeline: TimelineId,
  record: TimelineRecord,
  needed: readonly number[],
): Promise<void> {
  const missing = await new Change(env, tenant, timeline, record).carryOut(needed);
  await change(env, tenant, timeline, ({ next_safekeepers: next, ...before }) => {
    if (next === undefined) return before; // another command was faster
    const left = before.safekeepers.filter((id) => !next.includes(id));
    return {
      ...before,
      safekeepers: next,
      membership_generation: (before.membership_generation ?? 0) + 2,
      missing: [...before.missing ?? [], ...missing].filter((id) => next.includes(id)),
      left_safekeepers: [...before.left_safekeepers ?? [], ...left],
    };
  });
}

/**
 * Gives a timeline the safekeepers that `wanted` makes of its present ones; what is under way is
 * brought to its end before. Throws Unavailable or TimedOut when too few safekeepers answer; the
 * same call again goes on.
 */
export async function changeMembers(
  env: Environment,
  tenant: TenantId,
  timeline: TimelineId,
  wanted: (members: readonly number[]) => number[],
): Promise<void> {
  let record = recordOf(env, tenant, timeline);
  if (record === undefined) return;
  const { next_safekeepers: next } = record;
  if (next !== undefined) {
    const isWanted = isSame(next, wanted(record.safekeepers));
    const joined = next.filter((id) => !record!.safekeepers.includes(id));
    await carryOut(env, tenant, timeline, record, isWanted ? joined : []);
    record = recordOf(env, tenant, timeline);
    if (record === undefined) return;
  }
  const target = wanted(record.safekeepers);
  if (!isSame(target, record.safekeepers)) {
    const begun = await change(env, tenant, timeline, (before) => ({
      next_safekeepers: target, // unless another command has begun
      ...before,
    }));
    if (begun === undefined) return;
    const joined = target.filter((id) => !begun.safekeepers.includes(id));
    await carryOut(env, tenant, timeline, begun, joined);
  }
  await dropLeft(env, tenant, timeline);
}

function isSame(one: readonly number[], other: readonly number[]): boolean {
  return one.length === other.length && one.every((id) => other.includes(id));
}

/** Removes a timeline from the safekeepers that it has left; from those that are away later. */
export async function dropLeft(
  env: Environment,
  tenant: TenantId,
  timeline: TimelineId,
): Promise<void> {
  const left = recordOf(env, tenant, timeline)?.left_safekeepers ?? [];
  const dropped: number[] = [];
  await Promise.all(left.map(async (id) => {
    const config = env.config.safekeepers.find((safekeeper) => safekeeper.id === id);
    if (config !== undefined) {
      try {
        await safekeeperClient(env, config, ANSWER_MS_MAX).dropTimeline(tenant, timeline);
      } catch (thrown) {
        if (thrown instanceof Unavailable || thrown instanceof TimedOut) return;
        throw thrown;
      }
    }
    dropped.push(id);
  }));
  if (dropped.length === 0) return;
  await change(env, tenant, timeline, (record) => ({
    ...record,
    left_safekeepers: (record.left_safekeepers ?? []).filter((id) => !dropped.includes(id)),
  }));
}
