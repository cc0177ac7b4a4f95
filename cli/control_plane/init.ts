/**
 * Makes a new local Neon: gets what it needs into the cache, then writes the state directory.
 * Starts nothing and makes no tenant. Whatever takes long or can fail comes before the directory is
 * made, so a failed init leaves nothing behind.
 */
import { dirname, join, resolve } from "node:path";
import { pgVersion as pgVersionOf } from "../../libs/postgres/versions.ts";
import { fsyncDirectory, makeDirectory } from "../../libs/utils/durable.ts";
import { BadRequest, Conflict, messageOf } from "../../libs/utils/errors.ts";
import type { StorageLocation } from "../../libs/remote_storage/location.ts";
import { ifThere } from "../../libs/utils/if_there.ts";
import { describeOsError } from "../../libs/utils/os_errors.ts";
import { livePid } from "../../libs/utils/pid_file.ts";
import { placeLink } from "./cache_file.ts";
import { installComputeFiles } from "./compute_files.ts";
import { type Config, defaultConfig, storeConfig } from "./config.ts";
import { problemInConfig } from "./config_shape.ts";
import type { Environment } from "./environment.ts";
import { fetchFailure } from "./fetch_failure.ts";
import { cacheDirectory, postgresUser } from "./host_user.ts";
import { initdbArchive } from "./initdb_cache.ts";
import { type BinarySource, findPostgres } from "./postgres_binaries.ts";
import type { Progress } from "./progress.ts";
import { allRoles } from "./lifecycle.ts";
import { writeSettings } from "./roles.ts";
import { programFile } from "./supervisor.ts";
import { newKeyNames, publicKeyPath, writeNewKeys } from "./tokens.ts";
import {
  checkCache,
  checkExecutable,
  checkNewDirectory,
  checkWritable,
} from "./usable_directories.ts";

/** What to do when the directory is there already. */
export const FORCE_MODES = ["must-not-exist", "empty-dir-ok", "remove-all-contents"] as const;
type ForceMode = typeof FORCE_MODES[number];

/** Longest path of a Unix socket (sun_path: 108 bytes on Linux, 104 on macOS, with the NUL). */
const SOCKET_PATH_BYTES_MAX = 103;

/** Ends the name of a directory that is being made beside its place. */
const TEMPORARY_SUFFIX = ".___init";

/** PostgreSQL's major version when none is asked for. */
export const DEFAULT_PG_VERSION = 17;

/** What `init` can be told. */
export interface InitOptions extends BinarySource {
  safekeepers?: number;
  pgVersion?: number;
  /** Whether new tenants have page checksums; by default as initdb of their version. */
  dataChecksums?: boolean;
  force?: ForceMode;
  /** Where the default ports begin; Neon's own if undefined (ports.ts). */
  portBase?: number;
  /** Daemons want tokens (tokens.ts), under new keys unless the configuration names some. */
  auth?: boolean;
  /** Where WAL goes: a directory or a bucket, as in the configuration. */
  remoteStorage?: unknown;
  /** Parts of the configuration that differ from the default, such as ports. */
  config?: Partial<Config>;
}

function entriesOf(path: string): string[] | undefined {
  return ifThere(() => [...Deno.readDirSync(path)].map((entry) => entry.name));
}

/** Whether all that is there is what an init that was interrupted has left: settings of daemons. */
function isHalfMade(directory: string): boolean {
  const entries = [...Deno.readDirSync(directory)];
  return entries.length > 0 &&
    entries.every(({ name, isDirectory }) =>
      isDirectory
        ? /^(storage_broker|pageserver_\d+|safekeepers|sk\d+|compute)$/.test(name) &&
          (entriesOf(join(directory, name))!.length === 0 || isHalfMade(join(directory, name)))
        : /\.toml(\.___temp)?$|^config\.___temp$|^auth_(private|public)_key\.pem(\.___temp)?$/
          .test(name)
    );
}

/** Daemons that hold a pid file below the directory, also where its configuration is harmed. */
function runningDaemons(repoDir: string, depth = 2): string[] {
  return [...Deno.readDirSync(repoDir)].flatMap(({ name, isDirectory, isFile }) => {
    const path = join(repoDir, name);
    if (isDirectory && depth > 0) return runningDaemons(path, depth - 1);
    const pid = isFile && name.endsWith(".pid") ? livePid(path) : undefined;
    return pid === undefined ? [] : [`${name.slice(0, -".pid".length)} (process ${pid})`];
  });
}

/** Throws Conflict unless `force` allows to write into what is at `repoDir`. */
function checkDirectory(repoDir: string, force: ForceMode): void {
  const entries = entriesOf(repoDir);
  if (entries === undefined || isHalfMade(repoDir)) return;
  if (force === "must-not-exist" || (force === "empty-dir-ok" && entries.length > 0)) {
    const state = entries.length > 0 ? "it is there already" : "there is an empty directory";
    throw new Conflict(
      `Cannot make a new local Neon in "${repoDir}": ${state}; "neon start" starts it, ` +
        `--force=${entries.length > 0 ? "remove-all-contents" : "empty-dir-ok"} begins anew`,
    );
  }
  const running = runningDaemons(repoDir);
  if (running.length === 0) return;
  throw new Conflict(
    `Cannot remove the contents of "${repoDir}": ${running.join(", ")} still running; ` +
      `"neon stop" stops them`,
  );
}

