/**
 * The asynchronous side of libs/utils/durable.ts: a sync takes milliseconds on a real disk, and
 * page reads must not wait for it.
 */
import { dirname } from "node:path";
import { writeAll } from "../../libs/utils/durable.ts";

/** Syncs a directory, so that names created, renamed or removed in it are durable. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await Deno.open(path, { read: true });
  try {
    await directory.sync();
  } finally {
    directory.close();
  }
}

/** Atomically and durably replaces the file at `path`. */
export async function replaceFileAsync(path: string, bytes: Uint8Array): Promise<void> {
  const temporary = `${path}.___temp`;
  const file = await Deno.open(temporary, { write: true, create: true, truncate: true });
  try {
    writeAll(file, bytes);
    await file.sync();
  } finally {
    file.close();
  }
  await Deno.rename(temporary, path);
  await syncDirectory(dirname(path));
}
