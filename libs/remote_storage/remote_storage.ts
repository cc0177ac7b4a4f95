/**
 * Objects somewhere else: uploads, downloads, listings and deletions on a bucket or a directory.
 *
 * All requests are idempotent and can be cancelled. What may pass is tried again, after pauses that
 * grow from 10 ms to 5 s; an attempt that takes too long counts as failed. A body that is longer or
 * shorter than announced is an error in both directions, so nothing is ever cut short silently.
 * Only so many requests are under way at once; the others wait in line.
 *
 * Throws NotFound for an object that is not there, Unavailable when all attempts failed, the
 * signal's reason when cancelled, and anything else (such as BadRequest where access is denied) at
 * the first attempt.
 */
import { dirname } from "node:path";
import { counter } from "../metrics/registry.ts";
import { fsyncDirectory } from "../utils/durable.ts";
import { messageOf, Unavailable } from "../utils/errors.ts";
import { ifThere } from "../utils/if_there.ts";
import { logger } from "../utils/log.ts";
import { writeFully } from "./async_file.ts";
import type {
  Backend,
  ByteRange,
  Incoming,
  ListPage,
  RemoteObject,
  UploadSource,
} from "./backend.ts";
import { Slots } from "./slots.ts";

const log = logger("remote_storage");

/** Pause before the second attempt; it doubles each time. */
const RETRY_FIRST_MS = 10;
const RETRY_MAX_MS = 5_000;

const requests = counter(
  "remote_storage_requests_total",
  "Attempts at requests to the remote storage",
  ["operation", "result"],
);

const transferred = counter(
  "remote_storage_bytes_total",
  "Bytes of objects that were sent to and received from the remote storage",
  ["direction"],
);

/** Limits of a remote storage. */
export interface RemoteStorageLimits {
  /** Requests under way at once. */
  readonly concurrency: number;
  /** Attempts at one request. */
  readonly attempts: number;
  /** How long one attempt may take. */
  readonly attemptMs: number;
}

/** The limits unless set otherwise: a request that fails all the time takes about five seconds. */
const DEFAULT_LIMITS: RemoteStorageLimits = {
  concurrency: 100,
  attempts: 10,
  attemptMs: 120_000,
};

type Operation = "put" | "get" | "list" | "delete";

/** Never aborted. */
const NO_SIGNAL = new AbortController().signal;

/** See the head of the file. */
export class RemoteStorage {
  readonly #backend: Backend;
  readonly #limits: RemoteStorageLimits;
  readonly #slots: Slots;

  constructor(backend: Backend, limits: Partial<RemoteStorageLimits> = {}) {
    this.#backend = backend;
    this.#limits = { ...DEFAULT_LIMITS, ...limits };
    this.#slots = new Slots(this.#limits.concurrency);
  }

  /** For messages, for example `bucket "wal"`. */
  get name(): string {
    return this.#backend.name;
  }

