/**
 * Backpressure: a writer that outruns the pageserver is slowed, because what the pageserver does
 * not have piles up on the disks of safekeepers. Commits are acknowledged to Postgres only up to so
 * far ahead of the pageserver; transactions behind that wait in COMMIT, reads go on.
 *
 *     pageserver: received ---- limit ----> released ........ commitLsn
 *                                           acknowledged      waits, although a quorum has it
 *
 * Three positions of the pageserver have a limit each, as in Neon: what it has received
 * (max_replication_write_lag), what is on its disk (flush), what is where safekeepers may remove
 * their WAL (apply). This file only reckons; postgres_stream.ts acknowledges.
 */
import type { PageserverFeedback } from "../../libs/safekeeper_protocol/feedback.ts";
import { type Lsn, maxLsn } from "../../libs/utils/lsn.ts";
import type { PageserverLag } from "../client.ts";

/** How many bytes each position of the pageserver may be behind; Infinity: as many as it likes. */
export interface LagLimits {
  readonly write: number;
  readonly flush: number;
  readonly apply: number;
}

/** Positions of the pageserver, as far as anybody knows. */
interface PageserverProgress {
  readonly received: Lsn;
  readonly diskConsistent: Lsn;
  readonly remoteConsistent: Lsn;
}

/** How much of what is committed may be acknowledged. */
export function acknowledgeable(
  commitLsn: Lsn,
  progress: PageserverProgress,
  limits: LagLimits,
): Lsn {
  return Math.min(
    commitLsn,
    progress.received + limits.write,
    progress.diskConsistent + limits.flush,
    progress.remoteConsistent + limits.apply,
  ) as Lsn;
}

/** What Postgres may be told, over the life of a stream. See the head of the file. */
export class Backpressure {
  #limits: LagLimits;
  /** Highest heard of: one that restarts takes in again what it had only in memory. */
  #progress: PageserverProgress;
  #hasReported = false;
  #isLifted = false;
  /** Invariant: never falls; <= commitLsn, apart from where it begins. */
  #released: Lsn;

  /**
   * `startLsn`: the start of the term, which the pageserver had when it made the base backup;
   * `released`: what Postgres was told before, under the same term.
   */
  constructor(limits: LagLimits, startLsn: Lsn, released: Lsn) {
    this.#limits = limits;
    this.#progress = { received: startLsn, diskConsistent: startLsn, remoteConsistent: startLsn };
    this.#released = released;
  }

  /** What Postgres may count on now. */
  get released(): Lsn {
    return this.#released;
  }

  /** Other limits from now on; what was released stays. */
  setLimits(limits: LagLimits): void {
    this.#limits = limits;
  }

  /** The pageserver reports. */
  note(feedback: PageserverFeedback): void {
    const { received, diskConsistent, remoteConsistent } = this.#progress;
    this.#hasReported = true;
    this.#progress = {
      received: maxLsn(received, feedback.lastReceivedLsn),
      diskConsistent: maxLsn(diskConsistent, feedback.diskConsistentLsn),
      remoteConsistent: maxLsn(remoteConsistent, feedback.remoteConsistentLsn),
    };
  }

  /** Nothing waits for the pageserver any more: Postgres is to stop. */
  lift(): void {
    this.#isLifted = true;
  }

  /** A quorum has everything before `commitLsn`, or the pageserver has moved; gives `released`. */
  release(commitLsn: Lsn): Lsn {
    const lsn = this.#isLifted
      ? commitLsn
      : acknowledgeable(commitLsn, this.#progress, this.#limits);
    return this.#released = maxLsn(this.#released, lsn);
  }

  /** How far the pageserver is behind what is committed. */
  lag(commitLsn: Lsn): PageserverLag {
    const behind = (lsn: Lsn) => Math.max(0, commitLsn - lsn);
    return {
      write_bytes: behind(this.#progress.received),
      flush_bytes: behind(this.#progress.diskConsistent),
      apply_bytes: behind(this.#progress.remoteConsistent),
      has_reported: this.#hasReported,
      commits_delayed: this.#released < commitLsn,
    };
  }
}
