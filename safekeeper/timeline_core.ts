/**
 * What one timeline's driver does in which order: the acceptor's effects, and the syncs that many
 * appends share. A pure state machine over a disk and connections that its owner gives it; the
 * simulator (tests/simulation) runs the same code on disks that crash.
 *
 * Group sync: appends are written at once; `kick` starts a sync unless one is under way. When it
 * ends, every proposer whose appends it covered is answered once, and what was written meanwhile
 * goes into the next. No timer is involved.
 *
 * A sync that fails, here or within a write, takes back what was written since the last one that
 * did not: the disk then ends where it was durable, the acceptor follows it there, and nothing is
 * appended before an election has truncated the log and a proposer feeds it again.
 */
import type { AcceptorMessage, ProposerMessage } from "../libs/safekeeper_protocol/messages.ts";
import type { Lsn } from "../libs/utils/lsn.ts";
import type { Acceptor, Effect } from "./acceptor.ts";
import type { TimelineState } from "./timeline_state.ts";

/** Control file and WAL of one timeline. Each call is done, and durable if it says so, when it returns. */
export interface TimelineDisk {
  readonly writeLsn: Lsn;
  readonly recordLsn: Lsn;
  /** Whether something is written that is not synced. */
  readonly dirty: boolean;
  /** Replaces the control file, durably. */
  persist(state: TimelineState): void;
  /**
   * Appends, not yet durable. Throws if it cannot; then nothing was appended, and if a sync failed
   * nothing counts any more that was not durable.
   */
  write(lsn: Lsn, bytes: Uint8Array): void;
  /** Cuts the WAL, durably. When it throws, nothing behind `lsn` counts any more either. */
  truncate(lsn: Lsn): void;
  /**
   * Makes all WAL durable; returns the end of its last whole record. When it throws, nothing counts
   * any more that was not durable before.
   */
  flushSync(): Lsn;
  /**
   * Starts a sync of what is written; the core's `flushed` or `flushFailed` is called when it has
   * ended, which may be before this returns.
   */
  startFlush(): void;
}

/** Where answers go. Neither call throws: a broken connection ends by itself. */
interface AnswerPort<P> {
  /** Sends a message. */
  send(proposer: P, message: AcceptorMessage): void;
  /** Sends the acceptor's current append response. */
  acknowledge(proposer: P): void;
}

/** See the head of the file. `P` stands for a proposer's connection. */
export class TimelineCore<P> {
  readonly acceptor: Acceptor;
  readonly #disk: TimelineDisk;
  readonly #answers: AnswerPort<P>;
  /** To be answered after the next sync. */
  #awaiting: Set<P> = new Set();
  /** To be answered after the sync that is under way; undefined when none is. */
  #covered: Set<P> | undefined;
  /** The set that is neither, empty. */
  #unused: Set<P> | undefined;

  constructor(acceptor: Acceptor, disk: TimelineDisk, answers: AnswerPort<P>) {
    this.acceptor = acceptor;
    this.#disk = disk;
    this.#answers = answers;
  }

  /** Handles a proposer's message. Throws what refuses it; the connection should then end. */
  handle(message: ProposerMessage, proposer: P): void {
    for (const effect of this.acceptor.handle(message)) this.#run(effect, proposer);
  }

  /** Carries out effects that no message caused, and that answer nobody. */
  run(effects: readonly Effect[]): void {
    for (const effect of effects) this.#run(effect, undefined);
  }

  #run(effect: Effect, proposer: P | undefined): void {
    switch (effect.kind) {
      case "write":
        this.#orFollow(() => this.#disk.write(effect.lsn, effect.bytes));
        this.acceptor.written(this.#disk.writeLsn, this.#disk.recordLsn);
        break;
      case "acknowledge":
        if (this.#disk.dirty) this.#awaiting.add(proposer!);
        else this.#answers.acknowledge(proposer!);
        break;
      case "reply":
        this.#answers.send(proposer!, effect.message);
        break;
      case "persist":
        this.#disk.persist(effect.state);
        this.acceptor.persisted(effect.state);
        break;
      case "truncate":
        try {
          this.#disk.truncate(effect.lsn);
        } finally {
          this.acceptor.truncated(effect.lsn);
        }
        break;
      case "flush":
        this.acceptor.flushed(this.#orFollow(() => this.#disk.flushSync()));
        break;
    }
  }

  /** Runs a step that may end with a failed sync. */
  #orFollow<T>(step: () => T): T {
    try {
      return step();
    } catch (thrown) {
      this.#follow();
      throw thrown;
    }
  }

  /** After a failed sync: the log ends where the disk says, all of it durable. */
  #follow(): void {
    const { writeLsn } = this.#disk;
    if (writeLsn >= this.acceptor.writeLsn) return;
    this.#awaiting.clear();
    this.acceptor.flushed(writeLsn);
    this.acceptor.truncated(writeLsn);
  }

  /** Starts making what was appended durable, unless that is under way already. */
  kick(): void {
    if (this.#covered !== undefined || !this.#disk.dirty) return;
    this.#covered = this.#awaiting;
    this.#awaiting = this.#unused ?? new Set();
    this.#unused = undefined;
    this.#disk.startFlush();
  }

  /** The sync under way has ended: whole records up to `lsn` are durable. Starts the next one. */
  flushed(lsn: Lsn): void {
    const covered = this.#covered!;
    this.#covered = undefined;
    this.acceptor.flushed(lsn);
    for (const proposer of covered) this.#answers.acknowledge(proposer);
    covered.clear();
    this.#unused = covered;
    this.kick();
  }

  /** The sync under way has failed: nobody is told anything, and what it covered is taken back. */
  flushFailed(): void {
    this.#covered = undefined;
    this.#follow();
  }

  /** A connection has ended: nothing is owed to it any more. */
  forget(proposer: P): void {
    this.#awaiting.delete(proposer);
    this.#covered?.delete(proposer);
  }
}
