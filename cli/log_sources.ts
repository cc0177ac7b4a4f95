/** Which log files there are, and which of them a command line means. */
import { join } from "node:path";
import { BadRequest } from "../libs/utils/errors.ts";
import { safekeeperConfig } from "./control_plane/config.ts";
import { endpointNotFound, listEndpointRecords } from "./control_plane/endpoint_records.ts";
import { type Environment, repoPath } from "./control_plane/environment.ts";
import { allRoles } from "./control_plane/lifecycle.ts";

/** Whose log a file is. */
export interface LogSource {
  /** "pageserver", "safekeeper 1", "endpoint main". */
  name: string;
  path: string;
}

/** What can be named on the command line; a safekeeper and an endpoint further by its id. */
export const LOG_ROLES = [
  "storage-broker",
  "pageserver",
  "safekeeper",
  "compute",
  "endpoint",
] as const;

/** One of LOG_ROLES. */
export type LogRole = typeof LOG_ROLES[number];

/** The directory whose subdirectories appear and vanish with endpoints. */
export function endpointsDirectory(env: Environment): string {
  return repoPath(env, "compute", "endpoints");
}

/** The log files that are meant: all, those of a role, or one. Throws for an unknown id. */
export function logSources(env: Environment, role?: LogRole, id?: string): LogSource[] {
  if (role === "safekeeper" && id !== undefined) {
    if (!/^\d+$/.test(id)) {
      throw new BadRequest(`Cannot find safekeeper "${id}": name it by its number`);
    }
    safekeeperConfig(env.config, Number(id));
  } else if (id !== undefined && role !== "endpoint") {
    throw new BadRequest(`Cannot show the log of "${role} ${id}": there is one ${role}`);
  }
  const daemons = allRoles(env).map(({ name, logFile }) => ({ name, path: logFile }));
  const endpoints = listEndpointRecords(env.repoDir).map(({ endpoint_id }) => ({
    name: `endpoint ${endpoint_id}`,
    path: join(endpointsDirectory(env), endpoint_id, "postgres.log"),
  }));
  const wanted = role?.replace("-", "_");
  const found = [...daemons, ...endpoints].filter(({ name }) =>
    wanted === undefined || name === (id === undefined ? wanted : `${wanted} ${id}`) ||
    (id === undefined && name.startsWith(`${wanted} `))
  );
  if (role === "endpoint" && id !== undefined && found.length === 0) {
    throw endpointNotFound(env.repoDir, id);
  }
  return found;
}
