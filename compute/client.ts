/**
 * Client of the compute host's HTTP API, used by the CLI, and the JSON that goes over it.
 *
 * Requests throw as libs/utils/http_client.ts says.
 */
export { changedSettings, lagLimits } from "./lag_limits.ts";
import { NotFound } from "../libs/utils/errors.ts";
import type { MembershipJson } from "../libs/safekeeper_protocol/membership.ts";
import { HttpClient } from "../libs/utils/http_client.ts";
import type { TenantId, TimelineId } from "../libs/utils/id.ts";
import type { TokenSource } from "../libs/utils/token_source.ts";

/**
 * What an endpoint does: write its timeline; follow it, reading only; or stay at an LSN of it.
 */
export type EndpointMode = "Primary" | "Replica" | { readonly Static: string };

/** What an endpoint is to be: the body of a start. */
export interface EndpointSpec {
  readonly endpoint_id: string;
  readonly tenant_id: TenantId;
  readonly timeline_id: TimelineId;
  readonly mode: EndpointMode;
  /** Major version. */
  readonly pg_version: number;
  readonly pg_port: number;
  /** Directory of the `postgres` program. */
  readonly pg_bin_dir: string;
  readonly pageserver: { readonly host: string; readonly port: number };
  readonly safekeepers: readonly {
    readonly id: number;
    readonly host: string;
    readonly pg_port: number;
  }[];
  /** What it shows to the pageserver and the safekeepers, where they want a token. */
  readonly storage_auth_token?: string | undefined;
  /** The members of the timeline, where they have ever changed: they say what a quorum is. */
  readonly mconf?: MembershipJson;
  /** Whom Postgres runs as; needed when the host is root. */
  readonly postgres_user?: { readonly uid: number; readonly gid: number };
  /** Lines of postgresql.conf; ALTER SYSTEM and the endpoint's own file go before them. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Every page is fetched before Postgres starts, which then runs without the preloaded library. */
  readonly eager?: boolean;
}

/** Milliseconds of the phases of the last start; phases overlap. */
export interface StartTimings {
  /** Only of a primary. */
  readonly election?: number;
  readonly basebackup: number;
  readonly files: number;
  /** Only of an eager endpoint: fetching every page. */
  readonly pages?: number;
  readonly postgres: number;
  readonly first_query: number;
  readonly total: number;
}

/**
 * How many bytes of committed WAL the pageserver has not received, not on its disk, and not where
 * safekeepers may remove theirs.
 */
export interface PageserverLag {
  readonly write_bytes: number;
  readonly flush_bytes: number;
  readonly apply_bytes: number;
  /** Whether the pageserver has told its positions since the start. */
  readonly has_reported: boolean;
  /** Commits wait until the pageserver has come nearer. */
  readonly commits_delayed: boolean;
}

/** Commits of a primary wait for a majority of its safekeepers. */
export interface StalledCommits {
  /** For so long. */
  readonly seconds: number;
  /** Their ids. */
  readonly silent_safekeepers: readonly number[];
}

/** An endpoint as the host sees it. */
export interface EndpointStatus {
  readonly endpoint_id: string;
  readonly tenant_id: TenantId;
  readonly timeline_id: TimelineId;
  readonly mode: EndpointMode;
  readonly pg_version: number;
  /** Where clients connect, host:port. */
  readonly address: string;
  readonly status: "running" | "starting" | "stopped" | "crashed";
  /** Of a primary, what is committed; after a stop, what was. Of a static one, where it stays. */
  readonly lsn: string | null;
  /** Where Postgres was started. */
  readonly start_lsn: string | null;
  readonly pid: number | null;
  /** Of a running primary. */
  readonly pageserver_lag: PageserverLag | null;
  readonly stalled_commits: StalledCommits | null;
  readonly timings_ms: StartTimings | null;
  /** Of an eager endpoint that is starting: how far it has fetched its pages. */
  readonly fetched: { readonly bytes: number; readonly total_bytes: number } | null;
  /** Why it crashed or did not start. */
  readonly error?: string;
  /** What a start waits for that may take long. */
  readonly waits_for?: string;
}

