/**
 * The programmatic interface: a local Neon as an object, for tests and tools. Every method is the
 * same function that the command of that name calls.
 *
 *     await using neon = await startLocalNeon();           // in a temporary directory, free ports
 *     await neon.createTenant({ setDefault: true });
 *     const main = await neon.startEndpoint("main");
 *     // ... connect to main.connectionString, change data ...
 *     await neon.createBranch("experiment");
 *     const experiment = await neon.startEndpoint("experiment");
 */
import { type Config, defaultConfig } from "./control_plane/config.ts";
import { isPortFree } from "./control_plane/endpoint_records.ts";
import { stopEndpoint } from "./control_plane/endpoint_stop.ts";
import {
  connectionString,
  type EndpointOptions,
  type ListedEndpoint,
  listEndpoints,
  startEndpoint,
} from "./control_plane/endpoints.ts";
import { type Environment, openEnvironment, tenantOf } from "./control_plane/environment.ts";
import { DEFAULT_PG_VERSION, initEnvironment, type InitOptions } from "./control_plane/init.ts";
import { startAll, stopAll } from "./control_plane/lifecycle.ts";
import { replaceSafekeeper } from "./control_plane/safekeepers.ts";
import { SPARE_SAFEKEEPERS } from "./control_plane/safekeeper_set.ts";
import { type Progress, silentProgress } from "./control_plane/progress.ts";
import type { StopMode } from "./control_plane/supervisor.ts";
import {
  type CreatedTenant,
  createTenant,
  type CreateTenantOptions,
} from "./control_plane/tenants.ts";
import {
  type BranchOptions,
  createBranch,
  type CreatedBranch,
  listTimelines,
} from "./control_plane/timelines.ts";
import type { ListedTimeline } from "./timeline_tree.ts";

/** Ports for temporary instances: below the range that outgoing connections are given. */
const PORT_MIN = 12_000;
const PORT_MAX = 30_000;

/** How to start a local Neon. */
export interface LocalNeonOptions extends InitOptions {
  /** The state directory; a temporary one, removed at the end, when there is none. */
  directory?: string;
  /** What takes long; nothing is told by default. */
  progress?: Progress;
}

/** An endpoint that answers queries. */
export interface RunningEndpoint {
  name: string;
  host: string;
  port: number;
  /** For any PostgreSQL client. */
  connectionString: string;
}

/** `count` ports that nobody listens on now. */
function freePorts(count: number): number[] {
  const ports = new Set<number>();
  const [random] = crypto.getRandomValues(new Uint32Array(1));
  let port = PORT_MIN + random! % (PORT_MAX - PORT_MIN);
  while (ports.size < count) {
    if (isPortFree("127.0.0.1", port)) ports.add(port);
    port = port + 1 < PORT_MAX ? port + 1 : PORT_MIN;
  }
  return [...ports];
}

/** The default configuration on free ports. */
export function configOnFreePorts(safekeepers: number, pgVersion: number): Config {
  const ports = freePorts(6 + 2 * (safekeepers + SPARE_SAFEKEEPERS));
  const next = () => ports.shift()!;
  const address = () => `127.0.0.1:${next()}`;
  const config = defaultConfig(safekeepers, pgVersion);
  config.broker = { listen_addr: address(), listen_http_addr: address() };
  config.pageservers = [{ id: 1, listen_pg_addr: address(), listen_http_addr: address() }];
  config.safekeepers = config.safekeepers
    .map(({ id }) => ({ id, pg_port: next(), http_port: next() }));
  config.spare_safekeeper_ports = Array.from(
    { length: SPARE_SAFEKEEPERS },
    () => [next(), next()],
  );
  // The last one: endpoints also take the ports behind
  config.compute = { listen_http_addr: address(), first_pg_port: next() };
  return config;
}

/** A running local Neon. */
export class LocalNeon implements AsyncDisposable {
  /** The state directory. */
  readonly directory: string;
  readonly #progress: Progress;
  /** To be removed at the end: the parent of the state directory, if we made it. */
  readonly #temporary: string | undefined;

