/**
 * Whether an endpoint has to fetch all its pages before it starts. Usually pages are fetched when
 * they are first read, by a library that is preloaded into PostgreSQL, into sparse files. Where
 * that cannot be, everything is fetched first, and PostgreSQL runs on whole files.
 */
import type { ComputeClient, EndpointSpec, EndpointStatus } from "../../compute/client.ts";
import { ifThere } from "../../libs/utils/if_there.ts";
import { interpreterOf } from "./elf_interpreter.ts";

/** Length of the file that shows whether holes cost anything, and the part that it may occupy. */
const PROBE_BYTES = 1024 * 1024;
const SPARSE_PART = 16;
const BLOCK_BYTES = 512;
/** Pause between two looks at how far a start has come. */
const LOOK_MS = 200;

/** What the answer depends on. */
interface Surroundings {
  /** As Deno.build.os has it. */
  readonly os: string;
  /** Directory of the `postgres` program. */
  readonly binDir: string;
  /** Where data directories are. */
  readonly directory: string;
}

/** Why all pages have to be fetched at the start; undefined if they need not. */
export function eagerReason({ os, binDir, directory }: Surroundings): string | undefined {
  if (os !== "linux") return "no library can be preloaded into PostgreSQL on this system";
  if (interpreterOf(`${binDir}/postgres`)?.includes("/ld-musl") === true) {
    return `the library that would fetch them later does not work with musl, and "${binDir}" does`;
  }
  return keepsHoles(directory)
    ? undefined
    : `the file system of "${directory}" has no sparse files`;
}

/** Whether a file that has no data occupies as good as nothing, whatever its length is. */
export function isSparse({ size, blocks }: Pick<Deno.FileInfo, "size" | "blocks">): boolean {
  return blocks === null || blocks * BLOCK_BYTES <= size / SPARSE_PART;
}

function keepsHoles(directory: string): boolean {
  const path = `${directory}/sparse-${crypto.randomUUID()}`;
  const file = Deno.openSync(path, { write: true, createNew: true });
  try {
    file.truncateSync(PROBE_BYTES);
    return isSparse(file.statSync());
  } finally {
    file.close();
    ifThere(() => Deno.removeSync(path));
  }
}

/** Starts an endpoint; `onFetched` is told how far one that fetches everything has come. */
export async function startAndWatch(
  compute: ComputeClient,
  spec: EndpointSpec,
  onFetched: ((fetched: NonNullable<EndpointStatus["fetched"]>) => void) | undefined,
): Promise<EndpointStatus> {
  const starting = compute.startEndpoint(spec);
  if (spec.eager !== true || onFetched === undefined) return await starting;
  const look = async () => {
    try {
      const { fetched } = await compute.endpoint(spec.endpoint_id);
      if (fetched !== null) onFetched(fetched);
    } catch {
      // not there yet; what matters is told by the start
    }
  };
  const timer = setInterval(look, LOOK_MS);
  try {
    return await starting;
  } finally {
    clearInterval(timer);
  }
}
