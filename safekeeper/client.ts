/**
 * Client of a safekeeper's HTTP API, for the control plane and the compute host, and the shapes of
 * its JSON. Requests throw as libs/utils/http_client.ts says.
 */
import {
  type MembershipConfiguration,
  type MembershipJson,
  membershipJson,
} from "../libs/safekeeper_protocol/membership.ts";
import { HttpClient } from "../libs/utils/http_client.ts";
import type { TenantId, TimelineId } from "../libs/utils/id.ts";
import { formatLsn, type Lsn } from "../libs/utils/lsn.ts";
import type { TokenSource } from "../libs/utils/token_source.ts";

/** Longest wait for an answer. */
const REQUEST_TIMEOUT_MS = 30_000;

/** A timeline as GET /v1/tenant/T/timeline/TL shows it; LSNs as text. */
export interface TimelineStatus {
  readonly tenant_id: string;
  readonly timeline_id: string;
  readonly mconf: MembershipJson;
  readonly acceptor_state: {
    readonly term: number;
    /** Term of the last durable record. */
    readonly epoch: number;
    readonly term_history: readonly { readonly term: number; readonly lsn: string }[];
  };
  readonly pg_info: {
    readonly pg_version: number;
    /** Decimal digits: it does not fit a JSON number. */
    readonly system_id: string;
    readonly wal_seg_size: number;
  };
  readonly flush_lsn: string;
  readonly timeline_start_lsn: string;
  /** WAL before was removed from the disk. */
  readonly first_lsn: string;
  readonly local_start_lsn: string;
  readonly commit_lsn: string;
  readonly backup_lsn: string;
  readonly peer_horizon_lsn: string;
  readonly remote_consistent_lsn: string;
  /** Where the WAL is: on disk, or in remote storage alone, where it ends at an LSN. */
  readonly eviction_state: "Present" | { readonly Offloaded: string };
  /** Unfinished segments of this safekeeper in remote storage. */
  readonly partial_backup: readonly {
    readonly name: string;
    readonly status: "started" | "uploaded" | "deleting";
    readonly flush_lsn: string;
    readonly commit_lsn: string;
    readonly term: number;
  }[];
  readonly walsenders: readonly {
    readonly appname: string;
    readonly sent_lsn: string;
    readonly applied_lsn: string;
  }[];
  /** Connected proposers. */
  readonly walreceivers: number;
}

/** Where a safekeeper stands behind a change of members. */
export interface MembershipAnswer {
  readonly previous_conf: MembershipJson;
  readonly current_conf: MembershipJson;
  readonly term: number;
  /** Term of the last durable record. */
  readonly last_log_term: number;
  readonly flush_lsn: string;
}

/** What a new timeline needs. */
interface CreateTimelineArgs {
  readonly tenantId: TenantId;
  readonly timelineId: TimelineId;
  /** PG_VERSION_NUM (170011) or a major version (17). */
  readonly pgVersion: number;
  readonly startLsn: Lsn;
  readonly membership?: MembershipConfiguration;
  /** Learnt from the first proposer otherwise. */
  readonly systemId?: bigint;
  readonly walSegmentSize?: number;
}

/** A timeline in a safekeeper's list. */
interface ListedTimeline {
  tenant_id: string;
  timeline_id: string;
  state: "Active" | "Broken";
  state_reason: string | null;
}

/** One safekeeper's HTTP API. */
export class SafekeeperClient {
  readonly #http: HttpClient;
  /** For what may take as long as copying all WAL. */
  readonly #slowHttp: HttpClient;

  /** `address` is "host:port" of the HTTP API; `token` is for one that wants one. */
  constructor(address: string, token?: TokenSource, timeoutMs = REQUEST_TIMEOUT_MS) {
    this.#http = new HttpClient("the safekeeper", address, timeoutMs, token);
    this.#slowHttp = new HttpClient("the safekeeper", address, undefined, token);
  }

  /** Answers when the safekeeper serves. Throws Unavailable if it does not. */
  status(): Promise<{ readonly id: number }> {
    return this.#http.json("GET", "/v1/status");
  }

  /** Makes a timeline; idempotent for the same arguments. Throws Conflict for others. */
  createTimeline(args: CreateTimelineArgs): Promise<TimelineStatus> {
    const { membership } = args;
    return this.#http.json("POST", "/v1/tenant/timeline", {
      tenant_id: args.tenantId,
      timeline_id: args.timelineId,
      pg_version: args.pgVersion,
      start_lsn: formatLsn(args.startLsn),
      system_id: args.systemId?.toString(),
      wal_seg_size: args.walSegmentSize,
      mconf: membership === undefined ? undefined : membershipJson(membership),
    });
  }

  /** Throws NotFound if the timeline is not there. */
  timelineStatus(tenantId: TenantId, timelineId: TimelineId): Promise<TimelineStatus> {
    return this.#http.json("GET", `/v1/tenant/${tenantId}/timeline/${timelineId}`);
  }

  /** All timelines; those that cannot be served are Broken, and the reason says why. */
  listTimelines(): Promise<ListedTimeline[]> {
    return this.#http.json("GET", "/v1/tenant/timeline");
  }

  /**
   * Changes the members, unless a newer generation is in force; answers what is in force now, and
   * where the log stands behind that. Throws Conflict if this safekeeper is not among them.
   */
  switchMembership(
    tenantId: TenantId,
    timelineId: TimelineId,
    membership: MembershipConfiguration,
  ): Promise<MembershipAnswer> {
    const path = `/v1/tenant/${tenantId}/timeline/${timelineId}/membership`;
    return this.#http.json("PUT", path, { mconf: membershipJson(membership) });
  }

  /** Gets a timeline from its members, at these HTTP addresses, unless it is there. */
  async pullTimeline(
    tenantId: TenantId,
    timelineId: TimelineId,
    httpHosts: readonly string[],
    membership: MembershipConfiguration,
  ): Promise<void> {
    await this.#slowHttp.json("POST", "/v1/pull_timeline", {
      tenant_id: tenantId,
      timeline_id: timelineId,
      http_hosts: httpHosts,
      mconf: membershipJson(membership),
    });
  }

  /** Removes a timeline from this safekeeper only; false if it was not there. */
  async dropTimeline(tenantId: TenantId, timelineId: TimelineId): Promise<boolean> {
    const path = `/v1/tenant/${tenantId}/timeline/${timelineId}?only_local=true`;
    return (await this.#http.json<{ dir_existed: boolean }>("DELETE", path)).dir_existed;
  }

  /** Removes a timeline, also from remote storage; false if it was not there. */
  async deleteTimeline(tenantId: TenantId, timelineId: TimelineId): Promise<boolean> {
    const path = `/v1/tenant/${tenantId}/timeline/${timelineId}`;
    return (await this.#http.json<{ dir_existed: boolean }>("DELETE", path)).dir_existed;
  }

  /** Removes all timelines of a tenant. */
  async deleteTenant(tenantId: TenantId): Promise<void> {
    await this.#http.json("DELETE", `/v1/tenant/${tenantId}`);
  }

  /** Raises a timeline's term, which shuts out the proposer of the current one. */
  bumpTerm(
    tenantId: TenantId,
    timelineId: TimelineId,
    term?: number,
  ): Promise<{ previous_term: number; current_term: number }> {
    const path = `/v1/tenant/${tenantId}/timeline/${timelineId}/term_bump`;
    return this.#http.json("POST", path, { term });
  }
}
