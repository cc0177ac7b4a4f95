/**
 * Settles where a timeline ends that nobody writes.
 *
 * After a crash the safekeepers may hold more than they know to be committed: the last commit LSN
 * was on its way when its proposer died. An election as for a start finds the newest log, brings a
 * quorum to its end and commits that, without a Postgres. Everything that was ever acknowledged is
 * then committed for all to see, the pageserver first of all.
 */
import { WAL_SEGMENT_SIZE } from "../libs/postgres/constants.ts";
import { pgVersion } from "../libs/postgres/versions.ts";
import { membershipOf } from "../libs/safekeeper_protocol/membership.ts";
import type { Term } from "../libs/safekeeper_protocol/term_history.ts";
import type { Lsn } from "../libs/utils/lsn.ts";
import type { SyncRequest } from "./client.ts";
import { WalProposer } from "./wal_proposer/driver.ts";
import { takeWalTail } from "./wal_tail.ts";

/** Longest wait for the election, and for a quorum to have its outcome on disk. */
const SYNC_MS_MAX = 10_000;
/** PG_VERSION_NUM of a major version's first release; safekeepers compare the major version. */
const VERSION_NUMBER_FACTOR = 10_000;

/** What a Postgres left on the disk that ended together with its host. */
interface LeftBehind {
  readonly pgdata: string;
  /** The term that it streamed under. */
  readonly term: Term;
}

/**
 * Wins an election and commits what it found, and what `left` has behind that if nobody else has
 * written since; returns the end of it. Throws Unavailable or TimedOut when no quorum of
 * safekeepers takes part.
 */
export async function syncTimeline(request: SyncRequest, left?: LeftBehind): Promise<Lsn> {
  const proposer = new WalProposer({
    tenantId: request.tenant_id,
    timelineId: request.timeline_id,
    pgVersionNum: request.pg_version * VERSION_NUMBER_FACTOR,
    walSegmentSize: WAL_SEGMENT_SIZE,
    ...(request.mconf === undefined ? {} : { membership: membershipOf(request.mconf) }),
    safekeepers: request.safekeepers.map(({ id, host, pg_port }) => ({
      id,
      host,
      pgPort: pg_port,
    })),
    token: () => request.storage_auth_token,
    onDeposed: () => {}, // whoever deposed us has committed more; the wait below throws
  });
  proposer.start();
  try {
    const { startLsn, history } = await proposer.elected(SYNC_MS_MAX);
    await proposer.committed(startLsn, SYNC_MS_MAX);
    // The last entry is our own term
    if (left !== undefined && history.at(-2)?.term === left.term) {
      const version = pgVersion(request.pg_version);
      await takeWalTail({ pgdata: left.pgdata, version, proposer });
    }
    return proposer.commitLsn;
  } finally {
    await proposer.stop(); // tells every safekeeper the commit LSN
  }
}
