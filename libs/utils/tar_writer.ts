/**
 * Streaming writer of tar archives, as base backups are sent.
 *
 * Content goes through one chunk buffer to a sink, so an archive of any size needs no more memory
 * than one chunk. Entries are the headers of tar.ts, their content, and zeros up to the next
 * multiple of 512. Only the owner may read what is unpacked, as PostgreSQL wants it.
 */
import { assert } from "./assert.ts";
import { tarEnd, tarHeader, tarPadding } from "./tar.ts";

/** Bytes gathered before the sink is called: one CopyData message of the page service. */
const CHUNK_BYTES = 128 * 1024;
const FILE_MODE = 0o600;
const DIRECTORY_MODE = 0o700;

/** Takes one chunk; the bytes are reused after the promise resolves. */
export type TarSink = (chunk: Uint8Array<ArrayBuffer>) => Promise<void>;

/** Writes entries in the order of the calls. Not for concurrent use. */
export class TarWriter {
  readonly #sink: TarSink;
  readonly #chunk = new Uint8Array(CHUNK_BYTES);
  #used = 0;
  /** Content bytes still owed to the entry that was begun. */
  #owed = 0;
  #size = 0;

  constructor(sink: TarSink) {
    this.#sink = sink;
  }

  /** A directory entry; `path` without a trailing slash. */
  async directory(path: string): Promise<void> {
    const entry = {
      name: `${path}/`,
      type: "directory",
      mode: DIRECTORY_MODE,
      sizeBytes: 0,
    } as const;
    await this.#write(tarHeader(entry));
  }

  /** A file with its whole content. */
  async file(path: string, content: Uint8Array): Promise<void> {
    await this.beginFile(path, content.length);
    await this.append(content);
    await this.endFile();
  }

  /** Starts a file of exactly `sizeBytes`; append() its content, then endFile(). */
  async beginFile(path: string, sizeBytes: number): Promise<void> {
    assert(this.#owed === 0, "a tar entry ends before the next begins");
    await this.#write(tarHeader({ name: path, type: "file", mode: FILE_MODE, sizeBytes }));
    this.#size = sizeBytes;
    this.#owed = sizeBytes;
  }

  /** The next part of the file that was begun; the bytes have to stay until it resolves. */
  async append(content: Uint8Array): Promise<void> {
    this.#owe(content);
    await this.#write(content);
  }

  /** Sees to it that the next `bytes` (a chunk at most) can be appended at once. */
  async makeRoom(bytes: number): Promise<void> {
    if (this.#used + bytes > CHUNK_BYTES) await this.#flush();
  }

  /**
   * As append(), for bytes that others may change as soon as the caller waits for anything: they
   * are copied when it returns. Room for them was made before.
   */
  appendNow(content: Uint8Array): void {
    assert(
      this.#used + content.length <= CHUNK_BYTES,
      "there is room for what is appended at once",
    );
    this.#owe(content);
    this.#chunk.set(content, this.#used);
    this.#used += content.length;
  }

  /** Ends the file that was begun. */
  async endFile(): Promise<void> {
    assert(this.#owed === 0, "a tar entry gets all the content that its header says");
    await this.#write(tarPadding(this.#size));
  }

  /** Two zero blocks, and everything to the sink. */
  async finish(): Promise<void> {
    await this.#write(tarEnd());
    await this.#flush();
  }

  #owe(content: Uint8Array): void {
    assert(content.length <= this.#owed, "a tar entry gets no more content than its header says");
    this.#owed -= content.length;
  }

  async #flush(): Promise<void> {
    if (this.#used === 0) return;
    await this.#sink(this.#chunk.subarray(0, this.#used));
    this.#used = 0;
  }

  async #write(bytes: Uint8Array): Promise<void> {
    let done = 0;
    while (done < bytes.length) {
      if (this.#used === CHUNK_BYTES) await this.#flush();
      const count = Math.min(bytes.length - done, CHUNK_BYTES - this.#used);
      this.#chunk.set(bytes.subarray(done, done + count), this.#used);
      this.#used += count;
      done += count;
    }
  }
}
