/**
 * A safekeeper in the simulation: the real acceptor under the real timeline core, on a disk that
 * crashes. It handles what arrives in order, syncs when the virtual clock says so, and may hang.
 */
import {
  type AcceptorMessage,
  NO_HOT_STANDBY,
  type ProposerMessage,
} from "../../libs/safekeeper_protocol/messages.ts";
import type { Term } from "../../libs/safekeeper_protocol/term_history.ts";
import { BadRequest, Conflict, Unavailable } from "../../libs/utils/errors.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import { Acceptor } from "../../safekeeper/acceptor.ts";
import { TimelineCore } from "../../safekeeper/timeline_core.ts";
import type { TimelineState } from "../../safekeeper/timeline_state.ts";
import type { Connection } from "./connection.ts";
import { Crash, SimDisk } from "./disk.ts";
import { LOG_START, type LogBytes } from "./model_wal.ts";
import { Violation } from "./oracle.ts";
import type { World } from "./world.ts";

/** Pause in which messages gather before a sync. */
const KICK_MS_MAX = 0.5;

/** Who is answered. */
export interface Answerable {
  /** The log that the safekeeper's last vote was about. */
  votersLog: LogBytes | undefined;
  toProposer(message: AcceptorMessage): void;
  /** The safekeeper refuses to go on. */
  closeAtNode(): void;
}

/** See the head of the file. */
export class SimNode {
  readonly disk: SimDisk;
  /** Undefined while the safekeeper is down. */
  core: TimelineCore<Answerable> | undefined;
  /** Rises with each start. */
  incarnation = 0;
  /** Hangs until then (SIGSTOP, a stuck disk): what arrives waits. */
  hungUntilMs = 0;
  readonly connections: Set<Connection> = new Set();
  readonly #world: World;
  #kickPlanned = false;

  constructor(world: World, readonly id: number, state: TimelineState | undefined) {
    this.#world = world;
    this.disk = new SimDisk(state, world.random);
    this.disk.onFlushStarted = (ticket, lastWrite) => {
      const { incarnation } = this;
      this.#later(world.random.between(0, world.plan.syncMsMax), () => {
        if (incarnation !== this.incarnation) return;
        this.guard(undefined, () => {
          this.core!.flushed(this.disk.finishFlush(ticket, lastWrite));
        });
      });
    };
    this.start();
  }

  /** Calls `run` after a pause, or when the node does not hang any more. */
  #later(delayMs: number, run: () => void): void {
    const { clock } = this.#world;
    clock.after(delayMs, () => {
      if (this.hungUntilMs <= clock.nowMs) run();
      else clock.at(this.hungUntilMs, run);
    });
  }

  get acceptor(): Acceptor | undefined {
    return this.core?.acceptor;
  }

  /** Comes up from what is on the disk, if that is a timeline and it is not up. */
  start(): void {
    const { control } = this.disk;
    if (this.core !== undefined || control === undefined) return;
    this.incarnation++;
    this.#kickPlanned = false;
    const acceptor = new Acceptor(this.id, control, this.disk.open(control));
    this.core = new TimelineCore(acceptor, this.disk, {
      send: (connection, message) => {
        if (message.kind === "vote") connection.votersLog = this.log(message.flushLsn);
        this.#answer(connection, message);
      },
      acknowledge: (connection) =>
        this.#answer(connection, acceptor.appendResponse(NO_HOT_STANDBY)),
    });
    this.#world.note?.(`safekeeper ${this.id} starts: ${this.describe()}`);
  }

  #answer(connection: Answerable, message: AcceptorMessage): void {
    this.#world.oracle.answered(this, message);
    connection.toProposer(message);
  }

  /** Loses power and, if `restartMs` is given, comes back after it. */
  crash(restartMs: number): void {
    if (this.core === undefined) return;
    this.#world.note?.(`safekeeper ${this.id} crashes`);
    this.core = undefined;
    this.incarnation++;
    this.disk.crash();
    for (const connection of this.connections) connection.nodeGone();
    this.connections.clear();
    this.#world.clock.after(restartMs, () => this.start());
  }

  /** Gets the timeline, which it did not have. */
  create(state: TimelineState): void {
    this.disk.control = state;
    this.start();
  }

  /** A message has arrived. */
  receive(connection: Answerable, message: ProposerMessage): void {
    this.guard(connection, () => {
      this.core!.handle(message, connection);
      this.#planKick();
    });
  }

  #planKick(): void {
    if (this.#kickPlanned || !this.disk.dirty) return;
    this.#kickPlanned = true;
    const { incarnation } = this;
    this.#later(this.#world.random.between(0, KICK_MS_MAX), () => {
      if (incarnation !== this.incarnation) return;
      this.#kickPlanned = false;
      this.core!.kick();
    });
  }

  /** Runs a step of the driver: power may be lost in it, and what refuses a message ends it. */
  guard(connection: Answerable | undefined, run: () => void): void {
    try {
      run();
    } catch (thrown) {
      if (thrown instanceof Crash) {
        this.crash(this.#world.random.between(1, 40));
      } else if (isRefusal(thrown)) {
        if (/Cannot truncate/.test((thrown as Error).message)) {
          throw new Violation((thrown as Error).message);
        }
        this.#world.note?.(`safekeeper ${this.id} refuses: ${(thrown as Error).message}`);
        connection?.closeAtNode();
      } else throw thrown;
    }
  }

  /** What START_REPLICATION serves from `from` in this term. Throws Conflict. */
  serve(term: Term, from: Lsn): Uint8Array {
    const end = this.acceptor!.servableEnd(term);
    return this.disk.cached.slice(from - LOG_START, Math.max(end, from) - LOG_START);
  }

  /** A copy of the log up to `end`. */
  log(end: Lsn): LogBytes {
    return this.disk.cached.slice(0, end - LOG_START);
  }

  /** For traces. */
  describe(): string {
    const { acceptor } = this;
    if (acceptor === undefined) return "down";
    const at = (lsn: Lsn) => lsn - LOG_START;
    return `term ${acceptor.state.term}, log ${acceptor.lastLogTerm}:${at(acceptor.flushLsn)}` +
      `/${at(acceptor.writeLsn)}, commit ${at(acceptor.commitLsn)}`;
  }
}

function isRefusal(thrown: unknown): boolean {
  return thrown instanceof Conflict || thrown instanceof BadRequest ||
    thrown instanceof Unavailable;
}
