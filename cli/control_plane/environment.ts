/**
 * A local Neon: its state directory and configuration as they are now, and the one way to change
 * the configuration (under the directory lock, on a fresh read, so that two commands never undo
 * each other's changes).
 */
import { BadRequest, NotFound } from "../../libs/utils/errors.ts";
import { parseTenantId, type TenantId, type TimelineId } from "../../libs/utils/id.ts";
import { join } from "../../libs/utils/paths.ts";
import { branchTimeline, type Config, loadConfig, storeConfig } from "./config.ts";
import { repoDirectory, withDirectoryLock } from "./repo_dir.ts";
import { didYouMean } from "./suggest.ts";

/** What every operation of the control plane works on. */
export interface Environment {
  /** Absolute path of `.neon`. */
  readonly repoDir: string;
  /** As it was when the command began; change it with changeConfig() only. */
  readonly config: Config;
}

/** Opens the local Neon of the current directory or of NEON_REPO_DIR. Throws NotFound if none. */
export function openEnvironment(repoDir = repoDirectory()): Environment {
  return { repoDir, config: loadConfig(repoDir) };
}

/** Applies `change` to the configuration as it is now, durably; returns what it is then. */
export function changeConfig(
  env: Environment,
  change: (config: Config) => void,
): Promise<Environment> {
  return withDirectoryLock(env.repoDir, () => {
    const config = loadConfig(env.repoDir);
    change(config);
    storeConfig(env.repoDir, config);
    return { repoDir: env.repoDir, config };
  });
}

/** The tenant that a command is about: the one named, else the default one. */
export function tenantOf(env: Environment, named: string | undefined): TenantId {
  if (named !== undefined) return parseTenantId(named);
  const tenant = env.config.default_tenant_id;
  if (tenant !== undefined) return tenant;
  throw new BadRequest(
    `Cannot tell which tenant is meant: name one with --tenant-id, or make one with ` +
      `"neon tenant create --set-default"`,
  );
}

/** The names of a tenant's branches, sorted. */
export function branchNames(env: Environment, tenant: TenantId): string[] {
  return Object.keys(env.config.branch_name_mappings)
    .filter((name) => branchTimeline(env.config, tenant, name) !== undefined).sort();
}

/** The timeline that a branch name stands for. Throws NotFound naming the branches there are. */
export function timelineOfBranch(env: Environment, tenant: TenantId, branch: string): TimelineId {
  const timeline = branchTimeline(env.config, tenant, branch);
  if (timeline !== undefined) return timeline;
  const names = branchNames(env, tenant);
  const known = names.length === 0
    ? "it has none"
    : `it has ${names.join(", ")}${didYouMean(branch, names)}`;
  throw new NotFound(`Cannot find the branch "${branch}" of tenant ${tenant}: ${known}`);
}

/** A path as people want to read it: relative where it is below the current directory. */
export function displayPath(path: string): string {
  const below = join(Deno.cwd(), "/");
  return path.startsWith(below) ? path.slice(below.length) || path : path;
}

/** A path in the state directory. */
export function repoPath(env: Environment, ...parts: string[]): string {
  return join(env.repoDir, ...parts);
}
