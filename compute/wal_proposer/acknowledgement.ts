/**
 * How far Postgres is told that its WAL is safe, so that commits return: what a quorum of
 * safekeepers has on disk; later, if the pageserver is too far behind (backpressure.ts). What waits
 * then is only the acknowledgement, the WAL goes on to the safekeepers.
 */
import { logger } from "../../libs/utils/log.ts";
import { type Lsn, maxLsn } from "../../libs/utils/lsn.ts";
import type { PageserverLag } from "../client.ts";
import { Backpressure, type LagLimits } from "./backpressure.ts";
import type { WalProposer } from "./driver.ts";

const log = logger("compute", "wal_proposer");

/** Safekeepers are asked for the pageserver's progress this often while commits wait for it. */
const ASK_MS = 50;
/** Commits that have not waited for the pageserver for so long do not wait any more. */
const UNDELAYED_MS = 5000;

/** See the head of the file. */
export class Acknowledgement {
  readonly #proposer: WalProposer;
  readonly #backpressure: Backpressure;
  readonly #listeners: (() => void)[] = [];
  #askTimer: ReturnType<typeof setTimeout> | undefined;
  /** When commits began to wait for the pageserver, and when they were last seen to. */
  #delayed: { readonly sinceMs: number; lastMs: number } | undefined;
  #stopped = false;

  /** For a proposer that knows its start; `limits` are those of the pageserver's lag. */
  constructor(proposer: WalProposer, limits: LagLimits) {
    this.#proposer = proposer;
    const { startLsn, endLsn, pageserver } = proposer;
    // After an adoption it goes on where Postgres was last acknowledged
    this.#backpressure = new Backpressure(limits, startLsn, maxLsn(startLsn, endLsn));
    if (pageserver !== undefined) this.#backpressure.note(pageserver);
    proposer.onCommit = () => this.#release();
    proposer.onPageserver = (feedback) => {
      this.#backpressure.note(feedback);
      this.#release();
    };
  }

  /** What Postgres may count on. */
  get lsn(): Lsn {
    return this.#backpressure.released;
  }

  /** Calls `tell` whenever `lsn` has risen. */
  onRisen(tell: () => void): void {
    this.#listeners.push(tell);
  }

  /** How far the pageserver is behind, and whether commits wait for it. */
  get lag(): PageserverLag {
    return this.#backpressure.lag(this.#proposer.commitLsn);
  }

  /** Other limits of the pageserver's lag from now on. */
  setLimits(limits: LagLimits): void {
    this.#backpressure.setLimits(limits);
    this.#release();
  }

  /** Commits do not wait for the pageserver any more: Postgres is to stop. */
  lift(): void {
    this.#backpressure.lift();
    this.#release();
  }

  /** Nobody is asked any more. */
  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#askTimer);
  }

  /** A quorum has more, or the pageserver. */
  #release(): void {
    const { commitLsn } = this.#proposer;
    const before = this.#backpressure.released;
    const released = this.#backpressure.release(commitLsn);
    if (released > before) { for (const tell of this.#listeners) tell(); }
    if (released < commitLsn) this.#delay();
  }

  /** Commits wait for the pageserver: without new WAL nobody would tell how far it is. */
  #delay(): void {
    const now = performance.now();
    if (this.#delayed === undefined) {
      this.#delayed = { sinceMs: now, lastMs: now };
      const { write_bytes, flush_bytes, apply_bytes, has_reported } = this.lag;
      log.warning(
        "{timeline}: commits wait for the pageserver, which {state}: of the WAL it has not " +
          "received {write}, not on disk {flush}, not safe to remove {apply} bytes",
        {
          timeline: this.#proposer.options.timelineId,
          state: has_reported ? "is behind" : "has reported nothing since the start",
          write: write_bytes,
          flush: flush_bytes,
          apply: apply_bytes,
        },
      );
    }
    this.#delayed.lastMs = now;
    if (this.#askTimer !== undefined || this.#stopped) return;
    this.#askTimer = setTimeout(() => {
      this.#askTimer = undefined;
      this.#proposer.askPageserver();
      this.#release();
    }, ASK_MS);
  }

  /** Says so in the log when commits do not wait for the pageserver any more. To be called often. */
  tellDelay(): void {
    const delayed = this.#delayed;
    if (delayed === undefined || performance.now() - delayed.lastMs < UNDELAYED_MS) return;
    this.#delayed = undefined;
    log.info("{timeline}: commits do not wait for the pageserver any more; they did for {s} s", {
      timeline: this.#proposer.options.timelineId,
      s: ((delayed.lastMs - delayed.sinceMs) / 1000).toFixed(1),
    });
  }
}
