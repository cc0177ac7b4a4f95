/**
 * Runs the proposer (proposer.ts) over real connections: one link to each safekeeper, the ring of
 * newest WAL, and the timers.
 *
 * WAL comes in from postgres_stream.ts, goes into the ring, and each link takes from there at its
 * own position whenever its socket is free: a slow or hung safekeeper holds nobody up. A quorum of
 * them gets WAL at once (vanguard.ts), the others somewhat later (gathering.ts). One that lags
 * behind the ring, or behind the term's start, gets its part from another safekeeper first
 * (catch_up.ts). When a quorum has a position on disk, Postgres is told at once and the safekeepers
 * soon after, with the next WAL if there is any.
 */
import { assert } from "../../libs/utils/assert.ts";
import { messageOf, TimedOut, Unavailable } from "../../libs/utils/errors.ts";
import { logger } from "../../libs/utils/log.ts";
import { formatLsn, INVALID_LSN, type Lsn, maxLsn } from "../../libs/utils/lsn.ts";
import {
  APPEND_HEADER_BYTES,
  decodeAcceptorMessage,
  encodeProposerMessage,
  writeAppendHeader,
} from "../../libs/safekeeper_protocol/messages.ts";
import {
  decodeFeedback,
  type PageserverFeedback,
} from "../../libs/safekeeper_protocol/feedback.ts";
import {
  type MembershipConfiguration,
  NO_MEMBERSHIP,
} from "../../libs/safekeeper_protocol/membership.ts";
import type { Term } from "../../libs/safekeeper_protocol/term_history.ts";
import { catchUp } from "./catch_up.ts";
import { checkRecordEnd } from "./claims.ts";
import { Conversation, type ConversationPorts } from "./conversation.ts";
import type { AppendRange } from "./effects.ts";
import { Proposer } from "./proposer.ts";
import {
  addressesOf,
  type LinkEvents,
  type SafekeeperAddress,
  SafekeeperLink,
} from "./safekeeper_link.ts";
import type { Election, WalProposerOptions } from "./options.ts";
import type { StalledCommits } from "../client.ts";
import { CommitNotice } from "./commit_notice.ts";
import { CommitStall } from "./commit_stall.ts";
import { Gathering } from "./gathering.ts";
import { StandbyFeedback } from "./standby_feedback.ts";
import { withinLimit } from "./time_limit.ts";
import { WalBuffer } from "./wal_buffer.ts";
import {
  APPEND_RESPONSE_BYTES,
  APPEND_RESPONSE_CATALOG_XMIN_AT,
  APPEND_RESPONSE_FLUSH_AT,
  APPEND_RESPONSE_TAG,
  APPEND_RESPONSE_TERM_AT,
  APPEND_RESPONSE_XMIN_AT,
  readU64,
} from "./wire.ts";

const log = logger("compute", "wal_proposer");

/** A link without traffic gets an empty append this often. */
const HEARTBEAT_MS = 1000;
/** A safekeeper that says nothing for so long is connected to anew. */
const SILENCE_MS_MAX = 10_000;
/** One that others are caught up from; then the next is asked, so this costs little. */
const SOURCE_SILENCE_MS_MAX = 3000;
/** A term whose start cannot be copied from anybody is given up after so long. */
const STRANDED_MS_MAX = 10_000;
/** Bytes put into one write to a safekeeper. */
const BATCH_BYTES = 512 * 1024;
/** Mean pause after a lost campaign, times the number of campaigns. */
const CAMPAIGN_PAUSE_MS = 100;

interface CommitWaiter {
  readonly lsn: Lsn;
  readonly resolve: () => void;
}

