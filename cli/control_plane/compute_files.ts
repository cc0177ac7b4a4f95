/**
 * What runs beside PostgreSQL rather than in Deno, the launcher and the lazy file library, copied
 * to where PostgreSQL's user can read it whatever the modes of the checkout are:
 *
 *   <cache>/compute-<hash of the contents>/{neon_launch.sh, neon_lazy_files.so}
 *
 * The hash in the name means that an endpoint that runs keeps the files it started with.
 */
import { createHash } from "node:crypto";
import { basename, join } from "node:path";
import { makeDirectory } from "../../libs/utils/durable.ts";
import { NotFound } from "../../libs/utils/errors.ts";
import { ifThere } from "../../libs/utils/if_there.ts";
import { placeFile } from "./cache_file.ts";
import { hostPlatform } from "./pg_packages.ts";
import { programFile } from "./supervisor.ts";

/** The files, by absolute path; the library where there can be one. */
interface ComputeFiles {
  launcher: string;
  library: string | undefined;
}

/** The launcher in the source tree. */
const LAUNCHER = "compute/launcher/neon_launch.sh";

/** The prebuilt library in the source tree. */
function librarySource(): string | undefined {
  if (Deno.build.os !== "linux") return undefined;
  return `compute/lazy_files/prebuilt/${hostPlatform()}/neon_lazy_files.so`;
}

function readSource(path: string): Uint8Array {
  const bytes = ifThere(() => Deno.readFileSync(programFile(path)));
  if (bytes !== undefined) return bytes;
  throw new NotFound(`Cannot find "${path}": there is no prebuilt file for ${hostPlatform()}`);
}

/** Copies the files into the cache unless they are there; returns where they are. */
export function installComputeFiles(cacheDir: string): ComputeFiles {
  const sources = [LAUNCHER, librarySource()].filter((source) => source !== undefined);
  const contents = sources.map(readSource);
  const hash = createHash("sha256");
  for (const bytes of contents) hash.update(bytes);
  const directory = join(cacheDir, `compute-${hash.digest("hex").slice(0, 16)}`);
  const [launcher, library] = sources.map((path) => join(directory, basename(path)));
  makeDirectory(directory);
  Deno.chmodSync(directory, 0o755);
  contents.forEach((bytes, i) => {
    const path = [launcher!, library!][i]!;
    if (!isThere(path, bytes)) placeFile(path, bytes, 0o755);
  });
  return { launcher: launcher!, library };
}

function isThere(path: string, contents: Uint8Array): boolean {
  try {
    return Deno.statSync(path).size === contents.length;
  } catch {
    return false;
  }
}
