/**
 * Notices that commits wait for a majority of safekeepers, by looking now and then at how far WAL
 * has come and how far it is committed. Pure.
 */
import { INVALID_LSN, type Lsn } from "../../libs/utils/lsn.ts";
import type { StalledCommits } from "../client.ts";

/** A wait that is not worth a word. */
const SHORT_MS = 2000;

/** What is known of the connection to a safekeeper. */
interface Link {
  readonly address: { readonly id: number };
  readonly isStopped: boolean;
  /** Undefined while there is none. */
  readonly copy: unknown;
  readonly lastReceivedMs: number;
}

/** See the head of the file. */
export class CommitStall {
  #commitLsn: Lsn = INVALID_LSN;
  #sinceMs: number;

  constructor(nowMs: number) {
    this.#sinceMs = nowMs;
  }

  /** Looks; to be called every second or so. */
  look(nowMs: number, commitLsn: Lsn, endLsn: Lsn): void {
    if (commitLsn === this.#commitLsn && commitLsn < endLsn) return;
    this.#commitLsn = commitLsn;
    this.#sinceMs = nowMs;
  }

  /** What waits; undefined if nothing does for long. */
  describe(nowMs: number, links: readonly Link[]): StalledCommits | undefined {
    const ms = nowMs - this.#sinceMs;
    if (ms < SHORT_MS) return undefined;
    const isSilent = ({ isStopped, copy, lastReceivedMs }: Link) =>
      !isStopped && (copy === undefined || nowMs - lastReceivedMs >= SHORT_MS);
    return {
      seconds: Math.round(ms / 1000),
      silent_safekeepers: links.filter(isSilent).map((link) => link.address.id),
    };
  }
}
