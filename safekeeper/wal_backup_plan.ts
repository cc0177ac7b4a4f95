/**
 * What of a timeline's WAL goes to remote storage, by whom, and what may then go from the disk:
 * the decisions, without the requests and the clock.
 *
 * Whole segments below the commit LSN are uploaded by one safekeeper, which all of them choose
 * alike from what the broker tells. Two that are chosen for a while, because they know different
 * things, upload the same bytes under the same names. The unfinished segment every safekeeper
 * uploads for itself, under a name that says what is in it; it is wanted only until a newer one is
 * there, or the segment is there as a whole.
 */
import { WAL_TIMELINE_ID } from "../libs/postgres/constants.ts";
import { segmentName, segmentNumber, segmentStart } from "../libs/postgres/wal/segment.ts";
import {
  lastLogTerm,
  type Term,
  type TermHistory,
} from "../libs/safekeeper_protocol/term_history.ts";
import { assert } from "../libs/utils/assert.ts";
import type { TimelineId } from "../libs/utils/id.ts";
import { addLsn, type Lsn, maxLsn, minLsn } from "../libs/utils/lsn.ts";
import type { PartialSegment } from "./timeline_state.ts";

/** A safekeeper further behind than this does not upload. */
const OFFLOADER_LAG_BYTES = 128 * 1024 * 1024;

/** WAL kept for a safekeeper that is behind or away, where the disk is the only place for it. */
const LAGGING_PEER_WAL_BYTES = 4 * 1024 ** 3;

/** A safekeeper that is alive, as far as choosing goes. */
export interface OffloadCandidate {
  readonly id: number;
  readonly localStartLsn: Lsn;
  readonly commitLsn: Lsn;
}

/** The id of the safekeeper that uploads; undefined if none can. */
export function electOffloader(
  candidates: Iterable<OffloadCandidate>,
  backupLsn: Lsn,
  timelineId: TimelineId,
): number | undefined {
  const all = [...candidates];
  const newest = Math.max(...all.map((candidate) => candidate.commitLsn));
  const able = all.filter((candidate) =>
    candidate.localStartLsn <= backupLsn && newest - candidate.commitLsn <= OFFLOADER_LAG_BYTES
  ).map((candidate) => candidate.id).sort((a, b) => a - b);
  if (able.length === 0) return undefined;
  // Other timelines go to others: the id is random.
  return able[Number(BigInt(`0x${timelineId}`) % BigInt(able.length))];
}

/** Whether there are whole committed segments that are not in remote storage. */
export function hasWholeSegments(backupLsn: Lsn, commitLsn: Lsn, segmentSize: number): boolean {
  return segmentNumber(backupLsn, segmentSize) < segmentNumber(commitLsn, segmentSize);
}

/** Which segments are being uploaded, several at once, and how far all of them are. */
export class UploadWindow {
  readonly #segmentSize: number;
  readonly #parallel: number;
  #backupLsn: Lsn;
  /** The segment to start next. */
  #next: number;
  readonly #running = new Set<number>();
  /** Uploaded while an earlier one was not. */
  readonly #done = new Set<number>();

  constructor(backupLsn: Lsn, segmentSize: number, parallel: number) {
    this.#segmentSize = segmentSize;
    this.#parallel = parallel;
    this.#backupLsn = backupLsn;
    this.#next = segmentNumber(backupLsn, segmentSize);
  }

