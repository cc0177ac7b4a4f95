/**
 * Whether the safekeepers of a timeline that nobody writes agree where it ends. Pure.
 *
 * A record is committed once a majority has it on disk, but the safekeepers hear of that a moment
 * later, and after a crash perhaps never. So their word is enough only if no record beyond what
 * they know to be committed can be on a majority's disks; otherwise an election has to settle it.
 *
 * Logs that end in the same term agree as far as they both go. Among those with the highest last
 * term, a position can be on a majority's disks if enough of them reach it, counting in favour
 * every safekeeper that did not answer or whose log ends in an older term.
 */
import { assert } from "../../libs/utils/assert.ts";
import { type Lsn, maxLsn } from "../../libs/utils/lsn.ts";

/** What one safekeeper said about its log. */
export interface LogEnd {
  lastLogTerm: number;
  flushLsn: Lsn;
  commitLsn: Lsn;
}

/** Safekeepers that make a majority. */
export function quorumOf(count: number): number {
  return Math.floor(count / 2) + 1;
}

/**
 * Evaluates the answers of at least a majority of `count` safekeepers: the end of what is
 * committed, or undefined if records beyond it may have been acknowledged.
 */
export function settledEnd(answers: LogEnd[], count: number): Lsn | undefined {
  const quorum = quorumOf(count);
  assert(answers.length >= quorum, "a majority answered");
  const committed = answers.map((answer) => answer.commitLsn).reduce(maxLsn);
  const lastTerm = Math.max(...answers.map((answer) => answer.lastLogTerm));
  const ends = answers.filter((answer) => answer.lastLogTerm === lastTerm)
    .map((answer) => answer.flushLsn)
    .sort((a, b) => b - a);
  // Silent safekeepers may hold as much as the longest log does, and older logs may agree with it.
  const outside = count - ends.length;
  const possible = ends[Math.max(0, quorum - outside - 1)]!;
  return possible > committed ? undefined : committed;
}
