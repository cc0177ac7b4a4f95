/** What the other safekeepers of a timeline last told through the broker. */
import type { SafekeeperTimelineInfo } from "../broker/client.ts";
import type { OffloadCandidate } from "./wal_backup_plan.ts";

/** Who was not heard of for so long counts as away. */
const HEARTBEAT_TIMEOUT_MS = 5_000;

type PeerInfo = Pick<SafekeeperTimelineInfo, "safekeeperId" | "localStartLsn" | "commitLsn">;

/** See the head of the file. */
export class Peers {
  readonly #heard = new Map<number, { candidate: OffloadCandidate; heardMs: number }>();

  /** Takes what a peer has published. */
  heard(info: PeerInfo, nowMs: number): void {
    const { safekeeperId: id, localStartLsn, commitLsn } = info;
    this.#heard.set(id, { candidate: { id, localStartLsn, commitLsn }, heardMs: nowMs });
  }

  /** Those that were heard of lately. */
  *alive(nowMs: number): Generator<OffloadCandidate> {
    for (const { candidate, heardMs } of this.#heard.values()) {
      if (nowMs - heardMs <= HEARTBEAT_TIMEOUT_MS) yield candidate;
    }
  }
}
