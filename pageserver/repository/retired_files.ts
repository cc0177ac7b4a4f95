/**
 * Files of layers that others have taken the place of. In this isolate nobody reads them any more
 * when that is so, because reads are synchronous; a worker that was sent a snapshot may (compaction
 * of the timeline or of a branch of it). So they are removed when no snapshot is in use.
 *
 * Those that are there when the process ends are not listed, and go at the next start.
 */
import { assert } from "../../libs/utils/assert.ts";
import { messageOf } from "../../libs/utils/errors.ts";
import { ifThere } from "../../libs/utils/if_there.ts";
import { logger } from "../../libs/utils/log.ts";

const log = logger("pageserver", "layers");

/** The files that are to go. */
export class RetiredFiles {
  readonly #paths: string[] = [];
  #snapshots = 0;

  /** Removes a file as soon as no snapshot is in use. */
  add(path: string): void {
    this.#paths.push(path);
    this.#removeIfFree();
  }

  /** A snapshot is in use, until release(). */
  hold(): void {
    this.#snapshots++;
  }

  /** A snapshot that was held is in use no more. */
  release(): void {
    assert(this.#snapshots > 0, "what is released was held");
    this.#snapshots--;
    this.#removeIfFree();
  }

  #removeIfFree(): void {
    if (this.#snapshots > 0) return;
    for (const path of this.#paths.splice(0)) {
      try {
        ifThere(() => Deno.removeSync(path));
      } catch (thrown) {
        log.warn("{path} stays until the next start: {why}", { path, why: messageOf(thrown) });
      }
    }
  }
}
