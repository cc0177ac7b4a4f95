/**
 * Which transactions are in progress at an LSN, for a standby that begins there. PostgreSQL's WAL
 * says when a transaction ends, but not when it begins, and one may have an id for long before it
 * writes anything. So every id that was given out counts as in progress unless pg_xact says how it
 * ended, from the tracker's `oldestRunning` on; of what is older only prepared transactions are.
 *
 * pg_xact as of the LSN is a page like others here, so nothing has to be followed or kept, and the
 * answer is there for every LSN, after a restart, and on branches.
 */
import type { CheckpointTracker } from "../../libs/postgres/checkpoint_tracker.ts";
import { FIRST_NORMAL_XID, PAGE_SIZE } from "../../libs/postgres/constants.ts";
import {
  SLRU_SEGMENT_PAGES,
  SlruKind,
  XIDS_PER_BYTE,
  XIDS_PER_PAGE,
  XidStatus,
} from "../../libs/postgres/slru.ts";
import { preparedSubxacts } from "../../libs/postgres/two_phase.ts";
import type { RunningTransactions, StandbyLock } from "../../libs/postgres/wal/standby_start.ts";
import { BadRequest, Corrupt } from "../../libs/utils/errors.ts";
import { formatLsn, type Lsn } from "../../libs/utils/lsn.ts";
import { storedLocks } from "../ingest/held_locks.ts";
import type { PageReader } from "../page_service/page_reader.ts";
import { standbyLockKey, standbyLockXid, twophaseKey } from "../repository/key.ts";
import type { ServedTimeline } from "../served_timeline.ts";

const TWO_32 = 4294967296;
/** More than any standby has room for (65 for each connection that it may have). */
const RUNNING_MAX = 1_000_000;

/** Where to look. */
interface RunningOptions {
  readonly served: ServedTimeline;
  readonly reader: PageReader;
  /** The tracked state at `lsn`. */
  readonly tracker: CheckpointTracker;
  readonly lsn: Lsn;
  /** True where everything that was in progress has ended there, except what is prepared. */
  readonly onlyPrepared: boolean;
}

/** What is in progress. Throws BadRequest if it is more than any standby can take. */
export function runningTransactions(options: RunningOptions): RunningTransactions {
  const { tracker, onlyPrepared } = options;
  const { nextXid } = tracker.checkPoint;
  const from = onlyPrepared ? nextXid : tracker.oldestRunning;
  const prepared = [...tracker.preparedXids].filter((xid) => xid < from)
    .flatMap((xid) => [xid, ...subxactsOf(options, xid)]);
  const xids = [...prepared.sort((a, b) => a - b), ...unfinished(options, from, nextXid)];
  return { xids, locks: onlyPrepared ? [] : locksOf(options, xids) };
}

function subxactsOf({ served, lsn, tracker }: RunningOptions, xid: number): number[] {
  const state = served.timeline.getValue(twophaseKey(xid), lsn);
  if (state === undefined) {
    throw new Corrupt(
      `Cannot read prepared transaction ${xid} of timeline ${served.timeline.timelineId} at ` +
        `${formatLsn(lsn)}: its state is missing`,
    );
  }
  return preparedSubxacts(state, served.version).map((sub) => tracker.fullXid(sub));
}

/** Full xids in [from, to) that pg_xact calls neither committed nor aborted. */
function unfinished(options: RunningOptions, from: number, to: number): number[] {
  const found: number[] = [];
  for (let next = from; next < to;) {
    const page = clogPage(options, next % TWO_32);
    const end = Math.min(to, next - next % XIDS_PER_PAGE + XIDS_PER_PAGE);
    for (; next < end; next++) {
      const inPage = next % XIDS_PER_PAGE;
      const byte = page[Math.floor(inPage / XIDS_PER_BYTE)]!;
      const status = (byte >> (inPage % XIDS_PER_BYTE * 2)) & 3;
      if (status !== XidStatus.IN_PROGRESS || next % TWO_32 < FIRST_NORMAL_XID) continue;
      found.push(next);
    }
    if (found.length > RUNNING_MAX) {
      throw new BadRequest(
        `Cannot begin a standby at ${formatLsn(options.lsn)}: more than ${RUNNING_MAX} ` +
          `transactions and subtransactions are in progress`,
      );
    }
  }
  return found;
}

/** The page of pg_xact with an xid, valid until the next one is read. */
function clogPage({ served, reader, lsn }: RunningOptions, xid: number): Uint8Array {
  const number = Math.floor(xid / XIDS_PER_PAGE);
  const segment = Math.floor(number / SLRU_SEGMENT_PAGES);
  const block = number % SLRU_SEGMENT_PAGES;
  const page = reader.slruPage(served, SlruKind.CLOG, segment, block, lsn);
  return page.bytes.subarray(page.offset, page.offset + PAGE_SIZE);
}

/** Locks that these transactions have taken: those with any have them in a first part. */
function locksOf({ served, lsn }: RunningOptions, xids: readonly number[]): StandbyLock[] {
  const { timeline } = served;
  const running = new Set(xids);
  const holders: number[] = [];
  for (const first of firstOfEpochs(xids)) {
    const from = standbyLockKey(first, 0);
    timeline.scan(from, { ...from, f5: 1, f6: 0 }, lsn, (key) => {
      const xid = standbyLockXid(key);
      if (running.has(xid)) holders.push(xid);
    });
  }
  return holders.flatMap((xid) =>
    storedLocks(timeline, xid, lsn).map(({ db, rel }) => ({ xid, db, rel }))
  );
}

/** The first xid of each epoch: within one, keys sort by xid. */
function firstOfEpochs(xids: readonly number[]): number[] {
  const epoch = (xid: number) => Math.floor(xid / TWO_32);
  return xids.filter((xid, i) => i === 0 || epoch(xid) !== epoch(xids[i - 1]!));
}
