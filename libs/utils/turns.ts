/**
 * Turns of the event loop for a loop over input that is always there: under load every read finds
 * something and every write has room, so `await` gives nobody else a turn, timers and the other
 * connections of the process above all.
 */
import { setImmediate } from "node:timers/promises";

/** Bytes of WAL that are copied, decoded or written between two turns: 2 to 4 ms of work. */
const BYTES_A_TURN = 1024 * 1024;

/** Counts one loop's work. */
export class Turns {
  #bytes = 0;

  /** `bytes` more were handled. To be waited for if the others are to get a turn now. */
  after(bytes: number): Promise<void> | undefined {
    this.#bytes += bytes;
    if (this.#bytes < BYTES_A_TURN) return undefined;
    this.#bytes = 0;
    return setImmediate();
  }
}
