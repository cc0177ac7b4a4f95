/**
 * Who receives a timeline's WAL, and what they told about themselves: pageservers (feedback), hot
 * standbys (positions and xmin). Merged here for the proposer, the broker and the removal of WAL.
 */
import { type HotStandbyFeedback, NO_HOT_STANDBY } from "../libs/safekeeper_protocol/messages.ts";
import { INVALID_LSN, type Lsn } from "../libs/utils/lsn.ts";

/** One replication connection. */
export interface Receiver {
  /** application_name of the connection, for example "pageserver-1". */
  readonly name: string;
  /** End of what was sent. */
  sentLsn: Lsn;
  /** Applied position from standby status updates; 0 = none came. */
  appliedLsn: Lsn;
  hotStandby: HotStandbyFeedback;
  /** True once pageserver feedback came: its positions are no replica's. */
  isPageserver: boolean;
  /** Ends the connection. */
  close(): void;
}

/** Lowest position that a replica has applied; 0 without replicas. */
export function standbyHorizon(receivers: Iterable<Receiver>): Lsn {
  let horizon: Lsn = INVALID_LSN;
  for (const receiver of receivers) {
    if (receiver.isPageserver || receiver.appliedLsn === INVALID_LSN) continue;
    if (horizon === INVALID_LSN || receiver.appliedLsn < horizon) horizon = receiver.appliedLsn;
  }
  return horizon;
}

function lowestValid(a: number, b: number): number {
  return a === 0 ? b : b === 0 ? a : Math.min(a, b);
}

/** What all replicas together hold back: the lowest valid xmin of each kind. */
export function mergedHotStandby(receivers: ReadonlySet<Receiver>): HotStandbyFeedback {
  let merged = NO_HOT_STANDBY;
  for (const { hotStandby } of receivers) {
    if (hotStandby === NO_HOT_STANDBY) continue;
    merged = {
      time: Math.max(merged.time, hotStandby.time),
      xmin: lowestValid(merged.xmin, hotStandby.xmin),
      catalogXmin: lowestValid(merged.catalogXmin, hotStandby.catalogXmin),
    };
  }
  return merged;
}
