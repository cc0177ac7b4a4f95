/**
 * START_REPLICATION: streams a timeline's WAL to a pageserver, a hot standby, or a proposer that
 * recovers. What is not on disk any more comes from remote storage, if there is one.
 *
 * Without a term it serves committed WAL only. With one it serves all durable WAL for as long as
 * that is the timeline's term: what an elected proposer copies from its donor. The stream sleeps
 * until the timeline says that there is more; small pieces in quick succession go out together,
 * since no commit waits for them, and sooner where the receiver says that somebody waits there;
 * once a second of silence it sends a keepalive that asks for a reply. Replies carry standby
 * status, hot standby feedback and pageserver feedback.
 */
import type { CopyBoth } from "../libs/pgwire/copy_both.ts";
import {
  postgresTime,
  queueKeepalive,
  readReceiverMessage,
  type ReceiverMessage,
  reserveXlogData,
} from "../libs/pgwire/replication.ts";
import { PAGE_SIZE } from "../libs/postgres/constants.ts";
import { decodeFeedback } from "../libs/safekeeper_protocol/feedback.ts";
import { NO_HOT_STANDBY } from "../libs/safekeeper_protocol/messages.ts";
import type { Term } from "../libs/safekeeper_protocol/term_history.ts";
import { NotFound } from "../libs/utils/errors.ts";
import { addLsn, formatLsn, INVALID_LSN, type Lsn } from "../libs/utils/lsn.ts";
import { Turns } from "../libs/utils/turns.ts";
import { connectionCount, remoteReadBytes, sentBytes } from "./metrics.ts";
import type { Receiver } from "./receivers.ts";
import type { RemoteWalReader } from "./remote_wal.ts";
import type { Timeline } from "./timeline.ts";
import type { WalReader } from "./wal_reader.ts";

/** Most WAL in one message. */
const CHUNK_BYTES = 128 * 1024;

/** Pause behind a message of less than a chunk: one for each commit would take the commits' CPU. */
const GATHER_MS = 5;
/**
 * A pageserver needs half a millisecond for each beside what is in it, and hardly anybody reads
 * from it what was written just now; who does has it ask.
 */
const PAGESERVER_GATHER_MS = 100;

/** A keepalive goes out after this much silence. */
const KEEPALIVE_MS = 1000;

/** What the receiver asked for. */
export interface ReplicationRequest {
  readonly startLsn: Lsn;
  /** Serve uncommitted WAL too, as long as this is the term. */
  readonly term?: Term;
  /** application_name. */
  readonly name: string;
}

/** One stream. */
class WalSender implements Receiver {
  readonly name: string;
  sentLsn: Lsn;
  appliedLsn: Lsn = INVALID_LSN;
  hotStandby = NO_HOT_STANDBY;
  isPageserver = false;
  readonly #copy: CopyBoth;
  readonly #timeline: Timeline;
  readonly #term: Term | undefined;
  readonly #reader: WalReader;
  #remoteReader: RemoteWalReader | undefined;
  #ended = false;
  #wake: (() => void) | undefined;
  #silent = false;
  /** When the last message went out, in ms of `performance.now`. */
  #sentMs = -Infinity;
  /** The receiver has asked for what there is, and got nothing since. */
  #isAwaited = false;
  /** Ends the pause in which WAL gathers. */
  #endGathering: (() => void) | undefined;

  constructor(copy: CopyBoth, timeline: Timeline, request: ReplicationRequest) {
    this.#copy = copy;
    this.#timeline = timeline;
    this.#term = request.term;
    this.name = request.name;
    this.sentLsn = request.startLsn;
    this.#reader = timeline.reader();
  }

  close(): void {
    this.#ended = true;
    this.#wakeUp();
    this.#endGathering?.();
    this.#copy.close();
  }

  #wakeUp(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }

  /** Streams until the receiver leaves. Throws what ends the stream otherwise. */
  async run(): Promise<void> {
    const wakeUp = () => {
      this.#wakeUp();
      const { commitLsn } = this.#timeline.acceptor;
      if (commitLsn - this.sentLsn >= CHUNK_BYTES) this.#endGathering?.();
    };
    const listener = this.#term === undefined ? { onCommit: wakeUp } : { onFlush: wakeUp };
    this.#timeline.listeners.add(listener);
    this.#timeline.receivers.add(this);
    connectionCount.inc({ role: "receiver" });
    const ticker = setInterval(() => {
      if (this.#silent) wakeUp();
      this.#silent = true;
    }, KEEPALIVE_MS);
    const replies = this.#readReplies();
    const turns = new Turns();
    try {
      while (!this.#ended) {
        const { sentLsn } = this;
        await this.#step();
        const turn = turns.after(this.sentLsn - sentLsn);
        if (turn !== undefined) await turn;
      }
      await replies;
    } finally {
      clearInterval(ticker);
      connectionCount.dec({ role: "receiver" });
      this.#timeline.receivers.delete(this);
      this.#timeline.listeners.delete(listener);
      this.#timeline.giveBack(this.#reader);
      this.#remoteReader?.close();
      replies.catch(() => {}); // it ends when the connection is closed behind us
    }
  }

  /** End of what may be sent. Throws Conflict when the term asked for is over. */
  #limit(): Lsn {
    return this.#timeline.acceptor.servableEnd(this.#term);
  }

