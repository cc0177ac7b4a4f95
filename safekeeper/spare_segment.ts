/**
 * The next WAL segment, made ahead: a file of zeros that are really on disk.
 *
 * Appending into the hole of a fresh file makes every sync wait for the file system's journal, and
 * so for what everybody else has written; overwriting zeros that are there does not. Making such a
 * file takes longer than a commit may wait, so it happens in the background, in small pieces, once
 * a segment is filling up; if it is not ready in time, the next segment starts with holes.
 */
import { writeAll } from "../libs/utils/durable.ts";
import { messageOf } from "../libs/utils/errors.ts";
import { ifThere } from "../libs/utils/if_there.ts";
import { logger } from "../libs/utils/log.ts";

const log = logger("safekeeper", "spare_segment");

/** Its name. */
export const SPARE_NAME = "walspare";
/** Written and synced at a time: a sync of WAL may have to wait for one of these. */
const PIECE_BYTES = 256 * 1024;
/** Pause between two of them. */
const PAUSE_MS = 5;
/** Pause behind one that could not be made: the disk is full, and WAL needs what there is. */
const RETRY_MS = 60_000;

/** See the head of the file. */
export class SpareSegment {
  readonly #path: string;
  readonly #segmentSize: number;
  #state: "none" | "filling" | "ready" | "closed" = "none";
  /** When to try again, in ms of `performance.now`. */
  #retryAtMs = 0;

  /** Removes what an earlier process left. */
  constructor(directory: string, segmentSize: number) {
    this.#path = `${directory}/${SPARE_NAME}`;
    this.#segmentSize = segmentSize;
    ifThere(() => Deno.removeSync(this.#path));
  }

  /**
   * Makes one unless it is there or being made (asked at each write, so no promise then). Never
   * rejects: without one things are slower.
   */
  prepare(): Promise<void> | undefined {
    if (this.#state !== "none" || performance.now() < this.#retryAtMs) return undefined;
    return this.#make();
  }

  async #make(): Promise<void> {
    this.#state = "filling";
    try {
      await this.#fill();
    } catch (thrown) {
      this.discard();
      log.warning("cannot make a segment ahead: {why}", { why: messageOf(thrown) });
    }
  }

  /** Gives its space back, to whatever needs it more, and makes no other one for a while. */
  discard(): void {
    if (this.#state === "closed") return;
    this.#state = "none";
    this.#retryAtMs = performance.now() + RETRY_MS;
    ifThere(() => Deno.removeSync(this.#path));
  }

  async #fill(): Promise<void> {
    using file = Deno.openSync(this.#path, { write: true, create: true, truncate: true });
    const zeros = new Uint8Array(PIECE_BYTES);
    for (let done = 0; done < this.#segmentSize; done += PIECE_BYTES) {
      writeAll(file, zeros.subarray(0, Math.min(PIECE_BYTES, this.#segmentSize - done)));
      await file.syncData();
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
      if (this.#state !== "filling") return;
    }
    this.#state = "ready";
  }

  /** The path of the file, which is the caller's to rename now; undefined if there is none yet. */
  take(): string | undefined {
    if (this.#state !== "ready") return undefined;
    this.#state = "none";
    return this.#path;
  }

  /** Ends what is under way. */
  close(): void {
    this.#state = "closed";
  }
}
