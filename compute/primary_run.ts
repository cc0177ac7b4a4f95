/**
 * A run that writes: Postgres with its WAL proposer, whose term it has, and the stream that takes
 * the WAL out of it. It fails when somebody else is elected.
 */
import type { SlotState } from "../libs/postgres/replication_slot.ts";
import {
  allMembers,
  type MembershipConfiguration,
  membershipOf,
} from "../libs/safekeeper_protocol/membership.ts";
import { pgVersion } from "../libs/postgres/versions.ts";
import { assert } from "../libs/utils/assert.ts";
import { messageOf } from "../libs/utils/errors.ts";
import { logger } from "../libs/utils/log.ts";
import { formatLsn, type Lsn, minLsn } from "../libs/utils/lsn.ts";
import type { KnownFiles } from "./carried/files.ts";
import { writeSlotNames } from "./carried/slot_names.ts";
import { SlotCarrier } from "./carried/slots.ts";
import { carryStopped } from "./carried/stopped.ts";
import { EndpointRun, type RunParts } from "./endpoint_run.ts";
import type { EndpointSpec, PageserverLag, StalledCommits } from "./client.ts";
import { lagLimits } from "./lag_limits.ts";
import { readArenaSettings } from "./lazy_files/arena.ts";
import { LocalWal } from "./local_wal.ts";
import { LsnLease } from "./lsn_lease.ts";
import { takeWalTail } from "./wal_tail.ts";
import { Acknowledgement } from "./wal_proposer/acknowledgement.ts";
import type { LagLimits } from "./wal_proposer/backpressure.ts";
import { WalProposer } from "./wal_proposer/driver.ts";
import type { WalProposerOptions } from "./wal_proposer/options.ts";
import { PostgresStream } from "./wal_proposer/postgres_stream.ts";
import { WalFlushes } from "./wal_proposer/wal_flushes.ts";

const log = logger("compute", "endpoint");

/** A fast stop whose last WAL no quorum takes for so long becomes an immediate one. */
const STOP_WITHOUT_QUORUM_MS_MAX = 10_000;
/** Longest fast stop in any case. */
const STOP_MS_MAX = 120_000;
/** Longest wait for the pageserver to say where it is, and how often to look. */
const REPORT_MS_MAX = 5000;
const REPORT_LOOK_MS = 100;
/** How often a stop looks at the quorum's progress. */
const STOP_LOOK_MS = 100;
/** PG_VERSION_NUM of a major version's first release; safekeepers compare the major version. */
const VERSION_NUMBER_FACTOR = 10_000;

/** See the head of the file. */
export class PrimaryRun extends EndpointRun {
  readonly proposer: WalProposer;
  /** The files of pgdata that the storage has too; kept up to date while it runs. */
  readonly carried: KnownFiles = new Map();
  #lagLimits: LagLimits;
  #acknowledgement: Acknowledgement | undefined;
  /** How its WAL comes, except from an eager one. */
  #flushes: WalFlushes | undefined;
  #walKey: Uint8Array | undefined;
  /** How its WAL comes from an eager one; where replicas or slots hold something back, in any. */
  #stream: PostgresStream | undefined;
  #slots: SlotCarrier | undefined;
  #lease: LsnLease | undefined;

  constructor(parts: RunParts, proposing: Pick<WalProposerOptions, "walSegmentSize" | "resume">) {
    super(parts);
    const { spec } = parts;
    this.#lagLimits = lagLimits(spec.settings);
    this.proposer = new WalProposer({
      ...proposing,
      tenantId: spec.tenant_id,
      timelineId: spec.timeline_id,
      pgVersionNum: spec.pg_version * VERSION_NUMBER_FACTOR,
      safekeepers: spec.safekeepers.map(({ id, host, pg_port }) => ({ id, host, pgPort: pg_port })),
      token: () => this.spec.storage_auth_token,
      ...(spec.mconf === undefined ? {} : { membership: membershipOf(spec.mconf) }),
      onMembership: (membership) => this.#membersChanged(membership),
      onDeposed: (why) => this.fail(why),
    });
  }

