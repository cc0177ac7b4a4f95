/**
 * What a program does to its files, step by step: a file layer that tests control.
 *
 * While it records, the file functions of Deno are replaced by ones that also note what they did
 * below one directory. played_disk.ts plays the notes up to any point and makes of them what a
 * stopped process or lost power leaves.
 *
 * Asynchronous functions do their work in one turn of the event loop, after a pause in which others
 * may come in between. A sync covers what was written when it was called, and counts when it ends.
 */

/** One step. Paths are relative to the root, "" is the root itself. */
export type Note =
  /** A file or directory is opened, and made if it is not there; `handle` is new. */
  | { readonly kind: "open"; readonly path: string; readonly handle: number }
  | {
    readonly kind: "write";
    readonly handle: number;
    readonly at: number;
    readonly bytes: Uint8Array;
  }
  | { readonly kind: "resize"; readonly handle: number; readonly size: number }
  /** What the file, or the directory's names, are now will be durable at the end of the sync. */
  | { readonly kind: "syncBegin"; readonly handle: number; readonly sync: number }
  | { readonly kind: "syncEnd"; readonly handle: number; readonly sync: number }
  /** What was written to it since its last sync will never be durable, whatever is synced later. */
  | { readonly kind: "syncFailed"; readonly handle: number }
  | { readonly kind: "rename"; readonly from: string; readonly to: string }
  /** A file, or a directory with all that is in it. */
  | { readonly kind: "remove"; readonly path: string }
  | { readonly kind: "mkdir"; readonly path: string };

interface OpenFile {
  readonly handle: number;
  readonly path: string;
  position: number;
}

const NAMES = [
  "openSync",
  "open",
  "renameSync",
  "rename",
  "removeSync",
  "remove",
  "mkdirSync",
  "mkdir",
] as const;

const METHODS = [
  "writeSync",
  "write",
  "seekSync",
  "seek",
  "truncateSync",
  "truncate",
  "syncSync",
  "sync",
  "syncDataSync",
  "syncData",
] as const;

function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}

function picked<T extends object, K extends keyof T>(from: T, names: readonly K[]): Pick<T, K> {
  return Object.fromEntries(names.map((name) => [name, from[name]])) as Pick<T, K>;
}

/** Notes what happens to the files below a directory, from `begin` to `end`. */
export class FileRecorder {
  readonly notes: Note[] = [];
  /** Whether a sync of what was opened under this path fails. */
  failsSync: (path: string) => boolean = () => false;
  readonly #root: string;
  readonly #open = new WeakMap<Deno.FsFile, OpenFile>();
  #handles: number;
  #syncs = 0;
  #restore: () => void = () => {};

  /** `firstHandle` lies above all handles of an earlier recording that is played on. */
  constructor(root: string, firstHandle = 0) {
    this.#root = root;
    this.#handles = firstHandle;
  }

  /** Above all handles that it has given. */
  get nextHandle(): number {
    return this.#handles;
  }

  /** Notes what `work` does with files, up to its end. */
  async during<Result>(work: () => Promise<Result> | Result): Promise<Result> {
    this.#begin();
    try {
      return await work();
    } finally {
      this.#restore();
    }
  }

