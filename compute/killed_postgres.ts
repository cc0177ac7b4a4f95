/**
 * What a Postgres that was killed leaves outside of its directory: shared memory, which the next
 * one in the same directory would remove. Ours begins in another one, so that is done for it, or
 * each crash would take a megabyte of the machine's memory and one of its few thousand segments for
 * good.
 */
import { Unavailable } from "../libs/utils/errors.ts";
import type { EndpointSpec } from "./client.ts";
import type { EndpointDirectory } from "./endpoint_directory.ts";
import type { Launcher } from "./postgres_process.ts";

/** How long processes of a Postgres may outlive its postmaster: they look for it now and then. */
const ATTEMPTS_MAX = 20;
const PAUSE_MS = 500;

/** Removes what an endpoint has discarded, and what its Postgres has left if it was killed. */
export function sweepDirectory(
  launcher: Launcher,
  directory: EndpointDirectory,
  spec: EndpointSpec,
): Promise<void> {
  return directory.sweep(async (pgdata) => {
    for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt++) {
      if (await launcher.release(pgdata, spec.pg_bin_dir, spec.postgres_user)) return;
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
    throw new Unavailable("Cannot release the shared memory of a Postgres: it is still in use");
  });
}
