/**
 * `.neon/config`: what the control plane knows that has no other home, as TOML.
 *
 *     format_version = 1
 *     pg_version = 17
 *     default_tenant_id = "9ef87a5bf0d92544f6fafeeb3239695c"
 *     [broker]
 *     listen_addr = "127.0.0.1:50051"
 *     [[pageservers]]
 *     id = 1
 *     [[safekeepers]]
 *     id = 1
 *     [remote_storage]
 *     local_path = "/srv/neon"
 *     [branch_name_mappings]
 *     main = [["9ef87a5bf0d92544f6fafeeb3239695c", "de200bd42b49cc1814412c7e592dd6e9"]]
 *
 * The file is replaced atomically and durably; a format that this program does not know is refused.
 */
import { parse, stringify } from "smol-toml";
import { replaceFile } from "../../libs/utils/durable.ts";
import { Conflict, Corrupt, messageOf, NotFound } from "../../libs/utils/errors.ts";
import type { StorageLocation } from "../../libs/remote_storage/location.ts";
import type { TenantId, TimelineId } from "../../libs/utils/id.ts";
import { ifThere } from "../../libs/utils/if_there.ts";
import { join } from "../../libs/utils/paths.ts";
import { problemInConfig } from "./config_shape.ts";
import { portPlan } from "./ports.ts";

/** The format of `.neon` that this program reads and writes. */
const FORMAT_VERSION = 1;

/** The interface that everything of a local Neon listens on. */
export const LOOPBACK = "127.0.0.1";

/** The branch name of a tenant's first timeline. */
export const MAIN_BRANCH = "main";

/** Addresses of the broker, as host:port. */
interface BrokerConfig {
  listen_addr: string;
  listen_http_addr: string;
}

/** One pageserver; addresses as host:port. */
export interface PageserverConfig {
  id: number;
  listen_pg_addr: string;
  listen_http_addr: string;
}

/** One safekeeper; it listens on 127.0.0.1. */
export interface SafekeeperConfig {
  id: number;
  pg_port: number;
  http_port: number;
  /** It is to get every timeline. */
  joining?: boolean;
  /** It is to give up every timeline. */
  leaving?: boolean;
  /** The one that gets the timelines that it gives up. */
  replaced_by?: number;
}

/** A safekeeper that is gone for good: no other one gets its id. */
interface FormerSafekeeper {
  id: number;
  replaced_by?: number;
}

/** The compute host and where endpoint ports start. */
interface ComputeConfig {
  listen_http_addr: string;
  first_pg_port: number;
}

/** Where the PostgreSQL binaries of one major version are. */
interface PostgresConfig {
  version: number;
  bin_dir: string;
}

/** Contents of `.neon/config`. */
export interface Config {
  format_version: number;
  /** The major version that a tenant gets when none is asked for. */
  pg_version: number;
  /** Whether pages of new tenants carry checksums; by default as PostgreSQL's initdb has it. */
  data_checksums?: boolean;
  default_tenant_id?: TenantId;
  /** Where the binaries of further major versions are (v15/bin), if not where npm has them. */
  pg_distrib_dir?: string;
  broker: BrokerConfig;
  compute: ComputeConfig;
  pageservers: PageserverConfig[];
  safekeepers: SafekeeperConfig[];
  former_safekeepers?: FormerSafekeeper[];
  /**
   * WAL and HTTP ports of safekeepers to come. The daemons may connect to these as well, so that
   * they need not be started again for a new safekeeper.
   */
  spare_safekeeper_ports?: [number, number][];
  postgres: PostgresConfig[];
  /** Where the safekeepers put WAL. Each kind of data is below a name of its own. */
  remote_storage?: StorageLocation;
  /**
   * With `neon init --auth`: what tokens are signed and verified with, below `.neon` if not
   * absolute. The public one may be a directory of several.
   */
  private_key_path?: string;
  public_key_path?: string;
  /** Branch name to [tenant, timeline] pairs: a name is unique within a tenant. */
  branch_name_mappings: Record<string, [TenantId, TimelineId][]>;
}

/** The path of the configuration file in the state directory. */
export function configPath(repoDir: string): string {
  return join(repoDir, "config");
}

/** A configuration with the default ports (ports.ts): Neon's, or those of `portBase`. */
export function defaultConfig(
  safekeeperCount: number,
  pgVersion: number,
  portBase?: number,
): Config {
  const ports = portPlan(portBase);
  const [broker, brokerHttp] = ports.broker;
  const [pages, pagesHttp] = ports.pageserver(1);
  return {
    format_version: FORMAT_VERSION,
    pg_version: pgVersion,
    broker: {
      listen_addr: `${LOOPBACK}:${broker}`,
      listen_http_addr: `${LOOPBACK}:${brokerHttp}`,
    },
    compute: {
      listen_http_addr: `${LOOPBACK}:${ports.compute}`,
      first_pg_port: ports.firstEndpoint,
    },
    pageservers: [{
      id: 1,
      listen_pg_addr: `${LOOPBACK}:${pages}`,
      listen_http_addr: `${LOOPBACK}:${pagesHttp}`,
    }],
    safekeepers: Array.from({ length: safekeeperCount }, (_, i) => {
      const [pg_port, http_port] = ports.safekeeper(i + 1);
      return { id: i + 1, pg_port, http_port };
    }),
    postgres: [],
    branch_name_mappings: {},
  };
}

