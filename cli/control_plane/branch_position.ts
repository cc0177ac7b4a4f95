/**
 * Which position of a timeline a majority of its safekeepers holds, when no proposer runs that
 * could say what it has committed. Pure.
 *
 * A record is committed once a majority has it on disk. A safekeeper's log ends with entries of its
 * last log term; logs of the same last term agree as far as they both go. So among the safekeepers
 * with the highest last term, the position that a majority holds is the majority-th largest flush
 * position, and everything acknowledged to a client is at or before it, as long as every safekeeper
 * answered. Where one did not, the longest log may or may not be acknowledged: then there is no
 * answer unless the two bounds agree.
 */
import { type Lsn, maxLsn } from "../../libs/utils/lsn.ts";

/** What one safekeeper said about its log. */
export interface LogEnd {
  lastLogTerm: number;
  flushLsn: Lsn;
  commitLsn: Lsn;
}

/** The answer: a position, or the two bounds between which acknowledged records may end. */
interface QuorumPosition {
  /** Everything up to here is held by a majority. */
  held: Lsn;
  /** Nothing after this can have been acknowledged. */
  possible: Lsn;
}

/** Safekeepers that make a majority. */
export function quorumOf(count: number): number {
  return Math.floor(count / 2) + 1;
}

/**
 * Evaluates the answers of some of `count` safekeepers. Undefined when fewer than a majority
 * answered. Logs that end in a lower term count as holding only what they know to be committed.
 */
export function quorumPosition(answers: LogEnd[], count: number): QuorumPosition | undefined {
  const quorum = quorumOf(count);
  if (answers.length < quorum) return undefined;
  const lastTerm = Math.max(...answers.map((answer) => answer.lastLogTerm));
  const committed = answers.map((answer) => answer.commitLsn).reduce(maxLsn);
  const ends = answers
    .map((answer) => answer.lastLogTerm === lastTerm ? answer.flushLsn : answer.commitLsn)
    .sort((a, b) => b - a);
  const held = maxLsn(committed, ends[quorum - 1]!);
  // Silent safekeepers may hold as much as the longest log does; older logs may agree with it.
  const outside = count - answers.length +
    answers.filter((answer) => answer.lastLogTerm !== lastTerm).length;
  const longest = ends[Math.max(0, quorum - outside - 1)]!;
  return { held, possible: maxLsn(held, longest) };
}