  override followMembers(membership: MembershipConfiguration): void {
    this.proposer.reconfigure(membership);
  }

  #membersChanged(membership: MembershipConfiguration): void {
    const endpoint = this.spec.endpoint_id;
    log.info("{endpoint}: membership {generation} is in force, safekeepers {ids}", {
      endpoint,
      generation: membership.generation,
      ids: allMembers(membership).map(({ id }) => id),
    });
    try {
      this.goOnWith(membership);
    } catch (thrown) {
      log.error("{endpoint}: {why}", { endpoint, why: messageOf(thrown) });
    }
  }

  override get startLsn(): Lsn {
    return this.proposer.startLsn;
  }

  override get lsn(): Lsn {
    return this.proposer.acknowledgedLsn;
  }

  override get pageserverLag(): PageserverLag | undefined {
    return this.#acknowledgement?.lag;
  }

  override get stalledCommits(): StalledCommits | undefined {
    return this.proposer.stalledCommits;
  }

  override async configure(spec: EndpointSpec): Promise<void> {
    this.#lagLimits = lagLimits(spec.settings);
    this.#acknowledgement?.setLimits(this.#lagLimits);
    await super.configure(spec);
  }

  /** Begins to say how far Postgres may count on its WAL. The proposer is elected, or resumed. */
  acknowledge(): void {
    const acknowledgement = new Acknowledgement(this.proposer, this.#lagLimits);
    this.#acknowledgement = acknowledgement;
    this.proposer.onStandbyFeedback = () => {
      acknowledgement.tellDelay();
      this.#tellFeedback();
    };
  }

  /** What replicas hold back: Postgres is told as by a standby. */
  #tellFeedback(): void {
    const { xmin, catalogXmin } = this.proposer.standbyFeedback;
    if (this.#stream !== undefined) this.#stream.tellFeedback();
    else if (this.#flushes !== undefined && (xmin !== 0 || catalogXmin !== 0)) {
      this.#makeStream({ slotExists: false, catalogXmin: 0 }).start();
    }
  }

  /** Takes WAL from the library, which shows this key. */
  takeFlushes(key: Uint8Array): WalFlushes {
    assert(this.#acknowledgement !== undefined, "acknowledge() goes before");
    const wal = new LocalWal(this.directory.pgdata);
    const flushes = new WalFlushes(wal, this.proposer, this.#acknowledgement);
    this.#flushes = flushes;
    this.#walKey = key;
    this.services.walChannels.register(key, (connection) => flushes.serve(connection));
    return flushes;
  }

  /**
   * Opens a stream from Postgres, which brings the WAL unless it comes from the library; resolves
   * when it is open. With logical slots `carrySlots` is to follow.
   */
  async openStream(slotExists: boolean, logicalSlots: number): Promise<void> {
    const catalogXmin = logicalSlots === 0 ? 0 : undefined;
    const stream = this.#makeStream({ slotExists, catalogXmin });
    stream.start();
    await stream.opened;
  }

  #makeStream(
    options: { readonly slotExists: boolean; readonly catalogXmin: number | undefined },
  ): PostgresStream {
    assert(this.#acknowledgement !== undefined, "acknowledge() goes before");
    this.#stream = new PostgresStream(this.proposer, this.#acknowledgement, {
      ...options,
      takesWal: this.#flushes === undefined,
      standbyName: this.standbyName,
      connect: (parameters, signal) => this.connect(parameters, signal),
    });
    return this.#stream;
  }

  /** Has the pageserver keep what is still to be read, from now on. */
  holdLease(): void {
    if (this.spec.eager === true) return; // it has all its pages
    const { arena } = this.directory;
    const { requestLsn: lsn } = readArenaSettings(arena);
    const position = () => this.#readable();
    this.#lease = new LsnLease({ spec: () => this.spec, arena, lsn, position }, 0);
  }

  /** Committed, and ingested by the pageserver, once that has said where it is. */
  async #readable(): Promise<Lsn | undefined> {
    const { proposer } = this;
    const deadline = performance.now() + REPORT_MS_MAX;
    while (proposer.pageserver === undefined && performance.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, REPORT_LOOK_MS));
    }
    if (proposer.pageserver === undefined) return undefined;
    return minLsn(proposer.acknowledgedLsn, proposer.pageserver.lastReceivedLsn);
  }

  /**
   * Carries logical slots from now on (carried/slots.ts); `slots` are those that the storage has.
   * Resolves when Postgres keeps for them what it must. Call it when the stream is open.
   */
  async carrySlots(slots: readonly SlotState[]): Promise<void> {
    const { spec, directory, proposer } = this;
    this.#slots = new SlotCarrier({
      endpoint: spec.endpoint_id,
      pgdata: directory.pgdata,
      pgMajor: spec.pg_version,
      known: this.carried,
      slots,
      connect: () => this.openSession(),
      holdCatalog: (xmin) => this.#stream?.holdCatalog(xmin),
      committed: (lsn, timeoutMs) => proposer.committed(lsn, timeoutMs),
      keepWalFrom: (lsn) => proposer.keepWalFrom(lsn),
      onSlots: (names) => writeSlotNames(directory.slotsFile, names),
    });
    await this.#slots.start();
  }

  /** Fast shutdown: Postgres ends when its last WAL record is acknowledged. */
  protected override async shutDown(): Promise<void> {
    const { process, proposer } = this;
    this.#acknowledgement?.lift(); // Postgres ends when all its WAL is acknowledged
    await process.signal("INT");
    const began = performance.now();
    let progressed = began;
    let commitLsn = proposer.commitLsn;
    while (!(await process.endsWithin(STOP_LOOK_MS))) {
      const now = performance.now();
      if (proposer.commitLsn !== commitLsn || proposer.commitLsn >= proposer.endLsn) {
        commitLsn = proposer.commitLsn;
        progressed = now;
      }
      const isStuck = now - progressed > STOP_WITHOUT_QUORUM_MS_MAX;
      if (!isStuck && now - began < STOP_MS_MAX) continue;
      log.warning("{endpoint}: stopping immediately, {why}", {
        endpoint: this.spec.endpoint_id,
        why: isStuck
          ? `no quorum takes the WAL behind ${formatLsn(proposer.acknowledgedLsn)}`
          : "the shutdown takes too long",
      });
      return;
    }
  }

  protected override async disconnect(): Promise<void> {
    await this.#slots?.stop();
    this.#acknowledgement?.stop();
    if (this.#walKey !== undefined) this.services.walChannels.unregister(this.#walKey);
    this.#flushes?.stop();
    await this.#stream?.stop();
  }

  protected override async finish(isOrderly: boolean): Promise<void> {
    this.#lease?.giveUp();
    if (isOrderly) await this.#carry();
    else if (this.pid !== undefined && !this.proposer.isDeposed) {
      const version = pgVersion(this.spec.pg_version);
      await takeWalTail({ pgdata: this.directory.pgdata, version, proposer: this.proposer });
    }
    await this.proposer.stop();
  }

  /** Statistics and the like, which Postgres has left in its files only now. */
  async #carry(): Promise<void> {
    const { pgdata } = this.directory;
    const arena = this.spec.eager === true ? undefined : this.directory.arena;
    try {
      await carryStopped({ pgdata, arena, known: this.carried }, this.proposer);
    } catch (thrown) {
      log.warning("{endpoint}: statistics and free space maps are not kept: {why}", {
        endpoint: this.spec.endpoint_id,
        why: messageOf(thrown),
      });
    }
  }
}
