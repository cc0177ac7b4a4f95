/**
 * PostgreSQL of every supported version, as `neon init` would get it: for tests of all versions.
 * NEON_TEST_PG_VERSIONS names other ones, with commas.
 */
import { cacheDirectory, postgresUser } from "../../cli/control_plane/host_user.ts";
import { hostPlatform, pgPackage } from "../../cli/control_plane/pg_packages.ts";
import { findPostgres } from "../../cli/control_plane/postgres_binaries.ts";
import type { PostgresBinaries } from "../../cli/control_plane/postgres_binaries.ts";
import { silentProgress } from "../../cli/control_plane/progress.ts";
import { PG_VERSIONS } from "../../libs/postgres/versions.ts";

/** Major versions that npm has for this machine, or that were named. */
export function testedVersions(): number[] {
  const named = Deno.env.get("NEON_TEST_PG_VERSIONS");
  if (named !== undefined) return named.split(",").map(Number);
  return PG_VERSIONS.map(({ major }) => major)
    .filter((major) => pgPackage(hostPlatform(), major) !== undefined);
}

/** The binaries of a major version, downloaded if need be. */
export function binariesOf(major: number): Promise<PostgresBinaries> {
  return findPostgres(major, {}, postgresUser(), cacheDirectory(), silentProgress);
}
