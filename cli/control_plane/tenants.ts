/** Creating, listing and configuring tenants: the control plane's side of it. */
import {
  type ControlFile,
  decodeControlFile,
  encodeControlFile,
} from "../../libs/postgres/control_file.ts";
import { DATA_CHECKSUM_VERSION } from "../../libs/postgres/page_checksum.ts";
import { pgVersion as pgVersionOf } from "../../libs/postgres/versions.ts";
import { Conflict, NotFound } from "../../libs/utils/errors.ts";
import { newTenantId, newTimelineId, type TenantId, type TimelineId } from "../../libs/utils/id.ts";
import type { TenantInfo, TimelineInfo } from "../../pageserver/client.ts";
import { checkBranchName } from "./branch_names.ts";
import { pageserverClient } from "./clients.ts";
import { checkBranchNameFree, type Config, MAIN_BRANCH, mapBranch } from "./config.ts";
import { changeConfig, type Environment } from "./environment.ts";
import { creating, undoInterrupted } from "./creations.ts";
import { cacheDirectory, postgresUser } from "./host_user.ts";
import { controlFileIn, initdbArchive } from "./initdb_cache.ts";
import { findPostgres } from "./postgres_binaries.ts";
import type { Progress } from "./progress.ts";
import { withDirectoryLock } from "./repo_dir.ts";
import { checkTimelineNew } from "./timeline_check.ts";
import { createOnSafekeepers, recordCreated } from "./safekeeper_timelines.ts";
import type { TenantSettings } from "./tenant_settings.ts";
import { listTenantRecords, loadTenantRecord, storeTenantRecord } from "./tenant_records.ts";

/** What a tenant can be created with. */
export interface CreateTenantOptions {
  tenantId?: TenantId;
  timelineId?: TimelineId;
  pgVersion?: number;
  /** Whether pages carry checksums; by default as `init` was told, else as initdb of the version. */
  dataChecksums?: boolean;
  setDefault?: boolean;
  settings?: TenantSettings;
}

/** A tenant that was created, with its first timeline. */
export interface CreatedTenant {
  tenantId: TenantId;
  timelineId: TimelineId;
  /** Where the first timeline's own WAL begins. */
  startLsn: string;
}

/** A cluster's system identifier: any 63-bit number that no other cluster has. */
function newSystemId(): bigint {
  return crypto.getRandomValues(new BigUint64Array(1))[0]! & 0x7fff_ffff_ffff_ffffn;
}

/** What kind of cluster a root timeline is. */
interface ClusterKind {
  readonly pgVersion: number;
  readonly dataChecksums: boolean | undefined;
}

/**
 * A fresh cluster of its own identity, as the tar that the pageserver imports. Whether it has page
 * checksums is in its control file alone: the pages get theirs when they leave the pageserver.
 */
async function freshCluster(
  env: Environment,
  { pgVersion, dataChecksums }: ClusterKind,
  progress: Progress,
): Promise<Uint8Array<ArrayBuffer>> {
  const user = postgresUser();
  const cacheDir = cacheDirectory();
  const pgBin = env.config.postgres.find((known) => known.version === pgVersion)?.bin_dir;
  const pgDistribDir = env.config.pg_distrib_dir;
  const source = pgBin === undefined ? { pgDistribDir } : { pgBin };
  const binaries = await findPostgres(pgVersion, source, user, cacheDir, progress);
  const archive = Deno.readFileSync(
    await initdbArchive(binaries, user, cacheDir, progress),
  );
  const place = controlFileIn(archive);
  const made = decodeControlFile(place);
  const withChecksums = dataChecksums ?? env.config.data_checksums ??
    made.version.initdbHasChecksums;
  const dataChecksumVersion = withChecksums ? DATA_CHECKSUM_VERSION : 0;
  const control: ControlFile = { ...made, systemId: newSystemId(), dataChecksumVersion };
  place.set(encodeControlFile(control));
  if (pgBin === undefined) {
    await changeConfig(env, (config) => {
      if (config.postgres.some((known) => known.version === pgVersion)) return;
      config.postgres.push({ version: pgVersion, bin_dir: binaries.binDir });
    });
  }
  return archive;
}

