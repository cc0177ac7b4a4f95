/**
 * Lays a data directory's relation files out: sparse, at their true length, without data, and the
 * arena by which the preloaded library fills them when Postgres reads.
 *
 * An unlogged relation comes back empty: its main fork gets the length and the pages of its init
 * fork, its other forks are left out (what ResetUnloggedRelations of PostgreSQL's reinit.c does
 * after a crash). Relations in other tablespaces than the two built-in ones are left out.
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
import {
  parseRelationPath,
  relationSegmentPath,
  type RelTag,
} from "../../libs/postgres/relation.ts";
import type { TenantId, TimelineId } from "../../libs/utils/id.ts";
import { ifThere } from "../../libs/utils/if_there.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import {
  type ArenaFile,
  encodeArena,
  type PageServiceAddress,
  READ_AHEAD_PAGES_MAX,
  RETRY_SECONDS_DEFAULT,
} from "./arena.ts";
import type { ArenaWal } from "./arena_wal.ts";

/** Where Postgres has the control file, relative to the data directory. */
export const CONTROL_FILE = "global/pg_control";

/** Where it is kept from Postgres without the library. */
export const LAZY_CONTROL_FILE = "global/pg_control.lazy";

/** Work in a row before others may get a turn: making one file takes from 20 us to 50 ms. */
const STEP_MS = 4;
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
  /** For a page service that wants one. */
  readonly token?: string | undefined;
  /** Of a Postgres that writes. */
  readonly wal?: ArenaWal | undefined;
  /** Default RETRY_SECONDS_DEFAULT. */
  readonly retrySeconds?: number;
  /** Default READ_AHEAD_PAGES_MAX. */
  readonly readAheadPages?: number;
  /** Whom files, arena and made directories are given to; only root can. */
  readonly owner?: { readonly uid: number; readonly gid: number };
  /** Relation files that came with the basebackup (of unlogged relations), relative to pgdata. */
  readonly keep?: ReadonlySet<string>;
  /**
   * All relation files that are there but for those to `keep`, if that is known: they are empty and
   * given to the owner. With their lengths in bytes.
   */
  readonly empty?: ReadonlyMap<string, number>;
  /**
   * All pages will be fetched before Postgres starts: files without length (they get it with their
   * pages), and no arena. showControlFile() is to follow when the files are whole.
   */
  readonly eager?: boolean;
  /** Puts an empty file made ahead of time at this path, if it can. */
  readonly takeReady?: TakeReady;
}

/**
 * Puts an empty file of mode 0600 at a path where none is, false if there is none to put. Making a
 * file costs some file systems half a millisecond, moving one in place a fiftieth of that.
 */
type TakeReady = (path: string) => boolean;

/** What layOutFiles made. */
export interface LaidOut {
  /** Relation files, empty ones included. */
  readonly files: number;
  /** Pages that can be fetched. */
  readonly pages: number;
  /** Forks in other tablespaces, which were left out. */
  readonly skippedForks: number;
}

/** A relation file of a data directory. */
export interface PlannedFile {
  /** Relative to the data directory. */
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

/** The relation files of a map, in its order. */
export function planFiles(map: LazyFilesMap): PlannedFile[] {
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
    }
  }
  return planned;
}

function openEmpty(path: string, owner: LayOutOptions["owner"]): Deno.FsFile {
  const open = { write: true, create: true, truncate: true, mode: FILE_MODE };
  const file = ifThere(() => Deno.openSync(path, open));
  if (file !== undefined) return file;
  makeDirectory(path.slice(0, path.lastIndexOf("/")), owner);
  return Deno.openSync(path, open);
}

function makeFile(path: string, lengthBytes: number, owner: LayOutOptions["owner"]): void {
  const file = openEmpty(path, owner);
  if (lengthBytes > 0) file.truncateSync(lengthBytes);
  file.close();
  if (owner !== undefined) Deno.chownSync(path, owner.uid, owner.gid);
}

/** Puts a ready made file where none is, or makes one. */
function placeFile(path: string, lengthBytes: number, options: LayOutOptions): void {
  if (options.takeReady?.(path) !== true) return makeFile(path, lengthBytes, options.owner);
  if (lengthBytes > 0) Deno.truncateSync(path, lengthBytes);
  if (options.owner !== undefined) Deno.chownSync(path, options.owner.uid, options.owner.gid);
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
    token: options.token,
    wal: options.wal,
    files,
  });
  // A new file each time: an old one may still be mapped by processes that are being killed.
  ifThere(() => Deno.removeSync(options.arenaPath));
  makeFile(options.arenaPath, 0, options.owner);
  using arena = Deno.openSync(options.arenaPath, { write: true });
  for (let at = 0; at < written.length;) at += arena.writeSync(written.subarray(at));
  arena.truncateSync(totalBytes);
}

