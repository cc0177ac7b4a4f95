/**
 * A safekeeper in the simulation: the real acceptor under the real timeline core, on a disk that
 * crashes. It handles what arrives in order, syncs when the virtual clock says so, and may hang.
 */
import {
  type AcceptorMessage,
  NO_HOT_STANDBY,
  type ProposerMessage,
} from "../../libs/safekeeper_protocol/messages.ts";
import {
  isMember,
  type MembershipConfiguration,
} from "../../libs/safekeeper_protocol/membership.ts";
import type { MemberLog } from "../../libs/safekeeper_protocol/membership_change.ts";
import type { Term } from "../../libs/safekeeper_protocol/term_history.ts";
import { BadRequest, Conflict, Unavailable } from "../../libs/utils/errors.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import { Acceptor } from "../../safekeeper/acceptor.ts";
import {
  chooseDonor,
  donorAppend,
  DonorChoice,
  donorElection,
  donorGreeting,
  type DonorStatus,
  type LogPosition,
} from "../../safekeeper/peer_recovery.ts";
import { planPull } from "../../safekeeper/pull_plan.ts";
import { TimelineCore } from "../../safekeeper/timeline_core.ts";
import type { TimelineState } from "../../safekeeper/timeline_state.ts";
import type { SyncTicket } from "../../safekeeper/wal_positions.ts";
import type { Connection } from "./connection.ts";
import { Crash, SimDisk } from "./disk.ts";
import { LOG_START, type LogBytes } from "./model_wal.ts";
import { Violation } from "./oracle.ts";
import type { World } from "./world.ts";

/** Longest pause between two looks at the peers. */
const RECOVERY_MS_MAX = 15;
/** Most bytes in one piece of what is copied from a peer. */
const PIECE_BYTES_MAX = 100;
const NO_WAL = new Uint8Array(0);

/** Pause in which messages gather before a sync. */
const KICK_MS_MAX = 0.5;
/** Part of the syncs that are over when they have been started. */
const IN_PLACE_SHARE = 0.3;

/** Who is answered. */
export interface Answerable {
  /** The log that the safekeeper's last vote was about. */
  votersLog: LogBytes | undefined;
  toProposer(message: AcceptorMessage): void;
  /** The safekeeper refuses to go on. */
  closeAtNode(): void;
}

/** Stands in for the proposer of a peer's term. */
class DonorsProposer implements Answerable {
  votersLog = undefined;
  isOver = false;
  toProposer(): void {}
  closeAtNode(): void {
    this.isOver = true;
  }
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
  readonly #choice = new DonorChoice();
  #kickPlanned = false;

