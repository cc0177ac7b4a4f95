/**
 * The directories of a tenant, and what a start makes of them.
 *
 *   tenants/<tenant>/config                                tenant_config.ts
 *   tenants/<tenant>/timelines/<timeline>/index_part       index_part.ts
 *   tenants/<tenant>/timelines/<timeline>/<layer name>     layer_format.ts
 *   .../<anything>.___temp                                 unfinished; removed at the start
 *   .../<anything>.___deleted                              deleted; removed at the start
 *
 * A process that was stopped between a rename and its sync leaves names that are not durable yet.
 * So a start syncs each directory before it relies on what is in it, and writes each index_part
 * anew.
 */
import { dirname } from "node:path";
import { fsyncDirectory } from "../../libs/utils/durable.ts";
import { ifThere } from "../../libs/utils/if_there.ts";
import { logger } from "../../libs/utils/log.ts";
import { INDEX_PART_NAME, type IndexPart, readIndexPart, rewriteIndexPart } from "./index_part.ts";
import { layerFileName } from "./layer_format.ts";

const log = logger("pageserver", "tenant");

/** The directory of a tenant's timelines, in the tenant's. */
export const TIMELINES_NAME = "timelines";
const DELETED_SUFFIX = ".___deleted";

/**
 * Removes a directory so that a crash leaves either all of it or nothing that counts: it is renamed
 * durably first.
 */
export function removeDirectory(path: string): void {
  const deleted = `${path}${DELETED_SUFFIX}`;
  Deno.renameSync(path, deleted);
  fsyncDirectory(dirname(path));
  Deno.removeSync(deleted, { recursive: true });
}

/** The directories in `path` whose name `parse` accepts; what deletions left behind is removed. */
export function listDirectories<T>(path: string, parse: (name: string) => T): T[] {
  const found: T[] = [];
  fsyncDirectory(path); // else what is removed could be back, and lack a part
  for (const entry of Deno.readDirSync(path)) {
    if (entry.name.endsWith(DELETED_SUFFIX)) {
      Deno.removeSync(`${path}/${entry.name}`, { recursive: true });
    } else if (entry.isDirectory) {
      try {
        found.push(parse(entry.name));
      } catch {
        log.warn("ignoring {path}: it is none of ours", { path: `${path}/${entry.name}` });
      }
    }
  }
  return found;
}

/**
 * Reads the index_part of a timeline's directory and removes every file that it does not list. A
 * directory without one is a creation that was not finished: it is removed, and undefined returned.
 * Throws Corrupt.
 */
export function loadTimelineDirectory(path: string): IndexPart | undefined {
  const part = ifThere(() => readIndexPart(path));
  if (part === undefined) {
    removeDirectory(path);
    return undefined;
  }
  rewriteIndexPart(path, part);
  const listed = new Set([INDEX_PART_NAME, ...part.layers.map(layerFileName)]);
  for (const entry of Deno.readDirSync(path)) {
    if (!listed.has(entry.name)) Deno.removeSync(`${path}/${entry.name}`, { recursive: true });
  }
  return part;
}
