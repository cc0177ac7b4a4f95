/**
 * What a failed sync does to a timeline: nothing that it covered is acknowledged, by no later sync
 * and in no vote, and nothing is appended before an election has cut the log where it was durable.
 */
import assert from "node:assert/strict";
import {
  type AcceptorMessage,
  NO_HOT_STANDBY,
  type ProposerMessage,
} from "../libs/safekeeper_protocol/messages.ts";
import { Conflict, Unavailable } from "../libs/utils/errors.ts";
import type { Lsn } from "../libs/utils/lsn.ts";
import { Acceptor } from "./acceptor.ts";
import { LOG_START, someTimelineState } from "./acceptor_fixture.ts";
import { TimelineCore, type TimelineDisk } from "./timeline_core.ts";
import type { TimelineState } from "./timeline_state.ts";
import { type SyncTicket, WalPositions } from "./wal_positions.ts";

/** A disk whose records are as long as each append, and of which some syncs fail. */
class FailingDisk implements TimelineDisk {
  syncFails = false;
  /** The sync that was started. */
  ticket: SyncTicket | undefined;
  readonly #positions = new WalPositions(LOG_START);

  get writeLsn(): Lsn {
    return this.#positions.writeLsn;
  }
  get recordLsn(): Lsn {
    return this.#positions.recordLsn;
  }
  get dirty(): boolean {
    return this.#positions.dirty;
  }
  persist(_state: TimelineState): void {}
  write(lsn: Lsn, bytes: Uint8Array): void {
    const { unclean } = this.#positions;
    if (unclean !== undefined) throw new Unavailable(unclean);
    const end = (lsn + bytes.length) as Lsn;
    this.#positions.written(end, end);
  }
  truncate(lsn: Lsn): void {
    this.#positions.truncationBegins(lsn);
    this.#positions.truncated();
  }
  flushSync(): Lsn {
    return this.sync(this.#positions.syncBegins());
  }
  startFlush(): void {
    this.ticket = this.#positions.syncBegins();
  }
  /** The end of a sync. */
  sync(ticket: SyncTicket): Lsn {
    if (this.syncFails) {
      this.syncFails = false;
      this.#positions.syncFailed();
      throw new Unavailable("input/output error");
    }
    this.#positions.synced(ticket);
    return this.#positions.flushLsn;
  }
}

/** A timeline with its proposer, which has 8 bytes durable and as many more written. */
class Fixture {
  readonly disk = new FailingDisk();
  readonly sent: AcceptorMessage[] = [];
  readonly core: TimelineCore<string>;

  constructor() {
    const acceptor = new Acceptor(1, someTimelineState(), LOG_START);
    this.core = new TimelineCore(acceptor, this.disk, {
      send: (_, message) => void this.sent.push(message),
      acknowledge: () => void this.sent.push(acceptor.appendResponse(NO_HOT_STANDBY)),
    });
    this.handle({ kind: "vote", generation: 0, term: 1 });
    this.elect(1, LOG_START);
    this.append(1, 0);
    this.finishSync();
    this.append(1, 8);
  }

  handle(message: ProposerMessage): void {
    this.core.handle(message, "proposer");
  }

  elect(term: number, at: Lsn): void {
    const termHistory = Array.from({ length: term }, (_, i) => ({ term: i + 1, lsn: LOG_START }));
    termHistory[term - 1]!.lsn = at;
    this.handle({ kind: "elected", generation: 0, term, startStreamingAt: at, termHistory });
  }

  /** Eight bytes at an offset. */
  append(term: number, offset: number): void {
    this.handle({
      kind: "append",
      generation: 0,
      term,
      beginLsn: lsnOf(offset),
      endLsn: lsnOf(offset + 8),
      commitLsn: LOG_START,
      truncateLsn: LOG_START,
      wal: new Uint8Array(8),
    });
  }

  /** A sync from its start to its end, as the driver of the files does it. */
  finishSync(): void {
    this.core.kick();
    this.endSync();
  }

  endSync(): void {
    const { ticket } = this.disk;
    if (ticket === undefined) return;
    this.disk.ticket = undefined;
    let end: Lsn;
    try {
      end = this.disk.sync(ticket);
    } catch {
      return this.core.flushFailed();
    }
    this.core.flushed(end);
  }

  /** How far the newest answer says that the log is durable, as an offset. */
  answered(): number {
    const message = this.sent.at(-1)!;
    assert.ok(message.kind !== "greeting");
    return message.flushLsn - LOG_START;
  }
}

function lsnOf(offset: number): Lsn {
  return (LOG_START + offset) as Lsn;
}

Deno.test("no later sync and no vote counts for what a failed sync covered", () => {
  const timeline = new Fixture();
  const before = timeline.sent.length;
  timeline.disk.syncFails = true;
  timeline.finishSync();
  assert.equal(timeline.sent.length, before, "nobody is told anything");
  assert.equal(timeline.core.acceptor.writeLsn, lsnOf(8));
  timeline.finishSync();
  assert.throws(() => timeline.append(1, 16), Conflict);
  assert.throws(() => timeline.append(1, 8), Unavailable);
  timeline.finishSync();
  timeline.handle({ kind: "vote", generation: 0, term: 2 });
  assert.equal(timeline.answered(), 8);
  timeline.elect(2, lsnOf(8));
  timeline.append(2, 8);
  timeline.finishSync();
  assert.equal(timeline.answered(), 16);
});

Deno.test("a sync that a vote needs fails: the vote is refused, the next one knows no more", () => {
  const timeline = new Fixture();
  timeline.disk.syncFails = true;
  assert.throws(() => timeline.handle({ kind: "vote", generation: 0, term: 2 }), Unavailable);
  timeline.handle({ kind: "vote", generation: 0, term: 2 });
  assert.equal(timeline.answered(), 8);
});

Deno.test("a sync under way counts for nothing when another one fails before it ends", () => {
  const timeline = new Fixture();
  timeline.core.kick();
  timeline.disk.syncFails = true;
  assert.throws(() => timeline.handle({ kind: "vote", generation: 0, term: 2 }), Unavailable);
  timeline.endSync();
  assert.equal(timeline.answered(), 8);
});
