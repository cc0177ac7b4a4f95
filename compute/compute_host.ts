/**
 * All endpoints of one machine: found by name for the API, by timeline for whoever asks what is
 * committed, taken over at the start of the host and stopped at its end.
 */
import { join } from "node:path";
import { BadRequest, messageOf, NotFound, TimedOut } from "../libs/utils/errors.ts";
import {
  type MembershipJson,
  membershipJson,
  membershipOf,
} from "../libs/safekeeper_protocol/membership.ts";
import type { TenantId, TimelineId } from "../libs/utils/id.ts";
import { logger } from "../libs/utils/log.ts";
import { formatLsn, INVALID_LSN, type Lsn } from "../libs/utils/lsn.ts";
import { makeDirectory } from "../libs/utils/durable.ts";
import type { EndpointSpec, EndpointStatus, ProposerStatus, SyncRequest } from "./client.ts";
import { Endpoint } from "./endpoint.ts";
import { EndpointDirectory, exists } from "./endpoint_directory.ts";
import type { HostServices } from "./endpoint_run.ts";
import { readEndpointState } from "./endpoint_state.ts";
import { PrimaryRun } from "./primary_run.ts";
import { syncTimeline } from "./timeline_sync.ts";

const log = logger("compute", "host");

const ENDPOINT_NAME = /^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$/;

/** Longest wait for what a quorum has on disk, right after an adoption. */
const COMMITTED_MS_MAX = 10_000;
/** How long the host's start waits for endpoints that it adopts. */
const ADOPTED_MS = 3000;
/** Longest wait for an endpoint that is starting. */
const STARTING_MS_MAX = 75_000;
/** Pause between two looks at an endpoint that is starting. */
const STARTING_POLL_MS = 20;

/** Over all running endpoints. */
interface HostTotals {
  readonly running: number;
  readonly bufferBytes: number;
  readonly uncommittedBytes: number;
  /** Of the endpoint that the pageserver is furthest behind. */
  readonly lagBytes: number;
  /** Whose commits wait for the pageserver. */
  readonly delayed: number;
}

/** See the head of the file. */
export class ComputeHost {
  readonly #services: HostServices;
  readonly #directory: string;
  readonly #endpoints = new Map<string, Endpoint>();
  /** Syncs that are under way, by timeline: an election of a start must not meet theirs. */
  readonly #syncs = new Map<TimelineId, Promise<Lsn>>();

  /** `directory` holds one directory for each endpoint. */
  constructor(services: HostServices, directory: string) {
    this.#services = services;
    this.#directory = directory;
  }

