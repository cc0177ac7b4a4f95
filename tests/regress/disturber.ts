/**
 * Kills daemons of the storage while tests run (SIGKILL), one after the other, and starts them
 * again at once: the pageserver and each safekeeper. A PostgreSQL that runs has to notice no more
 * than a pause.
 */
import type { TestNeon } from "../harness.ts";

/** Safekeepers to run with: a majority of them stays. */
export const DISTURBED_SAFEKEEPERS = 3;

const VICTIMS = ["pageserver", "safekeeper 1", "pageserver", "safekeeper 2", "safekeeper 3"];
/** Between two kills; the pageserver reads its WAL again in that time. */
const PAUSE_MS = 3000;

/** See the head of the file. Ends with the object, everything runs then. */
export class Disturber implements AsyncDisposable {
  kills = 0;
  readonly #end = Promise.withResolvers<void>();
  readonly #work: Promise<void>;

  constructor(neon: TestNeon) {
    this.#work = this.#disturb(neon);
    this.#work.catch(() => {}); // thrown at the end
  }

  async #disturb(neon: TestNeon): Promise<void> {
    for (;;) {
      const pause = Promise.withResolvers<void>();
      const timer = setTimeout(pause.resolve, PAUSE_MS);
      const isOver = await Promise.race([
        pause.promise.then(() => false),
        this.#end.promise.then(() => true),
      ]);
      clearTimeout(timer);
      if (isOver) return;
      await neon.killRole(VICTIMS[this.kills++ % VICTIMS.length]!);
      await neon.local.start();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#end.resolve();
    await this.#work;
  }
}
