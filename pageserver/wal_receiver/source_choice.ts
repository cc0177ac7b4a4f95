/**
 * Which safekeeper to stream a timeline from: a pure choice over what the broker has told.
 *
 * Unconnected, the one with the most committed WAL, unless nobody has more than we have. Connected,
 * we stay, unless our safekeeper has brought nothing for a while that another one has, or it is far
 * behind.
 */
import type { Lsn } from "../../libs/utils/lsn.ts";

/** A safekeeper that was not heard of for this long is not a candidate. */
const CANDIDATE_MS = 10_000;
/** No new WAL for this long while another safekeeper has some: switch. */
const LAGGING_MS = 10_000;
/** Another safekeeper being this far ahead: switch. */
const LAG_BYTES_MAX = 1024 * 1024 * 1024;

/** What is known of one safekeeper. */
export interface Candidate {
  readonly safekeeperId: number;
  readonly connstr: string;
  readonly commitLsn: Lsn;
  /** When the broker last told of it, in milliseconds. */
  readonly heardMs: number;
  /** Not to be tried before this time, after a failure. */
  readonly retryMs: number;
}

/** The state of the current connection. */
interface Connection {
  readonly safekeeperId: number;
  /** When last_record_lsn last moved, or the connection began. */
  readonly progressMs: number;
}

/** The safekeeper to connect to for WAL beyond `lastRecordLsn`, or undefined: nothing to fetch. */
export function chooseSource(
  candidates: Iterable<Candidate>,
  lastRecordLsn: Lsn,
  nowMs: number,
): Candidate | undefined {
  let best: Candidate | undefined;
  for (const candidate of candidates) {
    if (candidate.commitLsn <= lastRecordLsn) continue;
    if (nowMs - candidate.heardMs > CANDIDATE_MS || nowMs < candidate.retryMs) continue;
    if (best === undefined || candidate.commitLsn > best.commitLsn) best = candidate;
  }
  return best;
}

/**
 * The safekeeper to try when the broker tells nothing of anyone: of those that were known and may
 * be tried, the one that had most.
 */
export function chooseKnown(candidates: Iterable<Candidate>, nowMs: number): Candidate | undefined {
  let best: Candidate | undefined;
  for (const candidate of candidates) {
    if (nowMs < candidate.retryMs) continue;
    if (best === undefined || candidate.commitLsn > best.commitLsn) best = candidate;
  }
  return best;
}

/** Whether to give up `connection` because `best` (from chooseSource) is better. */
export function shouldSwitch(
  connection: Connection,
  best: Candidate | undefined,
  lastRecordLsn: Lsn,
  nowMs: number,
): boolean {
  if (best === undefined || best.safekeeperId === connection.safekeeperId) return false;
  if (best.commitLsn - lastRecordLsn > LAG_BYTES_MAX) return true;
  return nowMs - connection.progressMs > LAGGING_MS;
}
