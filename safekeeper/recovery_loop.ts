/**
 * Catching up from peers: of the timelines that no compute writes, those of which a peer says that
 * its log is ahead are brought to that one's end, over the ordinary WAL service (peer_recovery.ts
 * has the rules). A safekeeper that was away comes back to the others this way.
 *
 * Peers speak of themselves through the broker; what is not ahead of ours is not remembered. A
 * timeline is copied from one peer at a time, few timelines at once. A compute that connects ends
 * it: it knows better.
 */
import type { SafekeeperTimelineInfo } from "../broker/client.ts";
import { receiveWal } from "../libs/pgwire/wal_stream.ts";
import type { AcceptorMessage } from "../libs/safekeeper_protocol/messages.ts";
import { parseAddress } from "../libs/utils/address.ts";
import { messageOf } from "../libs/utils/errors.ts";
import { logger } from "../libs/utils/log.ts";
import { formatLsn, parseLsn } from "../libs/utils/lsn.ts";
import type { TokenSource } from "../libs/utils/token_source.ts";
import { SafekeeperClient, type TimelineStatus } from "./client.ts";
import {
  chooseDonor,
  donorAppend,
  DonorChoice,
  donorElection,
  donorGreeting,
  type DonorStatus,
  isAhead,
} from "./peer_recovery.ts";
import type { Proposer, Timeline } from "./timeline.ts";

const log = logger("safekeeper", "recovery");

/** Pause between two looks at what is behind. */
const INTERVAL_MS = 2000;
/** Timelines that are copied at the same time. */
const TIMELINES_MAX = 4;
/** A donor that says nothing for so long is given up. */
const SILENCE_MS_MAX = 30_000;

/** A timeline of which peers have more. */
interface Behind {
  /** By their id. */
  readonly peers: Map<number, SafekeeperTimelineInfo>;
  readonly choice: DonorChoice;
}

/** Stands in for a donor's proposer. */
class DonorsProposer implements Proposer {
  feedbackSeen = Infinity; // wants none
  isOver = false;
  readonly #term: number;

  constructor(term: number) {
    this.#term = term;
  }

  send(message: AcceptorMessage): void {
    if (message.kind === "append" && message.term !== this.#term) this.isOver = true;
  }

  fail(): void {
    this.isOver = true;
  }
}

/** See the head of the file. */
export class RecoveryLoop {
  readonly #name: string;
  readonly #token: TokenSource | undefined;
  readonly #behind = new Map<Timeline, Behind>();
  readonly #running = new Map<Timeline, Promise<void>>();
  readonly #timer: ReturnType<typeof setInterval>;
  #closed = false;

  /** `token` is for peers that want one. */
  constructor(nodeId: number, token: TokenSource | undefined) {
    this.#name = `safekeeper_${nodeId}`;
    this.#token = token;
    this.#timer = setInterval(() => this.#look(), INTERVAL_MS);
  }

  /** A peer has said where its log of this timeline stands. */
  heard(timeline: Timeline, info: SafekeeperTimelineInfo): void {
    if (!isAhead(info, timeline.acceptor)) {
      this.#behind.get(timeline)?.peers.delete(info.safekeeperId);
      return;
    }
    const behind = this.#behind.get(timeline) ?? { peers: new Map(), choice: new DonorChoice() };
    behind.peers.set(info.safekeeperId, info);
    this.#behind.set(timeline, behind);
  }

  #look(): void {
    for (const [timeline, { peers, choice }] of this.#behind) {
      if (this.#running.size >= TIMELINES_MAX) return;
      if (this.#running.has(timeline)) continue;
      for (const [id, info] of peers) if (!isAhead(info, timeline.acceptor)) peers.delete(id);
      if (peers.size === 0 || timeline.isClosed) this.#behind.delete(timeline);
      else if (timeline.proposers.size === 0) {
        const peer = choice.next(timeline.acceptor, [...peers.values()]);
        if (peer !== undefined) this.#begin(timeline, peer, choice);
      }
    }
  }

  #begin(timeline: Timeline, peer: SafekeeperTimelineInfo, choice: DonorChoice): void {
    const running = this.#recover(timeline, peer).catch((thrown: unknown) => {
      choice.failed(peer.safekeeperId);
      log.warning("{timeline}: cannot catch up from safekeeper {id}: {why}", {
        timeline: timeline.timelineId,
        id: peer.safekeeperId,
        why: messageOf(thrown),
      });
    }).finally(() => {
      timeline.isRecovering = false;
      this.#running.delete(timeline);
    });
    this.#running.set(timeline, running);
  }

  async #recover(timeline: Timeline, peer: SafekeeperTimelineInfo): Promise<void> {
    const { tenantId, timelineId } = timeline;
    const client = new SafekeeperClient(peer.httpConnstr, this.#token);
    const donor = donorOf(await client.timelineStatus(tenantId, timelineId));
    const isWanted = () =>
      !this.#closed && timeline.proposers.size === 0 && timeline.acceptor.writeLsn < donor.flushLsn;
    timeline.isRecovering = true; // from here on the WAL stays on this disk
    await timeline.available();
    // Both may have moved since that one spoke
    if (chooseDonor(timeline.acceptor, [donor]) === undefined) return;
    if (this.#closed || timeline.proposers.size > 0) return;
    const proposer = new DonorsProposer(donor.term);
    try {
      timeline.handle(donorGreeting(timeline.acceptor.state, donor), proposer);
      const { state, flushLsn } = timeline.acceptor;
      const election = donorElection(state, flushLsn, donor);
      timeline.handle(election, proposer);
      let at = election.startStreamingAt;
      const { hostname, port } = parseAddress(peer.safekeeperConnstr);
      await receiveWal({
        hostname,
        port,
        tenantId,
        timelineId,
        name: this.#name,
        token: this.#token,
        term: donor.term,
        from: at,
        silenceMsMax: SILENCE_MS_MAX,
        goesOn: () => isWanted() && !proposer.isOver,
        take: (wal, endLsn) => {
          if (!isWanted()) return;
          timeline.handle(donorAppend(donor, at, wal), proposer);
          timeline.kick();
          at = endLsn;
        },
      });
      log.info("{timeline} has caught up from safekeeper {id}: {from} to {to}", {
        timeline: timelineId,
        id: peer.safekeeperId,
        from: formatLsn(election.startStreamingAt),
        to: formatLsn(at),
      });
    } finally {
      timeline.leave(proposer);
    }
  }

  /** Ends what is under way. */
  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#timer);
    await Promise.all(this.#running.values());
  }
}

function donorOf(status: TimelineStatus): DonorStatus {
  const { generation, members, new_members } = status.mconf;
  const listed = (list: typeof members) =>
    list.map(({ id, host, pg_port }) => ({ id, host, pgPort: pg_port }));
  const { term, epoch, term_history } = status.acceptor_state;
  return {
    term,
    lastLogTerm: epoch,
    flushLsn: parseLsn(status.flush_lsn),
    commitLsn: parseLsn(status.commit_lsn),
    membership: new_members === null
      ? { generation, members: listed(members) }
      : { generation, members: listed(members), newMembers: listed(new_members) },
    termHistory: term_history.map((entry) => ({ term: entry.term, lsn: parseLsn(entry.lsn) })),
    pgVersionNum: status.pg_info.pg_version,
    systemId: BigInt(status.pg_info.system_id),
  };
}
