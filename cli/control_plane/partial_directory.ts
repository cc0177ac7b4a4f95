/**
 * A directory for what is being made and is not to be seen before it is whole:
 *
 *   <parent>/making-<random>
 *
 * It is locked (flock) by the process that makes it and goes with the object. One that nobody holds
 * is what an interrupted process has left: whoever makes the next one removes it.
 */
import { join } from "node:path";
import { makeDirectory } from "../../libs/utils/durable.ts";
import { ifThere } from "../../libs/utils/if_there.ts";

const PREFIX = "making-";

/** See the head of the file. */
export class PartialDirectory implements Disposable {
  readonly path: string;
  readonly #lock: Deno.FsFile;

  constructor(parent: string) {
    makeDirectory(parent);
    using all = Deno.openSync(parent, { read: true });
    all.lockSync(true); // between its making and its lock nobody takes it for abandoned
    removeAbandoned(parent);
    this.path = Deno.makeTempDirSync({ dir: parent, prefix: PREFIX });
    this.#lock = Deno.openSync(this.path, { read: true });
    this.#lock.lockSync(true);
  }

  /** Removes it, unless it has been moved away. */
  [Symbol.dispose](): void {
    ifThere(() => Deno.removeSync(this.path, { recursive: true }));
    this.#lock.close();
  }
}

function removeAbandoned(parent: string): void {
  for (const { name } of Deno.readDirSync(parent)) {
    if (!name.startsWith(PREFIX)) continue;
    const path = join(parent, name);
    const directory = ifThere(() => Deno.openSync(path, { read: true }));
    if (directory === undefined) continue;
    if (directory.tryLockSync(true)) ifThere(() => Deno.removeSync(path, { recursive: true }));
    directory.close();
  }
}
