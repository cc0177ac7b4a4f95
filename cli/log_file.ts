/**
 * A log file that is read from its end and followed. It may not be there yet, be renamed and begun
 * anew (the rest of the old one is read first), or be cut to nothing in place.
 */
import { ifThere } from "../libs/utils/if_there.ts";

/** First look at the end of a file; doubled until enough is found. */
const TAIL_BYTES = 64 * 1024;
/** What is read at once while following. */
const CHUNK_BYTES = 256 * 1024;
const NEWLINE = 10;

/** One file. */
export class LogFile {
  readonly path: string;
  #file: Deno.FsFile | undefined;
  #inode: number | null = null;
  #at = 0;
  /** The beginning of a line whose end is not written yet. */
  #partial: Uint8Array = new Uint8Array(0);

  constructor(path: string) {
    this.path = path;
  }

  /** The last lines, as many as `isEnough` wants; added() goes on behind them. */
  tail(isEnough: (lines: string[]) => boolean): string[] {
    this.#open();
    if (this.#file === undefined) return [];
    const { size } = this.#file.statSync();
    for (let want = TAIL_BYTES;; want *= 2) {
      this.#at = Math.max(0, size - want);
      this.#partial = new Uint8Array(0);
      const lines = this.#read();
      if (want < size) lines.shift(); // it may have begun further up
      if (want >= size || isEnough(lines)) return lines;
    }
  }

  /** The lines that were added since the last call. */
  added(): string[] {
    const lines = this.#read();
    const now = ifThere(() => Deno.statSync(this.path));
    if (now === undefined || now.ino === this.#inode) return lines;
    this.close(); // begun anew under its name
    return [...lines, ...this.#read()];
  }

  close(): void {
    this.#file?.close();
    this.#file = undefined;
  }

  #open(): void {
    if (this.#file !== undefined) return;
    this.#file = ifThere(() => Deno.openSync(this.path, { read: true }));
    this.#inode = this.#file?.statSync().ino ?? null;
    this.#at = 0;
    this.#partial = new Uint8Array(0);
  }

  #read(): string[] {
    this.#open();
    const file = this.#file;
    if (file === undefined) return [];
    if (file.statSync().size < this.#at) {
      this.#at = 0; // cut in place
      this.#partial = new Uint8Array(0);
    }
    file.seekSync(this.#at, Deno.SeekMode.Start);
    const lines: string[] = [];
    const chunk = new Uint8Array(CHUNK_BYTES);
    for (let count = file.readSync(chunk); count !== null; count = file.readSync(chunk)) {
      this.#at += count;
      const bytes = new Uint8Array(this.#partial.length + count);
      bytes.set(this.#partial);
      bytes.set(chunk.subarray(0, count), this.#partial.length);
      const end = bytes.lastIndexOf(NEWLINE) + 1;
      if (end > 0) lines.push(...new TextDecoder().decode(bytes.subarray(0, end - 1)).split("\n"));
      this.#partial = bytes.subarray(end);
    }
    return lines;
  }
}
