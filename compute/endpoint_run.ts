/**
 * One run of an endpoint: a Postgres with its WAL proposer, from the start (start_endpoint.ts) or
 * adoption (adoption.ts) to the end.
 *
 * A run ends in one of two ways. Asked for: `stop`. Otherwise it has failed: Postgres ended by
 * itself, or somebody else was elected. Then whatever is left is killed at once and the local data
 * is thrown away; nothing is ever recovered locally (without full page images a torn page would go
 * unseen), and nothing is lost, because what was acknowledged is in the safekeepers.
 */
import { assert } from "../libs/utils/assert.ts";
import { pgVersion } from "../libs/postgres/versions.ts";
import { messageOf, TimedOut } from "../libs/utils/errors.ts";
import type { PgClient } from "../libs/pgwire/client.ts";
import { ServerError } from "../libs/pgwire/messages.ts";
import type { SlotState } from "../libs/postgres/replication_slot.ts";
import { logger } from "../libs/utils/log.ts";
import { formatLsn, type Lsn } from "../libs/utils/lsn.ts";
import type { KnownFiles } from "./carried/files.ts";
import { writeSlotNames } from "./carried/slot_names.ts";
import { SlotCarrier } from "./carried/slots.ts";
import { carryStopped } from "./carried/stopped.ts";
import type { EndpointSpec } from "./client.ts";
import type { EndpointDirectory } from "./endpoint_directory.ts";
import { removeEndpointState } from "./endpoint_state.ts";
import { CLEAN_EXIT, type Launcher, type PostgresProcess } from "./postgres_process.ts";
import type { PrivateSocket } from "./private_socket.ts";
import type { ReadyDirectory } from "./ready_directory.ts";
import type { ReadyFiles } from "./ready_files.ts";
import { takeWalTail } from "./wal_tail.ts";
import { WalProposer, type WalProposerOptions } from "./wal_proposer/driver.ts";
import { PostgresStream } from "./wal_proposer/postgres_stream.ts";
import { withinLimit } from "./wal_proposer/time_limit.ts";

const log = logger("compute", "endpoint");

/** A fast stop whose last WAL no quorum takes for so long becomes an immediate one. */
const STOP_WITHOUT_QUORUM_MS_MAX = 10_000;
/** Longest fast stop in any case. */
const STOP_MS_MAX = 120_000;
/** How often a stop looks at the quorum's progress. */
const STOP_LOOK_MS = 100;
/** PostgreSQL itself kills its processes 5 s after an immediate shutdown began. */
const QUIT_MS_MAX = 6000;
const KILL_MS_MAX = 5000;
/** Longest wait for the answer of a running Postgres. */
const ANSWER_MS_MAX = 60_000;

/** What all endpoints of a host share. */
export interface HostServices {
  readonly launcher: Launcher;
  readonly sockets: PrivateSocket;
  readonly bootId: string;
  readonly ready: ReadyFiles;
  readonly readyDirectory: ReadyDirectory;
}

/** PG_VERSION_NUM of some minor release: safekeepers look at the major version only. */
export function versionNumber(spec: EndpointSpec): number {
  return spec.pg_version * 10000;
}

/** See the head of the file. */
export class EndpointRun {
  readonly spec: EndpointSpec;
  readonly proposer: WalProposer;
  readonly services: HostServices;
  readonly directory: EndpointDirectory;
  readonly standbyName: string;
  /** The files of pgdata that the storage has too; kept up to date while it runs. */
  readonly carried: KnownFiles = new Map();
  readonly #onFailure: (why: string) => void;
  #process: PostgresProcess | undefined;
  #stream: PostgresStream | undefined;
  #slots: SlotCarrier | undefined;
  #background: Promise<void> = Promise.resolve();
  #ending = false;
  #failure: string | undefined;
  #cleared: Promise<void> = Promise.resolve();

  /** `onFailure` is called once, when a failed run has been cleaned up. */
  constructor(
    services: HostServices,
    spec: EndpointSpec,
    directory: EndpointDirectory,
    standbyName: string,
    proposing: Pick<WalProposerOptions, "walSegmentSize" | "resume">,
    onFailure: (why: string) => void,
  ) {
    this.services = services;
    this.spec = spec;
    this.directory = directory;
    this.standbyName = standbyName;
    this.#onFailure = onFailure;
    this.proposer = new WalProposer({
      ...proposing,
      tenantId: spec.tenant_id,
      timelineId: spec.timeline_id,
      pgVersionNum: versionNumber(spec),
      safekeepers: spec.safekeepers.map(({ id, host, pg_port }) => ({ id, host, pgPort: pg_port })),
      onDeposed: (why) => this.#fail(why),
    });
  }

  /** Why the run failed, as soon as it has. */
  get failure(): string | undefined {
    return this.#failure;
  }

