/**
 * One run of an endpoint: a Postgres and what serves it, from the start (start_endpoint.ts) or
 * adoption (adoption.ts) to the end. What it is served with depends on its kind: primary_run.ts,
 * read_only_run.ts.
 *
 * A run ends in one of two ways. Asked for: `stop`. Otherwise it has failed: Postgres ended by
 * itself, or may not go on. Then whatever is left is killed at once and the local data is thrown
 * away; nothing is ever recovered locally (without full page images a torn page would go unseen),
 * and nothing is lost, because what was acknowledged is in the safekeepers.
 */
import {
  allMembers,
  type MembershipConfiguration,
  membershipJson,
} from "../libs/safekeeper_protocol/membership.ts";
import { assert } from "../libs/utils/assert.ts";
import { messageOf, TimedOut, Unavailable } from "../libs/utils/errors.ts";
import type { PgClient } from "../libs/pgwire/client.ts";
import { ServerError } from "../libs/pgwire/messages.ts";
import { logger } from "../libs/utils/log.ts";
import type { Lsn } from "../libs/utils/lsn.ts";
import type { EndpointSpec, PageserverLag, StalledCommits } from "./client.ts";
import type { EndpointDirectory } from "./endpoint_directory.ts";
import { readEndpointState, removeEndpointState, writeEndpointState } from "./endpoint_state.ts";
import { sweepDirectory } from "./killed_postgres.ts";
import { updateArenaToken } from "./lazy_files/arena.ts";
import { postgresConf } from "./postgres_settings.ts";
import { CLEAN_EXIT, type Launcher, type PostgresProcess } from "./postgres_process.ts";
import type { PrivateSocket } from "./private_socket.ts";
import type { ReadyDirectories } from "./ready_directories.ts";
import type { ReadyFiles } from "./ready_files.ts";
import type { StartPages } from "./start_pages.ts";
import type { WalChannels } from "./wal_channels.ts";
import { withinLimit } from "./wal_proposer/time_limit.ts";

const log = logger("compute", "endpoint");

/** PostgreSQL itself kills its processes 5 s after an immediate shutdown began. */
const QUIT_MS_MAX = 6000;
const KILL_MS_MAX = 5000;
/** Longest wait for the answer of a running Postgres. */
const ANSWER_MS_MAX = 60_000;

/** What all endpoints of a host share. */
export interface HostServices {
  readonly launcher: Launcher;
  readonly sockets: PrivateSocket;
  readonly walChannels: WalChannels;
  readonly bootId: string;
  readonly ready: ReadyFiles;
  readonly readyDirectories: ReadyDirectories;
  readonly startPages: StartPages;
}

/** What every run is made of. */
export interface RunParts {
  readonly services: HostServices;
  readonly spec: EndpointSpec;
  readonly directory: EndpointDirectory;
  /** Name of the WAL proposer as a standby, which nobody can guess. */
  readonly standbyName: string;
  /** Called once, when a failed run has been cleaned up. */
  readonly onFailure: (why: string) => void;
  /** Of a run that is being started, not adopted. */
  readonly starting?: StartWatch;
}

/** Who waits for a start. */
export interface StartWatch {
  /** Ends a start that takes long. */
  readonly signal: AbortSignal;
  /** So many bytes of all that an eager endpoint fetches have arrived. */
  onFetched(bytes: number, totalBytes: number): void;
}

/** See the head of the file. */
export abstract class EndpointRun {
  readonly services: HostServices;
  readonly directory: EndpointDirectory;
  readonly standbyName: string;
  #spec: EndpointSpec;
  readonly #onFailure: (why: string) => void;
  readonly #starting: StartWatch | undefined;
  readonly #failing = new AbortController();
  #process: PostgresProcess | undefined;
  #background: Promise<void> = Promise.resolve();
  #ending = false;
  /** It is ending, or has failed. */
  readonly #over = Promise.withResolvers<void>();
  #failure: string | undefined;
  #cleared: Promise<void> = Promise.resolve();

  constructor(parts: RunParts) {
    this.services = parts.services;
    this.#spec = parts.spec;
    this.directory = parts.directory;
    this.standbyName = parts.standbyName;
    this.#onFailure = parts.onFailure;
    this.#starting = parts.starting;
  }

  /** Aborts when whoever waits for the start does no more, or the run has failed. */
  get startSignal(): AbortSignal {
    const { signal } = this.#failing;
    return this.#starting === undefined ? signal : AbortSignal.any([signal, this.#starting.signal]);
  }

  /** Tells whoever waits for the start how much has been fetched. */
  fetched(bytes: number, totalBytes: number): void {
    this.#starting?.onFetched(bytes, totalBytes);
  }

  /** What it was started as, with settings, safekeepers and a token that were changed since. */
  get spec(): EndpointSpec {
    return this.#spec;
  }

