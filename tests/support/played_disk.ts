/**
 * A disk while the notes of a FileRecorder are played on it: what of each file and directory is
 * durable, and what only the running system knows.
 *
 * Bytes are durable once their file was synced, names once their directory was. A sync that fails
 * takes its chance from what it covered: no later one makes that durable, as the kernel forgets
 * what it could not write. From any point a
 * directory can be made as a process that was stopped leaves it (everything), or as power loss
 * does: nothing that was not synced, or some of it, by pages of files and by changes of names. A
 * rename within a directory is one change.
 */
import type { Note } from "./file_recorder.ts";

const PAGE_BYTES = 4096;

/** How much of what was not synced is still there. */
type Survival = "everything" | "nothing" | "some";

/** All of them. */
export const SURVIVALS: readonly Survival[] = ["everything", "nothing", "some"];

interface File {
  readonly kind: "file";
  cached: Uint8Array;
  durable: Uint8Array;
  /** The sync that made it so. */
  sync: number;
  /** A sync has failed: nothing of it becomes durable any more. */
  isLost: boolean;
}

/** A change of a directory's names: away with one, or here is another, or both. */
interface NameChange {
  /** A sync that should have made it durable has failed. */
  isLost?: boolean;
  readonly gone?: string;
  readonly here?: { readonly name: string; readonly node: Node };
}

type Names = Map<string, Node>;

interface Directory {
  readonly kind: "directory";
  cached: Names;
  durable: Names;
  /** From the durable names to the cached ones, in order. */
  readonly changes: NameChange[];
  /** How many changes came before those. */
  settled: number;
}

type Node = File | Directory;

/** What a sync that is under way will have made durable. */
type Snapshot =
  | { readonly bytes: Uint8Array }
  | { readonly changes: number };

function newDirectory(): Directory {
  return { kind: "directory", cached: new Map(), durable: new Map(), changes: [], settled: 0 };
}

function change(directory: Directory, one: NameChange): void {
  apply(directory.cached, one);
  directory.changes.push(one);
}

function apply(names: Names, { gone, here }: NameChange): void {
  if (gone !== undefined) names.delete(gone);
  if (here !== undefined) names.set(here.name, here.node);
}

function split(path: string): [above: string, name: string] {
  const slash = path.lastIndexOf("/");
  return [path.slice(0, Math.max(slash, 0)), path.slice(slash + 1)];
}

function resized(bytes: Uint8Array, size: number): Uint8Array {
  if (size === bytes.length) return bytes;
  const other = new Uint8Array(size);
  other.set(bytes.subarray(0, size));
  return other;
}

/** See the head of the file. */
export class PlayedDisk {
  #root: Directory = newDirectory();
  readonly #handles = new Map<number, Node>();
  readonly #syncs = new Map<number, Snapshot>();

  /** The same disk once more; files that are open are not open there. */
  fork(): PlayedDisk {
    const copies = new Map<Node, Node>();
    const copyNames = (names: Names): Names =>
      new Map([...names].map(([name, node]) => [name, copy(node)]));
    const copy = (node: Node): Node => {
      const known = copies.get(node);
      if (known !== undefined) return known;
      if (node.kind === "file") {
        // Durable bytes never change; the syncs of another recording are counted anew
        const file = { ...node, cached: node.cached.slice(), sync: -1 };
        copies.set(node, file);
        return file;
      }
      const directory = newDirectory();
      copies.set(node, directory);
      directory.cached = copyNames(node.cached);
      directory.durable = copyNames(node.durable);
      for (const { gone, here, isLost = false } of node.changes) {
        const moved = here && { here: { name: here.name, node: copy(here.node) } };
        directory.changes.push({ isLost, ...(gone !== undefined && { gone }), ...moved });
      }
      return directory;
    };
    const other = new PlayedDisk();
    other.#root = copy(this.#root) as Directory;
    return other;
  }

