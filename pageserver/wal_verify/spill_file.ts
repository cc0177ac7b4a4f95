/**
 * A file for pages that memory has no room for, one slot after the other. It has no name from the
 * moment it is opened: it goes with the process, and nothing reads it again.
 */
import { PAGE_SIZE } from "../../libs/postgres/constants.ts";
import type { PageSpill } from "../walredo/held_pages.ts";
import type { PageTarget } from "../walredo/types.ts";

/** See the head of the file. Opened when the first page comes. */
export class SpillFile implements PageSpill, Disposable {
  readonly #path: string;
  #file: Deno.FsFile | undefined;

  /** `path`: of a file that does not exist. */
  constructor(path: string) {
    this.#path = path;
  }

  write(slot: number, page: PageTarget): void {
    const file = this.#seek(slot);
    const bytes = page.bytes.subarray(page.offset, page.offset + PAGE_SIZE);
    for (let done = 0; done < PAGE_SIZE;) done += file.writeSync(bytes.subarray(done));
  }

  read(slot: number, page: PageTarget): void {
    const file = this.#seek(slot);
    const bytes = page.bytes.subarray(page.offset, page.offset + PAGE_SIZE);
    for (let done = 0; done < PAGE_SIZE;) {
      const count = file.readSync(bytes.subarray(done));
      if (count === null) throw new Error("Cannot read a page back: the spill file is cut short");
      done += count;
    }
  }

  [Symbol.dispose](): void {
    this.#file?.close();
    this.#file = undefined;
  }

  #seek(slot: number): Deno.FsFile {
    if (this.#file === undefined) {
      const options = { read: true, write: true, createNew: true };
      this.#file = Deno.openSync(this.#path, options);
      Deno.removeSync(this.#path);
    }
    this.#file.seekSync(slot * PAGE_SIZE, Deno.SeekMode.Start);
    return this.#file;
  }
}
