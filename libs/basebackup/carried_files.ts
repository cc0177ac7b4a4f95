/**
 * Files that PostgreSQL keeps outside its WAL and that travel with the branch all the same: as
 * logical messages with the prefix `neon-file:<path>`. The newest content counts, an empty one
 * deletes. The pageserver keeps them, and a base backup has them again.
 *
 *   statistics  pg_stat/<name>.stat                         inherited by branches
 *   slot        pg_replslot/<name>/state                    logical slots
 *   snapshot    pg_logical/snapshots/<LSN>.snap             what a slot's decoding starts with
 *   mapping     pg_logical/mappings/map-<...>               rows of rewritten catalogs
 *
 * Any role may emit logical messages. So only these paths are taken, and statistics, which no
 * running Postgres has to tell, only from messages of no database (logical_message.ts).
 */
import { type Lsn, lsnFromHalves } from "../utils/lsn.ts";

/** What logical messages that carry files have before the path. */
export const CARRIED_PREFIX = "neon-file:";

/** A larger file is not carried. */
export const CARRIED_BYTES_MAX = 16 * 1024 * 1024;

/** See the head of the file. */
export type CarriedKind = "statistics" | "slot" | "snapshot" | "mapping";

const PATHS: readonly (readonly [CarriedKind, RegExp])[] = [
  ["statistics", /^pg_stat\/\w{1,80}\.stat$/],
  ["slot", /^pg_replslot\/[a-z0-9_]{1,63}\/state$/],
  ["snapshot", /^pg_logical\/snapshots\/[0-9A-F]{1,8}-[0-9A-F]{1,8}\.snap$/],
  [
    "mapping",
    /^pg_logical\/mappings\/map-[0-9a-f]{1,8}-[0-9a-f]{1,8}-[0-9A-F]{1,8}_[0-9A-F]{1,8}-[0-9a-f]{1,8}-[0-9a-f]{1,8}$/,
  ],
];

/** What the file is; undefined for a path that is not carried. */
export function carriedKind(path: string): CarriedKind | undefined {
  return PATHS.find(([, pattern]) => pattern.test(path))?.[0];
}

/** Path of a slot's state. */
export function slotPath(name: string): string {
  return `pg_replslot/${name}/state`;
}

/** The slot of a path as slotPath makes it. */
export function slotName(path: string): string {
  return path.split("/")[1]!;
}

/** Path of the snapshot that decoding from `lsn` starts with (PostgreSQL 17, snapbuild.c). */
export function snapshotPath(lsn: Lsn): string {
  const hex = (value: number) => value.toString(16).toUpperCase();
  return `pg_logical/snapshots/${hex(Math.floor(lsn / 2 ** 32))}-${hex(lsn % 2 ** 32)}.snap`;
}

/** The inverse of snapshotPath. */
export function snapshotLsn(path: string): Lsn {
  const [high, low] = path.slice(path.lastIndexOf("/") + 1).split(/[-.]/);
  return lsnFromHalves(parseInt(high!, 16), parseInt(low!, 16));
}