  #directory(path: string): Directory {
    let at: Node | undefined = this.#root;
    for (const name of path === "" ? [] : path.split("/")) {
      at = at?.kind === "directory" ? at.cached.get(name) : undefined;
    }
    if (at?.kind !== "directory") throw new Error(`no directory "${path}"`);
    return at;
  }

  #file(handle: number): File {
    const node = this.#handles.get(handle);
    if (node?.kind !== "file") throw new Error(`handle ${handle} is not of a file`);
    return node;
  }

  /** The next thing that happened. */
  play(note: Note): void {
    switch (note.kind) {
      case "open":
        this.#handles.set(note.handle, this.#opened(note.path));
        break;
      case "write": {
        const file = this.#file(note.handle);
        const size = Math.max(file.cached.length, note.at + note.bytes.length);
        file.cached = resized(file.cached, size);
        file.cached.set(note.bytes, note.at);
        break;
      }
      case "resize": {
        const file = this.#file(note.handle);
        file.cached = resized(file.cached, note.size);
        break;
      }
      case "syncBegin": {
        const node = this.#handles.get(note.handle)!;
        this.#syncs.set(
          note.sync,
          node.kind === "file"
            ? { bytes: node.cached.slice() }
            : { changes: node.settled + node.changes.length },
        );
        break;
      }
      case "syncEnd":
        this.#synced(this.#handles.get(note.handle)!, note.sync);
        break;
      case "syncFailed": {
        const node = this.#handles.get(note.handle)!;
        if (node.kind === "file") node.isLost = true;
        else for (const one of node.changes) one.isLost = true;
        break;
      }
      case "rename":
        this.#rename(note.from, note.to);
        break;
      case "remove": {
        const [above, name] = split(note.path);
        const directory = this.#directory(above);
        empty(directory.cached.get(name));
        change(directory, { gone: name });
        break;
      }
      case "mkdir": {
        const [above, name] = split(note.path);
        change(this.#directory(above), { here: { name, node: newDirectory() } });
        break;
      }
    }
  }

  #opened(path: string): Node {
    if (path === "") return this.#root;
    const [above, name] = split(path);
    const directory = this.#directory(above);
    const there = directory.cached.get(name);
    if (there !== undefined) return there;
    const nothing = new Uint8Array(0);
    const node: File = { kind: "file", cached: nothing, durable: nothing, sync: -1, isLost: false };
    change(directory, { here: { name, node } });
    return node;
  }

  /** Of two syncs that overlap, the one that began later has made more durable. */
  #synced(node: Node, sync: number): void {
    const snapshot = this.#syncs.get(sync)!;
    this.#syncs.delete(sync);
    if (node.kind === "directory" && "changes" in snapshot) {
      const count = Math.max(0, snapshot.changes - node.settled);
      for (const one of node.changes.splice(0, count)) {
        if (one.isLost !== true) apply(node.durable, one);
      }
      node.settled += count;
    }
    if (node.kind === "file" && "bytes" in snapshot && sync > node.sync && !node.isLost) {
      node.durable = snapshot.bytes;
      node.sync = sync;
    }
  }

  #rename(from: string, to: string): void {
    const [fromAbove, fromName] = split(from);
    const [toAbove, toName] = split(to);
    const source = this.#directory(fromAbove);
    const node = source.cached.get(fromName)!;
    const here = { name: toName, node };
    if (fromAbove === toAbove) return change(source, { gone: fromName, here });
    change(this.#directory(toAbove), { here });
    change(source, { gone: fromName });
  }

  /** Makes in `to`, which is there and empty, what is left of the root directory. */
  leave(to: string, survival: Survival, chance: () => boolean): void {
    leaveNames(this.#root, to, survival, chance);
  }
}

/** Removing a directory removes what is in it first. */
function empty(node: Node | undefined): void {
  if (node?.kind !== "directory") return;
  for (const [name, below] of [...node.cached]) {
    empty(below);
    change(node, { gone: name });
  }
}

function leaveNames(
  directory: Directory,
  to: string,
  survival: Survival,
  chance: () => boolean,
): void {
  const names = survival === "everything" ? directory.cached : new Map(directory.durable);
  if (survival === "some") {
    for (const one of directory.changes) if (chance()) apply(names, one);
  }
  for (const [name, node] of names) {
    const path = `${to}/${name}`;
    if (node.kind === "directory") {
      Deno.mkdirSync(path);
      leaveNames(node, path, survival, chance);
    } else Deno.writeFileSync(path, left(node, survival, chance));
  }
}

function left(file: File, survival: Survival, chance: () => boolean): Uint8Array {
  if (survival === "everything") return file.cached;
  return survival === "nothing" ? file.durable : somePages(file, chance);
}

/** Some pages as they were last written, the others as they were last synced. */
function somePages({ cached, durable }: File, chance: () => boolean): Uint8Array {
  const size = chance() ? cached.length : durable.length;
  const mixed = resized(durable.slice(), size);
  for (let at = 0; at < Math.min(size, cached.length); at += PAGE_BYTES) {
    if (chance()) mixed.set(cached.subarray(at, Math.min(at + PAGE_BYTES, size)), at);
  }
  return mixed;
}