  /** Makes or replaces an object; it is durable when this resolves. */
  upload(key: string, source: UploadSource, signal = NO_SIGNAL): Promise<void> {
    return this.#try("put", key, signal, async (attempt) => {
      await this.#backend.put(
        key,
        { bytes: source.bytes, open: () => exactly(key, source) },
        attempt,
      );
      transferred.inc({ direction: "sent" }, source.bytes);
    });
  }

  /** An object, or a part of it, in memory. */
  read(key: string, range?: ByteRange, signal = NO_SIGNAL): Promise<Uint8Array<ArrayBuffer>> {
    return this.#try("get", key, signal, async (attempt) => {
      const incoming = await this.#backend.get(key, range, attempt);
      const bytes = new Uint8Array(incoming.bytes);
      let done = 0;
      for await (const piece of checked(key, incoming)) {
        bytes.set(piece, done);
        done += piece.length;
      }
      return bytes;
    });
  }

  /** Downloads an object into a file, which appears whole and durable or not at all. */
  download(key: string, path: string, signal = NO_SIGNAL): Promise<void> {
    const temporary = `${path}.___temp`;
    return this.#try("get", key, signal, async (attempt) => {
      const incoming = await this.#backend.get(key, undefined, attempt);
      try {
        using file = await Deno.open(temporary, { write: true, create: true, truncate: true });
        for await (const piece of checked(key, incoming)) await writeFully(file, piece);
        await file.sync();
      } catch (thrown) {
        ifThere(() => Deno.removeSync(temporary));
        throw thrown;
      }
      Deno.renameSync(temporary, path);
      fsyncDirectory(dirname(path));
    });
  }

  /** Objects whose keys begin with `prefix`, in the order of their keys. */
  async *list(prefix: string, signal = NO_SIGNAL): AsyncGenerator<RemoteObject> {
    let after: string | undefined;
    for (;;) {
      const page: ListPage = await this.#try(
        "list",
        prefix,
        signal,
        (attempt) => this.#backend.list(prefix, after, attempt),
      );
      yield* page.objects;
      if (!page.more) return;
      after = page.objects.at(-1)!.key;
    }
  }

  /** Removes objects; those that are not there are fine. */
  async delete(keys: readonly string[], signal = NO_SIGNAL): Promise<void> {
    const { keysMax } = this.#backend;
    for (let i = 0; i < keys.length; i += keysMax) {
      const some = keys.slice(i, i + keysMax);
      await this.#try("delete", some[0]!, signal, (attempt) => this.#backend.remove(some, attempt));
    }
  }

  async #try<T>(
    operation: Operation,
    key: string,
    signal: AbortSignal,
    attempt: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    for (let made = 1;; made++) {
      try {
        const result = await this.#attempt(signal, attempt);
        requests.inc({ operation, result: "ok" });
        return result;
      } catch (thrown) {
        requests.inc({ operation, result: "failed" });
        signal.throwIfAborted();
        if (!(thrown instanceof Unavailable)) throw thrown;
        if (made >= this.#limits.attempts) {
          throw new Unavailable(
            `Cannot ${operation} "${key}" in ${this.name} (${made} attempts): ${messageOf(thrown)}`,
          );
        }
        log.debug("{operation} {key}: {why}", { operation, key, why: messageOf(thrown) });
        await pause(Math.min(RETRY_FIRST_MS * 2 ** (made - 1), RETRY_MAX_MS), signal);
      }
    }
  }

  /** One attempt within its time, in its turn. */
  async #attempt<T>(
    signal: AbortSignal,
    attempt: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    await this.#slots.take(signal);
    const control = new AbortController();
    const { attemptMs } = this.#limits;
    const late = new Unavailable(`it took longer than ${attemptMs} ms`);
    const timer = setTimeout(() => control.abort(late), attemptMs);
    const cancel = () => control.abort(signal.reason);
    signal.addEventListener("abort", cancel);
    try {
      signal.throwIfAborted();
      return await attempt(control.signal);
    } catch (thrown) {
      throw control.signal.aborted ? control.signal.reason : thrown;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", cancel);
      this.#slots.give();
    }
  }
}

/** What the source gives, as long as it is what it announced. */
async function* exactly(key: string, source: UploadSource): AsyncGenerator<Uint8Array> {
  let done = 0;
  for await (const piece of source.open()) {
    done += piece.length;
    if (done > source.bytes) break;
    yield piece;
  }
  if (done === source.bytes) return;
  const how = done > source.bytes ? "there are more" : `there are ${done}`;
  throw new Error(`Cannot upload ${source.bytes} bytes as "${key}": ${how}`);
}

/** What comes in, as long as it is what was announced. */
async function* checked(key: string, incoming: Incoming): AsyncGenerator<Uint8Array> {
  let done = 0;
  for await (const piece of incoming.body) {
    done += piece.length;
    if (done > incoming.bytes) break;
    transferred.inc({ direction: "received" }, piece.length);
    yield piece;
  }
  if (done === incoming.bytes) return;
  throw new Unavailable(`"${key}" was cut: ${done} bytes of ${incoming.bytes} came`);
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      if (signal.aborted) reject(signal.reason);
      else resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener("abort", end);
  });
}
