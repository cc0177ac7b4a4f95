/**
 * Which user runs PostgreSQL, and which directories that user can use.
 *
 * PostgreSQL refuses to run as root. When we are root (containers, CI) it runs as `postgres`, else
 * as `nobody`; everything it needs then lives in /var/cache/neon, readable by all. An ordinary user
 * runs PostgreSQL as himself, with the cache under $XDG_CACHE_HOME or ~/.cache.
 */
import { NotFound } from "../../libs/utils/errors.ts";
import { ifThere } from "../../libs/utils/if_there.ts";
import { dirname, join } from "../../libs/utils/paths.ts";

/** A user to run PostgreSQL as. */
export interface HostUser {
  name: string;
  uid: number;
  gid: number;
}

/** Finds a user in the text of /etc/passwd (name:password:uid:gid:...). */
export function findUser(passwd: string, name: string): HostUser | undefined {
  const line = passwd.split("\n").find((text) => text.startsWith(`${name}:`));
  if (line === undefined) return undefined;
  const fields = line.split(":");
  return { name, uid: Number(fields[2]), gid: Number(fields[3]) };
}

/** The user to switch to for PostgreSQL, or undefined when we are not root. */
export function postgresUser(): HostUser | undefined {
  if (Deno.build.os === "windows" || Deno.uid() !== 0) return undefined;
  const passwd = Deno.readTextFileSync("/etc/passwd");
  const user = findUser(passwd, "postgres") ?? findUser(passwd, "nobody");
  if (user === undefined) {
    throw new NotFound(
      `Cannot run PostgreSQL as root, and there is no user "postgres" or "nobody": ` +
        `create one, or run neon as an ordinary user`,
    );
  }
  return user;
}

/** Where downloads and prepared files are kept, shared by every local Neon of this user. */
export function cacheDirectory(): string {
  const own = Deno.env.get("NEON_CACHE_DIR");
  if (own !== undefined && own !== "") return own;
  if (postgresUser() !== undefined) return "/var/cache/neon";
  const named = Deno.env.get("XDG_CACHE_HOME");
  if (named !== undefined && named !== "") return join(named, "neon");
  const home = Deno.env.get("HOME");
  if (home === undefined) {
    throw new NotFound(
      "Cannot find a cache directory: neither NEON_CACHE_DIR nor XDG_CACHE_HOME nor HOME is set",
    );
  }
  return join(home, ".cache", "neon");
}

/** The uid and gid for Deno.Command, when `user` is not ourselves. */
export function commandUser(user: HostUser | undefined): { uid?: number; gid?: number } {
  return user === undefined ? {} : { uid: user.uid, gid: user.gid };
}

/** The first of `path` and its parents that `user` may not pass through, or undefined. */
export function firstUnreachable(path: string, user: HostUser): string | undefined {
  const parent = dirname(path);
  const above = parent === path ? undefined : firstUnreachable(parent, user);
  if (above !== undefined) return above;
  const info = ifThere(() => Deno.statSync(path));
  if (info === undefined) return undefined; // we will create it
  const mode = info.mode ?? 0;
  const bit = info.uid === user.uid ? 0o100 : info.gid === user.gid ? 0o010 : 0o001;
  return (mode & bit) === 0 ? path : undefined;
}
