/**
 * Files in the cache, which several local Neons make at the same time: each is written under a name
 * of its own and renamed into place, so that what is in place is whole, whoever was first.
 */
import { dirname } from "node:path";
import { fsyncDirectory, makeDirectory, writeAll } from "../../libs/utils/durable.ts";

function temporaryName(path: string): string {
  return `${path}.${crypto.randomUUID()}`;
}

/** Puts a file into the cache with exactly this mode, whatever our umask is. */
export function placeFile(path: string, bytes: Uint8Array, mode: number): void {
  makeDirectory(dirname(path));
  const temporary = temporaryName(path);
  const file = Deno.openSync(temporary, { write: true, createNew: true });
  try {
    writeAll(file, bytes);
    file.syncSync();
  } finally {
    file.close();
  }
  Deno.chmodSync(temporary, mode);
  Deno.renameSync(temporary, path);
  fsyncDirectory(dirname(path));
}

/** Puts a symbolic link into the cache, in place of whatever is there. */
export function placeLink(path: string, target: string): void {
  makeDirectory(dirname(path));
  const temporary = temporaryName(path);
  Deno.symlinkSync(target, temporary);
  Deno.renameSync(temporary, path);
}
