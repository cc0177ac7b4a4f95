/**
 * Files in the cache, which several local Neons make at the same time: each is written under a name
 * of its own and renamed into place, so that what is in place is whole, whoever was first.
 */
import { basename, dirname, join } from "node:path";
import { fsyncDirectory, writeAll } from "../../libs/utils/durable.ts";
import { PartialDirectory } from "./partial_directory.ts";

/** Puts a file into the cache with exactly this mode, whatever our umask is. */
export function placeFile(path: string, bytes: Uint8Array, mode: number): void {
  place(path, (temporary) => {
    const file = Deno.openSync(temporary, { write: true, createNew: true });
    try {
      writeAll(file, bytes);
      file.syncSync();
    } finally {
      file.close();
    }
    Deno.chmodSync(temporary, mode);
  });
  fsyncDirectory(dirname(path));
}

/** Puts a symbolic link into the cache, in place of whatever is there. */
export function placeLink(path: string, target: string): void {
  place(path, (temporary) => Deno.symlinkSync(target, temporary));
}

function place(path: string, make: (temporary: string) => void): void {
  using directory = new PartialDirectory(dirname(path));
  const temporary = join(directory.path, basename(path));
  make(temporary);
  Deno.renameSync(temporary, path);
}
