/**
 * Term histories: which proposer term wrote which part of a timeline's WAL.
 *
 * A history is a list of (term, first LSN written under it), terms strictly rising, LSNs not
 * falling. It is what Raft keeps in every log entry, compressed: the WAL between two entries
 * belongs to the term of the first. Two logs that agree on a prefix of their histories hold the
 * same bytes up to the end of that prefix; this file finds that end.
 *
 * Wire form: u32 count, then count times (u64 term, u64 LSN), big endian.
 */
import type { ByteReader, ByteWriter } from "../utils/bytes.ts";
import { Corrupt } from "../utils/errors.ts";
import { formatLsn, type Lsn } from "../utils/lsn.ts";
import { readSafeU64 } from "./wire.ts";

/** A proposer's election number; 0 before the first election. */
export type Term = number;

/** WAL from `lsn` on (up to the next entry's) was written by the proposer of `term`. */
interface TermEntry {
  readonly term: Term;
  readonly lsn: Lsn;
}

/** Invariant: terms strictly rise, LSNs do not fall. */
export type TermHistory = readonly TermEntry[];

/** More elections than any timeline lives through; bounds what a message may claim. */
const TERM_HISTORY_ENTRIES_MAX = 65536;

/** Appends a history to a message. */
export function writeTermHistory(writer: ByteWriter, history: TermHistory): void {
  writer.u32(history.length);
  for (const entry of history) writer.u64(BigInt(entry.term)).lsn(entry.lsn);
}

/** Reads a history. Throws Corrupt if it is not ordered. */
export function readTermHistory(reader: ByteReader): TermHistory {
  const count = reader.u32();
  if (count > TERM_HISTORY_ENTRIES_MAX) {
    throw new Corrupt(`Cannot read a term history: it claims ${count} entries`);
  }
  const history: TermEntry[] = [];
  for (let i = 0; i < count; i++) history.push({ term: readSafeU64(reader), lsn: reader.lsn() });
  checkTermHistory(history);
  return history;
}

/** Throws Corrupt unless terms rise and LSNs do not fall. */
export function checkTermHistory(history: TermHistory): void {
  for (let i = 1; i < history.length; i++) {
    if (history[i]!.term <= history[i - 1]!.term || history[i]!.lsn < history[i - 1]!.lsn) {
      throw new Corrupt(`Cannot use a term history: ${formatTermHistory(history)} is not ordered`);
    }
  }
}

/** The entries that start at or before `lsn`: the history of a log that ends there. */
export function termHistoryUpTo(history: TermHistory, lsn: Lsn): TermHistory {
  let count = history.length;
  while (count > 0 && history[count - 1]!.lsn > lsn) count--;
  return history.slice(0, count);
}

/**
 * The term of the log's end at `flushLsn`: the last entry that starts at or before it; 0 if none.
 */
export function lastLogTerm(history: TermHistory, flushLsn: Lsn): Term {
  for (let i = history.length - 1; i >= 0; i--) {
    if (history[i]!.lsn <= flushLsn) return history[i]!.term;
  }
  return 0;
}

/** The last term that two logs share, and the LSN up to which they hold the same bytes. */
interface CommonPoint {
  readonly term: Term;
  readonly lsn: Lsn;
}

/**
 * Compares an elected proposer's history with an acceptor's (already cut at its flush LSN).
 * Undefined if they share no term. Throws Corrupt if a shared term starts at two LSNs, which means
 * that two proposers believed they had won it.
 */
export function highestCommonPoint(
  proposer: TermHistory,
  acceptor: TermHistory,
  acceptorFlushLsn: Lsn,
): CommonPoint | undefined {
  let last = -1;
  for (let i = 0; i < Math.min(proposer.length, acceptor.length); i++) {
    if (proposer[i]!.term !== acceptor[i]!.term) break;
    if (proposer[i]!.lsn !== acceptor[i]!.lsn) {
      throw new Corrupt(
        `Cannot compare term histories: term ${proposer[i]!.term} starts at ` +
          `${formatLsn(proposer[i]!.lsn)} and at ${formatLsn(acceptor[i]!.lsn)}`,
      );
    }
    last = i;
  }
  if (last < 0) return undefined;
  const proposerEnd = proposer[last + 1]?.lsn ?? Infinity;
  const acceptorEnd = acceptor[last + 1]?.lsn ?? acceptorFlushLsn;
  return { term: proposer[last]!.term, lsn: Math.min(proposerEnd, acceptorEnd) as Lsn };
}

/** For messages: `[1@0/15000000, 3@0/16B5A50]`. */
export function formatTermHistory(history: TermHistory): string {
  return `[${history.map((entry) => `${entry.term}@${formatLsn(entry.lsn)}`).join(", ")}]`;
}
