/**
 * Whole data directories, laid out while nobody waits, for the next starts of endpoints:
 * `ready_data/<n>` in the host's directory, with the relation files of the last start at the
 * lengths they had, all of them empty. Endpoints of one host mostly resemble each other (branches
 * of one database do by nature), so that a start moves one directory in place instead of making a
 * thousand files, and then only corrects what differs. There are a few, since starts come in
 * bursts and to make one takes a quarter of a second.
 *
 * What endpoints leave that were stopped is emptied and used again, and so is what an earlier host
 * left: file systems take much longer to make files, most of all soon after others were removed
 * (ext4 does not give their inodes away for minutes, and looks at each of them every time). Work
 * that takes long is done in so much longer pauses that it takes a fifth of a processor.
 */
import { join } from "node:path";
import { messageOf } from "../libs/utils/errors.ts";
import { ifThere } from "../libs/utils/if_there.ts";
import { logger } from "../libs/utils/log.ts";
import { exists, type FileOwner, give } from "./endpoint_directory.ts";
import { SpareTime } from "./spare_time.ts";

const log = logger("compute", "ready_directories");

/** How many are made. */
const DIRECTORIES = 2;
/** How many are kept, with those that were left. */
const DIRECTORIES_MAX = 4;
/** More files than this are not worth the disk: the start makes the others itself. */
const FILES_MAX = 5000;
/** Files made in a row before others get the disk. */
const BATCH = 16;
/** The same of files that are there, of which most are only looked at. */
const BATCH_USED = 64;
const PAUSE_MS = 2;
/** While there is one left, whoever was started is left alone with its first queries. */
const REST_MS = 500;

/** Empty files by their path in the data directory, with their lengths in bytes. */
export type EmptyFiles = ReadonlyMap<string, number>;

/** What the directories are to hold, and whose they are. */
interface Plan {
  readonly files: EmptyFiles;
  readonly owner: FileOwner | undefined;
}

interface Made extends Plan {
  readonly path: string;
}

function isSameOwner(a: FileOwner | undefined, b: FileOwner | undefined): boolean {
  return a?.uid === b?.uid && a?.gid === b?.gid;
}

/** See the head of the file. */
export class ReadyDirectories {
  readonly #root: string;
  readonly #count: number;
  /** Who makes files here, if they are not given away. */
  readonly #self: FileOwner;
  /** The newest last. */
  readonly #made: Made[] = [];
  /** Of the last start. */
  #plan: Plan | undefined;
  /** Data directories of stopped endpoints, to be emptied, all of the plan's owner. */
  readonly #used: string[] = [];
  /** There is one more of these: nothing need be made. */
  #recycled = Promise.withResolvers<void>();
  #making = false;
  #next: number;
  /** Of an earlier host, or unfinished: used again or removed. */
  readonly #leftovers: Set<string>;

  /** There are to be `count`. What an earlier host left is seen to before the first is made. */
  constructor(root: string, count = DIRECTORIES) {
    this.#root = root;
    this.#count = count;
    Deno.mkdirSync(root, { recursive: true, mode: 0o700 });
    const { uid, gid } = Deno.statSync(root);
    this.#self = { uid: uid!, gid: gid! };
    const names = [...Deno.readDirSync(root)].map(({ name }) => name);
    this.#leftovers = new Set(names.map((name) => join(root, name)));
    this.#next = Math.max(0, ...names.map(Number)) + 1;
  }

  #newestOf(owner: FileOwner | undefined): number {
    return this.#made.findLastIndex((made) => isSameOwner(made.owner, owner));
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

