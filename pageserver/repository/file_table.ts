/**
 * Read handles of layer files, at most `handlesMax` open at a time.
 *
 * A LayerFile is opened at its first read and closed by a clock sweep when the limit is reached;
 * the next read opens it again. Positional reads (pread) leave no seek state, so one handle serves
 * all readers. File ids are never reused, so cached pages of a removed file simply age out.
 */
import { closeSync, openSync, read, readSync } from "node:fs";
import { assert } from "../../libs/utils/assert.ts";
import { Corrupt } from "../../libs/utils/errors.ts";
import { isOutOfDescriptors } from "./durable_async.ts";

/** One immutable (or append-only) file that pages are read from. */
export interface LayerFile {
  readonly id: number;
  /** Changes once, when a finished layer gets its name. */
  path: string;
  /** The open descriptor, or -1. */
  descriptor: number;
  /** Read since the clock hand last passed. */
  recent: boolean;
}

/** The open handles. */
export class FileTable {
  readonly #handlesMax: number;
  readonly #open: LayerFile[] = [];
  /** Of descriptors that readLater() uses: reads under way, and which to close after the last. */
  readonly #reading = new Map<number, number>();
  readonly #closeLater = new Set<number>();
  #hand = 0;
  #nextId = 1;
  /** How often a handle had to be opened. */
  opens = 0;

  constructor(handlesMax: number) {
    assert(handlesMax > 0, "at least one handle");
    this.#handlesMax = handlesMax;
  }

  /** Handles open now. */
  get openCount(): number {
    return this.#open.length;
  }

  /** Files that are read from by other threads now. */
  get readCount(): number {
    return this.#reading.size;
  }

  /** Registers a file; opens nothing yet. */
  register(path: string): LayerFile {
    return { id: this.#nextId++, path, descriptor: -1, recent: false };
  }

  /**
   * Fills into[at, at + length) from `position`. Throws Corrupt if the file ends before that or is
   * not there, naming it.
   */
  readExactly(
    file: LayerFile,
    position: number,
    length: number,
    into: Uint8Array,
    at: number,
  ): void {
    if (file.descriptor < 0) this.#openFile(file);
    file.recent = true;
    let done = 0;
    while (done < length) {
      const count = readSync(file.descriptor, into, at + done, length - done, position + done);
      if (count === 0) {
        throw new Corrupt(
          `Cannot read ${length} bytes at ${position} of "${file.path}": the file ends before`,
        );
      }
      done += count;
    }
  }

  /**
   * Fills into[at, at + length) from `position` while others work, and then tells whether it could:
   * who reads ahead needs no reason. The handle that it uses stays open until then.
   */
  readLater(
    file: LayerFile,
    position: number,
    length: number,
    into: Uint8Array,
    at: number,
    done: (isRead: boolean) => void,
  ): void {
    const { descriptor } = file;
    assert(descriptor >= 0, "only a file that was read from is read ahead of");
    file.recent = true;
    this.#reading.set(descriptor, (this.#reading.get(descriptor) ?? 0) + 1);
    read(descriptor, into, at, length, position, (error, count) => {
      const left = this.#reading.get(descriptor)! - 1;
      if (left > 0) {
        this.#reading.set(descriptor, left);
      } else {
        this.#reading.delete(descriptor);
        if (this.#closeLater.delete(descriptor)) closeSync(descriptor);
      }
      done(!error && count === length);
    });
  }

  /** Closes the file's handle, if any; where it is still read from, after that. */
  release(file: LayerFile): void {
    const index = this.#open.indexOf(file);
    if (index < 0) return;
    this.#open.splice(index, 1);
    if (this.#reading.has(file.descriptor)) this.#closeLater.add(file.descriptor);
    else closeSync(file.descriptor);
    file.descriptor = -1;
  }

  #openFile(file: LayerFile): void {
    if (this.#open.length >= this.#handlesMax) this.#evict();
    for (;;) {
      try {
        file.descriptor = openSync(file.path, "r");
        break;
      } catch (thrown) {
        if ((thrown as { code?: string }).code === "ENOENT") {
          throw new Corrupt(`Cannot read layer file "${file.path}": it is missing`);
        }
        // Out of descriptors, another one of ours goes
        if (!isOutOfDescriptors(thrown) || this.#open.length === 0) throw thrown;
        this.#evict();
      }
    }
    this.opens++;
    this.#open.push(file);
  }

  #evict(): void {
    for (;;) {
      if (this.#hand >= this.#open.length) this.#hand = 0;
      const file = this.#open[this.#hand]!;
      if (!file.recent) return this.release(file);
      file.recent = false;
      this.#hand++;
    }
  }
}
