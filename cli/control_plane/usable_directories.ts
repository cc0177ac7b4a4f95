/**
 * Whether the directories that are to be used can be: PostgreSQL's user gets there, and programs in
 * the cache can be run. What is wrong is told with the way out before anything is made.
 */
import { BadRequest } from "../../libs/utils/errors.ts";
import { ifThere } from "../../libs/utils/if_there.ts";
import { dirname, join } from "../../libs/utils/paths.ts";
import { firstUnreachable, type HostUser } from "./host_user.ts";

function checkReachable(
  path: string,
  user: HostUser | undefined,
  what: string,
  wayOut: string,
): void {
  const closed = user === undefined ? undefined : firstUnreachable(path, user);
  if (user === undefined || closed === undefined) return;
  throw new BadRequest(
    `Cannot ${what} "${path}": PostgreSQL runs as user "${user.name}", who may not enter ` +
      `"${closed}"; ${wayOut}`,
  );
}

/** Throws BadRequest when `user` could not reach a new state directory. */
export function checkNewDirectory(repoDir: string, user: HostUser | undefined): void {
  const example = "NEON_REPO_DIR=/var/lib/neon/.neon";
  const wayOut = `set NEON_REPO_DIR to a directory that everybody can enter, such as ${example}`;
  checkReachable(repoDir, user, "keep data in", wayOut);
}

/** Throws what the system says when nothing can be written at `path`, or where it is to be made. */
export function checkWritable(path: string): void {
  let existing = path;
  while (ifThere(() => Deno.statSync(existing)) === undefined) existing = dirname(existing);
  const probe = join(existing, `.neon.${crypto.randomUUID()}`);
  Deno.openSync(probe, { write: true, createNew: true }).close();
  Deno.removeSync(probe);
}

/** Throws BadRequest when `user` cannot reach a state directory that is there any more. */
export function checkOldDirectory(repoDir: string, user: HostUser | undefined): void {
  const wayOut = `let everybody enter it ("chmod a+x"), or move "${repoDir}" elsewhere`;
  checkReachable(repoDir, user, "run PostgreSQL in", wayOut);
}

/** Throws BadRequest when `user` could not reach the cache. */
export function checkCache(cacheDir: string, user: HostUser | undefined): void {
  const wayOut = "set NEON_CACHE_DIR to a directory that everybody can enter";
  checkReachable(cacheDir, user, "use the cache", wayOut);
}

/** Throws BadRequest if `program`, which is executable, cannot be run where it is. */
export function checkExecutable(program: string, cacheDir: string): void {
  try {
    new Deno.Command(program, { stdin: "null", stdout: "null", stderr: "null" }).outputSync();
  } catch (thrown) {
    if (!(thrown instanceof Deno.errors.PermissionDenied)) throw thrown;
    throw new BadRequest(
      `Cannot run programs in "${cacheDir}": its file system is mounted noexec; set ` +
        `NEON_CACHE_DIR to a directory on another one`,
    );
  }
}