  /** A segment to upload now; undefined if there is none, or enough are under way. */
  start(commitLsn: Lsn): number | undefined {
    if (this.#running.size + this.#done.size >= this.#parallel) return undefined;
    if (this.#next >= segmentNumber(commitLsn, this.#segmentSize)) return undefined;
    const segment = this.#next++;
    this.#running.add(segment);
    return segment;
  }

  /** A segment is uploaded; returns the end of those that are, without a hole. */
  uploaded(segment: number): Lsn {
    assert(this.#running.delete(segment), "only what was started ends");
    this.#done.add(segment);
    for (;;) {
      const first = segmentNumber(this.#backupLsn, this.#segmentSize);
      if (!this.#done.delete(first)) return this.#backupLsn;
      this.#backupLsn = segmentStart(first + 1, this.#segmentSize);
    }
  }
}

/** What decisions on the unfinished segment depend on. */
export interface BackupView {
  readonly nodeId: number;
  readonly segmentSize: number;
  readonly localStartLsn: Lsn;
  readonly commitLsn: Lsn;
  readonly flushLsn: Lsn;
  readonly backupLsn: Lsn;
  readonly termHistory: TermHistory;
  readonly partials: readonly PartialSegment[];
}

/** What to do about unfinished segments in remote storage. */
type PartialPlan =
  | { readonly kind: "nothing" }
  /** Record this one as started, upload it, then the others are not wanted any more. */
  | { readonly kind: "upload"; readonly partial: PartialSegment }
  /** Record these as being deleted, delete them, forget them. */
  | { readonly kind: "delete"; readonly partials: readonly PartialSegment[] };

/** Name of an unfinished segment in remote storage. */
function partialName(view: BackupView, term: Term): string {
  const { flushLsn, commitLsn, segmentSize, nodeId } = view;
  const segment = segmentName(WAL_TIMELINE_ID, segmentNumber(flushLsn, segmentSize), segmentSize);
  const hex = (lsn: Lsn) => lsn.toString(16).toUpperCase().padStart(16, "0");
  return `${segment}_${term}_${hex(flushLsn)}_${hex(commitLsn)}_sk${nodeId}.partial`;
}

/** Whether the unfinished segment on disk has WAL that remote storage does not have like that. */
export function partialIsBehind(view: BackupView): boolean {
  const { flushLsn, localStartLsn, segmentSize } = view;
  if (flushLsn <= localStartLsn || flushLsn % segmentSize === 0) return false;
  const name = partialName(view, lastLogTerm(view.termHistory, flushLsn));
  return !view.partials.some((known) => known.status === "uploaded" && known.name === name);
}

/** What to do next; `due` says whether an upload may begin now. */
export function planPartial(view: BackupView, due: boolean): PartialPlan {
  const { partials, segmentSize, backupLsn, flushLsn, commitLsn } = view;
  if (due && partialIsBehind(view)) {
    const term = lastLogTerm(view.termHistory, flushLsn);
    const name = partialName(view, term);
    const partial = { name, status: "started", term, flushLsn, commitLsn, crc32c: 0 } as const;
    return { kind: "upload", partial };
  }
  const newest = partials.findLast(({ status }) => status === "uploaded");
  const unwanted = partials.filter((partial) =>
    partial !== newest ||
    segmentNumber(partial.flushLsn, segmentSize) < segmentNumber(backupLsn, segmentSize)
  );
  return unwanted.length === 0 ? { kind: "nothing" } : { kind: "delete", partials: unwanted };
}

/** Whether what was read for an upload is still what the log says. */
export function stillThere(view: BackupView, partial: PartialSegment): boolean {
  return view.flushLsn >= partial.flushLsn &&
    lastLogTerm(view.termHistory, partial.flushLsn) === partial.term;
}

/** Whether all WAL is committed and in remote storage, so that none need be on disk. */
export function mayOffload(view: BackupView): boolean {
  const { flushLsn, commitLsn, backupLsn, localStartLsn, segmentSize } = view;
  return flushLsn > localStartLsn && commitLsn === flushLsn &&
    !hasWholeSegments(backupLsn, commitLsn, segmentSize) && !partialIsBehind(view);
}

/** Where WAL on disk may end to be needed. */
interface RemovalView {
  readonly commitLsn: Lsn;
  readonly flushLsn: Lsn;
  readonly peerHorizonLsn: Lsn;
  readonly remoteConsistentLsn: Lsn;
  /** Undefined: there is no remote storage. */
  readonly backupLsn: Lsn | undefined;
  /** Start of the WAL on disk. */
  readonly firstLsn: Lsn;
  /** How far each receiver is. */
  readonly sentLsns: Iterable<Lsn>;
}

/**
 * The position below which whole segments may be removed. Where there is remote storage, a peer
 * that is behind and a receiver that reads from there need none of what is on disk.
 */
export function removalHorizon(view: RemovalView): Lsn {
  let horizon = minLsn(minLsn(view.remoteConsistentLsn, view.commitLsn), view.flushLsn);
  if (view.backupLsn === undefined) {
    const oldest = Math.max(0, view.commitLsn - LAGGING_PEER_WAL_BYTES) as Lsn;
    horizon = minLsn(horizon, maxLsn(view.peerHorizonLsn, oldest));
  } else {
    horizon = minLsn(horizon, view.backupLsn);
  }
  for (const sentLsn of view.sentLsns) {
    if (view.backupLsn === undefined || sentLsn >= view.firstLsn) {
      horizon = minLsn(horizon, sentLsn);
    }
  }
  return horizon;
}

/** The segment that WAL ending at `lsn` ends in: the one before, if it ends with it. */
export function lastSegment(lsn: Lsn, segmentSize: number): number {
  return segmentNumber(addLsn(lsn, -1), segmentSize);
}
