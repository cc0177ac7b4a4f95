/**
 * What a remote storage has to be able to do: one attempt at one request. Retries, limits and
 * checks of lengths are the same for all of them (remote_storage.ts).
 *
 * Every request may be repeated without harm. It throws NotFound for an object that is not there,
 * Unavailable for what may go away by itself, anything else for what will not.
 */

/** Bytes that can be read as often as an upload is tried. */
export interface UploadSource {
  /** How many there are, exactly. */
  readonly bytes: number;
  /** Reads them from the first one on; whoever stops early returns the iterator. */
  open(): AsyncIterable<Uint8Array>;
}

/** A part of an object: positions of its first byte and behind its last. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

/** An object, or a part of it, on its way here. */
export interface Incoming {
  /** Bytes that are to come. */
  readonly bytes: number;
  readonly body: AsyncIterable<Uint8Array>;
}

/** An object as a listing shows it. */
export interface RemoteObject {
  readonly key: string;
  readonly bytes: number;
}

/** Some of the objects of a listing, in the order of their keys. */
export interface ListPage {
  readonly objects: readonly RemoteObject[];
  /** There are more behind the last one. */
  readonly more: boolean;
}

/** One kind of remote storage. Keys are parts with "/" between them, as in S3. */
export interface Backend {
  /** For messages, for example `bucket "wal"`. */
  readonly name: string;
  /** Most keys that remove() takes at once. */
  readonly keysMax: number;
  /** Makes or replaces an object: it appears whole, and then lasts, or not at all. */
  put(key: string, source: UploadSource, signal: AbortSignal): Promise<void>;
  get(key: string, range: ByteRange | undefined, signal: AbortSignal): Promise<Incoming>;
  /** Objects whose keys begin with `prefix` and come behind `after`. */
  list(prefix: string, after: string | undefined, signal: AbortSignal): Promise<ListPage>;
  /** Removes objects; those that are not there are fine. */
  remove(keys: readonly string[], signal: AbortSignal): Promise<void>;
}
