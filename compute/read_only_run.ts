/**
 * A run that only reads: Postgres as a standby, which follows the safekeepers by itself (a replica)
 * or stays where it is (a static endpoint). A lease holds the LSN that its pages are asked for at,
 * which of a static one is always the same (lsn_lease.ts).
 *
 * It must never be promoted: the WAL of what it then wrote would go nowhere. Nothing can keep
 * PostgreSQL from obeying pg_promote(), so two things follow: commits after it wait for a standby
 * that does not exist, and the run fails at once. The sign is that standby.signal is gone, which
 * PostgreSQL removes before it lets anybody write (PostgreSQL 17, xlog.c, StartupXLOG).
 */
import type { PgClient } from "../libs/pgwire/client.ts";
import type { MembershipConfiguration } from "../libs/safekeeper_protocol/membership.ts";
import { assert } from "../libs/utils/assert.ts";
import { TimedOut } from "../libs/utils/errors.ts";
import { type Lsn, parseLsn } from "../libs/utils/lsn.ts";
import type { EndpointMode, EndpointSpec } from "./client.ts";
import { exists } from "./endpoint_directory.ts";
import { EndpointRun } from "./endpoint_run.ts";
import { readArenaSettings } from "./lazy_files/arena.ts";
import { LsnLease, takeLease } from "./lsn_lease.ts";
import { postgresConf } from "./postgres_settings.ts";
import { ReplicaSource } from "./replica_source.ts";
import { connectionInfo } from "./standby_settings.ts";
import { withinLimit } from "./wal_proposer/time_limit.ts";

/** How often standby.signal is looked for. */
const PROMOTION_LOOK_MS = 100;
/** Longest fast shutdown. */
const STOP_MS_MAX = 30_000;

/** Longest wait for a replica to say where it is. */
const REPLAYED_MS_MAX = 10_000;

/** The file that makes Postgres a standby. */
export const STANDBY_SIGNAL = "standby.signal";

/** The LSN of a static endpoint; undefined for the others. */
export function staticLsn(mode: EndpointMode): Lsn | undefined {
  return typeof mode === "string" ? undefined : parseLsn(mode.Static);
}

/** See the head of the file. */
export class ReadOnlyRun extends EndpointRun {
  #startLsn: Lsn | undefined;
  #lease: LsnLease | undefined;
  #promotionTimer: ReturnType<typeof setInterval> | undefined;
  #safekeepers: EndpointSpec["safekeepers"] | undefined;
  #source: ReplicaSource | undefined;
  #isDisconnected = false;

  override get startLsn(): Lsn {
    assert(this.#startLsn !== undefined, "the basebackup has said where it starts");
    return this.#startLsn;
  }

  /** Where a static endpoint stays; a replica has to be asked. */
  override get lsn(): Lsn | undefined {
    return staticLsn(this.spec.mode);
  }

  /** Takes the lease of the LSN that it starts at. Throws BadRequest if that is refused. */
  async startAt(lsn: Lsn): Promise<void> {
    this.#startLsn = lsn;
    const validUntil = await takeLease(this.spec, lsn);
    if (this.#isDisconnected) return; // the start has failed: nobody would give it up
    this.#lease = this.#leaseOf(lsn, validUntil);
  }

  /** Goes on with what an earlier host started at that LSN. */
  resumeAt(lsn: Lsn): void {
    this.#startLsn = lsn;
    if (this.spec.eager === true) return; // it has all its pages
    const { requestLsn } = readArenaSettings(this.directory.arena);
    this.#lease = this.#leaseOf(requestLsn, 0);
  }

  #leaseOf(lsn: Lsn, validUntil: number): LsnLease {
    const { mode, eager } = this.spec;
    const { arena } = this.directory;
    const moves = mode === "Replica" && eager !== true;
    const position = () => moves ? this.#replayed() : Promise.resolve(undefined);
    return new LsnLease({ spec: () => this.spec, arena, lsn, position }, validUntil);
  }

  async #replayed(): Promise<Lsn | undefined> {
    try {
      const late = () => new TimedOut("Postgres does not answer");
      return await withinLimit(this.openSession().then(replayPosition), REPLAYED_MS_MAX, late);
    } catch {
      return undefined; // it is busy, or ending
    }
  }

  override conf(): string {
    const { spec } = this;
    if (spec.mode !== "Replica") return super.conf();
    const passfile = spec.storage_auth_token === undefined ? undefined : this.directory.passfile;
    const info = connectionInfo(spec, this.#safekeepers ?? spec.safekeepers, passfile);
    return postgresConf(spec, true, { primary_conninfo: info });
  }

  /** Keeps a replica on a safekeeper that serves it, from now on. */
  watchSource(): void {
    if (this.spec.mode !== "Replica" || this.#isDisconnected) return;
    const token = () => this.spec.storage_auth_token;
    this.#source = new ReplicaSource(this.spec, token, async (safekeepers) => {
      this.#safekeepers = safekeepers;
      await this.reload();
    });
    this.#source.start();
  }

  /** The same for one that an earlier host started, which may have had it go over to another. */
  async resumeSource(): Promise<void> {
    if (this.spec.mode === "Replica") await this.reload();
    this.watchSource();
  }

  /** A replica follows the members that remain; while they change it stays where it is. */
  override followMembers(membership: MembershipConfiguration): void {
    if (membership.newMembers === undefined) super.followMembers(membership);
  }

  protected override goOnWith(membership: MembershipConfiguration): void {
    const before = this.#safekeepers ?? this.spec.safekeepers;
    super.goOnWith(membership);
    if (this.spec.mode !== "Replica") return;
    const { safekeepers } = this.spec;
    const stay = before.filter(({ id }) => safekeepers.some((other) => other.id === id));
    const come = safekeepers.filter(({ id }) => !stay.some((other) => other.id === id));
    this.goOnAs({ ...this.spec, safekeepers: [...stay, ...come] });
    this.#safekeepers = undefined;
    const source = this.#source;
    this.inBackground("go over to other safekeepers", async () => {
      await source?.stop();
      await this.resumeSource();
    });
  }

  /** Fails if Postgres is promoted from now on. */
  watchPromotion(): void {
    const path = `${this.directory.pgdata}/${STANDBY_SIGNAL}`;
    this.#promotionTimer = setInterval(() => {
      if (exists(path)) return;
      clearInterval(this.#promotionTimer);
      this.fail("it was promoted, and may not write");
    }, PROMOTION_LOOK_MS);
  }

  protected override async shutDown(): Promise<void> {
    await this.process.signal("INT");
    await this.process.endsWithin(STOP_MS_MAX);
  }

  protected override async disconnect(): Promise<void> {
    clearInterval(this.#promotionTimer);
    this.#isDisconnected = true;
    await this.#source?.stop();
  }

  protected override finish(): Promise<void> {
    this.#lease?.giveUp();
    return Promise.resolve();
  }
}

async function replayPosition(client: PgClient): Promise<Lsn | undefined> {
  try {
    const { rows } = await client.query("SELECT pg_last_wal_replay_lsn()");
    const text = rows[0]?.[0];
    return typeof text === "string" ? parseLsn(text) : undefined;
  } finally {
    client.close();
  }
}
