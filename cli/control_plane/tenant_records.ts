/**
 * `.neon/tenants/<tenant>.json`: per tenant the generation number, and which safekeepers each of
 * its timelines has.
 *
 *     {"generation": 3, "pg_version": 17,
 *      "timelines": {"de200b...": {"pg_version": 17, "safekeepers": [1]}}}
 *
 * The tenant's PostgreSQL version is that of its first timeline, and what another root timeline
 * gets unless told otherwise; a branch has its ancestor's.
 *
 * The generation is the fencing token of an attached tenant: it is raised durably before every
 * attach, so that no two attachments ever share one, whatever crashes in between.
 */
import { makeDirectory, removeFile, replaceFile } from "../../libs/utils/durable.ts";
import { NotFound } from "../../libs/utils/errors.ts";
import type { TenantId, TimelineId } from "../../libs/utils/id.ts";
import { ifThere } from "../../libs/utils/if_there.ts";
import { join } from "../../libs/utils/paths.ts";
import { list, mapOf, optional, type Shape, table, whole } from "../../libs/utils/shape.ts";
import { idShape, nodeIdShape, parseRecord, versionShape } from "./shapes.ts";

/** The PostgreSQL version of a timeline, and which safekeepers it has. */
export interface TimelineRecord {
  pg_version: number;
  safekeepers: number[];
  /** Those of them that were down when it was created, and get it when they are started. */
  missing?: number[];
  /** Of the membership that is in force; missing: its members have never changed. */
  membership_generation?: number;
  /** The safekeepers that it is getting: under way from when this is here until it is not. */
  next_safekeepers?: number[];
  /** Those that it has left, and that still have to drop it. */
  left_safekeepers?: number[];
}

/** What the control plane remembers of one tenant. */
interface TenantRecord {
  generation: number;
  pg_version: number;
  timelines: Record<TimelineId, TimelineRecord>;
}

const RECORD: Shape<TenantRecord> = {
  generation: whole(0, 2 ** 32 - 1),
  pg_version: versionShape,
  timelines: mapOf(
    table<TimelineRecord>({
      pg_version: versionShape,
      safekeepers: list(nodeIdShape, 1),
      missing: optional(list(nodeIdShape)),
      membership_generation: optional(whole(1, 2 ** 32 - 1)),
      next_safekeepers: optional(list(nodeIdShape, 1)),
      left_safekeepers: optional(list(nodeIdShape)),
    }),
    idShape,
  ),
};

function directoryOf(repoDir: string): string {
  return join(repoDir, "tenants");
}

function pathOf(repoDir: string, tenant: TenantId): string {
  return join(directoryOf(repoDir), `${tenant}.json`);
}

/** All tenants of this local Neon, sorted by id. */
export function listTenantRecords(repoDir: string): TenantId[] {
  const entries = ifThere(() => [...Deno.readDirSync(directoryOf(repoDir))]) ?? [];
  return entries.filter((entry) => /^[0-9a-f]{32}\.json$/.test(entry.name))
    .map((entry) => entry.name.slice(0, 32) as TenantId)
    .sort();
}

/** Reads one tenant's record. Throws NotFound for an unknown tenant. */
export function loadTenantRecord(repoDir: string, tenant: TenantId): TenantRecord {
  const path = pathOf(repoDir, tenant);
  const text = ifThere(() => Deno.readTextFileSync(path));
  if (text === undefined) {
    throw new NotFound(`Cannot find tenant ${tenant}: "neon tenant list" shows those there are`);
  }
  return parseRecord<TenantRecord>(path, text, RECORD);
}

/** Replaces one tenant's record durably. The caller holds the directory lock. */
export function storeTenantRecord(repoDir: string, tenant: TenantId, record: TenantRecord): void {
  makeDirectory(directoryOf(repoDir));
  const text = JSON.stringify(record, null, 2) + "\n";
  replaceFile(pathOf(repoDir, tenant), new TextEncoder().encode(text));
}

/** Forgets a tenant. */
export function removeTenantRecord(repoDir: string, tenant: TenantId): void {
  removeFile(pathOf(repoDir, tenant));
}

/** Raises a tenant's generation durably and returns the new one. The caller holds the lock. */
export function raiseGeneration(repoDir: string, tenant: TenantId): number {
  const record = loadTenantRecord(repoDir, tenant);
  record.generation += 1;
  storeTenantRecord(repoDir, tenant, record);
  return record.generation;
}

/** The PostgreSQL major version of a timeline. Throws NotFound for one that is not recorded. */
export function timelinePgVersion(
  repoDir: string,
  tenant: TenantId,
  timeline: TimelineId,
): number {
  const known = loadTenantRecord(repoDir, tenant).timelines[timeline];
  if (known !== undefined) return known.pg_version;
  throw new NotFound(`Cannot find timeline ${timeline} of tenant ${tenant}`);
}

/** Remembers a timeline. The caller holds the lock. */
export function recordTimeline(
  repoDir: string,
  tenant: TenantId,
  timeline: TimelineId,
  timelineRecord: TimelineRecord,
): void {
  const record = loadTenantRecord(repoDir, tenant);
  record.timelines[timeline] = timelineRecord;
  storeTenantRecord(repoDir, tenant, record);
}

/**
 * Changes what is remembered of a timeline, durably; returns it, undefined if there is no such
 * timeline any more. The caller holds the lock.
 */
export function changeTimelineRecord(
  repoDir: string,
  tenant: TenantId,
  timeline: TimelineId,
  change: (record: TimelineRecord) => TimelineRecord,
): TimelineRecord | undefined {
  if (!listTenantRecords(repoDir).includes(tenant)) return undefined;
  const before = loadTenantRecord(repoDir, tenant).timelines[timeline];
  if (before === undefined) return undefined;
  const { missing = [], left_safekeepers: left = [], ...rest } = change(before);
  const record = {
    ...rest,
    ...(missing.length === 0 ? {} : { missing }),
    ...(left.length === 0 ? {} : { left_safekeepers: left }),
  };
  recordTimeline(repoDir, tenant, timeline, record);
  return record;
}

/** Forgets a timeline, if it is known. The caller holds the lock. */
export function forgetTimeline(repoDir: string, tenant: TenantId, timeline: TimelineId): void {
  const record = loadTenantRecord(repoDir, tenant);
  if (!(timeline in record.timelines)) return;
  delete record.timelines[timeline];
  storeTenantRecord(repoDir, tenant, record);
}