/** What was read or written last, with its text: a command looks several times. */
let known: { text: string; json: string } | undefined;

/** Reads the configuration. Throws NotFound before `neon init`, Corrupt for what it cannot read. */
export function loadConfig(repoDir: string): Config {
  const path = configPath(repoDir);
  const text = ifThere(() => Deno.readTextFileSync(path));
  if (text === undefined) {
    throw new NotFound(
      `Cannot find a local Neon in "${repoDir}": run "neon init" first, or set NEON_REPO_DIR`,
    );
  }
  if (known?.text === text) return JSON.parse(known.json);
  const refuse = (why: string) => {
    throw new Corrupt(`Cannot use "${path}": ${why}; mend it, or put a copy of it back`);
  };
  let read: Partial<Config> = {};
  try {
    read = parse(text) as Partial<Config>;
  } catch (thrown) {
    const { line, column } = thrown as { line?: number; column?: number };
    refuse(`${messageOf(thrown).split("\n")[0]} (line ${line}, column ${column})`);
  }
  const { format_version: version } = read;
  if (typeof version === "number" && version > FORMAT_VERSION) {
    throw new Corrupt(
      `Cannot use "${path}": its format version ${version} is newer than this program knows ` +
        `(${FORMAT_VERSION}); use the neon that wrote it`,
    );
  }
  const config = { postgres: [], branch_name_mappings: {}, ...read };
  const problem = problemInConfig(config);
  if (problem !== undefined) refuse(problem);
  known = { text, json: JSON.stringify(config) };
  return config as unknown as Config;
}

/** Replaces the configuration file. The caller holds the directory lock. */
export function storeConfig(repoDir: string, config: Config): void {
  const text = stringify(config);
  replaceFile(configPath(repoDir), new TextEncoder().encode(text));
  known = { text, json: JSON.stringify(config) };
}

/** The configuration of the pageserver with this id. Throws NotFound. */
export function pageserverConfig(config: Config, id: number): PageserverConfig {
  return withId(config.pageservers, id, "pageserver");
}

/** The configuration of the safekeeper with this id. Throws NotFound. */
export function safekeeperConfig(config: Config, id: number): SafekeeperConfig {
  return withId(config.safekeepers, id, "safekeeper");
}

function withId<T extends { id: number }>(configs: T[], id: number, what: string): T {
  const found = configs.find((config) => config.id === id);
  if (found !== undefined) return found;
  const ids = configs.map((config) => config.id).join(", ");
  throw new NotFound(`Cannot find ${what} ${id}: known are ${ids}`);
}

/** The timeline that `branch` names within a tenant, or undefined. */
export function branchTimeline(
  config: Config,
  tenant: TenantId,
  branch: string,
): TimelineId | undefined {
  return branches(config, branch).find(([of]) => of === tenant)?.[1];
}

/** The name of a timeline within a tenant, or undefined. */
export function branchName(
  config: Config,
  tenant: TenantId,
  timeline: TimelineId,
): string | undefined {
  return Object.keys(config.branch_name_mappings).find((name) =>
    branchTimeline(config, tenant, name) === timeline
  );
}

/** Throws Conflict if `branch` already names another timeline of the tenant. */
export function checkBranchNameFree(
  config: Config,
  tenant: TenantId,
  branch: string,
  timeline?: TimelineId,
): void {
  const existing = branchTimeline(config, tenant, branch);
  if (existing === undefined || existing === timeline) return;
  throw new Conflict(
    `Cannot use the branch name "${branch}": it already names timeline ${existing} of tenant ` +
      tenant,
  );
}

/** Adds a branch name. The same mapping again changes nothing; another timeline is a Conflict. */
export function mapBranch(
  config: Config,
  tenant: TenantId,
  branch: string,
  timeline: TimelineId,
): void {
  checkBranchNameFree(config, tenant, branch, timeline);
  if (branchTimeline(config, tenant, branch) === timeline) return;
  config.branch_name_mappings[branch] = [...branches(config, branch), [tenant, timeline]];
}

function branches(config: Config, branch: string): [TenantId, TimelineId][] {
  // Own properties only: a branch may well be called "constructor".
  return Object.hasOwn(config.branch_name_mappings, branch)
    ? config.branch_name_mappings[branch]!
    : [];
}