  /**
   * Takes over the endpoints that an earlier host left running. One whose Postgres does not answer
   * soon is "starting" until it does.
   */
  async adoptAll(): Promise<void> {
    makeDirectory(this.#directory);
    const adoptions = [...Deno.readDirSync(this.#directory)].map(async ({ name }) => {
      const directory = new EndpointDirectory(join(this.#directory, name));
      try {
        const state = readEndpointState(directory.stateFile);
        if (state === undefined) return;
        const endpoint = new Endpoint(this.#services, directory, state.spec);
        this.#endpoints.set(name, endpoint);
        await endpoint.adopt(state);
      } catch (thrown) {
        log.error("cannot look after endpoint {name}: {why}", { name, why: messageOf(thrown) });
      }
    });
    const soon = Promise.withResolvers<void>();
    const timer = setTimeout(soon.resolve, ADOPTED_MS);
    await Promise.race([Promise.all(adoptions), soon.promise]);
    clearTimeout(timer);
  }

  /** Endpoints that were started or adopted by this host. */
  list(): EndpointStatus[] {
    return [...this.#endpoints.values()].map((endpoint) => endpoint.status());
  }

  /** One of them. Throws NotFound. */
  find(name: string): Endpoint {
    const endpoint = this.#endpoints.get(name);
    if (endpoint !== undefined) return endpoint;
    throw new NotFound(`Cannot find endpoint "${name}": this compute host has not started it`);
  }

  /** Starts an endpoint unless it runs. */
  async start(spec: EndpointSpec): Promise<EndpointStatus> {
    await this.#syncs.get(spec.timeline_id)?.catch(() => {}); // its own caller is told
    const name = spec.endpoint_id;
    let endpoint = this.#endpoints.get(name);
    if (endpoint === undefined) {
      endpoint = new Endpoint(this.#services, this.#directoryOf(name), spec);
      this.#endpoints.set(name, endpoint);
    }
    const writer = this.#writerRun(spec.tenant_id, spec.timeline_id);
    return await endpoint.start(spec, writer?.lsn ?? INVALID_LSN);
  }

  /** Settles where a timeline ends; a running writer of it knows without. */
  async sync(request: SyncRequest): Promise<{ commit_lsn: string }> {
    const { tenant_id, timeline_id } = request;
    const deadline = performance.now() + STARTING_MS_MAX;
    while (this.#isStarting(timeline_id)) {
      if (performance.now() > deadline) {
        throw new TimedOut(
          `Cannot tell where timeline ${timeline_id} ends: an endpoint of it is still starting`,
        );
      }
      await new Promise((resolve) => setTimeout(resolve, STARTING_POLL_MS));
    }
    if (this.#writerRun(tenant_id, timeline_id) !== undefined) {
      return await this.writerOf(tenant_id, timeline_id);
    }
    let sync = this.#syncs.get(timeline_id);
    if (sync === undefined) {
      sync = syncTimeline(request).finally(() => this.#syncs.delete(timeline_id));
      this.#syncs.set(timeline_id, sync);
    }
    return { commit_lsn: formatLsn(await sync) };
  }

  #isStarting(timeline: TimelineId): boolean {
    return [...this.#endpoints.values()].some((endpoint) =>
      endpoint.spec.timeline_id === timeline && endpoint.spec.mode === "Primary" &&
      endpoint.status().status === "starting"
    );
  }

  #writerRun(tenant: TenantId, timeline: TimelineId): PrimaryRun | undefined {
    for (const { spec, run } of this.#endpoints.values()) {
      if (spec.tenant_id !== tenant || spec.timeline_id !== timeline) continue;
      if (run instanceof PrimaryRun && run.failure === undefined) return run;
    }
    return undefined;
  }

  /** Stops an endpoint and removes its files, also those that an earlier host left. */
  async delete(name: string): Promise<void> {
    const endpoint = this.#endpoints.get(name);
    if (endpoint !== undefined) {
      await endpoint.delete();
      if (this.#endpoints.get(name) === endpoint) this.#endpoints.delete(name);
      return;
    }
    const directory = this.#directoryOf(name);
    if (!exists(directory.root)) throw new NotFound(`Cannot delete endpoint "${name}": no files`);
    await directory.remove();
  }

  #directoryOf(name: string): EndpointDirectory {
    if (!ENDPOINT_NAME.test(name)) throw new BadRequest(`Cannot use "${name}" as endpoint name`);
    return new EndpointDirectory(join(this.#directory, name));
  }

  /** The running writer of a timeline. Throws NotFound. */
  async writerOf(tenant: TenantId, timeline: TimelineId): Promise<ProposerStatus> {
    const run = this.#writerRun(tenant, timeline);
    if (run === undefined) {
      throw new NotFound(`Cannot find a running writer of timeline ${tenant}/${timeline} here`);
    }
    const { proposer, spec } = run;
    // Right after an adoption the quorum has more than the start of the term and did not say so yet
    await proposer.committed(proposer.startLsn, COMMITTED_MS_MAX);
    return {
      commit_lsn: formatLsn(proposer.acknowledgedLsn),
      flush_lsn: formatLsn(proposer.endLsn),
      term: proposer.term,
      endpoint: spec.endpoint_id,
    };
  }

  /** The safekeepers of a timeline have changed; says what is in force at its writer. */
  reconfigure(
    tenant: TenantId,
    timeline: TimelineId,
    mconf: MembershipJson,
  ): { current_conf: MembershipJson | null } {
    for (const { spec, run } of this.#endpoints.values()) {
      if (spec.tenant_id !== tenant || spec.timeline_id !== timeline) continue;
      if (run?.failure === undefined) run?.followMembers(membershipOf(mconf));
    }
    const membership = this.#writerRun(tenant, timeline)?.proposer.membership;
    return { current_conf: membership === undefined ? null : membershipJson(membership) };
  }

  /** Sums over running endpoints, for the metrics. */
  totals(): HostTotals {
    const totals = { running: 0, bufferBytes: 0, uncommittedBytes: 0, lagBytes: 0, delayed: 0 };
    for (const { run } of this.#endpoints.values()) {
      if (run === undefined) continue;
      totals.running++;
      if (!(run instanceof PrimaryRun)) continue;
      totals.bufferBytes += run.proposer.bufferBytes;
      totals.uncommittedBytes += run.proposer.endLsn - run.proposer.acknowledgedLsn;
      const lag = run.pageserverLag;
      totals.lagBytes = Math.max(totals.lagBytes, lag?.write_bytes ?? 0);
      if (lag?.commits_delayed === true) totals.delayed++;
    }
    return totals;
  }

  /** Stops everything that runs. */
  async stopAll(mode: "fast" | "immediate"): Promise<void> {
    await Promise.all([...this.#endpoints].map(async ([name, endpoint]) => {
      try {
        await endpoint.stop(mode);
      } catch (thrown) {
        log.error("cannot stop endpoint {name}: {why}", { name, why: messageOf(thrown) });
      }
    }));
  }
}
