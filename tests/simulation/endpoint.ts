/**
 * A compute host with its Postgres in the simulation: the real proposer and conversation, with
 * connections that are opened again and again, a ring that forgets old WAL, and catching up from
 * another safekeeper.
 */
import type { AcceptorMessage } from "../../libs/safekeeper_protocol/messages.ts";
import {
  allMembers,
  type MembershipConfiguration,
} from "../../libs/safekeeper_protocol/membership.ts";
import { INVALID_LSN, type Lsn } from "../../libs/utils/lsn.ts";
import { Conversation } from "../../compute/wal_proposer/conversation.ts";
import type { AppendRange, WonTerm } from "../../compute/wal_proposer/effects.ts";
import { Proposer } from "../../compute/wal_proposer/proposer.ts";
import { Connection } from "./connection.ts";
import {
  LOG_BYTES_MAX,
  LOG_START,
  type LogBytes,
  lsnAt,
  RECORD_BYTES,
  writeRecord,
} from "./model_wal.ts";
import { Violation } from "./oracle.ts";
import type { SimNode } from "./node.ts";
import { STATE, type World } from "./world.ts";

const HEARTBEAT_MS = 15;
const SILENCE_MS_MAX = 45;
const STRANDED_MS_MAX = 100;
const RECONNECT_MS_MAX = 8;
const CAMPAIGN_PAUSE_MS = 3;
const COMMIT_NOTICE_MS = 0.5;
/** Bytes in one append: small, so that appends end inside of records and lag behind. */
const APPEND_BYTES_MAX = 48;
/** How many of them end with a record. */
const WHOLE_RECORDS = 0.6;

/** Whom a proposer begins with. */
export interface KnownMembers {
  readonly ids: readonly number[];
  readonly membership: MembershipConfiguration;
}

/** What of a dropped connection or a lost election must never be the reason. */
const IMPOSSIBLE =
  /Cannot compare term histories|now ends at|did not write|greeted twice|cannot be believed/;