  /**
   * Takes a data directory over whose Postgres has ended with all its processes. False if there are
   * enough, or so few that who has left it should rather keep it.
   */
  recycle(pgdata: string, owner: FileOwner | undefined): boolean {
    const plan = this.#plan;
    if (plan === undefined || !isSameOwner(plan.owner, owner) || !this.has(owner)) return false;
    if (this.#made.length + this.#used.length >= DIRECTORIES_MAX) return false;
    const path = this.#newPath();
    Deno.renameSync(pgdata, path);
    this.#used.push(path);
    this.#recycled.resolve();
    this.make(plan.files, plan.owner);
    return true;
  }

  #newPath(): string {
    return join(this.#root, String(this.#next++));
  }

  /**
   * Makes directories with these files, slowly, until there are enough; what others were doing goes
   * on with these. Never rejects.
   */
  async make(files: EmptyFiles, owner: FileOwner | undefined): Promise<void> {
    if (!isSameOwner(this.#plan?.owner, owner)) {
      for (const path of this.#used.splice(0)) this.#leftovers.add(path);
    }
    this.#plan = { files: new Map([...files].slice(0, FILES_MAX)), owner };
    if (this.#making) return;
    this.#making = true;
    try {
      for (const path of [...this.#leftovers]) {
        const isOver = this.#made.length + this.#used.length >= DIRECTORIES_MAX;
        if (isOver || !isOwnedBy(path, owner ?? this.#self)) {
          await Deno.remove(path, { recursive: true });
        } else this.#used.push(path);
        this.#leftovers.delete(path);
      }
      while (this.#used.length > 0 || this.#made.length < this.#count) {
        if (this.#made.length > 0 && this.#used.length === 0) {
          await Promise.race([sleep(REST_MS), this.#recycled.promise]);
        }
        await this.#makeOne(this.#plan);
      }
    } catch (thrown) {
      log.warning("cannot lay out a directory ahead: {why}", { why: messageOf(thrown) });
    } finally {
      this.#making = false;
    }
  }

  async #makeOne({ files, owner }: Plan): Promise<void> {
    this.#recycled = Promise.withResolvers();
    const used = this.#used.pop();
    const path = used ?? this.#newPath();
    this.#leftovers.add(path); // unless it comes to its end
    if (used !== undefined) await removeOthers(path, files);
    const parents = [...files.keys()].map((file) => file.slice(0, file.lastIndexOf("/")));
    for (const directory of ["", "base", ...new Set(parents)]) {
      if (!exists(join(path, directory))) Deno.mkdirSync(join(path, directory), { mode: 0o700 });
      give(join(path, directory), owner);
    }
    let count = 0;
    const spare = new SpareTime(PAUSE_MS);
    for (const [name, length] of files) {
      if (count++ % (used === undefined ? BATCH : BATCH_USED) === 0) {
        await spare.pause();
      }
      if (used !== undefined && isUntouched(join(path, name), length, owner ?? this.#self)) {
        continue;
      }
      const open = { write: true, create: true, truncate: true, mode: 0o600 };
      using file = await Deno.open(join(path, name), open);
      if (length > 0) file.truncateSync(length);
      give(join(path, name), owner);
    }
    this.#leftovers.delete(path);
    this.#made.push({ path, files, owner });
  }
}

/**
 * Whether a file has its length and no data. (Where a file system tells of data only later, it
 * stays and takes room; nobody reads what is in a file before its pages were fetched.)
 */
function isUntouched(path: string, length: number, owner: FileOwner): boolean {
  const info = ifThere(() => Deno.statSync(path));
  return info !== undefined && info.size === length && info.blocks === 0 && isOf(info, owner);
}

/** Whether a directory was laid out for this owner. */
function isOwnedBy(path: string, owner: FileOwner): boolean {
  const info = ifThere(() => Deno.statSync(path));
  return info !== undefined && info.isDirectory && isOf(info, owner);
}

function isOf({ uid, gid }: Deno.FileInfo, owner: FileOwner): boolean {
  return uid === owner.uid && gid === owner.gid;
}

/** Removes from a used data directory all but these files. What is no plain file goes, too. */
async function removeOthers(path: string, files: EmptyFiles): Promise<void> {
  const wanted = new Set(files.keys());
  for (const file of files.keys()) {
    for (let at = file.indexOf("/"); at >= 0; at = file.indexOf("/", at + 1)) {
      wanted.add(file.slice(0, at));
    }
  }
  const clear = async (below: string) => {
    for (const { name, isFile, isDirectory } of [...Deno.readDirSync(join(path, below))]) {
      const inside = below === "" ? name : `${below}/${name}`;
      if (isDirectory && wanted.has(inside) && !files.has(inside)) await clear(inside);
      else if (!isFile || !files.has(inside)) {
        await Deno.remove(join(path, inside), { recursive: true });
      }
    }
  };
  await clear("");
}

async function sleep(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms));
}
