/**
 * One timeline at work: the core (timeline_core.ts) on its control file and WAL storage, and
 * whoever waits for it, receives from it or reports to it.
 *
 * Everything here runs in one isolate without awaiting between reading and changing state, so
 * messages of several connections are handled strictly one after the other.
 */
import { pgVersion } from "../libs/postgres/versions.ts";
import { segmentNumber, segmentStart } from "../libs/postgres/wal/segment.ts";
import type { PageserverFeedback } from "../libs/safekeeper_protocol/feedback.ts";
import type { MembershipConfiguration } from "../libs/safekeeper_protocol/membership.ts";
import type { AcceptorMessage, ProposerMessage } from "../libs/safekeeper_protocol/messages.ts";
import type { Term } from "../libs/safekeeper_protocol/term_history.ts";
import { fsyncDirectory, makeDirectory, removeFile } from "../libs/utils/durable.ts";
import { assert } from "../libs/utils/assert.ts";
import { Corrupt, messageOf, Unavailable } from "../libs/utils/errors.ts";
import type { TenantId, TimelineId } from "../libs/utils/id.ts";
import { ifThere } from "../libs/utils/if_there.ts";
import { logger } from "../libs/utils/log.ts";
import { formatLsn, type Lsn } from "../libs/utils/lsn.ts";
import { Acceptor, type Effect } from "./acceptor.ts";
import { CONTROL_FILE_NAME, readControlFile, writeControlFile } from "./control_file.ts";
import { removedSegments } from "./metrics.ts";
import { Peers } from "./peers.ts";
import { mergedHotStandby, type Receiver } from "./receivers.ts";
import { SPARE_NAME } from "./spare_segment.ts";
import { TimelineCore } from "./timeline_core.ts";
import { TimelineFiles } from "./timeline_disk.ts";
import { pgMajorOf, type TimelineState } from "./timeline_state.ts";
import type { WalBackup } from "./wal_backup.ts";
import { lastSegment, removalHorizon } from "./wal_backup_plan.ts";
import { WalReader } from "./wal_reader.ts";
import { listSegments } from "./wal_segments.ts";
import { WalStorage } from "./wal_storage.ts";

const log = logger("safekeeper", "timeline");

/** A connected proposer. */
export interface Proposer {
  /** Sends a message; never throws, a broken connection ends by itself. */
  send(message: AcceptorMessage): void;
  /** Ends the connection with an error message. */
  fail(why: string): void;
  /** Number of the newest pageserver feedback that it was sent. */
  feedbackSeen: number;
}

/** Told when something changed that it may wait for. */
interface TimelineListener {
  onCommit?(): void;
  /** Flush LSN or term changed. */
  onFlush?(): void;
}

/** See the head of this file. */
export class Timeline {
  readonly directory: string;
  readonly proposers: Set<Proposer> = new Set();
  readonly receivers: Set<Receiver> = new Set();
  readonly listeners: Set<TimelineListener> = new Set();
  /** The other safekeepers. */
  readonly peers: Peers = new Peers();
  /** WAL is being copied from a peer. */
  isRecovering = false;
  /** Where there is remote storage. */
  backup: WalBackup | undefined;
  readonly #files: TimelineFiles;
  readonly #readers: Set<WalReader> = new Set();
  readonly #core: TimelineCore<Proposer>;
  #feedback: PageserverFeedback | undefined;
  #feedbackNumber = 0;
  /** Segments below were removed. */
  #removedBelow = 0;
  #closed = false;
  // What listeners know
  #announcedCommit: Lsn;
  #announcedFlush: Lsn;
  #announcedTerm: Term;

