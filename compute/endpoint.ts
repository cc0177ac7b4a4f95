/**
 * One endpoint of this host, by name: what it is now, and its operations one after the other.
 *
 *   stopped --start--> starting --> running --stop--> stopped
 *                      (or left by an earlier host: being adopted)
 *              ^                      |
 *              +---start-- crashed <--+   Postgres ended by itself, or another writer was elected
 */
import { Conflict, messageOf, NotFound, Unavailable } from "../libs/utils/errors.ts";
import { logger } from "../libs/utils/log.ts";
import { formatLsn, type Lsn } from "../libs/utils/lsn.ts";
import { adoptEndpoint } from "./adoption.ts";
import type { EndpointSpec, EndpointStatus, StartTimings } from "./client.ts";
import type { EndpointDirectory } from "./endpoint_directory.ts";
import type { EndpointRun, HostServices } from "./endpoint_run.ts";
import type { EndpointState } from "./endpoint_state.ts";
import { changedSettings } from "./lag_limits.ts";
import { startEndpoint } from "./start_endpoint.ts";
import { withinLimit } from "./wal_proposer/time_limit.ts";

const log = logger("compute", "endpoint");

/** What an adoption waits for. */
const ADOPTION = "the Postgres that an earlier one left running to answer";
/** How long a start waits for an adoption. */
const ADOPTION_MS_MAX = 10_000;

/** See the head of the file. */
export class Endpoint {
  readonly #services: HostServices;
  readonly #directory: EndpointDirectory;
  #spec: EndpointSpec;
  #status: EndpointStatus["status"] = "stopped";
  #run: EndpointRun | undefined;
  #startLsn: Lsn | undefined;
  #lastLsn: Lsn | undefined;
  #timings: StartTimings | null = null;
  #error: string | undefined;
  /** While a Postgres is being adopted; aborted when it is to be stopped instead. */
  #adoption: AbortController | undefined;
  #fetched: EndpointStatus["fetched"] = null;
  /** Ends the start that is under way. */
  #starting: AbortController | undefined;
  #turn: Promise<unknown> = Promise.resolve();
  #isDeleted = false;

  constructor(services: HostServices, directory: EndpointDirectory, spec: EndpointSpec) {
    this.#services = services;
    this.#directory = directory;
    this.#spec = spec;
  }

  get spec(): EndpointSpec {
    return this.#run?.spec ?? this.#spec;
  }

  /** The live run, while there is one. */
  get run(): EndpointRun | undefined {
    return this.#run;
  }

  /** What it is now. */
  status(): EndpointStatus {
    const spec = this.#spec;
    const lsn = this.#run?.lsn ?? this.#lastLsn;
    return {
      endpoint_id: spec.endpoint_id,
      tenant_id: spec.tenant_id,
      timeline_id: spec.timeline_id,
      mode: spec.mode,
      pg_version: spec.pg_version,
      address: `127.0.0.1:${spec.pg_port}`,
      status: this.#status,
      lsn: lsn === undefined ? null : formatLsn(lsn),
      start_lsn: this.#startLsn === undefined ? null : formatLsn(this.#startLsn),
      pid: this.#run?.pid ?? null,
      pageserver_lag: this.#run?.pageserverLag ?? null,
      stalled_commits: this.#run?.stalledCommits ?? null,
      timings_ms: this.#timings,
      fetched: this.#fetched,
      ...(this.#error === undefined ? {} : { error: this.#error }),
      ...(this.#adoption === undefined ? {} : { waits_for: ADOPTION }),
    };
  }

  /**
   * Starts unless it runs and answers a query; then it only takes the token. A replica has what
   * ends at `atLeast` when it was started. Throws Conflict if it runs on another timeline,
   * Unavailable if it is being adopted for too long.
   */
  async start(spec: EndpointSpec, atLeast: Lsn): Promise<EndpointStatus> {
    if (this.#adoption !== undefined) {
      const name = spec.endpoint_id;
      const why = `Cannot start endpoint "${name}": the compute host waits for ${ADOPTION}; ` +
        `"neon endpoint stop ${name} -m immediate" ends that`;
      await withinLimit(this.#turn, ADOPTION_MS_MAX, () => new Unavailable(why));
    }
    return await this.#inTurn(async () => {
      if (this.#isDeleted) {
        throw new Conflict(
          `Cannot start endpoint "${spec.endpoint_id}": it was deleted meanwhile; try again`,
        );
      }
      if (this.#status === "running" && await this.#run?.answers()) {
        this.#checkSame(spec);
        this.#renewToken(spec.storage_auth_token);
        return this.status();
      }
      this.#spec = spec;
      this.#status = "starting";
      this.#error = undefined;
      const starting = this.#starting = new AbortController();
      try {
        const { run, timings } = await startEndpoint({
          services: this.#services,
          spec,
          directory: this.#directory,
          atLeast,
          onFailure: (why) => this.#crashed(why),
          starting: {
            signal: starting.signal,
            onFetched: (bytes, total_bytes) => this.#fetched = { bytes, total_bytes },
          },
        });
        this.#began(run, timings);
      } catch (thrown) {
        this.#status = "stopped";
        this.#error = messageOf(thrown);
        log.error("{endpoint} was not started: {why}", {
          endpoint: spec.endpoint_id,
          why: this.#error,
        });
        throw thrown;
      } finally {
        this.#starting = undefined;
        this.#fetched = null;
      }
      return this.status();
    });
  }

  #checkSame({ endpoint_id, timeline_id }: EndpointSpec): void {
    if (this.#spec.timeline_id === timeline_id) return;
    throw new Conflict(
      `Cannot start endpoint "${endpoint_id}" on timeline ${timeline_id}: it runs on ` +
        this.#spec.timeline_id,
    );
  }

  #renewToken(token: string | undefined): void {
    if (token === undefined || token === this.#spec.storage_auth_token) return;
    this.#run?.renewToken(token);
    this.#spec = { ...this.#spec, storage_auth_token: token };
  }

  /** Changes settings of the host's own; at once if it runs. Throws BadRequest for others. */
  configure(changes: Readonly<Record<string, string>>): Promise<EndpointStatus> {
    return this.#inTurn(async () => {
      const before = this.spec;
      const spec = { ...before, settings: changedSettings(before.settings, changes) };
      if (this.#run?.failure === undefined) await this.#run?.configure(spec);
      this.#spec = spec;
      return this.status();
    });
  }

