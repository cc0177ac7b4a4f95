/**
 * Files that survive a crash: written in full, synced, renamed into place, and the directory
 * synced, in that order. A reader sees the old content or the new, never a part.
 */
import { ifThere } from "./if_there.ts";
import { dirname } from "./paths.ts";

/** Syncs a directory, so that names created, renamed or removed in it are durable. */
export function fsyncDirectory(path: string): void {
  const directory = Deno.openSync(path, { read: true });
  try {
    directory.syncSync();
  } finally {
    directory.close();
  }
}

/** Like fsyncDirectory(), without holding anybody up. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = Deno.openSync(path, { read: true });
  try {
    await directory.sync();
  } finally {
    directory.close();
  }
}

/** Writes all of `bytes` at the file's current position. */
export function writeAll(file: Deno.FsFile, bytes: Uint8Array): void {
  let done = file.writeSync(bytes); // all of it, as a rule
  while (done < bytes.length) done += file.writeSync(bytes.subarray(done));
}

/**
 * Reads up to `into.length` bytes at `offset`; returns the count, less than asked only at the end
 * of the file.
 */
export function readAt(file: Deno.FsFile, offset: number, into: Uint8Array): number {
  file.seekSync(offset, Deno.SeekMode.Start);
  let done = 0;
  while (done < into.length) {
    const count = file.readSync(into.subarray(done));
    if (count === null) break;
    done += count;
  }
  return done;
}

/** Atomically and durably replaces the file at `path` (mode applies to a new file). */
export function replaceFile(path: string, bytes: Uint8Array, mode = 0o644): void {
  const temporary = `${path}.___temp`;
  const file = Deno.openSync(temporary, { write: true, create: true, truncate: true, mode });
  try {
    writeAll(file, bytes);
    file.syncSync();
  } finally {
    file.close();
  }
  Deno.renameSync(temporary, path);
  fsyncDirectory(dirname(path));
}

/** Like replaceFile(), without holding anybody up. */
export async function replaceFileInBackground(
  path: string,
  bytes: Uint8Array,
  mode = 0o644,
): Promise<void> {
  const temporary = `${path}.___temp`;
  const file = Deno.openSync(temporary, { write: true, create: true, truncate: true, mode });
  try {
    writeAll(file, bytes);
    await file.sync();
  } finally {
    file.close();
  }
  Deno.renameSync(temporary, path);
  await syncDirectory(dirname(path));
}

/** What a reserve file holds beyond the file that it will become, so that this may grow. */
const RESERVE_BYTES = 4096;

/**
 * Like replaceFile(), also on a disk that is full: what is written takes the place of a reserve,
 * `<path>.reserve`, and the space of the file that was replaced becomes the next reserve.
 */
export function replaceFileFromReserve(path: string, bytes: Uint8Array): void {
  const reserve = `${path}.reserve`;
  const file = Deno.openSync(reserve, { write: true, create: true });
  try {
    writeAll(file, bytes);
    file.truncateSync(bytes.length);
    file.syncSync();
  } finally {
    file.close();
  }
  Deno.renameSync(reserve, path);
  fsyncDirectory(dirname(path));
  const next = Deno.openSync(reserve, { write: true, create: true });
  try {
    next.writeSync(new Uint8Array(bytes.length + RESERVE_BYTES));
  } catch {
    // Somebody else was faster: the next replacement has to find space for itself
  } finally {
    next.close();
  }
}

/** Removes a file durably; a file that is not there is fine. */
export function removeFile(path: string): void {
  ifThere(() => {
    Deno.removeSync(path);
    fsyncDirectory(dirname(path));
  });
}

/** Everybody may enter a directory. */
const PASSABLE = 0o111;

/**
 * Creates a directory and its missing parents, each made durable in its parent. One that is there
 * is synced, too: a process that was stopped in between may have left it only in memory. Everybody
 * may enter it, whatever our umask is, because PostgreSQL may run as another user; who may read
 * what is in it is the umask's.
 */
export function makeDirectory(path: string): void {
  try {
    Deno.mkdirSync(path);
  } catch (thrown) {
    if (thrown instanceof Deno.errors.AlreadyExists) return syncExisting(path);
    if (!(thrown instanceof Deno.errors.NotFound)) throw thrown;
    makeDirectory(dirname(path));
    Deno.mkdirSync(path);
  }
  makePassable(path);
  fsyncDirectory(dirname(path));
}

/**
 * Creates a directory that everybody may enter, or leaves the one that is there. To be durable its
 * parent is to be synced.
 */
export function makePassableDirectory(path: string): void {
  try {
    Deno.mkdirSync(path);
    makePassable(path);
  } catch (thrown) {
    if (!(thrown instanceof Deno.errors.AlreadyExists)) throw thrown;
  }
}

function makePassable(path: string): void {
  const mode = Deno.lstatSync(path).mode ?? 0o777;
  if ((mode & PASSABLE) !== PASSABLE) Deno.chmodSync(path, (mode & 0o777) | PASSABLE);
}

/** Somebody else made what lies in a directory that we may not read. */
function syncExisting(path: string): void {
  try {
    fsyncDirectory(dirname(path));
  } catch (thrown) {
    const { NotCapable, PermissionDenied } = Deno.errors;
    if (!(thrown instanceof NotCapable || thrown instanceof PermissionDenied)) throw thrown;
  }
}