  private constructor(directory: string, nodeId: number, state: TimelineState) {
    this.directory = directory;
    const wal = state.offloadedLsn ?? this.#openStorage(state);
    // A crash may have left files behind the note that the WAL is elsewhere.
    if (state.offloadedLsn !== undefined) removeSegments(directory, state.walSegmentSize);
    this.#removedBelow = listSegments(directory, state.walSegmentSize)[0]?.segment ?? 0;
    this.#files = new TimelineFiles(directory, wal, {
      flushed: (lsn) => this.#flushed(lsn),
      failed: (thrown) => this.#flushFailed(thrown),
    });
    const acceptor = new Acceptor(nodeId, state, this.#files.recordLsn);
    this.#core = new TimelineCore(acceptor, this.#files, {
      send: (proposer, message) => proposer.send(message),
      acknowledge: (proposer) => this.#acknowledge(proposer),
    });
    this.#announcedCommit = acceptor.commitLsn;
    this.#announcedFlush = acceptor.flushLsn;
    this.#announcedTerm = state.term;
  }

  #openStorage(state: TimelineState): WalStorage {
    return new WalStorage({
      directory: this.directory,
      version: pgVersion(pgMajorOf(state.pgVersionNum)),
      segmentSize: state.walSegmentSize,
      systemId: () => this.acceptor.state.systemId,
      localStartLsn: state.localStartLsn,
      commitLsn: state.commitLsn,
      joinLsns: state.termHistory.map((entry) => entry.lsn),
    });
  }

  /**
   * Makes a new timeline durable. What an unfinished creation or deletion left there is removed.
   */
  static create(directory: string, nodeId: number, state: TimelineState): Timeline {
    removeDirectory(directory);
    makeDirectory(directory);
    writeControlFile(directory, state);
    return new Timeline(directory, nodeId, state);
  }

  /**
   * Opens a timeline. Throws Corrupt naming the file for a damaged, foreign or newer control file
   * and for missing WAL; Deno.errors.NotFound if there is no control file.
   */
  static open(
    directory: string,
    nodeId: number,
    tenantId: TenantId,
    timelineId: TimelineId,
  ): Timeline {
    return new Timeline(directory, nodeId, readControlFile(directory, tenantId, timelineId));
  }

  get tenantId(): TenantId {
    return this.#core.acceptor.state.tenantId;
  }
  get timelineId(): TimelineId {
    return this.#core.acceptor.state.timelineId;
  }
  /** The state machine, for looking at. */
  get acceptor(): Readonly<
    Pick<
      Acceptor,
      | "state"
      | "flushLsn"
      | "commitLsn"
      | "writeLsn"
      | "lastLogTerm"
      | "peerHorizonLsn"
      | "remoteConsistentLsn"
      | "servableEnd"
      | "backupLsn"
      | "term"
    >
  > {
    return this.#core.acceptor;
  }
  /** The newest pageserver feedback. */
  get feedback(): PageserverFeedback | undefined {
    return this.#feedback;
  }

  /** Whether it was closed, or deleted. */
  get isClosed(): boolean {
    return this.#closed;
  }

  /** Whether somebody is connected, or a pageserver or remote storage still lacks committed WAL. */
  get active(): boolean {
    return this.proposers.size > 0 || this.receivers.size > 0 || this.backup?.isPending === true ||
      this.#core.acceptor.remoteConsistentLsn < this.#core.acceptor.commitLsn;
  }

  /** Whether nobody writes, and nobody needs WAL that is here. */
  get isIdle(): boolean {
    const { commitLsn, remoteConsistentLsn } = this.#core.acceptor;
    if (this.proposers.size > 0 || this.isRecovering || remoteConsistentLsn < commitLsn) {
      return false;
    }
    for (const { sentLsn } of this.receivers) if (sentLsn < commitLsn) return false;
    return true;
  }

  /**
   * Handles a proposer's message and carries out its effects. Appended WAL is not durable before
   * `kick`. Throws what refuses the message; the connection should then end.
   */
  handle(message: ProposerMessage, proposer: Proposer): void {
    this.#checkOpen();
    try {
      this.#core.handle(message, proposer);
    } finally {
      this.#announce();
    }
  }

  #runAll(effects: readonly Effect[]): void {
    this.#checkOpen();
    try {
      this.#core.run(effects);
    } finally {
      this.#announce();
    }
  }

  /** A deleted timeline may exist anew in the same directory: this object must not touch it. */
  #checkOpen(): void {
    if (this.#closed) throw new Unavailable(`Cannot use timeline ${this.timelineId}: it is closed`);
  }

  /** Starts making what was appended durable, unless that is under way already. */
  kick(): void {
    if (!this.#closed) this.#core.kick();
  }

  #flushed(lsn: Lsn): void {
    if (this.#closed) return;
    this.#core.flushed(lsn);
    this.#announce();
  }

  #flushFailed(thrown: unknown): void {
    if (this.#closed) return;
    this.#core.flushFailed();
    this.#announce();
    log.error("{timeline}: {message}", { timeline: this.timelineId, message: messageOf(thrown) });
    for (const proposer of this.proposers) proposer.fail(messageOf(thrown));
  }

  /** A proposer's connection has ended. */
  leave(proposer: Proposer): void {
    this.proposers.delete(proposer);
    this.#core.forget(proposer);
  }

  #acknowledge(proposer: Proposer): void {
    const response = this.#core.acceptor.appendResponse(mergedHotStandby(this.receivers));
    const feedback = proposer.feedbackSeen < this.#feedbackNumber ? this.#feedback : undefined;
    proposer.feedbackSeen = this.#feedbackNumber;
    proposer.send(feedback === undefined ? response : { ...response, feedback });
  }

  /** Wakes listeners if something moved since the last time. */
  #announce(): void {
    const { commitLsn, flushLsn, term } = this.#core.acceptor;
    const committed = commitLsn !== this.#announcedCommit;
    const flushed = flushLsn !== this.#announcedFlush || term !== this.#announcedTerm;
    if (!committed && !flushed) return;
    this.#announcedCommit = commitLsn;
    this.#announcedFlush = flushLsn;
    this.#announcedTerm = term;
    for (const listener of this.listeners) {
      if (committed) listener.onCommit?.();
      if (flushed) listener.onFlush?.();
    }
  }

  /** Takes a pageserver's feedback: remembered, and relayed with the next acknowledgements. */
  takeFeedback(feedback: PageserverFeedback): void {
    this.#feedback = feedback;
    this.#feedbackNumber++;
    this.remoteConsistent(feedback.remoteConsistentLsn);
  }

  /** A pageserver has everything before `lsn` durably, as it told this safekeeper or another one. */
  remoteConsistent(lsn: Lsn): void {
    this.#core.acceptor.remoteConsistent(lsn);
  }

  /** A peer knows how far the log is committed (acceptor.ts has the rule). */
  peerCommitted(lastLogTerm: Term, lsn: Lsn): void {
    this.#core.acceptor.peerCommitted(lastLogTerm, lsn);
    this.#announce();
  }

  /** Raises the term durably (by one, or to `term`); returns the term before and after. */
  bumpTerm(term: Term | undefined): { previous: Term; current: Term } {
    const previous = this.#core.acceptor.state.term;
    this.#runAll(this.#core.acceptor.bumpTerm(term));
    return { previous, current: this.#core.acceptor.state.term };
  }

  /**
   * Goes over to a membership durably, unless a newer one is in force (acceptor.ts); returns the
   * one before. Throws Conflict.
   */
  switchMembership(membership: MembershipConfiguration): MembershipConfiguration {
    const previous = this.#core.acceptor.state.membership;
    this.#runAll(this.#core.acceptor.switchMembership(membership));
    return previous;
  }

  /** Brings the control file up to date with what is only in memory. */
  checkpoint(): void {
    const effect = this.#core.acceptor.checkpoint();
    if (effect !== undefined) this.#runAll([effect]);
  }

  /** Remote storage has all whole segments before `lsn`, as this safekeeper or another one saw. */
  backedUp(lsn: Lsn): void {
    this.#core.acceptor.backedUp(lsn);
  }

  /** Records durably what remote storage has of unfinished segments. */
  amendBackup(changes: Pick<TimelineState, "partialBackup">): void {
    this.#runAll([this.#core.acceptor.amendBackup(changes)]);
  }

  /**
   * Removes WAL segments that nobody needs; the positions that allow it are made durable first.
   * Resolves when they are gone; never rejects, but throws if the positions cannot be written.
   */
  removeOldWal(): Promise<void> {
    const { storage } = this.#files;
    if (storage === undefined) return Promise.resolve();
    const { state, commitLsn, flushLsn, peerHorizonLsn, remoteConsistentLsn, backupLsn } =
      this.#core.acceptor;
    const horizon = removalHorizon({
      commitLsn,
      flushLsn,
      peerHorizonLsn,
      remoteConsistentLsn,
      backupLsn: this.backup === undefined ? undefined : backupLsn,
      firstLsn: this.firstLsn,
      sentLsns: [...this.receivers].map((receiver) => receiver.sentLsn),
    });
    const segment = segmentNumber(horizon, state.walSegmentSize);
    if (segment <= this.#removedBelow) return Promise.resolve();
    this.checkpoint();
    this.#removedBelow = segment;
    return storage.removeBelow(horizon).then((count) => removedSegments.inc(count), (thrown) => {
      // What is left is removed with the next ones
      log.warning("{timeline}: cannot remove old WAL: {why}", {
        timeline: this.timelineId,
        why: messageOf(thrown),
      });
    });
  }

  /** WAL before was removed from the disk. */
  get firstLsn(): Lsn {
    return segmentStart(this.#removedBelow, this.#core.acceptor.state.walSegmentSize);
  }

  /** Whether the WAL is in remote storage alone. */
  get isOffloaded(): boolean {
    return this.#files.storage === undefined;
  }

  /** Takes the WAL off the disk: all of it is committed and in remote storage. */
  offload(): void {
    this.#checkOpen();
    const { acceptor } = this.#core;
    const { flushLsn, commitLsn, state } = acceptor;
    assert(this.isIdle && flushLsn === commitLsn, "only what nobody uses is offloaded");
    this.#runAll([acceptor.amendBackup({ offloadedLsn: flushLsn })]);
    // An open file would be one that is gone when the WAL is back under the same name.
    for (const reader of this.#readers) reader.close();
    this.#files.storage?.close();
    this.#files.wal = flushLsn;
    removedSegments.inc(removeSegments(this.directory, state.walSegmentSize));
    log.info("{timeline}: WAL offloaded", { timeline: this.timelineId });
  }

  /** Waits until the WAL is on disk. Throws what getting it back throws. */
  async available(): Promise<void> {
    if (!this.isOffloaded) return;
    if (this.backup === undefined) {
      throw new Unavailable(
        `Cannot use timeline ${this.timelineId}: its WAL is in remote storage, which is not ` +
          `configured; set remote_storage`,
      );
    }
    await this.backup.restore();
  }

  /** The end of the WAL is on disk again. Throws Corrupt if it is not what it was. */
  restored(): void {
    this.#checkOpen();
    const { acceptor } = this.#core;
    const storage = this.#openStorage(acceptor.state);
    if (storage.flushLsn !== acceptor.flushLsn) {
      storage.close();
      throw new Corrupt(
        `Cannot use the WAL of timeline ${this.timelineId} from remote storage: it ends at ` +
          `${formatLsn(storage.flushLsn)}, not at ${formatLsn(acceptor.flushLsn)}`,
      );
    }
    this.#runAll([acceptor.amendBackup({ offloadedLsn: undefined })]);
    this.#files.wal = storage;
    this.#removedBelow = lastSegment(acceptor.flushLsn, acceptor.state.walSegmentSize);
    log.info("{timeline}: WAL is back", { timeline: this.timelineId });
  }

  /** A reader of the WAL on disk; to be given back. */
  reader(): WalReader {
    const reader = new WalReader(this.directory, this.#core.acceptor.state.walSegmentSize);
    this.#readers.add(reader);
    return reader;
  }

  /** Gives a reader back. */
  giveBack(reader: WalReader): void {
    this.#readers.delete(reader);
    reader.close();
  }

  /** Ends all connections, makes everything durable and closes the files. */
  close(): void {
    this.#disconnect("the safekeeper is stopping");
    if (this.#files.dirty) this.#runAll([{ kind: "flush" }]);
    this.checkpoint();
    this.#closed = true;
    this.#files.storage?.close();
  }

  /** Ends all connections and removes the timeline, durably. */
  delete(): void {
    this.#closed = true;
    this.#disconnect("the timeline was deleted");
    this.#files.storage?.close();
    removeDirectory(this.directory);
  }

  #disconnect(why: string): void {
    for (const proposer of this.proposers) proposer.fail(`Cannot go on: ${why}`);
    for (const receiver of this.receivers) receiver.close();
  }
}

/** Removes all WAL in a directory; returns how many segments. */
function removeSegments(directory: string, segmentSize: number): number {
  const files = listSegments(directory, segmentSize);
  for (const { path } of files) Deno.removeSync(path);
  ifThere(() => Deno.removeSync(`${directory}/${SPARE_NAME}`));
  return files.length;
}

/** Removes a timeline's directory, the control file first: without it the rest means nothing. */
export function removeDirectory(directory: string): void {
  ifThere(() => {
    removeFile(`${directory}/${CONTROL_FILE_NAME}`);
    Deno.removeSync(directory, { recursive: true });
    fsyncDirectory(directory.slice(0, directory.lastIndexOf("/")));
  });
}