  /** Takes over what an earlier host left running; crashed if that cannot be. */
  adopt(state: EndpointState): Promise<void> {
    const adoption = new AbortController();
    this.#adoption = adoption;
    this.#status = "starting";
    return this.#inTurn(async () => {
      try {
        const { signal } = adoption;
        const onFailure = (why: string) => this.#crashed(why);
        const left = { state, directory: this.#directory, signal };
        const run = await adoptEndpoint(this.#services, left, onFailure);
        this.#adoption = undefined;
        this.#began(run, null);
        log.info("{endpoint} was adopted", { endpoint: state.spec.endpoint_id });
      } catch (thrown) {
        this.#adoption = undefined;
        this.#status = "crashed";
        this.#crashed(messageOf(thrown));
        log.error("{endpoint} was not adopted: {why}", {
          endpoint: state.spec.endpoint_id,
          why: this.#error,
        });
      }
    });
  }

  #began(run: EndpointRun, timings: StartTimings | null): void {
    this.#run = run;
    this.#startLsn = run.startLsn;
    this.#timings = timings;
    this.#status = "running";
    // It may have failed, and have said so, in the moment before it was ours to watch
    const { failure } = run;
    if (failure !== undefined) run.abandon().then(() => this.#crashed(failure));
  }

  #crashed(why: string): void {
    if (this.#status === "starting") return; // the start reports it
    this.#lastLsn = this.#run?.lsn ?? this.#lastLsn;
    this.#run = undefined;
    this.#status = "crashed";
    this.#error = why;
  }

  /** Waits until a run that has failed is cleaned up: the endpoint is crashed then. */
  async #settle(): Promise<void> {
    if (this.#run?.failure !== undefined) await this.#run.abandon();
  }

  /**
   * Stops if it runs; a crashed endpoint becomes a stopped one. A start that still fetches pages is
   * ended, any other is waited for: it is a matter of moments.
   */
  stop(mode: "fast" | "immediate"): Promise<EndpointStatus> {
    this.#endStart();
    return this.#inTurn(async () => {
      await this.#stop(mode);
      return this.status();
    });
  }

  #endStart(): void {
    this.#adoption?.abort();
    const why = `Cannot start endpoint "${this.#spec.endpoint_id}": it was stopped meanwhile`;
    this.#starting?.abort(new Unavailable(why));
  }

  async #stop(mode: "fast" | "immediate"): Promise<void> {
    await this.#settle();
    if (this.#run !== undefined) {
      await this.#run.stop(mode);
      this.#lastLsn = this.#run.lsn;
    }
    this.#run = undefined;
    this.#status = "stopped";
    this.#error = undefined;
  }

  /** Stops, and removes all files; it cannot be started any more then. Throws NotFound. */
  delete(): Promise<void> {
    this.#endStart();
    return this.#inTurn(async () => {
      await this.#stop("immediate");
      try {
        await this.#directory.remove();
      } catch (thrown) {
        if (thrown instanceof Deno.errors.NotFound) throw new NotFound("Cannot delete it twice");
        throw thrown;
      }
      this.#isDeleted = true;
    });
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(work);
    this.#turn = turn.catch(() => {});
    return turn;
  }
}
