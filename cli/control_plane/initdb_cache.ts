/**
 * A freshly initialised cluster for each PostgreSQL that is used, made once and kept as a tar.
 *
 *   <cache>/initdb/17.10-v1-5e0c6be2a84f.tar
 *
 * The last part of the name stands for the programs: what initdb makes depends on more than their
 * version (collations of ICU are there only if they were built with it).
 *
 * The tar holds the data directory of a cleanly shut down cluster without WAL and without what only
 * the first start needs; `global/pg_control` is its first member, so that it sits at a fixed place.
 * Every tenant is made from this tar with a system identifier of its own: two tenants must never
 * accept each other's WAL. Pages lie in it without checksums; see tenants.ts.
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { ifThere } from "../../libs/utils/if_there.ts";
import { tarEnd, tarHeader, tarPadding } from "../../libs/utils/tar.ts";
import { placeFile } from "./cache_file.ts";
import { commandUser, type HostUser } from "./host_user.ts";
import { PartialDirectory } from "./partial_directory.ts";
import type { PostgresBinaries } from "./postgres_binaries.ts";
import type { Progress } from "./progress.ts";

/** Raised when the options below change, so that an old cache is not used. */
const RECIPE = "v1";
/** The first member of every tar made here. */
const CONTROL_FILE = "global/pg_control";
/** Bytes of a tar header. */
const TAR_HEADER_BYTES = 512;
/** Size of pg_control (PostgreSQL 17, pg_control.h: PG_CONTROL_FILE_SIZE). */
const CONTROL_FILE_BYTES = 8192;

/** Files that a cluster makes anew at its first start. */
const LEFT_OUT = /^(pg_wal\/.+|postmaster\.opts|.*\/pg_internal\.init|pg_internal\.init)$/;

/** Options of initdb but the directory: the same cluster on every machine, whatever its locale is. */
export function initdbOptions(major: number): string[] {
  const locale = major >= 17
    // The builtin provider compares by code point and needs nothing of the system (hazard: indexes
    // made under one glibc are wrong under another).
    ? ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    : [Deno.build.os === "linux" ? "--locale=C.UTF-8" : "--locale=C"];
  return [
    "--username=cloud_admin",
    "--encoding=UTF8",
    ...locale,
    "--auth=trust",
    "--no-sync",
    "--no-instructions",
    "--wal-segsize=16",
    ...(major >= 18 ? ["--no-data-checksums"] : []),
  ];
}

/** Paths below `directory`, directories before what is in them, in a fixed order. */
function* walk(directory: string, under = ""): Generator<{ path: string; isDirectory: boolean }> {
  const entries = [...Deno.readDirSync(join(directory, under))]
    .sort((a, b) => a.name < b.name ? -1 : 1);
  for (const entry of entries) {
    const path = under === "" ? entry.name : `${under}/${entry.name}`;
    yield { path, isDirectory: entry.isDirectory };
    if (entry.isDirectory) yield* walk(directory, path);
  }
}

function packFile(parts: Uint8Array[], directory: string, name: string): void {
  const body = Deno.readFileSync(join(directory, name));
  parts.push(tarHeader({ name, type: "file", mode: 0o600, sizeBytes: body.length }), body);
  parts.push(tarPadding(body.length));
}

/** The tar of a data directory, control file first. */
function pack(directory: string): Uint8Array {
  const parts: Uint8Array[] = [];
  packFile(parts, directory, CONTROL_FILE);
  for (const { path, isDirectory } of walk(directory)) {
    if (path === CONTROL_FILE || LEFT_OUT.test(path)) continue;
    if (!isDirectory) packFile(parts, directory, path);
    else parts.push(tarHeader({ name: path, type: "directory", mode: 0o700, sizeBytes: 0 }));
  }
  parts.push(tarEnd());
  return concat(parts);
}

function concat(parts: Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

async function runInitdb(
  binaries: PostgresBinaries,
  user: HostUser | undefined,
  directory: string,
): Promise<void> {
  const { success, stderr, stdout } = await new Deno.Command(join(binaries.binDir, "initdb"), {
    args: ["-D", directory, ...initdbOptions(Number.parseInt(binaries.version, 10))],
    cwd: directory,
    clearEnv: true,
    env: { PATH: "/usr/bin:/bin", LC_ALL: "C", TZ: "UTC" },
    ...commandUser(user),
  }).output();
  if (success) return;
  const decoder = new TextDecoder();
  const text = `${decoder.decode(stdout)}${decoder.decode(stderr)}`.trim();
  throw new Error(`Cannot initialise a cluster with "${binaries.binDir}/initdb": ${text}`);
}

/** The name of the tar for these binaries. */
export function archiveName({ binDir, version }: PostgresBinaries): string {
  const path = Deno.realPathSync(join(binDir, "postgres"));
  const { size, mtime } = Deno.statSync(path);
  const programs = `${path} ${size} ${mtime?.getTime() ?? 0}`;
  const key = createHash("sha256").update(programs).digest("hex").slice(0, 12);
  return `${version}-${RECIPE}-${key}.tar`;
}

/** The path of the cached tar for these binaries; makes it on first use. */
export async function initdbArchive(
  binaries: PostgresBinaries,
  user: HostUser | undefined,
  cacheDir: string,
  progress: Progress,
): Promise<string> {
  const cache = join(cacheDir, "initdb");
  const path = join(cache, archiveName(binaries));
  if (ifThere(() => Deno.statSync(path)) !== undefined) return path;
  progress.step(`Initialising a PostgreSQL ${binaries.version} cluster (once)`);
  using partial = new PartialDirectory(cache);
  const directory = partial.path;
  Deno.chmodSync(directory, 0o700);
  if (user !== undefined) Deno.chownSync(directory, user.uid, user.gid);
  await runInitdb(binaries, user, directory);
  placeFile(path, pack(directory), 0o644);
  return path;
}

/** The control file within a tar made by initdbArchive(): a view, to be changed in place. */
export function controlFileIn(archive: Uint8Array): Uint8Array {
  return archive.subarray(TAR_HEADER_BYTES, TAR_HEADER_BYTES + CONTROL_FILE_BYTES);
}
