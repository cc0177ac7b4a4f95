/**
 * The daemons of a local Neon, as the configuration describes them: where each lives, where it
 * listens, what it may touch, and the settings file that it reads.
 *
 *   .neon/storage_broker/storage_broker.toml     .neon/pageserver_1/pageserver.toml
 *   .neon/safekeepers/sk1/safekeeper.toml        .neon/compute/compute.toml
 *
 * The settings that follow from `.neon/config` are written into these files before every start;
 * other keys that somebody put there stay.
 */
import { join } from "node:path";
import { parse, stringify } from "smol-toml";
import { crc32AddonPath } from "../../libs/utils/crc32c.ts";
import { makeDirectory, replaceFile } from "../../libs/utils/durable.ts";
import {
  CREDENTIAL_VARIABLES,
  storageBelow,
  storageHosts,
  type StorageLocation,
} from "../../libs/remote_storage/location.ts";
import { Corrupt, messageOf } from "../../libs/utils/errors.ts";
import { ifThere } from "../../libs/utils/if_there.ts";
import { installComputeFiles } from "./compute_files.ts";
import { LOOPBACK, type PageserverConfig, type SafekeeperConfig } from "./config.ts";
import { type Environment, repoPath } from "./environment.ts";
import { cacheDirectory } from "./host_user.ts";
import {
  brokerPermissions,
  computePermissions,
  pageserverPermissions,
  safekeeperPermissions,
} from "./permissions.ts";
import { sparePorts } from "./safekeeper_set.ts";
import { type Daemon, programFile } from "./supervisor.ts";
import { publicKeyPath, reloadKeys, signedToken, type TokenClaims, WHOLE_ROLE } from "./tokens.ts";

/** Where the worker that compacts timelines is imported from. */
const PAGESERVER_WORKER_CODE = [programFile("libs"), programFile("pageserver")];

/** A daemon with the settings that it is started with. */
export interface Role extends Daemon {
  settingsFile: string;
  /** Undefined: not set, even if it was before. */
  settings: Record<string, string | number | StorageLocation | undefined>;
  /** What it shows to other roles, where they want a token; and in which file it finds that. */
  token?: { readonly path: string; readonly make: () => Promise<string | undefined> };
  /** Has it read its public keys again, where it wants tokens. */
  reloadKeys?: () => Promise<void>;
}

function addons(): string[] {
  const crc32 = crc32AddonPath();
  return crc32 === undefined ? [] : [crc32];
}

function paths(directory: string, name: string) {
  return {
    directory,
    pidFile: join(directory, `${name}.pid`),
    logFile: join(directory, `${name}.log`),
    settingsFile: join(directory, `${name}.toml`),
  };
}

/** URL of the broker, as the other roles are told it. */
function brokerEndpoint(env: Environment): string {
  return `http://${env.config.broker.listen_addr}`;
}

/** Where safekeepers take and give WAL, those to come as well. */
function walServices(env: Environment): string[] {
  const { config } = env;
  const ports = [
    ...config.safekeepers.map(({ pg_port }) => pg_port),
    ...sparePorts(config).map(([port]) => port),
  ];
  return ports.map((port) => `${LOOPBACK}:${port}`);
}

/**
 * The role as it is where daemons want tokens: `whole` opens all of it, and it finds the token that
 * it shows to safekeepers and the broker in the file `tokenName`. Unchanged where they want none.
 */
function withTokens(env: Environment, role: Role, whole: TokenClaims, tokenName?: string): Role {
  const keys = publicKeyPath(env);
  const path = tokenName === undefined ? undefined : join(role.directory, tokenName);
  const settings = {
    ...role.settings,
    auth_validation_public_key_path: keys,
    auth_token_path: keys === undefined ? undefined : path,
  };
  if (keys === undefined) return { ...role, settings };
  const make = () => signedToken(env, WHOLE_ROLE.safekeeper);
  return {
    ...role,
    settings,
    reloadKeys: () => reloadKeys(env, role, whole),
    ...(path === undefined ? {} : { token: { path, make } }),
  };
}

/** The storage broker. */
export function brokerRole(env: Environment): Role {
  const { listen_addr, listen_http_addr } = env.config.broker;
  const directory = repoPath(env, "storage_broker");
  const listen = [listen_addr, listen_http_addr];
  return withTokens(env, {
    name: "storage_broker",
    ...paths(directory, "storage_broker"),
    listen,
    statusUrl: `http://${listen_http_addr}/status`,
    main: programFile("broker/main.ts"),
    permissions: brokerPermissions({
      directory,
      listen,
      publicKeys: publicKeyPath(env),
    }),
    settings: { listen_addr, http_listen_addr: listen_http_addr },
  }, WHOLE_ROLE.safekeeper);
}

