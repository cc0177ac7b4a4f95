/**
 * Where a timeline stood at a time: every commit leaves a mark, which says where its record ends
 * and what time it was by then, and marks are versions of keys like everything else, so that they
 * are durable with their layers, go with them, and branches see those of their ancestors.
 *
 *   COMMIT_SECOND_KEY          one version for each second with a commit: the first mark in it
 *   commitMarkKey(second)      one version for each commit of that second
 *   mark                       LSN u64 | time u64, microseconds since 2000, both LE
 *
 * So the last commit before an LSN is two lookups, both among few versions: which second it is
 * in, and the last one of that second.
 *
 * The time of a mark is the latest of all commits up to it. Commits are logged in an order that may
 * differ by a little from that of their times, and clocks are set back; this way the marks only go
 * up, and what is found for a time is the end of everything before the first commit that is later,
 * which is where PostgreSQL's own recovery_target_time stops (PostgreSQL 17,
 * access/transam/xlogrecovery.c, recoveryStopsBefore).
 */
import { Corrupt } from "../libs/utils/errors.ts";
import { addLsn, type Lsn, maxLsn, minLsn, toLsn } from "../libs/utils/lsn.ts";
import { COMMIT_SECOND_KEY, commitMarkKey } from "./repository/key.ts";
import type { Timeline } from "./repository/timeline.ts";

/** Bytes of a mark. */
export const MARK_BYTES = 16;
const MICROS_PER_SECOND = 1_000_000;
const LSN_ALIGNMENT = 8;
const TWO_32 = 4294967296;
/** Times behind it (in the year 2136) share one. */
const SECOND_MAX = TWO_32 - 1;

/** A commit. */
interface CommitMark {
  /** The end of its record. */
  readonly lsn: Lsn;
  /** Of it or an earlier one, whichever is later: microseconds since 2000, never before that. */
  readonly time: number;
}

/** What a search by time has found. */
export interface LsnAtTime {
  readonly lsn: Lsn;
  /**
   * present: the last commit at the time or before, with later ones behind it; future: the last
   * commit of all, which is not later; past: all are later, `lsn` is where the timeline begins;
   * nodata: there is no commit, likewise.
   */
  readonly kind: "present" | "future" | "past" | "nodata";
}

/** The second that a mark with this time is filed under. */
export function secondOf(time: number): number {
  return Math.min(Math.floor(time / MICROS_PER_SECOND), SECOND_MAX);
}

/** Writes a mark. */
export function writeMark(view: DataView, { lsn, time }: CommitMark): void {
  writeNumber(view, 0, lsn);
  writeNumber(view, 8, time);
}

function writeNumber(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true);
  view.setUint32(at + 4, value / TWO_32, true);
}

function readNumber(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * TWO_32 + view.getUint32(at, true);
}

function readMark(bytes: Uint8Array): CommitMark {
  if (bytes.length !== MARK_BYTES) throw new Corrupt("Cannot read a mark of a commit: its length");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return {
    lsn: toLsn(readNumber(view, 0)),
    time: readNumber(view, 8),
  };
}

/** The last commit of a timeline and its ancestors that ends at `lsn` or before. */
export function lastCommit(timeline: Timeline, lsn: Lsn): CommitMark | undefined {
  const first = timeline.getValue(COMMIT_SECOND_KEY, lsn);
  if (first === undefined) return undefined;
  const last = timeline.getValue(commitMarkKey(secondOf(readMark(first).time)), lsn);
  if (last === undefined) throw new Corrupt("Cannot read the marks of a second: there are none");
  return readMark(last);
}

/** Where the timeline stood at a time, looking at nothing behind `end`, which it has reached. */
export function lsnAtTime(timeline: Timeline, time: number, end: Lsn): LsnAtTime {
  const begin = timeline.startLsn;
  const newest = lastCommit(timeline, end);
  if (newest === undefined) return { lsn: begin, kind: "nodata" };
  if (newest.time <= time) return { lsn: maxLsn(newest.lsn, begin), kind: "future" };
  let found = lastCommit(timeline, begin);
  if (found !== undefined && found.time > time) return { lsn: begin, kind: "past" };
  // Invariant: the last commit before `low` is not later than `time`, the one before `high` is
  let low = begin;
  let high = newest.lsn;
  while (high - low > LSN_ALIGNMENT) {
    const half = Math.floor((high - low) / 2 / LSN_ALIGNMENT) * LSN_ALIGNMENT;
    const middle = addLsn(low, half);
    const mark = lastCommit(timeline, middle);
    if (mark !== undefined && mark.time > time) {
      high = minLsn(middle, mark.lsn);
    } else {
      low = middle;
      found = mark;
    }
  }
  if (found === undefined) return { lsn: begin, kind: "past" };
  return { lsn: maxLsn(found.lsn, begin), kind: "present" };
}
