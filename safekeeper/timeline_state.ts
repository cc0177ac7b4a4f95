/**
 * What a safekeeper must remember of a timeline across a crash, apart from the WAL itself. The
 * control file holds exactly this; the acceptor works on it; control_file.ts gives it bytes.
 */
import {
  type MembershipConfiguration,
  NO_MEMBERSHIP,
} from "../libs/safekeeper_protocol/membership.ts";
import type { Term, TermHistory } from "../libs/safekeeper_protocol/term_history.ts";
import { BadRequest } from "../libs/utils/errors.ts";
import type { TenantId, TimelineId } from "../libs/utils/id.ts";
import { formatLsn, type Lsn } from "../libs/utils/lsn.ts";

/** The last, unfinished segment as it was uploaded, or was going to be. */
export interface PartialSegment {
  /** What follows the timeline's prefix in its key. */
  readonly name: string;
  /** Started: perhaps there, perhaps not. Uploaded: it is there. Deleting: it is not wanted. */
  readonly status: "started" | "uploaded" | "deleting";
  /** Term of the last record in it. */
  readonly term: Term;
  /** It holds its segment's bytes up to here. */
  readonly flushLsn: Lsn;
  readonly commitLsn: Lsn;
  /** CRC-32C of its bytes, once it is uploaded. */
  readonly crc32c: number;
}

/** Durable state of one timeline. Replaced as a whole, never edited in place. */
export interface TimelineState {
  readonly tenantId: TenantId;
  readonly timelineId: TimelineId;
  readonly membership: MembershipConfiguration;
  /** Highest term voted for or told of. Never falls. */
  readonly term: Term;
  /** Which term wrote which WAL. Invariant: its last term <= term. */
  readonly termHistory: TermHistory;
  /** PG_VERSION_NUM of the last proposer, for example 170011; its major part never changes. */
  readonly pgVersionNum: number;
  /** 0 until a proposer has said it. */
  readonly systemId: bigint;
  readonly walSegmentSize: number;
  /** Where the WAL of this timeline begins. */
  readonly timelineStartLsn: Lsn;
  /** Where the WAL on this safekeeper began when it was created. */
  readonly localStartLsn: Lsn;
  /** WAL below is on a quorum. A lower bound: the newest value lives in memory. */
  readonly commitLsn: Lsn;
  /** WAL below is on all safekeepers. A lower bound. */
  readonly peerHorizonLsn: Lsn;
  /** WAL below is durable behind a pageserver. A lower bound. */
  readonly remoteConsistentLsn: Lsn;
  /** Whole segments below are in remote storage. A lower bound. */
  readonly backupLsn: Lsn;
  /** What this safekeeper put of unfinished segments into remote storage. */
  readonly partialBackup: readonly PartialSegment[];
  /** The WAL ends here and is in remote storage, not on disk; undefined: it is on disk. */
  readonly offloadedLsn: Lsn | undefined;
}

/** What the creator of a timeline decides. */
export interface NewTimeline {
  readonly tenantId: TenantId;
  readonly timelineId: TimelineId;
  readonly membership?: MembershipConfiguration;
  readonly pgVersionNum: number;
  readonly systemId?: bigint;
  readonly walSegmentSize: number;
  readonly startLsn: Lsn;
}

/**
 * State of a timeline without WAL, at term 0. Throws BadRequest for a start LSN that no record ends
 * at.
 */
export function newTimelineState(args: NewTimeline): TimelineState {
  const start = args.startLsn;
  if (start === 0 || start % 8 !== 0) {
    throw new BadRequest(
      `Cannot create a timeline that starts at ${formatLsn(start)}: it is not the end of a record`,
    );
  }
  const size = args.walSegmentSize;
  if (size < 1048576 || size > 1073741824 || (size & (size - 1)) !== 0) {
    throw new BadRequest(`Cannot create a timeline with WAL segments of ${size} bytes`);
  }
  return {
    tenantId: args.tenantId,
    timelineId: args.timelineId,
    membership: args.membership ?? NO_MEMBERSHIP,
    term: 0,
    termHistory: [{ term: 0, lsn: start }],
    pgVersionNum: args.pgVersionNum,
    systemId: args.systemId ?? 0n,
    walSegmentSize: size,
    timelineStartLsn: start,
    localStartLsn: start,
    commitLsn: start,
    peerHorizonLsn: start,
    remoteConsistentLsn: start,
    backupLsn: start,
    partialBackup: [],
    offloadedLsn: undefined,
  };
}

/** The major version of a PG_VERSION_NUM. */
export function pgMajorOf(pgVersionNum: number): number {
  return Math.floor(pgVersionNum / 10000);
}
