/**
 * A whole data directory, laid out while nobody waits, for the next start of an endpoint:
 * `ready_data/<n>` in the host's directory, with the relation files of the last start at the
 * lengths they had, all of them empty. Endpoints of one host mostly resemble each other (branches
 * of one database do by nature), so that a start moves one directory in place instead of making a
 * thousand files, and then only corrects what differs.
 */
import { join } from "node:path";
import { messageOf } from "../libs/utils/errors.ts";
import { logger } from "../libs/utils/log.ts";
import { type FileOwner, give } from "./endpoint_directory.ts";

const log = logger("compute", "ready_directory");

/** More files than this are not worth the disk: the start makes the others itself. */
const FILES_MAX = 5000;
/** Files made in a row before others get the disk. */
const BATCH = 16;
const PAUSE_MS = 2;

/** Empty files by their path in the data directory, with their lengths in bytes. */
export type EmptyFiles = ReadonlyMap<string, number>;

interface Made {
  readonly path: string;
  readonly files: EmptyFiles;
  readonly owner: FileOwner | undefined;
}

/** See the head of the file. */
export class ReadyDirectory {
  readonly #root: string;
  #made: Made | undefined;
  #making = false;
  #next: number;

  /** What an earlier host left under `root` is removed when the first one is made. */
  constructor(root: string) {
    this.#root = root;
    Deno.mkdirSync(root, { recursive: true, mode: 0o700 });
    this.#next = Math.max(0, ...this.#names().map(Number)) + 1;
  }

  #names(): string[] {
    return [...Deno.readDirSync(this.#root)].map(({ name }) => name);
  }

  /** Moves it to `pgdata`, where nothing may be; undefined if there is none for this owner. */
  take(pgdata: string, owner: FileOwner | undefined): EmptyFiles | undefined {
    const made = this.#made;
    if (made === undefined) return undefined;
    if (made.owner?.uid !== owner?.uid || made.owner?.gid !== owner?.gid) return undefined;
    this.#made = undefined;
    Deno.renameSync(made.path, pgdata);
    return made.files;
  }

  /** Makes one with these files, slowly, unless there is one. Never rejects. */
  async make(files: EmptyFiles, owner: FileOwner | undefined): Promise<void> {
    if (this.#making || this.#made !== undefined) return;
    this.#making = true;
    try {
      await this.#make(files, owner);
    } catch (thrown) {
      log.warning("cannot lay out a directory ahead: {why}", { why: messageOf(thrown) });
    } finally {
      this.#making = false;
    }
  }

  async #make(files: EmptyFiles, owner: FileOwner | undefined): Promise<void> {
    for (const name of this.#names()) {
      await Deno.remove(join(this.#root, name), { recursive: true });
    }
    const path = join(this.#root, String(this.#next++));
    const madeFiles = new Map([...files].slice(0, FILES_MAX));
    const parents = [...madeFiles.keys()].map((file) => file.slice(0, file.lastIndexOf("/")));
    for (const directory of ["", "base", ...new Set(parents)]) {
      Deno.mkdirSync(join(path, directory), { mode: 0o700 });
      give(join(path, directory), owner);
    }
    let count = 0;
    for (const [name, length] of madeFiles) {
      if (count++ % BATCH === 0) await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
      using file = await Deno.open(join(path, name), {
        write: true,
        createNew: true,
        mode: 0o600,
      });
      if (length > 0) file.truncateSync(length);
      give(join(path, name), owner);
    }
    this.#made = { path, files: madeFiles, owner };
  }
}
