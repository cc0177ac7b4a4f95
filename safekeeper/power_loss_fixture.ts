/**
 * What is left of a directory after power was lost at any moment: a file layer that tests control.
 *
 * While it records, the synchronous file functions of Deno are replaced by ones that also note what
 * they did below one directory. Afterwards the notes are played up to any point: bytes are durable
 * once their file was synced, names once their directory was. From there a directory is made as a
 * disk might have kept it: everything, nothing that was not synced, or some of it, by pages and by
 * names.
 */
import { dirname } from "node:path";

const PAGE_BYTES = 4096;

/** How much of what was not synced is still there. */
export type Survival = "everything" | "nothing" | "some";

type Note =
  | { readonly kind: "create"; readonly path: string; readonly file: number }
  | {
    readonly kind: "write";
    readonly file: number;
    readonly at: number;
    readonly bytes: Uint8Array;
  }
  | { readonly kind: "resize"; readonly file: number; readonly size: number }
  | { readonly kind: "sync"; readonly file: number }
  | { readonly kind: "rename"; readonly from: string; readonly to: string }
  | { readonly kind: "remove"; readonly path: string }
  | { readonly kind: "directory"; readonly path: string }
  | { readonly kind: "syncDirectory"; readonly path: string };

interface OpenFile {
  readonly file: number;
  position: number;
}

/** Notes what happens to the files below a directory, from `begin` to `end`. */
export class FileRecorder {
  readonly notes: Note[] = [];
  readonly #root: string;
  readonly #files = new Map<string, number>();
  readonly #open = new WeakMap<Deno.FsFile, OpenFile>();
  readonly #directories = new WeakMap<Deno.FsFile, string>();
  #count = 0;
  #restore: () => void = () => {};

  constructor(root: string) {
    this.#root = root;
  }

  /** Replaces the file functions. */
  begin(): void {
    const { openSync, renameSync, removeSync, mkdirSync, FsFile: { prototype } } = Deno;
    const { writeSync, seekSync, truncateSync, syncSync, syncDataSync, syncData } = prototype;
    this.#restore = () => {
      Object.assign(Deno, { openSync, renameSync, removeSync, mkdirSync });
      Object.assign(prototype, {
        writeSync,
        seekSync,
        truncateSync,
        syncSync,
        syncDataSync,
        syncData,
      });
    };
    this.#replaceNames(openSync, renameSync, removeSync, mkdirSync);
    const opened = this.#open;
    const { notes } = this;
    const synced = (file: Deno.FsFile) => this.#synced(file);
    prototype.writeSync = function (bytes) {
      const count = writeSync.call(this, bytes);
      const open = opened.get(this);
      if (open !== undefined) {
        const kept = bytes.slice(0, count);
        notes.push({ kind: "write", file: open.file, at: open.position, bytes: kept });
        open.position += count;
      }
      return count;
    };
    prototype.seekSync = function (offset, whence) {
      const at = seekSync.call(this, offset, whence);
      const open = opened.get(this);
      if (open !== undefined) open.position = at;
      return at;
    };
    prototype.truncateSync = function (size) {
      truncateSync.call(this, size);
      const open = opened.get(this);
      if (open !== undefined) notes.push({ kind: "resize", file: open.file, size: size ?? 0 });
    };
    prototype.syncSync = function () {
      syncSync.call(this);
      synced(this);
    };
    prototype.syncDataSync = function () {
      syncDataSync.call(this);
      synced(this);
    };
    // In place: what is written while an asynchronous one is under way would count as synced
    prototype.syncData = async function () {
      syncDataSync.call(this);
      synced(this);
    };
  }

  #replaceNames(
    openSync: typeof Deno.openSync,
    renameSync: typeof Deno.renameSync,
    removeSync: typeof Deno.removeSync,
    mkdirSync: typeof Deno.mkdirSync,
  ): void {
    const isOurs = (path: string | URL) => String(path).startsWith(this.#root);
    Deno.openSync = (path, options) => {
      const opened = openSync(path, options);
      if (isOurs(path)) this.#opened(String(path), opened, options ?? {});
      return opened;
    };
    Deno.renameSync = (from, to) => {
      renameSync(from, to);
      if (!isOurs(from)) return;
      this.notes.push({ kind: "rename", from: String(from), to: String(to) });
      this.#files.set(String(to), this.#files.get(String(from))!);
      this.#files.delete(String(from));
    };
    Deno.removeSync = (path, options) => {
      removeSync(path, options);
      if (!isOurs(path)) return;
      this.notes.push({ kind: "remove", path: String(path) });
      this.#files.delete(String(path));
    };
    Deno.mkdirSync = (path, options) => {
      mkdirSync(path, options);
      if (isOurs(path)) this.notes.push({ kind: "directory", path: String(path) });
    };
  }

  #opened(path: string, opened: Deno.FsFile, options: Deno.OpenOptions): void {
    if (opened.statSync().isDirectory) {
      this.#directories.set(opened, path);
      return;
    }
    let file = this.#files.get(path);
    if (file === undefined) {
      file = this.#count++;
      this.#files.set(path, file);
      this.notes.push({ kind: "create", path, file });
    } else if (options.truncate) this.notes.push({ kind: "resize", file, size: 0 });
    this.#open.set(opened, { file, position: 0 });
  }

  #synced(opened: Deno.FsFile): void {
    const path = this.#directories.get(opened);
    if (path !== undefined) this.notes.push({ kind: "syncDirectory", path });
    const open = this.#open.get(opened);
    if (open !== undefined) this.notes.push({ kind: "sync", file: open.file });
  }

  /** Puts Deno's own functions back. */
  end(): void {
    this.#restore();
  }
}