  constructor(world: World, readonly id: number, state: TimelineState | undefined) {
    this.#world = world;
    this.disk = new SimDisk(state, world.random);
    this.disk.onFlushStarted = (ticket, lastWrite) => {
      if (world.random.chance(IN_PLACE_SHARE)) return this.#finishFlush(ticket, lastWrite);
      const { incarnation } = this;
      this.#later(world.random.between(0, world.plan.syncMsMax), () => {
        if (incarnation !== this.incarnation) return;
        this.guard(undefined, () => this.#finishFlush(ticket, lastWrite));
      });
    };
    this.start();
  }

  #finishFlush(ticket: SyncTicket, lastWrite: number): void {
    let end: Lsn;
    try {
      end = this.disk.finishFlush(ticket, lastWrite);
    } catch (thrown) {
      if (!(thrown instanceof Unavailable)) throw thrown;
      this.#world.note?.(`a sync of safekeeper ${this.id} fails`);
      this.core!.flushFailed();
      for (const connection of [...this.connections]) connection.closeAtNode();
      return;
    }
    this.core!.flushed(end);
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

  /** Gets the timeline from another one. */
  pull(from: SimNode, membership: MembershipConfiguration): void {
    const { state, commitLsn } = from.acceptor!;
    const source = { ...state, commitLsn, firstLsn: LOG_START };
    this.disk.install(planPull(source, membership, false).state, from.log(commitLsn));
    this.start();
  }

  /** The timeline is removed. */
  drop(): void {
    this.core = undefined;
    this.incarnation++;
    this.disk.install(undefined, NO_WAL);
    this.#world.oracle.dropped(this);
    for (const connection of this.connections) connection.nodeGone();
    this.connections.clear();
    this.#world.note?.(`safekeeper ${this.id} drops the timeline`);
  }

  /** What PUT /membership does; undefined if it is refused. */
  switchMembership(membership: MembershipConfiguration): MemberLog | undefined {
    let answer: MemberLog | undefined;
    this.guard(undefined, () => {
      this.core!.run(this.acceptor!.switchMembership(membership));
      const { term, lastLogTerm, flushLsn } = this.acceptor!;
      this.#world.oracle.answered(this, { kind: "log", flushLsn });
      answer = { term, lastLogTerm, flushLsn };
    });
    return answer;
  }

  /** What POST /term_bump does. */
  raiseTerm(term: Term): void {
    this.guard(undefined, () => this.core!.run(this.acceptor!.bumpTerm(term)));
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

  /** Looks from time to time whether a peer is ahead, and copies from it, as recovery_loop.ts does. */
  recoverAgain(): void {
    const { clock, random } = this.#world;
    clock.after(random.between(2, RECOVERY_MS_MAX), () => {
      this.#recover();
      this.recoverAgain();
    });
  }

  /** What the others say of their logs, by the broker. */
  #peers(): (LogPosition & { safekeeperId: number })[] {
    return this.#world.nodes.flatMap(({ id, acceptor }) => {
      if (acceptor === undefined) return [];
      const { term, lastLogTerm, flushLsn } = acceptor;
      return [{ safekeeperId: id, term, lastLogTerm, flushLsn }];
    });
  }

  /** Whether there is a peer to copy from that is up, and of no older membership. */
  isBehind(): boolean {
    const { acceptor } = this;
    if (acceptor === undefined) return false;
    const { generation } = acceptor.state.membership;
    const peers = this.#peers().filter(({ safekeeperId }) => {
      const { membership } = this.#world.nodes[safekeeperId - 1]!.acceptor!.state;
      return membership.generation >= generation && isMember(membership, this.id);
    });
    return chooseDonor(acceptor, peers) !== undefined;
  }

  #recover(): void {
    const { clock, network } = this.#world;
    const isWanted = () => this.acceptor !== undefined && this.connections.size === 0;
    const choice = isWanted() ? this.#choice.next(this.acceptor!, this.#peers()) : undefined;
    if (choice === undefined || this.hungUntilMs > clock.nowMs) return;
    const node = this.#world.nodes[choice.safekeeperId - 1]!;
    if (network.loses(this.id, node.id) || network.loses(node.id, this.id)) return;
    const { state, commitLsn, flushLsn, lastLogTerm, term } = node.acceptor!;
    const donor: DonorStatus = { ...state, commitLsn, flushLsn, lastLogTerm, term };
    const { incarnation } = this;
    this.#later(2 * network.delayMs(), () => {
      if (incarnation !== this.incarnation || !isWanted()) return;
      const proposer = new DonorsProposer();
      let at: Lsn | undefined;
      this.guard(proposer, () => {
        this.core!.handle(donorGreeting(this.acceptor!.state, donor), proposer);
        const election = donorElection(this.acceptor!.state, this.acceptor!.flushLsn, donor);
        this.core!.handle(election, proposer);
        at = election.startStreamingAt;
      });
      if (this.core === undefined) return;
      if (at === undefined) return this.#choice.failed(node.id);
      this.#world.note?.(`safekeeper ${this.id} follows ${node.id} from ${at - LOG_START}`);
      this.#copy(node, donor, at, proposer);
    });
  }

  /** Copies what the donor has, piece by piece, until a compute connects. */
  #copy(node: SimNode, donor: DonorStatus, at: Lsn, proposer: DonorsProposer): void {
    const { network, random } = this.#world;
    const { incarnation } = this;
    this.#later(network.delayMs(), () => {
      const isUp = incarnation === this.incarnation && this.core !== undefined;
      if (!isUp || proposer.isOver) return;
      if (this.connections.size > 0 || at >= donor.flushLsn || node.acceptor === undefined) return;
      if (network.loses(this.id, node.id)) return;
      let wal: Uint8Array = NO_WAL;
      node.guard(undefined, () => wal = node.serve(donor.term, at));
      if (wal.length === 0) return;
      const piece = wal.subarray(0, 1 + random.below(PIECE_BYTES_MAX));
      this.receive(proposer, donorAppend(donor, at, piece));
      this.#copy(node, donor, (at + piece.length) as Lsn, proposer);
    });
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
