/**
 * One timeline at work: carries out the acceptor's effects on the control file and the WAL storage,
 * syncs in groups, and wakes whoever waits.
 *
 * Group sync: appends are written at once; `kick` starts a sync unless one is under way. When it
 * ends, every proposer whose appends it covered gets one AppendResponse, and what was written
 * meanwhile goes into the next. No timer is involved.
 *
 * Everything here runs in one isolate without awaiting between reading and changing state, so
 * messages of several connections are handled strictly one after the other.
 */
import { pgVersion } from "../libs/postgres/versions.ts";
import { segmentNumber } from "../libs/postgres/wal/segment.ts";
import type { PageserverFeedback } from "../libs/safekeeper_protocol/feedback.ts";
import type { AcceptorMessage, ProposerMessage } from "../libs/safekeeper_protocol/messages.ts";
import type { Term } from "../libs/safekeeper_protocol/term_history.ts";
import { fsyncDirectory, makeDirectory, removeFile } from "../libs/utils/durable.ts";
import { messageOf, Unavailable } from "../libs/utils/errors.ts";
import type { TenantId, TimelineId } from "../libs/utils/id.ts";
import { ifThere } from "../libs/utils/if_there.ts";
import { logger } from "../libs/utils/log.ts";
import { type Lsn, maxLsn, minLsn } from "../libs/utils/lsn.ts";
import { Acceptor, type Effect } from "./acceptor.ts";
import { CONTROL_FILE_NAME, readControlFile, writeControlFile } from "./control_file.ts";
import { flushSeconds, persistedStates, receivedBytes, removedSegments } from "./metrics.ts";
import { mergedHotStandby, type Receiver } from "./receivers.ts";
import { pgMajorOf, type TimelineState } from "./timeline_state.ts";
import type { WalReader } from "./wal_reader.ts";
import { WalStorage } from "./wal_storage.ts";

const log = logger("safekeeper", "timeline");

/**
 * WAL kept for a safekeeper that is behind or away, which has no other source for it. One that is
 * further behind must be made anew; without a limit a dead one would fill the others' disks.
 */
