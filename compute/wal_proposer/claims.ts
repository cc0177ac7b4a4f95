/**
 * What a safekeeper says that cannot be true, whatever has happened to it: such a one is broken, or
 * lies, and is not listened to. Pure; each function says what is impossible, or undefined.
 *
 * That a safekeeper says it has flushed what was sent to it, and has not, nobody can see; nor that
 * another proposer was elected, and was not. The first is why a majority has to say so, the second
 * ends the term and loses nothing.
 */
import { Corrupt } from "../../libs/utils/errors.ts";
import { formatLsn, INVALID_LSN, type Lsn } from "../../libs/utils/lsn.ts";
import type { VoteResponse } from "../../libs/safekeeper_protocol/messages.ts";
import { lastLogTerm, type Term } from "../../libs/safekeeper_protocol/term_history.ts";

/** Terms rise by one an election: no safekeeper is so many ahead of another, in any lifetime. */
const TERM_LEAP_MAX = 2 ** 32;
/** Records end at multiples of this. */
const RECORD_ALIGNMENT = 8;

/** A term that elections cannot have reached from `known`. */
export function impossibleTerm(term: Term, known: Term): string | undefined {
  if (term <= known + TERM_LEAP_MAX) return undefined;
  return `it has seen term ${term}, others are at ${known}`;
}

/** A log that cannot be that of a safekeeper which has given its vote, or refuses it, at a term. */
export function impossibleVote(vote: VoteResponse): string | undefined {
  const { flushLsn, termHistory, term, voteGiven } = vote;
  const last = lastLogTerm(termHistory, flushLsn);
  // Who votes has not heard from an elected proposer of that term
  if (last > term || (voteGiven && last === term)) {
    return `its WAL is of term ${last} already, at term ${term}`;
  }
  if (flushLsn === INVALID_LSN && termHistory.length > 0) {
    return "its history is longer than its WAL";
  }
  return undefined;
}

/** An end of a log of our term that is beyond `known`, all that was ever sent. */
export function impossibleEnd(flushLsn: Lsn, known: number): string | undefined {
  if (flushLsn <= known) return undefined;
  return `it has WAL to ${formatLsn(flushLsn)}, of which nothing beyond ` +
    `${formatLsn(known as Lsn)} was sent`;
}

/** Throws Corrupt for a durable end at which no record can end. */
export function checkRecordEnd(flushLsn: Lsn): void {
  if (flushLsn % RECORD_ALIGNMENT === 0) return;
  throw new Corrupt(`it has WAL to ${formatLsn(flushLsn)}, where no record can end`);
}