  async #step(): Promise<void> {
    const limit = this.#limit();
    if (this.sentLsn < limit) {
      this.#silent = false;
      const gatherMs = this.#sentMs + this.#gatherMs - performance.now();
      if (gatherMs > 0 && limit - this.sentLsn < CHUNK_BYTES) {
        await this.#gather(gatherMs);
        return; // looks again: the timeline has moved on, or the stream has ended
      }
      if (this.#reader.has(this.sentLsn)) this.#queueChunk(limit);
      else if (!await this.#queueRemoteChunk(limit)) return;
      this.#isAwaited = false;
      await this.#copy.flush();
      this.#sentMs = performance.now();
      return;
    }
    await new Promise<void>((resolve) => this.#wake = resolve);
    // Woken by silence, not by news?
    if (!this.#ended && this.#silent && this.sentLsn >= this.#limit()) {
      queueKeepalive(this.#copy, this.sentLsn, postgresTime(Date.now()), true);
      await this.#copy.flush();
    }
  }

  get #gatherMs(): number {
    return this.isPageserver && !this.#isAwaited ? PAGESERVER_GATHER_MS : GATHER_MS;
  }

  /** Resolves after a pause, or when there is a reason to look again before. */
  async #gather(ms: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#endGathering = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#endGathering = undefined;
  }

  /** Bytes of the next message. */
  #chunkBytes(limit: Lsn): number {
    const segmentSize = this.#timeline.acceptor.state.walSegmentSize;
    const start = this.sentLsn;
    const end = Math.min(limit, start + CHUNK_BYTES, start - start % segmentSize + segmentSize);
    return (end < limit ? end - end % PAGE_SIZE : end) - start;
  }

  /** Reserves room for `count` bytes of WAL from sentLsn on. */
  #reserve(limit: Lsn, count: number): Uint8Array {
    const now = postgresTime(Date.now());
    const at = reserveXlogData(this.#copy, this.sentLsn, limit, now, count);
    return this.#copy.sendBytes.subarray(at, at + count);
  }

  #queued(count: number): void {
    this.sentLsn = addLsn(this.sentLsn, count);
    sentBytes.inc(count);
  }

  #queueChunk(limit: Lsn): void {
    const count = this.#chunkBytes(limit);
    if (this.#reader.read(this.sentLsn, this.#reserve(limit, count)) !== count) {
      // What is in the send buffer is not WAL: it must not be sent.
      this.close();
      throw new NotFound(
        `Cannot stream WAL from ${formatLsn(this.sentLsn)}: its segment is cut short`,
      );
    }
    this.#queued(count);
  }

  /** Queues WAL that is not on disk; false if it is now, or nobody wants it any more. */
  async #queueRemoteChunk(limit: Lsn): Promise<boolean> {
    const start = this.sentLsn;
    const { backup, acceptor } = this.#timeline;
    const segmentEnd = addLsn(
      start,
      acceptor.state.walSegmentSize - start % acceptor.state.walSegmentSize,
    );
    if (backup !== undefined && segmentEnd <= acceptor.backupLsn) {
      this.#remoteReader ??= backup.wal.reader();
      const count = this.#chunkBytes(limit);
      const wal = await this.#remoteReader.read(start, count, acceptor.backupLsn);
      if (this.#ended) return false;
      this.#reserve(limit, wal.length).set(wal);
      this.#queued(wal.length);
      remoteReadBytes.inc(wal.length);
      return true;
    }
    if (!this.#timeline.isOffloaded) {
      throw new NotFound(
        `Cannot stream WAL from ${formatLsn(start)}: that segment is not on this safekeeper`,
      );
    }
    await this.#timeline.available();
    return false;
  }

  async #readReplies(): Promise<void> {
    try {
      for (;;) {
        const payload = await this.#copy.receive();
        if (payload === undefined) return;
        this.#take(readReceiverMessage(payload));
      }
    } finally {
      this.#ended = true;
      this.#wakeUp();
      this.#endGathering?.();
    }
  }

  #take(message: ReceiverMessage): void {
    switch (message.kind) {
      case "status":
        this.appliedLsn = message.applied;
        if (!message.replyWanted) break;
        this.#isAwaited = true;
        this.#endGathering?.();
        break;
      case "hotStandbyFeedback":
        this.hotStandby = {
          time: Number(message.time),
          xmin: fullXid(message.xmin),
          catalogXmin: fullXid(message.catalogXmin),
        };
        break;
      case "pageserverFeedback":
        this.isPageserver = true;
        this.#timeline.takeFeedback(decodeFeedback(message.feedback));
        break;
    }
  }
}

/** A full transaction id; one whose lower half is 0 is none. */
function fullXid(value: bigint): number {
  return value % 4294967296n === 0n ? 0 : Number(value);
}

/** Serves one receiver until it leaves. Throws what should be told to it. */
export function streamWal(
  copy: CopyBoth,
  timeline: Timeline,
  request: ReplicationRequest,
): Promise<void> {
  return new WalSender(copy, timeline, request).run();
}