  /** Where Postgres was started. */
  abstract get startLsn(): Lsn;
  /** Where it stands, if that is known without asking: for a writer, what is committed. */
  abstract get lsn(): Lsn | undefined;
  /** Of a writer, how far the pageserver is behind it. */
  get pageserverLag(): PageserverLag | undefined {
    return undefined;
  }
  /** Of a writer, whether its commits wait for safekeepers. */
  get stalledCommits(): StalledCommits | undefined {
    return undefined;
  }
  /** Ends Postgres in an orderly way; returns when it has ended or that takes too long. */
  protected abstract shutDown(): Promise<void>;
  /** Closes connections to Postgres and whatever waits on them: it has ended. */
  protected abstract disconnect(): Promise<void>;
  /** Ends everything else. `isOrderly`: Postgres was asked to end, and did so by itself. */
  protected abstract finish(isOrderly: boolean): Promise<void>;

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
    process.exited.then((how) => this.fail(`Postgres ended by itself with ${how}`));
  }

  /**
   * Shows another token to the storage from now on; connections that are open stay. For a running
   * Postgres.
   */
  renewToken(token: string): void {
    const { directory } = this;
    this.goOnAs({ ...this.#spec, storage_auth_token: token });
    if (this.#spec.eager !== true) updateArenaToken(directory.arena, token);
    if (this.#spec.mode === "Replica") directory.writePassfile(token, this.#spec.postgres_user);
  }

  /** A connection of the superuser, over the endpoint's own socket. */
  connect(parameters: Record<string, string>, signal?: AbortSignal): Promise<PgClient> {
    const { services, directory, spec } = this;
    return services.sockets.connect(directory.socketDirectory, spec.pg_port, parameters, signal);
  }

  /** A session in the database "postgres". */
  openSession(): Promise<PgClient> {
    return this.connect({ database: "postgres", application_name: "neon compute host" });
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
      if (!(thrown instanceof ServerError)) this.fail("Postgres ended while nobody watched it");
    }
    await this.#cleared;
    return this.#failure === undefined;
  }

  /** Goes on with other settings; the next host that adopts it does, too. */
  async configure(spec: EndpointSpec): Promise<void> {
    this.goOnAs(spec);
    await this.reload(); // Postgres only shows them
  }

  /** The content of postgresql.conf. */
  conf(): string {
    return postgresConf(this.spec, true);
  }

  /** Has Postgres read its settings anew. */
  protected async reload(): Promise<void> {
    Deno.writeTextFileSync(`${this.directory.pgdata}/postgresql.conf`, this.conf());
    await this.process.signal("HUP");
  }

  /** The safekeepers of the timeline have changed. Nothing unless this is newer than what it knows. */
  followMembers(membership: MembershipConfiguration): void {
    if (membership.generation > (this.#spec.mconf?.generation ?? 0)) this.goOnWith(membership);
  }

  /** Is of this membership from now on. */
  protected goOnWith(membership: MembershipConfiguration): void {
    const { safekeepers: known } = this.#spec;
    const safekeepers = allMembers(membership).map(({ id, host, pgPort }) =>
      known.find((safekeeper) => safekeeper.id === id) ?? { id, host, pg_port: pgPort }
    );
    this.goOnAs({ ...this.#spec, safekeepers, mconf: membershipJson(membership) });
  }

  /** Is what `spec` says from now on, also for the next host that adopts it. */
  protected goOnAs(spec: EndpointSpec): void {
    const { stateFile } = this.directory;
    this.#spec = spec;
    const state = readEndpointState(stateFile);
    if (state !== undefined) writeEndpointState(stateFile, { ...state, spec });
  }

  /** Waits in the background, before what is done there next; no longer than until the end. */
  restInBackground(ms: number): void {
    this.inBackground("rest", async () => {
      const rest = Promise.withResolvers<void>();
      const timer = setTimeout(rest.resolve, ms);
      await Promise.race([rest.promise, this.#over.promise]);
      clearTimeout(timer);
    });
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

  /** It may not go on. */
  protected fail(why: string): void {
    if (this.#ending || this.#failure !== undefined) return;
    this.#failure = why;
    this.#failing.abort(new Unavailable(why));
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

  /** Stops Postgres and everything around it. */
  async stop(mode: "fast" | "immediate"): Promise<void> {
    this.#ending = true;
    if (mode === "fast") await this.shutDown();
    await this.#clear(true);
  }

  /** Leaves nothing running and no data behind; empty files may stay after an orderly end. */
  async #clear(asked = false): Promise<void> {
    this.#over.resolve();
    const isOrderly = await this.#kill() && asked;
    await this.disconnect();
    await this.#background;
    await this.finish(isOrderly);
    removeEndpointState(this.directory.stateFile);
    const { directory, services: { readyDirectories } } = this;
    if (isOrderly) directory.retireData(this.#spec.postgres_user, readyDirectories);
    else directory.discardData();
    this.sweep();
  }

  /** Removes in the background what earlier runs have left. */
  sweep(): void {
    sweepDirectory(this.services.launcher, this.directory, this.spec);
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
