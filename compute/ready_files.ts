/**
 * Empty files, made while nobody waits, for the next start of an endpoint: `ready/<n>` in the
 * host's directory. A start lays out about a thousand relation files per cluster; where making one
 * is slow (half a millisecond has been seen), moving a ready one in place is what keeps starts
 * short.
 */
import { join } from "node:path";
import { messageOf } from "../libs/utils/errors.ts";
import { logger } from "../libs/utils/log.ts";
import { SpareTime } from "./spare_time.ts";

const log = logger("compute", "ready_files");

/** Enough for a cluster with four databases. */
const FILES = 1536;
/** Files made in a row before others get the disk. */
const BATCH = 16;
const PAUSE_MS = 5;

/** See the head of the file. */
export class ReadyFiles {
  readonly #directory: string;
  #names: string[] = [];
  #next = 0;
  #filling = false;

  constructor(directory: string) {
    this.#directory = directory;
    Deno.mkdirSync(directory, { recursive: true, mode: 0o700 });
    this.#names = [...Deno.readDirSync(directory)].map(({ name }) => name);
    this.#next = Math.max(0, ...this.#names.map(Number)) + 1;
  }

  /** Moves a ready file to `path`; false if there is none, or no directory to put it in. */
  take(path: string): boolean {
    const name = this.#names.pop();
    if (name === undefined) return false;
    try {
      Deno.renameSync(join(this.#directory, name), path);
      return true;
    } catch (thrown) {
      this.#names.push(name);
      if (thrown instanceof Deno.errors.NotFound) return false;
      throw thrown;
    }
  }

  /** Makes files until there are FILES; slowly, in the background. */
  fill(): void {
    if (this.#filling) return;
    this.#filling = true;
    this.#fill().catch((thrown) => {
      log.warning("cannot make files ahead: {why}", { why: messageOf(thrown) });
    }).finally(() => this.#filling = false);
  }

  async #fill(): Promise<void> {
    const spare = new SpareTime(PAUSE_MS);
    while (this.#names.length < FILES) {
      await spare.pause();
      for (let i = 0; i < BATCH; i++) {
        const name = String(this.#next++);
        const file = await Deno.open(join(this.#directory, name), {
          write: true,
          createNew: true,
          mode: 0o600,
        });
        file.close();
        this.#names.push(name);
      }
    }
  }
}