/** A timeline that an endpoint of this host writes. */
export interface ProposerStatus {
  readonly commit_lsn: string;
  /** End of the WAL that Postgres has handed over. */
  readonly flush_lsn: string;
  readonly term: number;
  readonly endpoint: string;
}

/** Which timeline to settle the end of: the body of a sync. */
export interface SyncRequest {
  readonly tenant_id: TenantId;
  readonly timeline_id: TimelineId;
  /** Major version. */
  readonly pg_version: number;
  readonly safekeepers: EndpointSpec["safekeepers"];
  readonly storage_auth_token?: string | undefined;
  readonly mconf?: MembershipJson;
}

/** One compute host. */
export class ComputeClient {
  readonly #http: HttpClient;

  /**
   * `address` is "host:port" of the HTTP API; `token` is for one that wants one. Without
   * `timeoutMs` an answer may take any time.
   */
  constructor(address: string, token?: TokenSource, timeoutMs?: number) {
    this.#http = new HttpClient("the compute host", address, timeoutMs, token);
  }

  /** All endpoints that the host has files of. */
  endpoints(): Promise<EndpointStatus[]> {
    return this.#http.json("GET", "/v1/endpoints");
  }

  /** One endpoint. Throws NotFound. */
  endpoint(name: string): Promise<EndpointStatus> {
    return this.#http.json("GET", `/v1/endpoints/${name}`);
  }

  /** Starts an endpoint and waits until it has answered a query; one that runs is left alone. */
  startEndpoint(spec: EndpointSpec): Promise<EndpointStatus> {
    return this.#http.json("POST", `/v1/endpoints/${spec.endpoint_id}/start`, spec);
  }

  /** Stops an endpoint and waits until it is gone; its status holds the last LSN. */
  stopEndpoint(name: string, mode: "fast" | "immediate"): Promise<EndpointStatus> {
    return this.#http.json("POST", `/v1/endpoints/${name}/stop`, { mode });
  }

  /** Changes settings that begin with "neon."; those of a running endpoint are in force at once. */
  configureEndpoint(
    name: string,
    settings: Readonly<Record<string, string>>,
  ): Promise<EndpointStatus> {
    return this.#http.json("POST", `/v1/endpoints/${name}/configure`, { settings });
  }

  /** Stops an endpoint and removes its files. */
  async deleteEndpoint(name: string): Promise<void> {
    await this.#http.json("DELETE", `/v1/endpoints/${name}`);
  }

  /** The running writer of a timeline, or undefined. */
  async timeline(tenant: TenantId, timeline: TimelineId): Promise<ProposerStatus | undefined> {
    try {
      return await this.#http.json("GET", `/v1/timelines/${tenant}/${timeline}`);
    } catch (thrown) {
      if (thrown instanceof NotFound) return undefined;
      throw thrown;
    }
  }

  /**
   * Tells the running endpoints of a timeline its members; they go over to them if they are newer.
   * Answers what is in force at the writer, null if there is none.
   */
  reconfigure(
    tenant: TenantId,
    timeline: TimelineId,
    mconf: MembershipJson,
  ): Promise<{ readonly current_conf: MembershipJson | null }> {
    return this.#http.json("PUT", `/v1/timelines/${tenant}/${timeline}/membership`, { mconf });
  }

  /**
   * Settles where a timeline ends that nobody writes: what its safekeepers hold becomes committed.
   * Answers the end; that of the running writer if there is one.
   */
  syncTimeline(request: SyncRequest): Promise<{ commit_lsn: string }> {
    const path = `/v1/timelines/${request.tenant_id}/${request.timeline_id}/sync`;
    return this.#http.json("POST", path, request);
  }
}
