/**
 * Where the local state lives, and the lock on it.
 *
 * The directory is $NEON_REPO_DIR (an absolute path) or `.neon` in the current directory. Commands
 * that change state hold an exclusive flock on the directory itself for the moment of the change,
 * never while they wait for a daemon, so that a slow start does not block `neon endpoint list`.
 */
import { isAbsolute, join } from "node:path";
import { BadRequest, NotFound } from "../../libs/utils/errors.ts";
import { ifThere } from "../../libs/utils/if_there.ts";

/** The state directory that the environment names, whether or not it exists yet. */
export function repoDirectory(): string {
  const named = Deno.env.get("NEON_REPO_DIR");
  if (named === undefined || named === "") return join(Deno.cwd(), ".neon");
  if (!isAbsolute(named)) {
    throw new BadRequest(
      `Cannot use NEON_REPO_DIR: it must be an absolute path, current value is "${named}"`,
    );
  }
  return named;
}

/** Runs `change` while holding the exclusive lock of the directory `path`. */
export async function withDirectoryLock<T>(
  path: string,
  change: () => T | Promise<T>,
): Promise<T> {
  const directory = ifThere(() => Deno.openSync(path, { read: true }));
  if (directory === undefined) {
    throw new NotFound(`Cannot find "${path}": run "neon init" first`);
  }
  try {
    if (!directory.tryLockSync(true)) await directory.lock(true);
    return await change();
  } finally {
    directory.close();
  }
}
