/**
 * What is said to each safekeeper, in which order: the part of the driver between the proposer's
 * decisions and the sockets. Pure: the simulator (tests/simulation) runs the same code on
 * connections that delay, break and half break.
 */
import { formatLsn, INVALID_LSN, type Lsn } from "../../libs/utils/lsn.ts";
import type {
  AcceptorMessage,
  ProposerElected,
  ProposerGreeting,
  VoteRequest,
} from "../../libs/safekeeper_protocol/messages.ts";
import type { Member, MembershipConfiguration } from "../../libs/safekeeper_protocol/membership.ts";
import type { AppendRange } from "./effects.ts";
import type { Proposer } from "./proposer.ts";

/** What the conversation causes. Each call is synchronous and does not throw. */
export interface ConversationPorts {
  /** Sends on the open connection, behind what was sent before. Nothing if it is gone. */
  send(peer: number, message: ProposerGreeting | VoteRequest | ProposerElected): void;
  /** Sends an append without WAL. */
  heartbeat(peer: number, range: AppendRange): void;
  /** Closes the connection; another one follows after a pause. */
  drop(peer: number, why: string): void;
  /** Closes the connection and opens another one at once. */
  again(peer: number): void;
  /** Connects to a new member, as peer number `peer`, one more than the last. */
  join(peer: number, member: Member): void;
  /** Closes the connection for good. */
  leave(peer: number): void;
  /** Another membership is in force. */
  membership(membership: MembershipConfiguration): void;
  /** Calls `campaign` after a random pause. */
  retry(campaigns: number): void;
  /** The election is won. */
  elected(): void;
  /** Never to commit again. */
  deposed(why: string): void;
}

/** Whose WAL: what a greeting says. */
type ProposerIdentity = Pick<
  ProposerGreeting,
  "tenantId" | "timelineId" | "pgVersionNum" | "walSegmentSize"
>;

/** See the head of the file. */
export class Conversation {
  readonly proposer: Proposer;
  readonly #identity: ProposerIdentity;
  readonly #ports: ConversationPorts;
  readonly #range: AppendRange = {
    begin: INVALID_LSN,
    end: INVALID_LSN,
    commit: INVALID_LSN,
    truncate: INVALID_LSN,
  };

  #strandedSinceMs: number | undefined;

  constructor(proposer: Proposer, identity: ProposerIdentity, ports: ConversationPorts) {
    this.proposer = proposer;
    this.#identity = identity;
    this.#ports = ports;
  }

  /** A connection was opened. */
  opened(peer: number): void {
    const { tenantId, timelineId, pgVersionNum, walSegmentSize } = this.#identity;
    this.proposer.connected(peer);
    this.#ports.send(peer, {
      kind: "greeting",
      tenantId,
      timelineId,
      pgVersionNum,
      walSegmentSize,
      membership: this.proposer.membership,
      systemId: 0n, // known only from the basebackup, which follows the election
    });
  }

  /** It ended. */
  closed(peer: number): void {
    this.proposer.disconnected(peer);
  }

  /** A safekeeper's answer to anything but an append. True if something was caused. */
  answered(peer: number, message: AcceptorMessage): boolean {
    if (message.kind === "greeting") this.proposer.greeted(peer, message);
    else if (message.kind === "vote") this.proposer.voted(peer, message);
    return this.#perform();
  }

  /** Goes over to a newer membership. True if something was caused. */
  reconfigure(membership: MembershipConfiguration): boolean {
    this.proposer.reconfigure(membership);
    return this.#perform();
  }

  /** A lost campaign's pause is over. True if something was caused. */
  campaign(): boolean {
    this.proposer.campaign();
    return this.#perform();
  }

  /** Carries out what an answer led to, also after `proposer.appended`. */
  settle(): boolean {
    return this.#perform();
  }

  /** Tells a streaming safekeeper the commit LSN, and that we live. */
  heartbeat(peer: number): void {
    if (this.proposer.heartbeat(peer, this.#range)) this.#ports.heartbeat(peer, this.#range);
  }

  /** Looks regularly, at `nowMs`, whether this term can still commit; gives it up if it cannot. */
  beat(nowMs: number, strandedMsMax: number): void {
    if (!this.proposer.isStranded) this.#strandedSinceMs = undefined;
    else if (nowMs - (this.#strandedSinceMs ??= nowMs) > strandedMsMax) {
      this.proposer.giveUp(
        `only a safekeeper that is away has the WAL before ${formatLsn(this.proposer.startLsn)}; ` +
          `start the endpoint again to go on without that`,
      );
      this.#perform();
    }
  }

  /** Whether a streaming safekeeper needs WAL from before `ringStart`. */
  lags(peer: number, ringStart: Lsn): boolean {
    return this.proposer.sentLsn(peer) < ringStart;
  }

  /**
   * Whose log serves one that lags: a safekeeper that has acknowledged, under this term, all that
   * is wanted, so that its log is a part of ours. Of several the one that was heard last: another
   * one may hang, or be cut off, and its connection not have ended yet. -1 if there is none.
   */
  source(peer: number, peers: number, ringStart: Lsn, heardMs: (peer: number) => number): number {
    let best = -1;
    for (let other = 0; other < peers; other++) {
      if (other === peer || !this.proposer.isStreaming(other)) continue;
      if (this.proposer.flushedLsn(other) < ringStart) continue;
      if (best < 0 || heardMs(other) > heardMs(best)) best = other;
    }
    return best;
  }

  #perform(): boolean {
    const effects = this.proposer.takeEffects();
    for (const effect of effects) {
      switch (effect.kind) {
        case "send":
          this.#ports.send(effect.peer, effect.message);
          // The answer to an empty append says that the safekeeper has taken our election in
          if (effect.message.kind === "elected") this.heartbeat(effect.peer);
          break;
        case "drop":
          this.#ports.drop(effect.peer, effect.why);
          break;
        case "again":
          this.#ports.again(effect.peer);
          break;
        case "join":
          this.#ports.join(effect.peer, effect.member);
          break;
        case "leave":
          this.#ports.leave(effect.peer);
          break;
        case "membership":
          this.#ports.membership(effect.membership);
          break;
        case "retry":
          this.#ports.retry(effect.campaigns);
          break;
        case "elected":
          this.#ports.elected();
          break;
        case "deposed":
          this.#ports.deposed(effect.why);
          break;
      }
    }
    return effects.length > 0;
  }
}