  /** Replaces the file functions. */
  #begin(): void {
    const functions = picked(Deno, NAMES);
    const { prototype } = Deno.FsFile;
    const methods = picked(prototype, METHODS);
    this.#restore = () => {
      Object.assign(Deno, functions);
      Object.assign(prototype, methods);
    };
    this.#replaceNames(functions);
    this.#replaceMethods(methods);
  }

  /** The path from the root; undefined for files that are not below it. */
  #relative(path: string | URL): string | undefined {
    const text = String(path);
    if (text !== this.#root && !text.startsWith(`${this.#root}/`)) return undefined;
    return text.slice(this.#root.length + 1).replace(/\/+$/, "");
  }

  #replaceNames(real: Pick<typeof Deno, typeof NAMES[number]>): void {
    const { notes } = this;
    Deno.openSync = (path, options) => {
      const opened = real.openSync(path, options);
      const ours = this.#relative(path);
      if (ours !== undefined) this.#opened(ours, opened, options ?? {});
      return opened;
    };
    Deno.renameSync = (from, to) => {
      real.renameSync(from, to);
      const ours = this.#relative(from);
      if (ours !== undefined) notes.push({ kind: "rename", from: ours, to: this.#relative(to)! });
    };
    Deno.removeSync = (path, options) => {
      real.removeSync(path, options);
      const ours = this.#relative(path);
      if (ours !== undefined) notes.push({ kind: "remove", path: ours });
    };
    Deno.mkdirSync = (path, options) => {
      if (options?.recursive) throw new Error("makeDirectory() is the way to make directories");
      real.mkdirSync(path, options);
      const ours = this.#relative(path);
      if (ours !== undefined) notes.push({ kind: "mkdir", path: ours });
    };
    Deno.open = async (path, options) => (await turn(), Deno.openSync(path, options));
    Deno.rename = async (from, to) => (await turn(), Deno.renameSync(from, to));
    Deno.remove = async (path, options) => (await turn(), Deno.removeSync(path, options));
    Deno.mkdir = async (path, options) => (await turn(), Deno.mkdirSync(path, options));
  }

  #opened(path: string, opened: Deno.FsFile, options: Deno.OpenOptions): void {
    const handle = this.#handles++;
    if (options.append) throw new Error("files are not opened to append");
    this.notes.push({ kind: "open", path, handle });
    if (options.truncate) this.notes.push({ kind: "resize", handle, size: 0 });
    this.#open.set(opened, { handle, path, position: 0 });
  }

  #replaceMethods(real: Pick<Deno.FsFile, typeof METHODS[number]>): void {
    const { prototype } = Deno.FsFile;
    const { notes } = this;
    const opened = this.#open;
    const begin = (file: Deno.FsFile) => this.#syncBegins(file);
    prototype.writeSync = function (bytes) {
      const count = real.writeSync.call(this, bytes);
      const open = opened.get(this);
      if (open !== undefined) {
        const kept = bytes.slice(0, count);
        notes.push({ kind: "write", handle: open.handle, at: open.position, bytes: kept });
        open.position += count;
      }
      return count;
    };
    prototype.seekSync = function (offset, whence) {
      const at = real.seekSync.call(this, offset, whence);
      const open = opened.get(this);
      if (open !== undefined) open.position = at;
      return at;
    };
    prototype.truncateSync = function (size) {
      real.truncateSync.call(this, size);
      const open = opened.get(this);
      if (open !== undefined) notes.push({ kind: "resize", handle: open.handle, size: size ?? 0 });
    };
    prototype.syncSync = prototype.syncDataSync = function () {
      begin(this)();
    };
    prototype.sync = prototype.syncData = async function () {
      const end = begin(this);
      await turn();
      end();
    };
    prototype.write = async function (bytes) {
      return (await turn(), this.writeSync(bytes));
    };
    prototype.seek = async function (offset, whence) {
      return this.seekSync(offset, whence);
    };
    prototype.truncate = async function (size) {
      return this.truncateSync(size);
    };
  }

  /** Returns what its end calls. Nothing is really synced: the notes are all that counts. */
  #syncBegins(file: Deno.FsFile): () => void {
    const open = this.#open.get(file);
    if (open === undefined) return () => {};
    const { handle, path } = open;
    if (this.failsSync(path)) {
      this.notes.push({ kind: "syncFailed", handle });
      throw new Error("Input/output error (os error 5)");
    }
    const sync = this.#syncs++;
    this.notes.push({ kind: "syncBegin", handle, sync });
    return () => void this.notes.push({ kind: "syncEnd", handle, sync });
  }
}
