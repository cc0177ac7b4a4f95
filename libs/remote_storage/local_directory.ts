/**
 * A directory as remote storage: one file an object, the parts of its key are directories.
 *
 * An object is written to a file of its own below `.___temp`, synced, and renamed into place, and
 * the directory is synced: it appears whole and stays. It is synced piece by piece, so that others
 * who sync on the same disk wait for a piece and not for all of it. What a crash leaves in
 * `.___temp` is removed when the storage is opened the next time, once it is a day old (somebody
 * else may be writing).
 */
import { dirname, join } from "node:path";
import { makeDirectory } from "../utils/durable.ts";
import { BadRequest, messageOf, NotFound, Unavailable } from "../utils/errors.ts";
import { FILE_PIECE_BYTES, writeFully } from "./async_file.ts";
import type {
  Backend,
  ByteRange,
  Incoming,
  ListPage,
  RemoteObject,
  UploadSource,
} from "./backend.ts";

const TEMPORARY = ".___temp";
const TEMPORARY_AGE_MS = 24 * 60 * 60 * 1000;

/** Written and synced at a time. */
const SYNC_BYTES = 256 * 1024;

/** See the head of the file. */
export class LocalDirectory implements Backend {
  readonly name: string;
  readonly keysMax = 1000;
  readonly #root: string;

  /** `root` is made on the first upload. `nowMs` tells which unfinished files are old. */
  constructor(root: string, nowMs: number) {
    this.#root = root;
    this.name = `the directory "${root}"`;
    removeOldTemporaries(join(root, TEMPORARY), nowMs);
  }

  async put(key: string, source: UploadSource, signal: AbortSignal): Promise<void> {
    const path = this.#path(key);
    const temporary = join(this.#root, TEMPORARY, crypto.randomUUID());
    try {
      makeDirectory(dirname(temporary));
      makeDirectory(dirname(path));
      await writeDurably(temporary, source, signal);
      await Deno.rename(temporary, path);
      await syncDirectory(dirname(path));
    } catch (thrown) {
      await Deno.remove(temporary).catch(() => {});
      // A directory that somebody has just removed as empty is made again by the next attempt.
      if (thrown instanceof Deno.errors.NotFound) throw new Unavailable(messageOf(thrown));
      throw this.#error(thrown);
    }
  }

  async get(key: string, range: ByteRange | undefined, signal: AbortSignal): Promise<Incoming> {
    const path = this.#path(key);
    try {
      const { size, isFile } = await Deno.stat(path);
      if (!isFile) throw new NotFound(`Cannot find "${key}" in ${this.name}`);
      const { start, end } = range ?? { start: 0, end: size };
      if (end > size) {
        throw new BadRequest(`Cannot read "${key}" up to byte ${end}: it has ${size}`);
      }
      return { bytes: end - start, body: readPieces(path, start, end, signal) };
    } catch (thrown) {
      const { NotFound: Missing, NotADirectory } = Deno.errors;
      if (!(thrown instanceof Missing || thrown instanceof NotADirectory)) {
        throw this.#error(thrown);
      }
      throw new NotFound(`Cannot find "${key}" in ${this.name}`);
    }
  }

  async list(prefix: string, after: string | undefined): Promise<ListPage> {
    const above = prefix.slice(0, prefix.lastIndexOf("/") + 1);
    const objects: RemoteObject[] = [];
    try {
      for await (const object of this.#walk(above)) {
        const { key } = object;
        if (key.startsWith(prefix) && (after === undefined || key > after)) objects.push(object);
      }
    } catch (thrown) {
      if (!(thrown instanceof Deno.errors.NotFound)) throw this.#error(thrown);
    }
    objects.sort((a, b) => a.key < b.key ? -1 : 1);
    return { objects, more: false };
  }

  async *#walk(above: string): AsyncGenerator<RemoteObject> {
    for await (const entry of Deno.readDir(join(this.#root, above))) {
      const key = above + entry.name;
      if (key === TEMPORARY) continue;
      if (entry.isDirectory) yield* this.#walk(`${key}/`);
      else yield { key, bytes: (await Deno.stat(join(this.#root, key))).size };
    }
  }

  async remove(keys: readonly string[]): Promise<void> {
    const directories = new Set<string>();
    try {
      for (const key of keys) {
        const path = this.#path(key);
        await Deno.remove(path).catch((thrown) => {
          if (!(thrown instanceof Deno.errors.NotFound)) throw thrown;
        });
        directories.add(dirname(path));
      }
      for (const directory of directories) await this.#tidy(directory);
    } catch (thrown) {
      throw this.#error(thrown);
    }
  }

  /** Makes removals in a directory durable, and removes it and its parents where nothing is left. */
  async #tidy(directory: string): Promise<void> {
    for (let at = directory; at.length > this.#root.length; at = dirname(at)) {
      try {
        await syncDirectory(at);
        await Deno.remove(at);
      } catch (thrown) {
        if (!(thrown instanceof Deno.errors.NotFound)) return; // not empty
      }
    }
  }

  #path(key: string): string {
    const wrong = key.split("/").some((part) => part === "" || part === "." || part === "..");
    if (wrong || key.includes("\0") || key.startsWith(TEMPORARY)) {
      throw new BadRequest(`Cannot use "${key}" as a key`);
    }
    return join(this.#root, key);
  }

  #error(thrown: unknown): unknown {
    const ours = thrown instanceof NotFound || thrown instanceof BadRequest;
    if (ours || !(thrown instanceof Error) || thrown.name === "Error") return thrown;
    const { PermissionDenied, NotCapable, NotADirectory } = Deno.errors;
    const lasting = [PermissionDenied, NotCapable, NotADirectory]
      .some((kind) => thrown instanceof kind);
    const message = `Cannot use ${this.name}: ${messageOf(thrown)}`;
    return lasting ? new BadRequest(message) : new Unavailable(message);
  }
}

async function writeDurably(
  path: string,
  source: UploadSource,
  signal: AbortSignal,
): Promise<void> {
  using file = await Deno.open(path, { write: true, createNew: true });
  let unsynced = 0;
  for await (const piece of source.open()) {
    signal.throwIfAborted();
    await writeFully(file, piece);
    unsynced += piece.length;
    if (unsynced < SYNC_BYTES) continue;
    await file.syncData();
    unsynced = 0;
  }
  await file.sync();
}

async function* readPieces(
  path: string,
  start: number,
  end: number,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  using file = await Deno.open(path);
  await file.seek(start, Deno.SeekMode.Start);
  for (let at = start; at < end;) {
    signal.throwIfAborted();
    const piece = new Uint8Array(Math.min(FILE_PIECE_BYTES, end - at));
    const count = await file.read(piece);
    if (count === null) return;
    at += count;
    yield piece.subarray(0, count);
  }
}

async function syncDirectory(path: string): Promise<void> {
  using directory = await Deno.open(path);
  await directory.sync();
}

function removeOldTemporaries(directory: string, nowMs: number): void {
  try {
    for (const { name } of Deno.readDirSync(directory)) {
      const path = join(directory, name);
      const modified = Deno.statSync(path).mtime?.getTime() ?? nowMs;
      if (nowMs - modified > TEMPORARY_AGE_MS) Deno.removeSync(path);
    }
  } catch (thrown) {
    if (!(thrown instanceof Deno.errors.NotFound)) throw thrown;
  }
}
