/**
 * What a safekeeper that becomes a member of a timeline begins with, out of what a member says of
 * it: the decisions, without requests and files. Pure.
 *
 * It takes what is committed there: no later election can take that back, so the new log is a part
 * of every one that will ever win. The history is cut there, too. The rest comes as it comes to any
 * member that lags, from the proposer or from a peer.
 *
 * WAL that nobody needs any more is not taken: what the member itself has removed, and whole
 * segments that are in remote storage, where this safekeeper reads them as well.
 */
import { segmentNumber, segmentStart } from "../libs/postgres/wal/segment.ts";
import {
  type MembershipConfiguration,
  NO_MEMBERSHIP,
} from "../libs/safekeeper_protocol/membership.ts";
import { termHistoryUpTo } from "../libs/safekeeper_protocol/term_history.ts";
import { type Lsn, maxLsn } from "../libs/utils/lsn.ts";
import type { TimelineState } from "./timeline_state.ts";
import { lastSegment } from "./wal_backup_plan.ts";

/** What a member says of a timeline. */
export type PullSource = Omit<TimelineState, "partialBackup"> & {
  /** WAL before was removed from its disk. */
  readonly firstLsn: Lsn;
};

/** What to begin with. */
export interface PullPlan {
  /** The control file. WAL is needed up to its commit LSN. */
  readonly state: TimelineState;
  /** Start of the first segment to copy. */
  readonly copyFrom: Lsn;
}

/** What to take from `source`; `hasRemote`: whole segments are read from remote storage here, too. */
export function planPull(
  source: PullSource,
  membership: MembershipConfiguration,
  hasRemote: boolean,
): PullPlan {
  const { firstLsn: _, ...rest } = source;
  const { walSegmentSize, commitLsn } = source;
  const kept = keptFrom(source, hasRemote);
  const copyFrom = kept < commitLsn
    ? segmentStart(segmentNumber(kept, walSegmentSize), walSegmentSize)
    : commitLsn;
  return {
    copyFrom,
    state: {
      ...rest,
      membership: membership.generation === 0 ? NO_MEMBERSHIP : membership,
      termHistory: termHistoryUpTo(source.termHistory, commitLsn),
      backupLsn: maxLsn(source.backupLsn, source.timelineStartLsn), // 0 without remote storage
      // Where its own WAL began, that member has zeros before
      localStartLsn: maxLsn(copyFrom, source.localStartLsn),
      partialBackup: [],
      offloadedLsn: undefined,
    },
  };
}

/** Where the WAL begins that may still be needed from a disk. */
function keptFrom(source: PullSource, hasRemote: boolean): Lsn {
  const { firstLsn, localStartLsn, backupLsn, offloadedLsn, walSegmentSize } = source;
  if (offloadedLsn !== undefined) {
    return segmentStart(lastSegment(offloadedLsn, walSegmentSize), walSegmentSize);
  }
  const onDisk = maxLsn(firstLsn, localStartLsn);
  return hasRemote ? maxLsn(onDisk, backupLsn) : onDisk;
}