interface Content {
  cached: Uint8Array;
  durable: Uint8Array;
}

/** The disk while the notes are played. */
export class PlayedDisk {
  readonly #files: Content[] = [];
  /** Which file has a name: now, and after a crash. */
  readonly #cachedNames = new Map<string, number>();
  readonly #durableNames = new Map<string, number>();
  readonly #directories = new Set<string>();

  /** The next thing that happened. */
  play(note: Note): void {
    switch (note.kind) {
      case "create":
        this.#files[note.file] = { cached: new Uint8Array(0), durable: new Uint8Array(0) };
        this.#cachedNames.set(note.path, note.file);
        break;
      case "write": {
        const content = this.#files[note.file]!;
        const size = Math.max(content.cached.length, note.at + note.bytes.length);
        content.cached = resized(content.cached, size);
        content.cached.set(note.bytes, note.at);
        break;
      }
      case "resize": {
        const content = this.#files[note.file]!;
        content.cached = resized(content.cached, note.size);
        break;
      }
      case "sync": {
        const content = this.#files[note.file]!;
        content.durable = content.cached.slice();
        break;
      }
      case "rename":
        this.#cachedNames.set(note.to, this.#cachedNames.get(note.from)!);
        this.#cachedNames.delete(note.from);
        break;
      case "remove":
        this.#cachedNames.delete(note.path);
        break;
      case "directory":
        this.#directories.add(note.path);
        break;
      case "syncDirectory":
        for (const path of new Set([...this.#cachedNames.keys(), ...this.#durableNames.keys()])) {
          if (dirname(path) === note.path) settle(this.#cachedNames, this.#durableNames, path);
        }
        break;
    }
  }

  /** Makes a directory `to` as power loss would leave what is below `root`. */
  leave(root: string, to: string, survival: Survival, chance: () => boolean): void {
    const names = new Map(this.#durableNames);
    const paths = new Set([...this.#cachedNames.keys(), ...this.#durableNames.keys()]);
    for (const path of paths) {
      if (survival === "everything" || (survival === "some" && chance())) {
        settle(this.#cachedNames, names, path);
      }
    }
    for (const path of this.#directories) {
      Deno.mkdirSync(path.replace(root, to), { recursive: true });
    }
    for (const [path, file] of names) {
      const content = this.#files[file]!;
      const bytes = survival === "everything"
        ? content.cached
        : survival === "nothing"
        ? content.durable
        : somePages(content, chance);
      Deno.writeFileSync(path.replace(root, to), bytes);
    }
  }
}

function settle(from: Map<string, number>, to: Map<string, number>, path: string): void {
  const file = from.get(path);
  if (file === undefined) to.delete(path);
  else to.set(path, file);
}

function resized(bytes: Uint8Array, size: number): Uint8Array {
  if (size === bytes.length) return bytes;
  const other = new Uint8Array(size);
  other.set(bytes.subarray(0, size));
  return other;
}

/** Some pages as they were last written, the others as they were last synced. */
function somePages({ cached, durable }: Content, chance: () => boolean): Uint8Array {
  const size = chance() ? cached.length : durable.length;
  const mixed = resized(durable.slice(), size);
  for (let at = 0; at < Math.min(size, cached.length); at += PAGE_BYTES) {
    if (chance()) mixed.set(cached.subarray(at, Math.min(at + PAGE_BYTES, size)), at);
  }
  return mixed;
}
