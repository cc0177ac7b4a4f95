/**
 * Stopping endpoints: through the compute host, or, when the host is down, directly. A PostgreSQL
 * whose host died lives on with its commits waiting; nothing that it has not handed to the
 * safekeepers was acknowledged, so ending it at once loses nothing.
 */
import { NotFound, TimedOut, Unauthorized, Unavailable } from "../../libs/utils/errors.ts";
import { ifThere } from "../../libs/utils/if_there.ts";
import { join } from "../../libs/utils/paths.ts";
import { poll } from "../../libs/utils/polling.ts";
import { computeClient } from "./clients.ts";
import {
  endpointNotFound,
  listEndpointRecords,
  loadEndpointRecord,
  removeEndpointRecord,
} from "./endpoint_records.ts";
import { type Environment, repoPath } from "./environment.ts";
import { withDirectoryLock } from "./repo_dir.ts";
import type { StopMode } from "./supervisor.ts";

/** How long a PostgreSQL without a host may take to end. */
const STRAY_STOP = { pauseMs: [20, 20], limitMs: 10_000 } as const;

/** A PostgreSQL seen from outside, when the compute host cannot be asked. */
interface StrayPostgres {
  state: "running" | "stopped" | "crashed";
  pid?: number;
}

/** Whether `pid` is a live process whose working directory is `directory`. */
function worksIn(pid: number, directory: string): boolean {
  try {
    if (Deno.build.os !== "linux") return Deno.statSync(directory).isDirectory && signal(pid, 0);
    return Deno.realPathSync(`/proc/${pid}/cwd`) === Deno.realPathSync(directory);
  } catch {
    return false;
  }
}

/** Sends a signal (0 only looks); false if there is no such process. */
function signal(pid: number, which: Deno.Signal | 0): boolean {
  try {
    Deno.kill(pid, which as Deno.Signal);
    return true;
  } catch {
    return false;
  }
}

/** Looks for a PostgreSQL of this endpoint by its postmaster.pid. */
export function strayPostgres(env: Environment, name: string): StrayPostgres {
  const directory = repoPath(env, "compute", "endpoints", name, "pgdata");
  const text = ifThere(() => Deno.readTextFileSync(join(directory, "postmaster.pid")));
  if (text === undefined) return { state: "stopped" };
  const pid = Number(text.split("\n")[0]);
  return worksIn(pid, directory) ? { state: "running", pid } : { state: "crashed" };
}

/** Ends a PostgreSQL whose host is gone. */
async function stopStray(env: Environment, name: string): Promise<void> {
  const { pid } = strayPostgres(env, name);
  if (pid === undefined) return;
  signal(pid, "SIGQUIT");
  if (await poll(STRAY_STOP, () => strayPostgres(env, name).pid !== pid || undefined)) return;
  throw new TimedOut(`Cannot stop endpoint "${name}": process ${pid} does not end`);
}

/** Stops an endpoint if it runs; with `destroy`, removes its definition and local files as well. */
export async function stopEndpoint(
  env: Environment,
  name: string,
  mode: StopMode,
  destroy = false,
): Promise<void> {
  if (loadEndpointRecord(env.repoDir, name) === undefined) {
    throw endpointNotFound(env.repoDir, name);
  }
  const compute = computeClient(env);
  try {
    if (destroy) await compute.deleteEndpoint(name);
    else await compute.stopEndpoint(name, mode);
  } catch (thrown) {
    if (thrown instanceof Unavailable) await stopStray(env, name);
    else if (!(thrown instanceof NotFound)) throw thrown; // the host never heard of it
  }
  if (destroy) {
    await withDirectoryLock(env.repoDir, () => removeEndpointRecord(env.repoDir, name));
  }
}

/** Stops every endpoint. Throws one error that names all that failed. */
export async function stopAllEndpoints(env: Environment, mode: StopMode): Promise<void> {
  const records = listEndpointRecords(env.repoDir);
  const outcomes = await Promise.allSettled(
    records.map((record) => stopEndpoint(env, record.endpoint_id, mode)),
  );
  const failures = outcomes.filter((outcome) => outcome.status === "rejected")
    .map((outcome) => outcome.reason as Error)
    // A host that does not know our key stops them when it is stopped itself
    .filter((error) => !(error instanceof Unauthorized));
  if (failures.length > 0) throw new Error(failures.map((error) => error.message).join("\n"));
}
