/**
 * Lays a data directory's relation files out: sparse, at their true length, without data, and the
 * arena by which the preloaded library fills them when Postgres reads.
 *
 * An unlogged relation comes back empty: its main fork gets the length and the pages of its init
 * fork, its other forks are left out (what ResetUnloggedRelations of PostgreSQL's reinit.c does after
 * a crash). Relations in other tablespaces than the two built-in ones are left out.
 *
 * The control file is moved out of the way (LAZY_CONTROL_FILE): the library shows it to Postgres
 * under its real name, so nobody can start on these files without the library and read zeros.
 */
import type { LazyFilesMap, LazyFork } from "../../libs/basebackup/lazy_files_map.ts";
import {
  DEFAULT_TABLESPACE,
  FORK_INIT,
  FORK_MAIN,
  GLOBAL_TABLESPACE,
  PAGE_SIZE,
  RELATION_SEGMENT_PAGES,
} from "../../libs/postgres/constants.ts";
import { relationSegmentPath, type RelTag } from "../../libs/postgres/relation.ts";
import type { TenantId, TimelineId } from "../../libs/utils/id.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import {
  type ArenaFile,
  encodeArena,
  type PageServiceAddress,
  READ_AHEAD_PAGES_MAX,
  RETRY_SECONDS_DEFAULT,
} from "./arena.ts";

/** Where the control file is kept, relative to the data directory. */
export const LAZY_CONTROL_FILE = "global/pg_control.lazy";

const CONTROL_FILE = "global/pg_control";
const FILE_MODE = 0o600;
const DIRECTORY_MODE = 0o700;

/** Arguments of layOutFiles. */
export interface LayOutOptions {
  /** The data directory; base/<db> and global are made where they are missing. */
  readonly pgdata: string;
  /** Outside the data directory. Replaced if it exists. */
  readonly arenaPath: string;
  readonly map: LazyFilesMap;
  readonly tenantId: TenantId;
  readonly timelineId: TimelineId;
  readonly pageserver: PageServiceAddress;
  /** Contents of /proc/sys/kernel/random/boot_id. */
  readonly bootId: string;
  /** Default: the map's LSN. */
  readonly requestLsn?: Lsn;
  /** Default RETRY_SECONDS_DEFAULT. */
  readonly retrySeconds?: number;
  /** Default READ_AHEAD_PAGES_MAX. */
  readonly readAheadPages?: number;
  /** Whom files, arena and made directories are given to; only root can. */
  readonly owner?: { readonly uid: number; readonly gid: number };
}

/** What layOutFiles made. */
export interface LaidOut {
  /** Relation files, empty ones included. */
  readonly files: number;
  /** Pages that can be fetched. */
  readonly pages: number;
  /** Forks in other tablespaces, which were left out. */
  readonly skippedForks: number;
}

/** A file to make. */
interface PlannedFile {
  readonly path: string;
  readonly file: ArenaFile;
}

function relationKey(fork: LazyFork): string {
  return `${fork.spc}/${fork.db}/${fork.rel}`;
}

/** The forks to lay out, each with the fork whose pages it has. */
function effectiveForks(map: LazyFilesMap): { fork: LazyFork; sourceFork: number }[] {
  const unlogged = new Set<string>();
  for (const fork of map.forks) if (fork.fork === FORK_INIT) unlogged.add(relationKey(fork));
  const forks: { fork: LazyFork; sourceFork: number }[] = [];
  for (const fork of map.forks) {
    if (fork.spc !== DEFAULT_TABLESPACE && fork.spc !== GLOBAL_TABLESPACE) continue;
    if (fork.fork === FORK_INIT) {
      forks.push({ fork, sourceFork: FORK_INIT });
      forks.push({ fork: { ...fork, fork: FORK_MAIN }, sourceFork: FORK_INIT });
    } else if (unlogged.size === 0 || !unlogged.has(relationKey(fork))) {
      forks.push({ fork, sourceFork: fork.fork });
    }
  }
  return forks;
}

function planFiles(map: LazyFilesMap): PlannedFile[] {
  const planned: PlannedFile[] = [];
  for (const { fork, sourceFork } of effectiveForks(map)) {
    const { spc, db, rel } = fork;
    const tag: RelTag = { spc, db, rel, fork: fork.fork };
    let left = fork.blocks;
    for (let segment = 0; segment === 0 || left > 0; segment++) {
      const pages = Math.min(left, RELATION_SEGMENT_PAGES);
      left -= pages;
      planned.push({
        path: relationSegmentPath(tag, segment),
        file: { ...tag, sourceFork, segment, pages },
      });
      // A full last segment is followed by an empty file in PostgreSQL only once it is extended.
    }
  }
  return planned;
}