  get process(): PostgresProcess {
    assert(this.#process !== undefined, "Postgres was launched");
    return this.#process;
  }

  get pid(): number | undefined {
    return this.#process?.pid;
  }

  /** Watches over a launched or adopted Postgres from now on. */
  attach(process: PostgresProcess): void {
    this.#process = process;
    process.exited.then((how) => this.#fail(`Postgres ended by itself with ${how}`));
  }

  /** A connection of the superuser, over the endpoint's own socket. */
  connect(parameters: Record<string, string>): Promise<PgClient> {
    const { services, directory, spec } = this;
    return services.sockets.connect(directory.socketDirectory, spec.pg_port, parameters);
  }

  /** A session in the database "postgres". */
  openSession(): Promise<PgClient> {
    return this.connect({ database: "postgres", application_name: "neon compute host" });
  }

  /** Starts to take WAL out of Postgres; resolves when the stream is open. */
  async openStream(slotExists: boolean): Promise<void> {
    this.#stream = new PostgresStream(
      this.proposer,
      this.standbyName,
      slotExists,
      (parameters) => this.connect(parameters),
    );
    this.#stream.start();
    await this.#stream.opened;
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

  /**
   * Asks Postgres a query. False if there is nobody to ask: it has ended, whether we were told yet
   * or not, and what was left has been cleared. Throws TimedOut if it runs and does not answer.
   */
  async answers(): Promise<boolean> {
    const { spec } = this;
    const asking = this.openSession().then(async (client) => {
      try {
        await client.query("SELECT 1");
      } finally {
        client.close();
      }
    });
    const late = () =>
      new TimedOut(`Cannot use endpoint "${spec.endpoint_id}": it does not answer`);
    try {
      await withinLimit(asking, ANSWER_MS_MAX, late);
    } catch (thrown) {
      if (thrown instanceof TimedOut) throw thrown;
      // An error that it sent (too many connections, say) is an answer too
      if (!(thrown instanceof ServerError)) this.#fail("Postgres ended while nobody watched it");
    }
    await this.#cleared;
    return this.#failure === undefined;
  }

  /** Does something beside serving; a stop waits for it. Errors are logged. */
  inBackground(what: string, work: () => Promise<void>): void {
    this.#background = this.#background.then(async () => {
      if (this.#ending || this.#failure !== undefined) return;
      try {
        await work();
      } catch (thrown) {
        log.warning("{endpoint}: cannot {what}: {why}", {
          endpoint: this.spec.endpoint_id,
          what,
          why: messageOf(thrown),
        });
      }
    });
  }

  #fail(why: string): void {
    if (this.#ending || this.#failure !== undefined) return;
    this.#failure = why;
    log.error("{endpoint} crashed: {why}", { endpoint: this.spec.endpoint_id, why });
    this.#cleared = this.#clear().catch((thrown) => {
      log.error("{endpoint}: {why}", { endpoint: this.spec.endpoint_id, why: messageOf(thrown) });
    }).then(() => this.#onFailure(why));
  }

  /** Ends a start that did not succeed; a run that has failed is being cleared already. */
  async abandon(): Promise<void> {
    if (this.#failure !== undefined) return await this.#cleared;
    this.#ending = true;
    await this.#clear();
  }

  /** Stops Postgres and everything around it; returns what is committed. */
  async stop(mode: "fast" | "immediate"): Promise<Lsn> {
    this.#ending = true;
    if (mode === "fast") await this.#shutDown();
    await this.#clear(true);
    return this.proposer.acknowledgedLsn;
  }

  /** Fast shutdown: Postgres ends when its last WAL record is acknowledged. */
  async #shutDown(): Promise<void> {
    const { process, proposer } = this;
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

  /** Leaves nothing running and no data behind; empty files may stay after an orderly end. */
  async #clear(asked = false): Promise<void> {
    const isOrderly = await this.#kill() && asked;
    await this.#slots?.stop();
    await this.#stream?.stop();
    await this.#background;
    if (isOrderly) await this.#carry();
    else if (this.#process !== undefined && !this.proposer.isDeposed) {
      const version = pgVersion(this.spec.pg_version);
      await takeWalTail({ pgdata: this.directory.pgdata, version, proposer: this.proposer });
    }
    await this.proposer.stop();
    removeEndpointState(this.directory.stateFile);
    if (isOrderly) this.directory.retireData();
    else this.directory.discardData();
    this.directory.sweep();
  }

  /** Statistics and the like, which Postgres has left in its files only now. */
  async #carry(): Promise<void> {
    const { pgdata, arena } = this.directory;
    try {
      await carryStopped({ pgdata, arena, known: this.carried }, this.proposer);
    } catch (thrown) {
      log.warning("{endpoint}: statistics and free space maps are not kept: {why}", {
        endpoint: this.spec.endpoint_id,
        why: messageOf(thrown),
      });
    }
  }

  /** True if the postmaster ended by itself: it does so only when all its processes have. */
  async #kill(): Promise<boolean> {
    const process = this.#process;
    if (process === undefined) return false;
    await process.signal("QUIT");
    if (await process.endsWithin(QUIT_MS_MAX)) return await process.exited === CLEAN_EXIT;
    await process.signal("KILL");
    if (await process.endsWithin(KILL_MS_MAX)) return false;
    throw new Error(`Cannot stop process ${process.pid}: it is still there after SIGKILL`);
  }
}
