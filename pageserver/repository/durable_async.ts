/**
 * The asynchronous side of libs/utils/durable.ts: a sync takes milliseconds on a real disk, and
 * page reads must not wait for it.
 *
 * A failed write (a full disk) may be tried again: what was meant to be written is still known. A
 * failed sync may not: the system may have dropped what it could not write, and a second sync that
 * succeeds says nothing about it (hence SyncFailed: the file is thrown away, and what was in it is
 * written to another one). A lack of file descriptors is waited out: it says nothing about the
 * disk, and passes.
 */
import { dirname } from "node:path";
import { writeAll } from "../../libs/utils/durable.ts";
import { messageOf } from "../../libs/utils/errors.ts";
import { ifThere } from "../../libs/utils/if_there.ts";
import { logger } from "../../libs/utils/log.ts";

const log = logger("pageserver", "files");

/** Pause before a file is opened again, and how often that is tried: for ten minutes. */
const PAUSE_MS = 100;
const TRIES_MAX = 6000;

/** A sync has failed: what was written before is in doubt, and has to be made anew. */
export class SyncFailed extends Error {
  override readonly name: string = "SyncFailed";
}

/** Whether this process, or the machine, has no file descriptors left. */
export function isOutOfDescriptors(thrown: unknown): boolean {
  const code = (thrown as { code?: unknown } | null)?.code;
  return code === "EMFILE" || code === "ENFILE";
}

async function open(path: string, options: Deno.OpenOptions): Promise<Deno.FsFile> {
  for (let tries = 1;; tries++) {
    try {
      return await Deno.open(path, options);
    } catch (thrown) {
      if (!isOutOfDescriptors(thrown) || tries === TRIES_MAX) throw thrown;
      if (tries === 1) log.warn("waiting for a file descriptor to open {path}", { path });
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }
}

/** Syncs a file. Throws SyncFailed. */
export async function syncFile(file: Deno.FsFile): Promise<void> {
  try {
    await file.sync();
  } catch (thrown) {
    throw new SyncFailed(messageOf(thrown));
  }
}

/** Syncs a directory: names created, renamed or removed in it are durable. Throws SyncFailed. */
export async function syncDirectory(path: string): Promise<void> {
  let directory: Deno.FsFile;
  try {
    directory = await open(path, { read: true });
  } catch (thrown) {
    throw new SyncFailed(messageOf(thrown));
  }
  try {
    await syncFile(directory);
  } finally {
    directory.close();
  }
}

/**
 * Atomically and durably replaces the file at `path`. Throws SyncFailed if it is in doubt which
 * content it has, and may be called again then: it begins with a file of its own. After another
 * error the old content is there.
 */
export async function replaceFileAsync(path: string, bytes: Uint8Array): Promise<void> {
  const temporary = `${path}.___temp`;
  const file = await open(temporary, { write: true, create: true, truncate: true });
  try {
    writeAll(file, bytes);
    await syncFile(file);
  } catch (thrown) {
    if (thrown instanceof SyncFailed) ifThere(() => Deno.removeSync(temporary));
    throw thrown;
  } finally {
    file.close();
  }
  await Deno.rename(temporary, path);
  await syncDirectory(dirname(path));
}