/** See the head of the file. */
export class WalProposer implements LinkEvents {
  /** Called with each new commit LSN; the replication stream acknowledges to Postgres. */
  onCommit: (lsn: Lsn) => void = () => {};
  /** Called when `standbyFeedback` has changed, and every second. */
  onStandbyFeedback: () => void = () => {};
  /** Called with each new `pageserver`. */
  onPageserver: (feedback: PageserverFeedback) => void = () => {};
  readonly standbyFeedback: StandbyFeedback = new StandbyFeedback();
  readonly options: WalProposerOptions;
  readonly #proposer: Proposer;
  readonly #conversation: Conversation;
  readonly #links: SafekeeperLink[] = [];
  readonly #range: AppendRange = {
    begin: INVALID_LSN,
    end: INVALID_LSN,
    commit: INVALID_LSN,
    truncate: INVALID_LSN,
  };
  readonly #catchingUp: boolean[] = [];
  readonly #election = Promise.withResolvers<Election>();
  readonly #timers = new Set<ReturnType<typeof setTimeout>>();
  #buffer: WalBuffer | undefined;
  #waiters: CommitWaiter[] = [];
  readonly #notice = new CommitNotice((nowMs, quietMs) => this.#tellCommit(nowMs, quietMs));
  readonly #gathering = new Gathering(() => this.pump());
  readonly #stall = new CommitStall(performance.now());
  #pageserver: PageserverFeedback | undefined;
  #deposedWhy: string | undefined;
  #stopped = false;

  constructor(options: WalProposerOptions) {
    this.options = options;
    const { resume, membership = NO_MEMBERSHIP } = options;
    const addresses = addressesOf(options.safekeepers, membership);
    const ids = addresses.map((safekeeper) => safekeeper.id);
    this.#proposer = resume === undefined
      ? new Proposer(ids, membership)
      : Proposer.resume(ids, resume, membership);
    this.#proposer.keepWalFrom(INVALID_LSN); // nobody knows yet what slots need
    this.#conversation = new Conversation(this.#proposer, options, this.#ports());
    if (resume !== undefined) this.#buffer = new WalBuffer(resume.streamFrom);
    this.#election.promise.catch(() => {}); // whoever waits sees it
    for (const address of addresses) this.#addLink(address);
  }

  #addLink(address: SafekeeperAddress): SafekeeperLink {
    const link = new SafekeeperLink(this.#links.length, address, this.options, this);
    this.#links.push(link);
    return link;
  }

  /** Connects to the safekeepers. */
  start(): void {
    for (const link of this.#links) link.start();
    this.#timers.add(setInterval(() => this.#beat(), HEARTBEAT_MS));
  }

  /** Waits for the election. Throws Unavailable naming what each safekeeper said. */
  async elected(timeoutMs: number): Promise<Election> {
    return await this.#within(this.#election.promise, timeoutMs, "win an election");
  }

  /** Waits until `lsn` is committed. Throws TimedOut. */
  async committed(lsn: Lsn, timeoutMs: number): Promise<void> {
    if (this.commitLsn >= lsn) return;
    const reached = new Promise<void>((resolve) => this.#waiters.push({ lsn, resolve }));
    await this.#within(reached, timeoutMs, `commit ${formatLsn(lsn)}`);
  }

  #within<T>(what: Promise<T>, timeoutMs: number, verb: string): Promise<T> {
    return withinLimit(what, timeoutMs, () => {
      const said = this.#links.filter((link) => !link.isStopped).map((link) =>
        `safekeeper ${link.address.id}: ${link.problem}`
      );
      return new TimedOut(`Cannot ${verb} within ${timeoutMs / 1000} s (${said.join("; ")})`);
    });
  }

  /** Goes over to a newer membership of the timeline; an older one is ignored. */
  reconfigure(membership: MembershipConfiguration): void {
    if (!this.#stopped && this.#conversation.reconfigure(membership)) this.pump();
  }
  get membership(): MembershipConfiguration {
    return this.#proposer.membership;
  }

  /** WAL from `lsn` on is needed by logical slots (Infinity: none is); until told, all of it is. */
  keepWalFrom(lsn: number): void {
    this.#proposer.keepWalFrom(lsn);
  }

  /** Whether somebody else was elected. */
  get isDeposed(): boolean {
    return this.#deposedWhy !== undefined;
  }
  get term(): Term {
    return this.#proposer.term;
  }
  get startLsn(): Lsn {
    return this.#proposer.startLsn;
  }
  /** On a quorum's disks; 0 until the term's start is. */
  get commitLsn(): Lsn {
    return this.#proposer.commitLsn;
  }
  /** What Postgres may count on: never below where it started. */
  get acknowledgedLsn(): Lsn {
    return maxLsn(this.commitLsn, this.#proposer.startLsn);
  }
  /** End of the WAL that Postgres sent. */
  get endLsn(): Lsn {
    return this.#buffer?.end ?? INVALID_LSN;
  }
  /** Memory held for WAL. */
  get bufferBytes(): number {
    return this.#buffer?.capacityBytes ?? 0;
  }

  /** Whether commits wait for a majority of safekeepers, and for whom. */
  get stalledCommits(): StalledCommits | undefined {
    return this.#stall.describe(performance.now(), this.#links);
  }

  /** What the pageserver last reported about this timeline, as relayed by safekeepers. */
  get pageserver(): PageserverFeedback | undefined {
    return this.#pageserver;
  }

  /** True if WAL can be taken now; else wait for `room`. */
  hasRoom(bytes: number): boolean {
    return this.#buffer!.fits(bytes, this.acknowledgedLsn);
  }

  /** Resolves when the commit LSN has risen. */
  room(): Promise<void> {
    const lsn = (this.acknowledgedLsn + 1) as Lsn;
    return new Promise((resolve) => this.#waiters.push({ lsn, resolve }));
  }

  /** Takes WAL that Postgres sent; `pump` sends it on. */
  append(lsn: Lsn, wal: Uint8Array): void {
    const buffer = this.#buffer;
    assert(buffer !== undefined && lsn === buffer.end, "WAL comes without gaps");
    buffer.append(wal, this.#keepFrom(), this.acknowledgedLsn);
  }

  /** The ring grows for what is uncommitted and for whoever is being streamed to from it. */
  #keepFrom(): Lsn {
    const buffer = this.#buffer!;
    let keep: number = this.acknowledgedLsn;
    for (let peer = 0; peer < this.#links.length; peer++) {
      if (!this.#proposer.isStreaming(peer)) continue;
      const sent = this.#proposer.sentLsn(peer);
      if (sent >= buffer.start) keep = Math.min(keep, sent);
    }
    return keep as Lsn;
  }

  /** Sends to every safekeeper whose socket is free what it does not have. */
  pump(): void {
    for (let peer = 0; peer < this.#links.length; peer++) this.#pumpOne(peer);
  }

  #pumpOne(peer: number): void {
    const link = this.#links[peer]!;
    const buffer = this.#buffer;
    const { copy } = link;
    if (copy === undefined || buffer === undefined || link.busy || this.#catchingUp[peer]) return;
    if (!this.#proposer.isStreaming(peer)) return;
    if (this.#lags(peer)) return this.#catchUp(peer);
    if (this.#waits(peer)) return;
    while (
      copy.queuedBytes < BATCH_BYTES && this.#proposer.nextAppend(peer, buffer.end, this.#range)
    ) {
      const at = this.#queueAppend(link, this.#range);
      buffer.copyTo(this.#range.begin, this.#range.end, copy.sendBytes, at);
    }
    if (copy.queuedBytes > 0) link.flush();
  }

  /** Whether WAL for a safekeeper is being gathered. */
  #waits(peer: number): boolean {
    const bytes = this.endLsn - this.#proposer.sentLsn(peer);
    return bytes > 0 && !this.#stopped && this.#proposer.mayWait(peer) &&
      this.#gathering.waits(peer, bytes, performance.now());
  }

  /** Queues the append that `range` describes; returns where its WAL goes in `sendBytes`. */
  #queueAppend(link: SafekeeperLink, range: AppendRange): number {
    const { copy } = link;
    assert(copy !== undefined, "an append needs a connection");
    const at = copy.reserve(APPEND_HEADER_BYTES + range.end - range.begin);
    writeAppendHeader(copy.sendView, at, {
      generation: this.#proposer.membership.generation,
      term: this.#proposer.term,
      beginLsn: range.begin,
      endLsn: range.end,
      commitLsn: range.commit,
      truncateLsn: range.truncate,
    });
    return at + APPEND_HEADER_BYTES;
  }

  /** Brings a safekeeper to the ring's start out of another one's log. */
  #catchUp(peer: number): void {
    if (this.#stopped) return;
    this.#catchingUp[peer] = true;
    const { session } = this.#links[peer]!;
    this.#feed(peer, session).catch((thrown) => {
      log.warning("safekeeper {id} cannot be caught up yet: {why}", {
        id: this.#links[peer]!.address.id,
        why: messageOf(thrown),
      });
    }).finally(() => {
      // A failed attempt is repeated at the next beat, a finished one goes on from the ring
      this.#catchingUp[peer] = false;
      if (!this.#lags(peer)) this.#pumpOne(peer);
    });
  }

  #lags(peer: number): boolean {
    return this.#conversation.lags(peer, this.#buffer!.start);
  }

  async #feed(peer: number, session: number): Promise<void> {
    const link = this.#links[peer]!;
    const goesOn = () =>
      !this.#stopped && link.session === session && this.#proposer.isStreaming(peer) &&
      this.#lags(peer);
    const { start } = this.#buffer!;
    const heardMs = (other: number) => this.#links[other]!.lastReceivedMs;
    const source = this.#conversation.source(peer, this.#links.length, start, heardMs);
    if (source < 0) throw new Unavailable("no other safekeeper has acknowledged that WAL");
    await catchUp({
      source: this.#links[source]!.address,
      tenantId: this.options.tenantId,
      timelineId: this.options.timelineId,
      token: this.options.token,
      term: this.#proposer.term,
      from: this.#proposer.sentLsn(peer),
      silenceMsMax: SOURCE_SILENCE_MS_MAX,
      goesOn,
      send: async (wal, endLsn) => {
        const first = this.#proposer.sentLsn(peer);
        while (goesOn() && this.#proposer.nextAppend(peer, endLsn, this.#range)) {
          const { begin, end } = this.#range;
          const at = this.#queueAppend(link, this.#range);
          link.copy!.sendBytes.set(wal.subarray(begin - first, end - first), at);
        }
        await link.copy?.flush();
      },
    });
  }

  #beat(): void {
    const now = performance.now();
    this.#conversation.beat(now, STRANDED_MS_MAX);
    this.#stall.look(now, this.commitLsn, this.endLsn);
    this.onStandbyFeedback();
    this.#links.forEach((link, peer) => {
      if (link.copy === undefined) return;
      if (now - link.lastReceivedMs > SILENCE_MS_MAX) {
        link.drop(`no message for ${SILENCE_MS_MAX / 1000} s`);
      } else {
        if (now - link.lastSentMs >= HEARTBEAT_MS / 2) this.#conversation.heartbeat(peer);
        this.#pumpOne(peer);
      }
    });
  }

  opened(peer: number): void {
    this.#conversation.opened(peer);
  }

  received(peer: number, payload: Uint8Array): void {
    if (payload[0] === APPEND_RESPONSE_TAG && payload.length >= APPEND_RESPONSE_BYTES) {
      const term = readU64(payload, APPEND_RESPONSE_TERM_AT);
      const flushLsn = readU64(payload, APPEND_RESPONSE_FLUSH_AT);
      checkRecordEnd(flushLsn);
      if (this.#proposer.appended(peer, term, flushLsn)) this.#committed();
      this.#noteStandbys(
        peer,
        readU64(payload, APPEND_RESPONSE_XMIN_AT),
        readU64(payload, APPEND_RESPONSE_CATALOG_XMIN_AT),
      );
      if (payload.length > APPEND_RESPONSE_BYTES) {
        this.#pageserver = decodeFeedback(payload.subarray(APPEND_RESPONSE_BYTES));
        this.onPageserver(this.#pageserver);
      }
      if (this.#conversation.settle()) this.pump();
      return;
    }
    const message = decodeAcceptorMessage(payload);
    if (message.kind === "vote") checkRecordEnd(message.flushLsn);
    if (this.#conversation.answered(peer, message)) this.pump();
  }

  #noteStandbys(peer: number, xmin: number, catalogXmin: number): void {
    if (this.standbyFeedback.note(peer, xmin, catalogXmin)) this.onStandbyFeedback();
  }

  writable(peer: number): void {
    this.#pumpOne(peer);
  }

  closed(peer: number, why: string): void {
    this.#conversation.closed(peer);
    this.#noteStandbys(peer, 0, 0);
    if (this.#stopped || this.#links[peer]!.isStopped) return;
    log.warning("connection to safekeeper {id} ended: {why}", {
      id: this.#links[peer]!.address.id,
      why,
    });
  }

  /** The commit LSN rose: Postgres first, it has clients waiting. */
  #committed(): void {
    const { commitLsn } = this;
    this.onCommit(commitLsn);
    if (this.#waiters.length > 0) {
      const due = this.#waiters.filter((waiter) => waiter.lsn <= commitLsn);
      this.#waiters = this.#waiters.filter((waiter) => waiter.lsn > commitLsn);
      for (const waiter of due) waiter.resolve();
    }
    this.#notice.commitRose();
  }

  /** See CommitNotice. WAL that a safekeeper has yet to get carries the commit LSN. */
  #tellCommit(nowMs: number, quietMs: number): boolean {
    let owes = false;
    for (let peer = 0; peer < this.#links.length; peer++) {
      if (!this.#proposer.owesCommit(peer)) continue;
      if (this.#proposer.sentLsn(peer) < this.endLsn) owes = true;
      else if (nowMs - this.#links[peer]!.lastSentMs <= quietMs) owes = true;
      else this.#conversation.heartbeat(peer);
    }
    return owes;
  }

  /** Has every safekeeper answer, and so relay what the pageserver has reported. */
  askPageserver(): void {
    for (let peer = 0; peer < this.#links.length; peer++) this.#conversation.heartbeat(peer);
  }

  /** Tells the commit LSN to every safekeeper that has not heard it. */
  #announceCommit(): void {
    for (let peer = 0; peer < this.#links.length; peer++) {
      if (this.#proposer.owesCommit(peer)) this.#conversation.heartbeat(peer);
    }
  }

  /** How the conversation reaches sockets and timers. */
  #ports(): ConversationPorts {
    return {
      send: (peer, message) => {
        const link = this.#links[peer]!;
        link.copy?.queue(encodeProposerMessage(message));
        link.flush();
      },
      heartbeat: (peer, range) => {
        const link = this.#links[peer]!;
        if (link.copy === undefined) return;
        this.#queueAppend(link, range);
        link.flush();
      },
      drop: (peer, why) => this.#links[peer]!.drop(why),
      again: (peer) => this.#links[peer]!.again("the membership changed"),
      join: (peer, member) => {
        assert(peer === this.#links.length, "links are numbered as peers are");
        if (!this.#stopped) this.#addLink(member).start();
      },
      leave: (peer) => void this.#links[peer]!.stop(),
      membership: (membership) => this.options.onMembership?.(membership),
      retry: (campaigns) => this.#campaignLater(campaigns),
      elected: () => {
        const { term, startLsn, history } = this.#proposer;
        const donor = this.#links[this.#proposer.donor]!.address;
        this.#buffer = new WalBuffer(startLsn);
        this.#election.resolve({ term, startLsn, history, donor });
      },
      deposed: (why) => this.#deposed(why),
    };
  }

  #campaignLater(campaigns: number): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      if (this.#conversation.campaign()) this.pump();
    }, CAMPAIGN_PAUSE_MS * campaigns * (0.5 + Math.random()));
    this.#timers.add(timer);
  }

  #deposed(why: string): void {
    if (this.#deposedWhy !== undefined) return;
    this.#deposedWhy = why;
    this.#election.reject(new Unavailable(`Cannot write this timeline's WAL: ${why}`));
    this.options.onDeposed(why);
  }

  /** Sends what is left and the last commit LSN, and closes all connections. */
  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
    this.#gathering.stop();
    this.#notice.stop();
    if (this.#deposedWhy === undefined) {
      this.pump();
      this.#announceCommit();
      await Promise.race([
        Promise.allSettled(this.#links.map((link) => link.copy?.flush())),
        new Promise((resolve) => setTimeout(resolve, 200)),
      ]);
    }
    this.#election.reject(new Unavailable("Cannot win an election: the endpoint is stopping"));
    await Promise.all(this.#links.map((link) => link.stop()));
  }
}
