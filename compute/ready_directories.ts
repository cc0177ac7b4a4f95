/**
 * Whole data directories, laid out while nobody waits, for the next starts of endpoints:
 * `ready_data/<n>` in the host's directory, with the relation files of the last start at the
 * lengths they had, all of them empty. Endpoints of one host mostly resemble each other (branches
 * of one database do by nature), so that a start moves one directory in place instead of making a
 * thousand files, and then only corrects what differs. There are a few, since starts come in
 * bursts and to make one takes a quarter of a second.
 */
import { join } from "node:path";
import { messageOf } from "../libs/utils/errors.ts";
import { logger } from "../libs/utils/log.ts";
import { type FileOwner, give } from "./endpoint_directory.ts";

const log = logger("compute", "ready_directories");

/** How many are kept. */
const DIRECTORIES = 3;
/** More files than this are not worth the disk: the start makes the others itself. */
const FILES_MAX = 5000;
/** Files made in a row before others get the disk. */
const BATCH = 16;
const PAUSE_MS = 2;
/** While there is one left, whoever was started is left alone with its first queries. */
const REST_MS = 500;

/** Empty files by their path in the data directory, with their lengths in bytes. */
export type EmptyFiles = ReadonlyMap<string, number>;

interface Made {
  readonly path: string;
  readonly files: EmptyFiles;
  readonly owner: FileOwner | undefined;
}

/** See the head of the file. */
export class ReadyDirectories {
  readonly #root: string;
  readonly #count: number;
  /** The newest last. */
  readonly #made: Made[] = [];
  #making = false;
  #next: number;
  /** What an earlier host has left: nobody knows what is in it. */
  #leftovers: string[];

  /** There are to be `count`. What an earlier host left is removed before the first is made. */
  constructor(root: string, count = DIRECTORIES) {
    this.#root = root;
    this.#count = count;
    Deno.mkdirSync(root, { recursive: true, mode: 0o700 });
    this.#leftovers = [...Deno.readDirSync(root)].map(({ name }) => name);
    this.#next = Math.max(0, ...this.#leftovers.map(Number)) + 1;
  }

  #newestOf(owner: FileOwner | undefined): number {
    return this.#made.findLastIndex((made) =>
      made.owner?.uid === owner?.uid && made.owner?.gid === owner?.gid
    );
  }

  /** Whether there is one for this owner. */
  has(owner: FileOwner | undefined): boolean {
    return this.#newestOf(owner) >= 0;
  }

  /** Moves one to `pgdata`, where nothing may be; undefined if there is none for this owner. */
  take(pgdata: string, owner: FileOwner | undefined): EmptyFiles | undefined {
    const at = this.#newestOf(owner);
    if (at < 0) return undefined;
    const [made] = this.#made.splice(at, 1);
    Deno.renameSync(made!.path, pgdata);
    return made!.files;
  }

  /** Makes directories with these files, slowly, until there are enough. Never rejects. */
  async make(files: EmptyFiles, owner: FileOwner | undefined): Promise<void> {
    if (this.#making) return;
    this.#making = true;
    try {
      for (const name of this.#leftovers.splice(0)) {
        await Deno.remove(join(this.#root, name), { recursive: true });
      }
      while (this.#made.length < this.#count) {
        if (this.#made.length > 0) await sleep(REST_MS);
        this.#made.push(await this.#make(files, owner));
      }
    } catch (thrown) {
      log.warning("cannot lay out a directory ahead: {why}", { why: messageOf(thrown) });
    } finally {
      this.#making = false;
    }
  }

  async #make(files: EmptyFiles, owner: FileOwner | undefined): Promise<Made> {
    const path = join(this.#root, String(this.#next++));
    const madeFiles = new Map([...files].slice(0, FILES_MAX));
    const parents = [...madeFiles.keys()].map((file) => file.slice(0, file.lastIndexOf("/")));
    for (const directory of ["", "base", ...new Set(parents)]) {
      Deno.mkdirSync(join(path, directory), { mode: 0o700 });
      give(join(path, directory), owner);
    }
    let count = 0;
    for (const [name, length] of madeFiles) {
      if (count++ % BATCH === 0) await sleep(PAUSE_MS);
      using file = await Deno.open(join(path, name), {
        write: true,
        createNew: true,
        mode: 0o600,
      });
      if (length > 0) file.truncateSync(length);
      give(join(path, name), owner);
    }
    return { path, files: madeFiles, owner };
  }
}

async function sleep(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms));
}