  /** Use startLocalNeon(). */
  constructor(directory: string, progress: Progress, temporary: string | undefined) {
    this.directory = directory;
    this.#progress = progress;
    this.#temporary = temporary;
  }

  /** The state as it is now. */
  environment(): Environment {
    return openEnvironment(this.directory);
  }

  /** Starts whatever daemon is down. */
  start(): Promise<void> {
    return startAll(this.environment());
  }

  /** Stops endpoints and daemons; everything stays on disk. */
  stop(mode: StopMode = "fast"): Promise<void> {
    return stopAll(this.environment(), mode);
  }

  /** Creates a tenant with a first branch called main. */
  createTenant(options: CreateTenantOptions = {}): Promise<CreatedTenant> {
    return createTenant(this.environment(), options, this.#progress);
  }

  /** Makes a branch of the default tenant. */
  createBranch(name: string, options: BranchOptions = {}): Promise<CreatedBranch> {
    const env = this.environment();
    return createBranch(env, tenantOf(env, undefined), name, options);
  }

  /** The timelines of the default tenant. */
  listTimelines(): Promise<ListedTimeline[]> {
    const env = this.environment();
    return listTimelines(env, tenantOf(env, undefined));
  }

  /** Starts an endpoint (creating it on the branch of its name, or main); it then answers. */
  async startEndpoint(name: string, options: EndpointOptions = {}): Promise<RunningEndpoint> {
    const env = this.environment();
    const tenant = options.tenant ?? env.config.default_tenant_id;
    const { record } = await startEndpoint(env, tenant, name, options);
    return {
      name,
      host: "127.0.0.1",
      port: record.pg_port,
      connectionString: connectionString(record.pg_port),
    };
  }

  /** Stops an endpoint. */
  stopEndpoint(name: string, mode: StopMode = "fast"): Promise<void> {
    return stopEndpoint(this.environment(), name, mode);
  }

  /**
   * Gives the timelines of a safekeeper to another one, or to a new one, and removes it; returns
   * the id of that one.
   */
  async replaceSafekeeper(id: number, by?: number): Promise<number> {
    return (await replaceSafekeeper(this.environment(), id, by, {})).id;
  }

  /** All endpoints. */
  listEndpoints(): Promise<ListedEndpoint[]> {
    return listEndpoints(this.environment());
  }

  /** Stops everything, and removes the directory if it is a temporary one. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop("immediate");
    if (this.#temporary !== undefined) await Deno.remove(this.#temporary, { recursive: true });
  }
}

/** Makes a local Neon, or opens the one in `directory`, and starts it. */
export async function startLocalNeon(options: LocalNeonOptions = {}): Promise<LocalNeon> {
  const progress = options.progress ?? silentProgress;
  const temporary = options.directory === undefined
    ? Deno.makeTempDirSync({ prefix: "neon-" })
    : undefined;
  if (temporary !== undefined) Deno.chmodSync(temporary, 0o755); // PostgreSQL's user passes through
  const directory = options.directory ?? `${temporary}/.neon`;
  const neon = new LocalNeon(directory, progress, temporary);
  try {
    if (!isInitialised(directory)) {
      const config = temporary === undefined ? {} : configOnFreePorts(
        options.safekeepers ?? 1,
        options.pgVersion ?? DEFAULT_PG_VERSION,
      );
      await initEnvironment(directory, {
        force: "empty-dir-ok",
        ...options,
        config: { ...config, ...options.config },
      }, progress);
    }
    await neon.start();
  } catch (thrown) {
    if (isInitialised(directory)) await neon.stop("immediate");
    if (temporary !== undefined) Deno.removeSync(temporary, { recursive: true });
    throw thrown;
  }
  return neon;
}

function isInitialised(directory: string): boolean {
  try {
    openEnvironment(directory);
    return true;
  } catch {
    return false;
  }
}