const LAGGING_PEER_WAL_BYTES = 4 * 1024 ** 3;

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
  readonly #acceptor: Acceptor;
  readonly #storage: WalStorage;
  /** Proposers to answer after the next sync. */
  #awaiting: Set<Proposer> = new Set();
  #flushing = false;
  #feedback: PageserverFeedback | undefined;
  #feedbackNumber = 0;
  /** Segments below were removed. */
  #removedBelow = 0;
  #closed = false;
  /** What listeners know. */
  #announced: { commitLsn: Lsn; flushLsn: Lsn; term: Term };

  private constructor(directory: string, nodeId: number, state: TimelineState) {
    this.directory = directory;
    const version = pgVersion(pgMajorOf(state.pgVersionNum));
    this.#storage = new WalStorage({
      directory,
      version,
      segmentSize: state.walSegmentSize,
      systemId: () => this.#acceptor.state.systemId,
      localStartLsn: state.localStartLsn,
      commitLsn: state.commitLsn,
      joinLsns: state.termHistory.map((entry) => entry.lsn),
    });
    this.#acceptor = new Acceptor(nodeId, state, this.#storage.flushLsn);
    const { commitLsn, flushLsn } = this.#acceptor;
    this.#announced = { commitLsn, flushLsn, term: state.term };
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
    return this.#acceptor.state.tenantId;
  }
  get timelineId(): TimelineId {
    return this.#acceptor.state.timelineId;
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
    >
  > {
    return this.#acceptor;
  }
  /** The newest pageserver feedback. */
  get feedback(): PageserverFeedback | undefined {
    return this.#feedback;
  }

  /** Whether somebody is connected, or a pageserver still lacks WAL that is committed. */
  get active(): boolean {
    return this.proposers.size > 0 || this.receivers.size > 0 ||
      this.#acceptor.remoteConsistentLsn < this.#acceptor.commitLsn;
  }

  /**
   * Handles a proposer's message and carries out its effects. Appended WAL is not durable before
   * `kick`. Throws what refuses the message; the connection should then end.
   */
  handle(message: ProposerMessage, proposer: Proposer): void {
    this.#runAll(this.#acceptor.handle(message), proposer);
  }

  #runAll(effects: readonly Effect[], proposer?: Proposer): void {
    // A deleted timeline may exist anew in the same directory: this object must not touch it.
    if (this.#closed) throw new Unavailable(`Cannot use timeline ${this.timelineId}: it is closed`);
    try {
      for (const effect of effects) this.#run(effect, proposer);
    } finally {
      this.#announce();
    }
  }

  #run(effect: Effect, proposer: Proposer | undefined): void {
    switch (effect.kind) {
      case "write":
        this.#storage.write(effect.lsn, effect.bytes);
        this.#acceptor.written(this.#storage.writeLsn, this.#storage.recordLsn);
        receivedBytes.inc(effect.bytes.length);
        break;
      case "acknowledge":
        if (this.#storage.dirty) this.#awaiting.add(proposer!);
        else this.#acknowledge(proposer!);
        break;
      case "reply":
        proposer!.send(effect.message);
        break;
      case "persist":
        writeControlFile(this.directory, effect.state);
        this.#acceptor.persisted(effect.state);
        persistedStates.inc();
        break;
      case "truncate":
        this.#storage.truncate(effect.lsn);
        this.#acceptor.truncated(effect.lsn);
        break;
      case "flush":
        this.#acceptor.flushed(this.#storage.flushSync());
        break;
    }
  }

  /** Starts making what was appended durable, unless that is under way already. */
  kick(): void {
    if (!this.#flushing && this.#storage.dirty) this.#flushAll();
  }

  async #flushAll(): Promise<void> {
    this.#flushing = true;
    try {
      while (this.#storage.dirty && !this.#closed) {
        const covered = this.#awaiting;
        this.#awaiting = new Set();
        const begun = performance.now();
        this.#acceptor.flushed(await this.#storage.flush());
        for (const proposer of covered) this.#acknowledge(proposer);
        this.#announce();
        flushSeconds.observe((performance.now() - begun) / 1000);
      }
    } catch (thrown) {
      if (this.#closed) return;
      log.error("{timeline}: {message}", { timeline: this.timelineId, message: messageOf(thrown) });
      for (const proposer of this.proposers) proposer.fail(messageOf(thrown));
    } finally {
      this.#flushing = false;
    }
  }

  #acknowledge(proposer: Proposer): void {
    const response = this.#acceptor.appendResponse(mergedHotStandby(this.receivers));
    const feedback = proposer.feedbackSeen < this.#feedbackNumber ? this.#feedback : undefined;
    proposer.feedbackSeen = this.#feedbackNumber;
    proposer.send(feedback === undefined ? response : { ...response, feedback });
  }

  /** Wakes listeners if something moved since the last time. */
  #announce(): void {
    const { commitLsn, flushLsn, state } = this.#acceptor;
    const before = this.#announced;
    this.#announced = { commitLsn, flushLsn, term: state.term };
    const committed = commitLsn !== before.commitLsn;
    const flushed = flushLsn !== before.flushLsn || state.term !== before.term;
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
    this.#acceptor.remoteConsistent(lsn);
  }

  /** Raises the term durably (by one, or to `term`); returns the term before and after. */
  bumpTerm(term: Term | undefined): { previous: Term; current: Term } {
    const previous = this.#acceptor.state.term;
    this.#runAll(this.#acceptor.bumpTerm(term));
    return { previous, current: this.#acceptor.state.term };
  }

  /** Brings the control file up to date with what is only in memory. */
  checkpoint(): void {
    const effect = this.#acceptor.checkpoint();
    if (effect !== undefined) this.#runAll([effect]);
  }

  /** Removes WAL segments that nobody needs; the positions that allow it are made durable first. */
  removeOldWal(): void {
    const { state, commitLsn, flushLsn, peerHorizonLsn, remoteConsistentLsn } = this.#acceptor;
    const peers = maxLsn(peerHorizonLsn, Math.max(0, commitLsn - LAGGING_PEER_WAL_BYTES) as Lsn);
    let horizon = minLsn(minLsn(remoteConsistentLsn, commitLsn), minLsn(flushLsn, peers));
    for (const { sentLsn } of this.receivers) horizon = minLsn(horizon, sentLsn);
    const segment = segmentNumber(horizon, state.walSegmentSize);
    if (segment <= this.#removedBelow) return;
    this.checkpoint();
    removedSegments.inc(this.#storage.removeBelow(horizon));
    this.#removedBelow = segment;
  }

  /** A reader of the WAL; the caller closes it. */
  reader(): WalReader {
    return this.#storage.reader();
  }

  /** Ends all connections, makes everything durable and closes the files. */
  close(): void {
    this.#disconnect("the safekeeper is stopping");
    if (this.#storage.dirty) this.#acceptor.flushed(this.#storage.flushSync());
    this.checkpoint();
    this.#closed = true;
    this.#storage.close();
  }

  /** Ends all connections and removes the timeline, durably. */
  delete(): void {
    this.#closed = true;
    this.#disconnect("the timeline was deleted");
    this.#storage.close();
    removeDirectory(this.directory);
  }

  #disconnect(why: string): void {
    for (const proposer of this.proposers) proposer.fail(`Cannot go on: ${why}`);
    for (const receiver of this.receivers) receiver.close();
  }
}

/** Removes a timeline's directory, the control file first: without it the rest means nothing. */
function removeDirectory(directory: string): void {
  ifThere(() => {
    removeFile(`${directory}/${CONTROL_FILE_NAME}`);
    Deno.removeSync(directory, { recursive: true });
    fsyncDirectory(directory.slice(0, directory.lastIndexOf("/")));
  });
}
