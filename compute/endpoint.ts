/**
 * One endpoint of this host, by name: what it is now, and its operations one after the other.
 *
 *   stopped --start--> starting --> running --stop--> stopped
 *              ^                      |
 *              +---start-- crashed <--+   Postgres ended by itself, or another writer was elected
 */
import { Conflict, messageOf, NotFound } from "../libs/utils/errors.ts";
import { logger } from "../libs/utils/log.ts";
import { formatLsn, type Lsn } from "../libs/utils/lsn.ts";
import { adoptEndpoint } from "./adoption.ts";
import type { EndpointSpec, EndpointStatus, StartTimings } from "./client.ts";
import type { EndpointDirectory } from "./endpoint_directory.ts";
import type { EndpointRun, HostServices } from "./endpoint_run.ts";
import type { EndpointState } from "./endpoint_state.ts";
import { startEndpoint } from "./start_endpoint.ts";

const log = logger("compute", "endpoint");

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
  #turn: Promise<unknown> = Promise.resolve();

  constructor(services: HostServices, directory: EndpointDirectory, spec: EndpointSpec) {
    this.#services = services;
    this.#directory = directory;
    this.#spec = spec;
  }

  get spec(): EndpointSpec {
    return this.#spec;
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
      timings_ms: this.#timings,
      ...(this.#error === undefined ? {} : { error: this.#error }),
    };
  }

  /**
   * Starts unless it runs and answers a query; a replica then has what ends at `atLeast`. Throws
   * Conflict if it runs on another timeline.
   */
  start(spec: EndpointSpec, atLeast: Lsn): Promise<EndpointStatus> {
    return this.#inTurn(async () => {
      if (this.#status === "running" && await this.#run?.answers()) {
        if (this.#spec.timeline_id === spec.timeline_id) return this.status();
        throw new Conflict(
          `Cannot start endpoint "${spec.endpoint_id}" on timeline ${spec.timeline_id}: it runs ` +
            `on ${this.#spec.timeline_id}`,
        );
      }
      this.#spec = spec;
      this.#status = "starting";
      this.#error = undefined;
      try {
        const { run, timings } = await startEndpoint({
          services: this.#services,
          spec,
          directory: this.#directory,
          atLeast,
          onFailure: (why) => this.#crashed(why),
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
      }
      return this.status();
    });
  }

  /** Takes over what an earlier host left running; crashed if that cannot be. */
  adopt(state: EndpointState): Promise<void> {
    return this.#inTurn(async () => {
      try {
        const onFailure = (why: string) => this.#crashed(why);
        this.#began(await adoptEndpoint(this.#services, this.#directory, state, onFailure), null);
        log.info("{endpoint} was adopted", { endpoint: state.spec.endpoint_id });
      } catch (thrown) {
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

  /** Stops if it runs; a crashed endpoint becomes a stopped one. */
  stop(mode: "fast" | "immediate"): Promise<EndpointStatus> {
    return this.#inTurn(async () => {
      await this.#settle();
      if (this.#run !== undefined) {
        await this.#run.stop(mode);
        this.#lastLsn = this.#run.lsn;
      }
      this.#run = undefined;
      this.#status = "stopped";
      this.#error = undefined;
      return this.status();
    });
  }

  /** Stops, and removes all files. */
  async delete(): Promise<void> {
    await this.stop("immediate");
    await this.#inTurn(async () => {
      try {
        await this.#directory.remove();
      } catch (thrown) {
        if (thrown instanceof Deno.errors.NotFound) throw new NotFound("Cannot delete it twice");
        throw thrown;
      }
    });
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(work);
    this.#turn = turn.catch(() => {});
    return turn;
  }
}