/** Moves the control file of `pgdata`, if it is there, to where only the library finds it. */
function hideControlFile(pgdata: string): void {
  ifThere(() => Deno.renameSync(`${pgdata}/${CONTROL_FILE}`, `${pgdata}/${LAZY_CONTROL_FILE}`));
}

/** Moves it back: all files are whole, Postgres may start on them without the library. */
export function showControlFile(pgdata: string): void {
  Deno.renameSync(`${pgdata}/${LAZY_CONTROL_FILE}`, `${pgdata}/${CONTROL_FILE}`);
}

/**
 * Makes the relation files and the arena of `options`, and hides the control file. Relation files
 * that are there already are emptied and used again, others that neither the map nor `keep` names
 * are removed. Throws what the file system throws, and BadRequest as encodeArena does.
 */
export function layOutFiles(options: LayOutOptions): LaidOut {
  const steps = layOutInSteps(options);
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}

/**
 * layOutFiles for a caller who has to do other things in between: thousands of files on a slow file
 * system take seconds. It yields every STEP_MS.
 */
export function* layOutInSteps(options: LayOutOptions): Generator<undefined, LaidOut> {
  const planned = planFiles(options.map);
  const there = removeOtherRelationFiles(options, planned);
  const lazy: ArenaFile[] = [];
  let pages = 0;
  let began = performance.now();
  for (const { path, file } of planned) {
    const full = `${options.pgdata}/${path}`;
    const length = file.pages * PAGE_SIZE;
    if (file.pages > 0) lazy.push(file);
    pages += file.pages;
    if (there.has(path) && options.empty?.get(path) === length) continue;
    const lengthNow = options.eager === true ? 0 : length;
    if (there.has(path)) makeFile(full, lengthNow, options.owner);
    else placeFile(full, lengthNow, options);
    if (performance.now() - began > STEP_MS) {
      yield;
      began = performance.now();
    }
  }
  if (options.eager !== true) writeArena(options, lazy);
  hideControlFile(options.pgdata);
  const skippedForks =
    options.map.forks.filter(({ spc }) => spc !== DEFAULT_TABLESPACE && spc !== GLOBAL_TABLESPACE)
      .length;
  return { files: planned.length, pages, skippedForks };
}

/** The relation files that layOutFiles makes for a map, with their lengths in bytes. */
export function plannedLengths(map: LazyFilesMap): Map<string, number> {
  return new Map(planFiles(map).map(({ path, file }) => [path, file.pages * PAGE_SIZE]));
}

/** What is there of the relation files that are wanted. */
type Existing = Pick<ReadonlyMap<string, number>, "has">;

/** Removes relation files and databases that are not wanted; returns what stays. */
function removeOtherRelationFiles(options: LayOutOptions, planned: PlannedFile[]): Existing {
  const wanted = new Set(planned.map(({ path }) => path));
  const databases = new Set(options.map.forks.map(({ db }) => String(db)));
  const remove = (path: string) =>
    ifThere(() => Deno.removeSync(`${options.pgdata}/${path}`, { recursive: true }));
  if (options.empty !== undefined) {
    for (const path of options.empty.keys()) {
      const database = /^base\/(\d+)\//.exec(path)?.[1];
      if (database !== undefined && !databases.has(database)) remove(`base/${database}`);
      else if (!wanted.has(path) && options.keep?.has(path) !== true) remove(path);
    }
    return options.empty;
  }
  const there = new Set<string>();
  const removeUnwanted = (directory: string) => {
    for (const { name } of listDirectory(`${options.pgdata}/${directory}`)) {
      const path = `${directory}/${name}`;
      if (options.keep?.has(path) === true) continue;
      if (wanted.has(path)) there.add(path);
      else if (parseRelationPath(path) !== undefined) remove(path);
    }
  };
  removeUnwanted("global");
  for (const { name } of listDirectory(`${options.pgdata}/base`)) {
    if (databases.has(name)) removeUnwanted(`base/${name}`);
    else remove(`base/${name}`);
  }
  return there;
}

/**
 * Empties a data directory (and makes it where it is missing) except for relation files, which
 * layOutFiles uses again: file systems can take hundreds of microseconds to make a file soon after
 * many were removed. For what goes before unpacking a basebackup.
 */
export function clearDataDirectory(pgdata: string): void {
  Deno.mkdirSync(pgdata, { recursive: true, mode: DIRECTORY_MODE });
  const clear = (directory: string) => {
    for (const { name, isDirectory } of listDirectory(`${pgdata}/${directory}`)) {
      const path = directory === "" ? name : `${directory}/${name}`;
      const holdsRelations = isDirectory && /^(base|global|base\/\d+)$/.test(path);
      if (holdsRelations) clear(path);
      else if (parseRelationPath(path) === undefined) {
        Deno.removeSync(`${pgdata}/${path}`, { recursive: true });
      }
    }
  };
  clear("");
}

function listDirectory(path: string): Deno.DirEntry[] {
  return ifThere(() => [...Deno.readDirSync(path)]) ?? [];
}