/** Throws BadRequest if a Unix socket in the directory could not have a name of this length. */
function checkSocketPath(repoDir: string): void {
  const path = `${repoDir}/compute/postgres.sock`;
  if (new TextEncoder().encode(path).length <= SOCKET_PATH_BYTES_MAX) return;
  throw new BadRequest(
    `Cannot keep data in "${repoDir}": the path is too long for Unix sockets in it; ` +
      `set NEON_REPO_DIR to a shorter one`,
  );
}

/** Fetches what the daemons are made of, so that starting them does not wait for it. */
async function cachePrograms(mains: string[], progress: Progress): Promise<void> {
  progress.step("Preparing the daemons");
  const { success, stderr } = await new Deno.Command(Deno.execPath(), {
    env: { NO_COLOR: "1" },
    args: ["cache", "--quiet", `--config=${programFile("deno.json")}`, ...mains],
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).output();
  if (success) return;
  throw new Error(`Cannot prepare the daemons: ${fetchFailure(new TextDecoder().decode(stderr))}`);
}

async function checkedStorage(value: unknown): Promise<StorageLocation | undefined> {
  if (value === undefined) return undefined;
  const { checkRemoteStorage } = await import("../../libs/remote_storage/config.ts");
  return checkRemoteStorage(value, "the remote storage");
}

/** Makes a new local Neon in `repoDir`. Throws Conflict if there is one. */
export async function initEnvironment(
  repoDir: string,
  options: InitOptions,
  progress: Progress,
): Promise<Environment> {
  const force = options.force ?? "must-not-exist";
  checkDirectory(repoDir, force);
  const remote = await checkedStorage(options.remoteStorage ?? options.config?.remote_storage);
  const pgVersion = options.pgVersion ?? DEFAULT_PG_VERSION;
  const defaults = defaultConfig(options.safekeepers ?? 1, pgVersion, options.portBase);
  const user = postgresUser();
  checkNewDirectory(repoDir, user);
  checkSocketPath(repoDir);
  checkWritable(repoDir);
  const cacheDir = cacheDirectory();
  checkCache(cacheDir, user);
  checkExecutable(installComputeFiles(cacheDir).launcher, cacheDir);
  const config: Config = {
    ...defaults,
    ...options.config,
    ...(options.dataChecksums === undefined ? {} : { data_checksums: options.dataChecksums }),
    ...(options.pgDistribDir === undefined
      ? {}
      : { pg_distrib_dir: resolve(options.pgDistribDir) }),
    ...(remote === undefined ? {} : { remote_storage: remote }),
  };
  const keys = options.auth === true ? newKeyNames(config) : {};
  Object.assign(config, keys);
  pgVersionOf(pgVersion); // refuse one that is not supported first
  const problem = problemInConfig(config);
  if (problem !== undefined) throw new BadRequest(`Cannot use the configuration: ${problem}`);
  const binaries = await findPostgres(pgVersion, options, user, cacheDir, progress);
  config.postgres = [{ version: pgVersion, bin_dir: binaries.binDir }];
  await initdbArchive(binaries, user, cacheDir, progress);
  // For bin/neon where there is no deno on the PATH
  placeLink(join(cacheDir, "bin", "deno"), Deno.execPath());
  const mains = allRoles({ repoDir, config }).map((role) => role.main);
  await cachePrograms([...new Set(mains)], progress);
  try {
    await writeDirectory(repoDir, config, "private_key_path" in keys);
  } catch (thrown) {
    const why = describeOsError(thrown) ?? messageOf(thrown);
    throw new Error(`Cannot make a local Neon in "${repoDir}": ${why}`);
  }
  return { repoDir, config };
}

/** Makes the directory and what is in it: at once if it is new, the configuration last if not. */
async function writeDirectory(repoDir: string, config: Config, newKeys: boolean): Promise<void> {
  const isNew = entriesOf(repoDir) === undefined;
  const directory = isNew ? `${repoDir}${TEMPORARY_SUFFIX}` : repoDir;
  for (const name of entriesOf(directory) ?? []) {
    Deno.removeSync(`${directory}/${name}`, { recursive: true });
  }
  try {
    makeDirectory(directory);
    Deno.chmodSync(directory, 0o755); // PostgreSQL's user passes through, whatever our umask is
    if (newKeys) await writeNewKeys(directory);
    // What the settings say is where it will be
    const keyPath = publicKeyPath({ repoDir, config });
    const placed = keyPath === undefined ? config : { ...config, public_key_path: keyPath };
    for (const role of allRoles({ repoDir: directory, config: placed })) writeSettings(role);
    storeConfig(directory, config); // a directory with this file is a whole one
    if (!isNew) return;
    Deno.renameSync(directory, repoDir);
    fsyncDirectory(dirname(repoDir));
  } catch (thrown) {
    if (isNew) ifThere(() => Deno.removeSync(directory, { recursive: true }));
    throw thrown;
  }
}