/** See the head of the file. */
export class SimEndpoint {
  readonly proposer: Proposer;
  /** The WAL that Postgres has, behind that of its donor. */
  readonly log: LogBytes;
  /** Bytes of it. */
  logBytes = 0;
  /** The oldest byte that the ring still has. */
  ringStart: Lsn = INVALID_LSN;
  alive = true;
  /** Whom it was configured with. */
  readonly ids: readonly number[];
  readonly #configured: KnownMembers;
  /** By the number of the peer. */
  readonly #nodes: SimNode[];
  readonly #left = new Set<number>();
  readonly #world: World;
  readonly #conversation: Conversation;
  readonly #links: (Connection | undefined)[] = [];
  readonly #catchingUp: boolean[] = [];
  /** Peers whose WAL is being gathered. */
  readonly #gathering = new Set<number>();
  readonly #range: AppendRange = {
    begin: INVALID_LSN,
    end: INVALID_LSN,
    commit: INVALID_LSN,
    truncate: INVALID_LSN,
  };
  #noticing = false;
  #commitLsn: Lsn = INVALID_LSN;

  /**
   * @param host its number in the network
   * @param postgres which Postgres process it runs: the same for a host that adopts it
   */
  constructor(
    world: World,
    readonly host: number,
    readonly postgres: number,
    adopted?: SimEndpoint,
  ) {
    this.#world = world;
    // The new host may have less news of the members than the old one had
    const known = adopted === undefined ? world.recorded() : adopted.remembered();
    this.ids = known.ids;
    this.#configured = known;
    this.#nodes = known.ids.map((id) => world.nodes[id - 1]!);
    this.proposer = adopted === undefined
      ? new Proposer(known.ids, known.membership)
      : Proposer.resume(known.ids, adopted.won(), known.membership);
    this.log = adopted?.log ?? new Uint8Array(LOG_BYTES_MAX);
    if (adopted !== undefined) {
      this.logBytes = adopted.logBytes;
      // The slot of the WAL stream stands where the last host acknowledged
      this.ringStart = Math.max(adopted.#commitLsn, adopted.proposer.startLsn) as Lsn;
    }
    const { tenantId, timelineId, pgVersionNum, walSegmentSize } = STATE;
    const identity = { tenantId, timelineId, pgVersionNum, walSegmentSize };
    this.#conversation = new Conversation(this.proposer, identity, {
      send: (peer, message) => this.#links[peer]?.toNode(message),
      heartbeat: (peer, range) => this.#append(peer, range, NO_WAL),
      drop: (peer, why) => {
        if (IMPOSSIBLE.test(why)) throw new Violation(`${this.name}: ${why}`);
        this.#drop(peer);
      },
      again: (peer) => this.#drop(peer),
      join: (peer, { id }) => {
        this.#nodes[peer] = world.nodes[id - 1]!;
        this.#connectLater(peer);
      },
      leave: (peer) => {
        this.#links[peer]?.closeAtProposer();
        this.#links[peer] = undefined;
        this.#left.add(peer);
      },
      membership: ({ generation }) =>
        world.note?.(`${this.name} goes over to membership ${generation}`),
      retry: (campaigns) => {
        const pauseMs = CAMPAIGN_PAUSE_MS * campaigns * world.random.between(0.5, 1.5);
        this.#later(pauseMs, () => {
          if (this.#conversation.campaign()) this.#pump();
        });
      },
      elected: () => this.#elected(),
      deposed: (why) => {
        if (IMPOSSIBLE.test(why)) throw new Violation(`${this.name}: ${why}`);
        world.note?.(`${this.name} is deposed: ${why}`);
        this.stop();
      },
    });
    for (let peer = 0; peer < known.ids.length; peer++) this.#connectLater(peer);
    this.#later(HEARTBEAT_MS, () => this.#beat());
    world.note?.(
      `${this.name} starts${adopted === undefined ? "" : ` and adopts ${adopted.name}`}`,
    );
  }

  get name(): string {
    return `host ${this.host}`;
  }
  get pgEnd(): Lsn {
    return lsnAt(this.logBytes);
  }

  /** What a host that adopts this Postgres knows of its term. */
  won(): WonTerm {
    const { term, startLsn, history } = this.proposer;
    return { term, startLsn, history, endLsnMax: this.pgEnd };
  }

  /** What a host that adopts it may know of the members: what it began with, or what holds now. */
  remembered(): KnownMembers {
    const { membership } = this.proposer;
    if (membership.generation === 0 || this.#world.random.chance(0.5)) return this.#configured;
    return { ids: allMembers(membership).map(({ id }) => id), membership };
  }

  /** Is told of a membership. */
  reconfigure(membership: MembershipConfiguration): void {
    if (this.alive && this.#conversation.reconfigure(membership)) this.#pump();
  }

  #later(delayMs: number, run: () => void): void {
    this.#world.clock.after(delayMs, () => {
      if (this.alive) run();
    });
  }

  /** Ends without a word to anybody but by closing its connections. */
  stop(): void {
    this.alive = false;
    for (const link of this.#links) link?.closeAtProposer();
  }

  #connectLater(peer: number): void {
    const { network, random } = this.#world;
    this.#later(random.between(0.5, RECONNECT_MS_MAX) + 2 * network.delayMs(), () => {
      if (this.#left.has(peer)) return;
      const node = this.#nodes[peer]!;
      const unreachable = node.core === undefined ||
        node.hungUntilMs > this.#world.clock.nowMs ||
        network.loses(this.host, node.id) || network.loses(node.id, this.host);
      if (unreachable) return this.#connectLater(peer);
      this.#links[peer] = new Connection(this.#world, this, peer, node);
      this.#conversation.opened(peer);
    });
  }

  #drop(peer: number): void {
    this.#links[peer]?.closeAtProposer();
    this.#links[peer] = undefined;
    this.#connectLater(peer);
  }

  /** A connection has ended at the other side. */
  lost(connection: Connection): void {
    if (!this.alive || this.#links[connection.peer] !== connection) return;
    this.#conversation.closed(connection.peer);
    this.#links[connection.peer] = undefined;
    this.#connectLater(connection.peer);
  }

  /** A message has arrived. */
  receive(connection: Connection, message: AcceptorMessage): void {
    const { peer } = connection;
    if (!this.alive || this.#links[peer] !== connection) return;
    if (message.kind !== "append") {
      if (this.#conversation.answered(peer, message)) this.#pump();
      return;
    }
    if (this.proposer.appended(peer, message.term, message.flushLsn)) this.#committed();
    if (this.#conversation.settle()) this.#pump();
    else this.#pumpOne(peer);
  }

  #elected(): void {
    const { proposer } = this;
    const donor = this.#links[proposer.donor]!.votersLog!;
    this.log.set(donor);
    this.logBytes = proposer.startLsn - LOG_START;
    this.ringStart = proposer.startLsn;
    this.#world.note?.(`${this.name} wins term ${proposer.term} at ${this.logBytes}`);
    if (donor.length !== this.logBytes) throw new Violation("the donor's log does not end there");
    this.#world.oracle.elected(this);
  }

  #committed(): void {
    const { commitLsn } = this.proposer;
    this.#world.note?.(`${this.name} commits ${commitLsn - LOG_START}`);
    this.#world.oracle.claimed(this, this.#commitLsn, commitLsn);
    this.#commitLsn = commitLsn;
    if (this.#world.random.chance(this.#world.plan.forgets)) this.ringStart = commitLsn;
    if (this.#noticing) return;
    this.#noticing = true;
    this.#later(COMMIT_NOTICE_MS, () => {
      this.#noticing = false;
      for (let peer = 0; peer < this.#links.length; peer++) {
        if (this.proposer.owesCommit(peer)) this.#conversation.heartbeat(peer);
      }
    });
  }

  /** Postgres writes some records. */
  generate(): void {
    if (!this.alive || this.proposer.state !== "elected") return;
    const { random } = this.#world;
    for (let more = 1 + random.below(4); more > 0; more--) {
      if (this.logBytes + RECORD_BYTES > LOG_BYTES_MAX) break;
      writeRecord(this.log, this.logBytes, random);
      this.logBytes += RECORD_BYTES;
    }
    this.#pump();
  }

  #beat(): void {
    const { clock } = this.#world;
    this.#conversation.beat(clock.nowMs, STRANDED_MS_MAX);
    if (!this.alive) return;
    for (let peer = 0; peer < this.#links.length; peer++) {
      const link = this.#links[peer];
      if (link === undefined) continue;
      if (clock.nowMs - link.heardMs > SILENCE_MS_MAX) {
        this.#conversation.closed(peer);
        this.#drop(peer);
      } else {
        this.#conversation.heartbeat(peer);
        this.#pumpOne(peer);
      }
    }
    this.#later(HEARTBEAT_MS, () => this.#beat());
  }

  #pump(): void {
    for (let peer = 0; peer < this.#links.length; peer++) this.#pumpOne(peer);
  }

  #pumpOne(peer: number): void {
    if (this.#links[peer] === undefined || this.#catchingUp[peer]) return;
    if (!this.proposer.isStreaming(peer)) return;
    if (this.#conversation.lags(peer, this.ringStart)) return this.#catchUp(peer);
    const { gatherMsMax } = this.#world.plan;
    if (gatherMsMax > 0 && this.proposer.mayWait(peer)) this.#gather(peer, gatherMsMax);
    else this.#sendTo(peer);
  }

  /** Sends later what there is then. */
  #gather(peer: number, msMax: number): void {
    if (this.#gathering.has(peer)) return;
    this.#gathering.add(peer);
    const link = this.#links[peer];
    this.#later(this.#world.random.between(0, msMax), () => {
      this.#gathering.delete(peer);
      const goesOn = this.#links[peer] === link && this.proposer.isStreaming(peer) &&
        !this.#catchingUp[peer] && !this.#conversation.lags(peer, this.ringStart);
      if (goesOn) this.#sendTo(peer);
    });
  }

  #sendTo(peer: number): void {
    const { random } = this.#world;
    while (random.chance(0.8)) {
      let cut = this.proposer.sentLsn(peer) + 1 + random.below(APPEND_BYTES_MAX);
      if (random.chance(WHOLE_RECORDS)) cut -= (cut - LOG_START) % RECORD_BYTES;
      const end = Math.min(cut, this.pgEnd) as Lsn;
      if (!this.proposer.nextAppend(peer, end, this.#range)) return;
      const { begin } = this.#range;
      this.#append(peer, this.#range, this.log.slice(begin - LOG_START, end - LOG_START));
    }
  }

  #append(peer: number, range: AppendRange, wal: Uint8Array): void {
    this.#links[peer]?.toNode({
      kind: "append",
      generation: this.proposer.membership.generation,
      term: this.proposer.term,
      beginLsn: range.begin,
      endLsn: range.end,
      commitLsn: range.commit,
      truncateLsn: range.truncate,
      wal,
    });
  }

  /** Copies what the ring does not have from another safekeeper, as catch_up.ts does. */
  #catchUp(peer: number): void {
    const { clock, network } = this.#world;
    const link = this.#links[peer];
    const heardMs = (other: number) => this.#links[other]?.heardMs ?? -Infinity;
    const source = this.#conversation.source(peer, this.#nodes.length, this.ringStart, heardMs);
    if (source < 0) return;
    const node = this.#nodes[source]!;
    const from = this.proposer.sentLsn(peer);
    this.#catchingUp[peer] = true;
    const unreachable = network.loses(this.host, node.id) || network.loses(node.id, this.host);
    this.#later(2 * network.delayMs(), () => {
      const isServed = !unreachable && node.acceptor !== undefined &&
        node.hungUntilMs <= clock.nowMs;
      let wal: Uint8Array = NO_WAL;
      if (isServed) node.guard(undefined, () => wal = node.serve(this.proposer.term, from));
      this.#later(network.delayMs(), () => {
        this.#catchingUp[peer] = false;
        const goesOn = this.#links[peer] === link && this.proposer.isStreaming(peer);
        if (!goesOn || this.proposer.sentLsn(peer) !== from) return;
        const end = (from + wal.length) as Lsn;
        this.#world.note?.(`${this.name} copies ${from - LOG_START} to ${end - LOG_START}`);
        if (this.proposer.nextAppend(peer, end, this.#range)) this.#append(peer, this.#range, wal);
      });
    });
  }
}

const NO_WAL = new Uint8Array(0);