function makeFile(path: string, lengthBytes: number, owner: LayOutOptions["owner"]): void {
  const open = { write: true, create: true, truncate: true, mode: FILE_MODE };
  let file: Deno.FsFile;
  try {
    file = Deno.openSync(path, open);
  } catch (thrown) {
    if (!(thrown instanceof Deno.errors.NotFound)) throw thrown;
    makeDirectory(path.slice(0, path.lastIndexOf("/")), owner);
    file = Deno.openSync(path, open);
  }
  if (lengthBytes > 0) file.truncateSync(lengthBytes);
  file.close();
  if (owner !== undefined) Deno.chownSync(path, owner.uid, owner.gid);
}

function makeDirectory(path: string, owner: LayOutOptions["owner"]): void {
  Deno.mkdirSync(path, { recursive: true, mode: DIRECTORY_MODE });
  if (owner !== undefined) Deno.chownSync(path, owner.uid, owner.gid);
}

function writeArena(options: LayOutOptions, files: ArenaFile[]): void {
  const { written, totalBytes } = encodeArena({
    bootId: options.bootId,
    tenantId: options.tenantId,
    timelineId: options.timelineId,
    settings: {
      pageserver: options.pageserver,
      requestLsn: options.requestLsn ?? options.map.lsn,
      notModifiedSince: options.map.lsn,
      retrySeconds: options.retrySeconds ?? RETRY_SECONDS_DEFAULT,
      readAheadPages: options.readAheadPages ?? READ_AHEAD_PAGES_MAX,
    },
    files,
  });
  // A new file each time: an old one may still be mapped by processes that are being killed.
  removeIfThere(options.arenaPath);
  makeFile(options.arenaPath, 0, options.owner);
  using arena = Deno.openSync(options.arenaPath, { write: true });
  for (let at = 0; at < written.length;) at += arena.writeSync(written.subarray(at));
  arena.truncateSync(totalBytes);
}

function removeIfThere(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (thrown) {
    if (!(thrown instanceof Deno.errors.NotFound)) throw thrown;
  }
}

/** Moves the control file of `pgdata`, if it is there, to where only the library finds it. */
export function hideControlFile(pgdata: string): void {
  try {
    Deno.renameSync(`${pgdata}/${CONTROL_FILE}`, `${pgdata}/${LAZY_CONTROL_FILE}`);
  } catch (thrown) {
    if (!(thrown instanceof Deno.errors.NotFound)) throw thrown;
  }
}

/**
 * Makes the relation files and the arena of `options`, and hides the control file. Existing relation
 * files are emptied and used again, which is faster than making new ones. Throws what the file
 * system throws, and BadRequest as encodeArena does.
 */
export function layOutFiles(options: LayOutOptions): LaidOut {
  const planned = planFiles(options.map);
  const lazy: ArenaFile[] = [];
  let pages = 0;
  for (const { path, file } of planned) {
    makeFile(`${options.pgdata}/${path}`, file.pages * PAGE_SIZE, options.owner);
    if (file.pages === 0) continue;
    lazy.push(file);
    pages += file.pages;
  }
  writeArena(options, lazy);
  hideControlFile(options.pgdata);
  const skippedForks =
    options.map.forks.filter(({ spc }) => spc !== DEFAULT_TABLESPACE && spc !== GLOBAL_TABLESPACE)
      .length;
  return { files: planned.length, pages, skippedForks };
}

/**
 * Removes what an earlier Postgres left in base/ and global/ and `map` does not name, so that the
 * directory can be laid out again. Keeps PG_VERSION and pg_filenode.map files.
 */
export function removeStaleFiles(pgdata: string, map: LazyFilesMap): void {
  const wanted = new Set(planFiles(map).map(({ path }) => path));
  const databases = new Set(map.forks.map(({ db }) => String(db)));
  const directories = ["global"];
  for (const { name } of listDirectory(`${pgdata}/base`)) {
    if (databases.has(name)) directories.push(`base/${name}`);
    else Deno.removeSync(`${pgdata}/base/${name}`, { recursive: true });
  }
  for (const directory of directories) {
    for (const { name } of listDirectory(`${pgdata}/${directory}`)) {
      const path = `${directory}/${name}`;
      if (wanted.has(path) || name === "PG_VERSION" || name === "pg_filenode.map") continue;
      Deno.removeSync(`${pgdata}/${path}`, { recursive: true });
    }
  }
}

function listDirectory(path: string): Deno.DirEntry[] {
  try {
    return [...Deno.readDirSync(path)];
  } catch (thrown) {
    if (thrown instanceof Deno.errors.NotFound) return [];
    throw thrown;
  }
}