/** Imports a fresh cluster as a new root timeline: on the pageserver, then on the safekeepers. */
async function createRoot(
  env: Environment,
  tenant: TenantId,
  timeline: TimelineId,
  kind: ClusterKind,
  name: (config: Config) => void,
  progress: Progress,
): Promise<TimelineInfo> {
  const archive = await freshCluster(env, kind, progress);
  const pageserver = pageserverClient(env);
  const info = await pageserver.importBasebackup(tenant, timeline, kind.pgVersion, archive);
  const record = await createOnSafekeepers(env, info);
  await recordCreated(env, tenant, timeline, record, name);
  return info;
}

/** Creates a tenant with a first timeline called main. A failed creation leaves nothing behind. */
export async function createTenant(
  env: Environment,
  options: CreateTenantOptions,
  progress: Progress,
): Promise<CreatedTenant> {
  const tenantId = options.tenantId ?? newTenantId();
  const timelineId = options.timelineId ?? newTimelineId();
  const pgVersion = options.pgVersion ?? env.config.pg_version;
  await undoInterrupted(env);
  pgVersionOf(pgVersion);
  checkTenantNew(env, tenantId);
  const looked = pageserverClient(env).status(); // where it is down, nothing begins
  const creation = { tenant_id: tenantId, timeline_id: timelineId, with_tenant: true };
  return await creating(env, creation, looked, async () => {
    await withDirectoryLock(env.repoDir, () => {
      checkTenantNew(env, tenantId);
      const record = { generation: 1, pg_version: pgVersion, timelines: {} };
      storeTenantRecord(env.repoDir, tenantId, record);
    });
    await pageserverClient(env).attach(tenantId, 1, options.settings);
    const kind = { pgVersion, dataChecksums: options.dataChecksums };
    const name = (config: Config) => {
      mapBranch(config, tenantId, MAIN_BRANCH, timelineId);
      if (options.setDefault === true) config.default_tenant_id = tenantId;
    };
    const info = await createRoot(env, tenantId, timelineId, kind, name, progress);
    return { tenantId, timelineId, startLsn: info.last_record_lsn };
  });
}

function checkTenantNew(env: Environment, tenant: TenantId): void {
  if (!listTenantRecords(env.repoDir).includes(tenant)) return;
  throw new Conflict(`Cannot create tenant ${tenant}: it exists already; choose another id`);
}

/** Creates another root timeline in a tenant: an empty cluster of its own. */
export async function createTimeline(
  env: Environment,
  tenant: TenantId,
  branch: string,
  options: Pick<CreateTenantOptions, "timelineId" | "pgVersion" | "dataChecksums">,
  progress: Progress,
): Promise<{ timelineId: TimelineId; startLsn: string }> {
  await undoInterrupted(env);
  checkBranchName(branch);
  const timelineId = options.timelineId ?? newTimelineId();
  checkBranchNameFree(env.config, tenant, branch, timelineId);
  const pgVersion = options.pgVersion ?? loadTenantRecord(env.repoDir, tenant).pg_version;
  pgVersionOf(pgVersion);
  const kind = { pgVersion, dataChecksums: options.dataChecksums };
  await checkTimelineNew(env, tenant, options.timelineId);
  const looked = pageserverClient(env).status();
  const creation = { tenant_id: tenant, timeline_id: timelineId, with_tenant: false };
  return await creating(env, creation, looked, async () => {
    const name = (config: Config) => mapBranch(config, tenant, branch, timelineId);
    const info = await createRoot(env, tenant, timelineId, kind, name, progress);
    return { timelineId, startLsn: info.last_record_lsn };
  });
}

/** All tenants of this local Neon, with the state that the pageserver reports. */
export async function listTenants(
  env: Environment,
): Promise<{ tenant_id: TenantId; state: string; reason: string | null; default: boolean }[]> {
  const attached = new Map<string, TenantInfo>();
  for (const tenant of await pageserverClient(env).tenants()) attached.set(tenant.id, tenant);
  return listTenantRecords(env.repoDir).map((tenant) => {
    const state = attached.get(tenant)?.state;
    return {
      tenant_id: tenant,
      state: state?.slug ?? "Detached",
      reason: state?.slug === "Broken" ? state.data.reason : null,
      default: tenant === env.config.default_tenant_id,
    };
  });
}

/** Makes a tenant the default one. Throws NotFound for an unknown one. */
export async function setDefaultTenant(env: Environment, tenant: TenantId): Promise<void> {
  if (!listTenantRecords(env.repoDir).includes(tenant)) {
    throw new NotFound(`Cannot find tenant ${tenant}: "neon tenant list" shows those there are`);
  }
  await changeConfig(env, (config) => {
    config.default_tenant_id = tenant;
  });
}