/** One pageserver. */
export function pageserverRole(env: Environment, config: PageserverConfig): Role {
  const directory = repoPath(env, `pageserver_${config.id}`);
  const listen = [config.listen_pg_addr, config.listen_http_addr];
  return withTokens(
    env,
    {
      name: "pageserver",
      ...paths(directory, "pageserver"),
      listen,
      statusUrl: `http://${config.listen_http_addr}/v1/status`,
      main: programFile("pageserver/main.ts"),
      work: "slices",
      permissions: pageserverPermissions({
        directory,
        listen,
        connect: [env.config.broker.listen_addr, ...walServices(env)],
        workerCode: PAGESERVER_WORKER_CODE,
        addons: addons(),
        publicKeys: publicKeyPath(env),
      }),
      settings: { ...config, broker_endpoint: brokerEndpoint(env) },
    },
    WHOLE_ROLE.pageserver,
    "safekeeper_jwt_token",
  );
}

function storageAccess(location: StorageLocation): { directories: string[]; hosts: string[] } {
  const directories = "local_path" in location ? [location.local_path] : [];
  return { directories, hosts: storageHosts(location) };
}

/** One safekeeper. It also connects to the others, to catch up from them. */
export function safekeeperRole(env: Environment, config: SafekeeperConfig): Role {
  const directory = repoPath(env, "safekeepers", `sk${config.id}`);
  const listen = [`${LOOPBACK}:${config.pg_port}`, `${LOOPBACK}:${config.http_port}`];
  const peers = env.config.safekeepers.filter(({ id }) => id !== config.id)
    .flatMap(({ pg_port, http_port }) => [pg_port, http_port])
    .concat(...sparePorts(env.config))
    .map((port) => `${LOOPBACK}:${port}`);
  const { remote_storage } = env.config;
  const remote = remote_storage === undefined
    ? undefined
    : storageBelow(remote_storage, "safekeepers");
  return withTokens(
    env,
    {
      name: `safekeeper ${config.id}`,
      ...paths(directory, "safekeeper"),
      listen,
      statusUrl: `http://${listen[1]}/v1/status`,
      main: programFile("safekeeper/main.ts"),
      permissions: safekeeperPermissions({
        directory,
        listen,
        connect: [env.config.broker.listen_addr, ...peers],
        addons: addons(),
        publicKeys: publicKeyPath(env),
        ...(remote === undefined ? {} : { remote: storageAccess(remote) }),
      }),
      ...(remote === undefined ? {} : { environment: CREDENTIAL_VARIABLES }),
      settings: {
        id: config.id,
        listen_pg_addr: listen[0]!,
        listen_http_addr: listen[1]!,
        broker_endpoint: brokerEndpoint(env),
        remote_storage: remote,
      },
    },
    WHOLE_ROLE.safekeeper,
    "peer_jwt_token",
  );
}

/** The compute host. */
export function computeRole(env: Environment): Role {
  const directory = repoPath(env, "compute");
  const { listen_http_addr } = env.config.compute;
  const files = installComputeFiles(cacheDirectory());
  const pageservers = env.config.pageservers.map(({ listen_pg_addr }) => listen_pg_addr);
  return withTokens(env, {
    name: "compute",
    ...paths(directory, "compute"),
    listen: [listen_http_addr],
    statusUrl: `http://${listen_http_addr}/v1/status`,
    main: programFile("compute/main.ts"),
    permissions: computePermissions({
      directory,
      listen: [listen_http_addr],
      connect: [...pageservers, ...walServices(env)],
      addons: addons(),
      sockets: [join(directory, "postgres.sock"), join(directory, "wal.sock")],
      publicKeys: publicKeyPath(env),
      launcher: files.launcher,
    }),
    settings: {
      listen_http_addr,
      launcher_path: files.launcher,
      library_path: files.library,
    },
  }, WHOLE_ROLE.compute);
}

function parsedSettings(path: string, text: string): Record<string, unknown> {
  try {
    return parse(text);
  } catch (thrown) {
    const why = messageOf(thrown).split("\n")[0];
    throw new Corrupt(`Cannot use "${path}": ${why}; mend it, or remove it to have the defaults`);
  }
}

/** Makes a role's directory and writes the settings that follow from `.neon/config`. */
export function writeSettings(role: Role): void {
  makeDirectory(role.directory);
  const text = ifThere(() => Deno.readTextFileSync(role.settingsFile)) ?? "";
  const { remote_storage: remote } = role.settings;
  // It may be anywhere, and the daemon may only write below it.
  if (typeof remote === "object" && "local_path" in remote) makeDirectory(remote.local_path);
  const settings = Object.entries({ ...parsedSettings(role.settingsFile, text), ...role.settings })
    .filter(([, value]) => value !== undefined);
  const wanted = stringify(Object.fromEntries(settings)) + "\n";
  if (wanted !== text) replaceFile(role.settingsFile, new TextEncoder().encode(wanted));
}
