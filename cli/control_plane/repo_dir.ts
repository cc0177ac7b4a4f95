/**
 * Where the local state lives, and the lock on it.
 *
 * The directory is $NEON_REPO_DIR (an absolute path) or `.neon` in the current directory. Commands
 * that change state hold an exclusive flock on the directory itself for the moment of the change,
 * never while they wait for a daemon, so that a slow start does not block `neon endpoint list`.
 */
import { BadRequest, NotFound, TimedOut } from "../../libs/utils/errors.ts";
import { ifThere } from "../../libs/utils/if_there.ts";
import { isAbsolute, join } from "../../libs/utils/paths.ts";
import { poll } from "../../libs/utils/polling.ts";

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

/** Longest wait for others, who hold the lock for a moment unless they hang. */
const LOCK_MS_MAX = 60_000;
const LOCK_PAUSE_MS = [1, 20] as const;

async function lock(directory: Deno.FsFile, path: string, waitMs: number): Promise<void> {
  const looks = { pauseMs: LOCK_PAUSE_MS, limitMs: waitMs };
  if (await poll(looks, () => directory.tryLockSync(true) || undefined)) return;
  throw new TimedOut(
    `Cannot lock "${path}": another neon command has held it for ${waitMs / 1000} s; end it, ` +
      `then run this again`,
  );
}

/**
 * Runs `change` while holding the exclusive lock of the directory `path`. Throws TimedOut when
 * somebody else holds it for longer than `waitMs`.
 */
export async function withDirectoryLock<T>(
  path: string,
  change: () => T | Promise<T>,
  waitMs = LOCK_MS_MAX,
): Promise<T> {
  const directory = ifThere(() => Deno.openSync(path, { read: true }));
  if (directory === undefined) {
    throw new NotFound(`Cannot find "${path}": run "neon init" first`);
  }
  try {
    await lock(directory, path, waitMs);
    return await change();
  } finally {
    directory.close();
  }
}
