/**
 * Client of the pageserver's HTTP API, used by the CLI and by the compute host.
 *
 * Paths and fields are Neon's. Requests throw as libs/utils/http_client.ts says.
 */
import { HttpClient } from "../libs/utils/http_client.ts";
import type { TenantId, TimelineId } from "../libs/utils/id.ts";
import type { TokenSource } from "../libs/utils/token_source.ts";

/** Overrides of a tenant's settings, as they are stored. */
type TenantConfigJson = Record<string, unknown>;

/** A tenant as the API shows it. */
export interface TenantInfo {
  id: string;
  state: { slug: "Active" } | { slug: "Broken"; data: { reason: string } };
  current_physical_size: number;
  attachment_status: { slug: "attached" };
  generation: number;
  /** Only in the answer about one tenant. */
  timelines?: string[];
  /** Of these, those that cannot be served, and why; likewise. */
  broken_timelines?: Record<string, string>;
}

/** A timeline as the API shows it. LSNs are text, `0/16B5A50`. */
export interface TimelineInfo {
  tenant_id: string;
  timeline_id: string;
  ancestor_timeline_id: string | null;
  ancestor_lsn: string | null;
  last_record_lsn: string;
  /** Null where it is unknown: a branch that did not start at its ancestor's end. */
  prev_record_lsn: string | null;
  disk_consistent_lsn: string;
  remote_consistent_lsn: string;
  remote_consistent_lsn_visible: string;
  initdb_lsn: string;
  min_readable_lsn: string;
  applied_gc_cutoff_lsn: string;
  /** Bytes of all relations at last_record_lsn; not accurate where that would take a while. */
  current_logical_size: number;
  current_logical_size_is_accurate: boolean;
  current_physical_size: number;
  pg_version: number;
  state: "Active" | "Broken" | "Stopping";
  /** Why it is Broken, or cannot move what it has received to disk. */
  state_reason: string | null;
  /** Safekeeper that WAL comes from now, host:port. */
  wal_source_connstr: string | null;
  walreceiver_status: string;
  /** The cluster's system identifier, in decimal digits. */
  system_id: string;
  /** Bytes of a WAL segment. */
  wal_segment_size: number;
}

/** A page at an LSN and how it was put together, oldest step first. */
export interface PageExplanation {
  /** Its bytes, base64. */
  page: string;
  /** spc/db/rel[_fork]. */
  relation: string;
  block: number;
  /** Blocks of the relation at that LSN. */
  relation_blocks: number;
  lsn: string;
  /** Layers that have something of it; "in memory" for one that is not written yet. */
  layers: { timeline_id: string; name: string; lsn_start: string; lsn_end: string }[];
  steps: {
    /** Of the image, or the end of the record. */
    lsn: string;
    /** Index in `layers`. */
    layer: number;
    kind: "image" | "record";
    bytes: number;
    /** Of a record: whether it makes the page from nothing. */
    makes_page?: boolean;
    rmgr?: string;
    opcode?: string;
    xid?: number;
  }[];
}

/** What a compaction has made. */
export interface CompactionResult {
  image_layers: number;
  image_pages: number;
  image_bytes: number;
  /** Pages that could not be rebuilt and have no image, and why the first could not. */
  failed_pages: number;
  first_failure: string | null;
  /** Delta layers that were rewritten, those that took their place, and their bytes. */
  replaced_delta_layers: number;
  delta_layers: number;
  delta_bytes: number;
  /** Why some could not be rewritten though it was time. */
  delta_failure: string | null;
}

/** A block of a relation, as keys name it. */
interface PageName {
  spc: number;
  db: number;
  rel: number;
  fork: number;
  block: number;
}

/** The body of a timeline creation: a branch. */
interface TimelineCreateRequest {
  new_timeline_id: string;
  ancestor_timeline_id: string;
  ancestor_start_lsn?: string;
}

/** One pageserver. */
export class PageserverClient {
  readonly #http: HttpClient;

  /**
   * `address` is "host:port" of the HTTP API; `token` is for one that wants one. Without
   * `timeoutMs` an answer may take any time.
   */
  constructor(address: string, token?: TokenSource, timeoutMs?: number) {
    this.#http = new HttpClient("the pageserver", address, timeoutMs, token);
  }

  /** Who answers. */
  status(): Promise<{ id: number }> {
    return this.#http.json("GET", "/v1/status");
  }

  /** All tenants that are attached. */
  tenants(): Promise<TenantInfo[]> {
    return this.#http.json("GET", "/v1/tenant");
  }

  /** One tenant, with the ids of its timelines. */
  tenant(tenant: TenantId): Promise<TenantInfo> {
    return this.#http.json("GET", `/v1/tenant/${tenant}`);
  }

  /** Creates or attaches a tenant at a generation. */
  async attach(tenant: TenantId, generation: number, config?: TenantConfigJson): Promise<void> {
    const body = {
      mode: "AttachedSingle",
      generation,
      ...(config === undefined ? {} : { tenant_conf: config }),
    };
    await this.#http.json("PUT", `/v1/tenant/${tenant}/location_config`, body);
  }

  /** Stops serving a tenant; its files stay. */
  async detach(tenant: TenantId): Promise<void> {
    const body = { mode: "Detached", tenant_conf: {} };
    await this.#http.json("PUT", `/v1/tenant/${tenant}/location_config`, body);
  }

  /** Removes a tenant and its files. */
  async deleteTenant(tenant: TenantId): Promise<void> {
    await this.#http.json("DELETE", `/v1/tenant/${tenant}`);
  }

  /** Overrides and effective settings of a tenant. */
  tenantConfig(tenant: TenantId): Promise<
    { tenant_specific_overrides: TenantConfigJson; effective_config: TenantConfigJson }
  > {
    return this.#http.json("GET", `/v1/tenant/${tenant}/config`);
  }

  /** Replaces a tenant's overrides. */
  async setTenantConfig(tenant: TenantId, config: TenantConfigJson): Promise<void> {
    await this.#http.json("PUT", "/v1/tenant/config", { tenant_id: tenant, ...config });
  }

  /** All timelines of a tenant. */
  timelines(tenant: TenantId): Promise<TimelineInfo[]> {
    return this.#http.json("GET", `/v1/tenant/${tenant}/timeline`);
  }

  /** One timeline. */
  timeline(tenant: TenantId, timeline: TimelineId): Promise<TimelineInfo> {
    return this.#http.json("GET", `/v1/tenant/${tenant}/timeline/${timeline}`);
  }

  /** One timeline, at once: it is not asked how large it is. */
  knownTimeline(tenant: TenantId, timeline: TimelineId): Promise<TimelineInfo> {
    const path = `/v1/tenant/${tenant}/timeline/${timeline}`;
    return this.#http.json("GET", `${path}?known-logical-size=true`);
  }

  /** Creates a branch; the same request again gives the same timeline. */
  createBranch(tenant: TenantId, request: TimelineCreateRequest): Promise<TimelineInfo> {
    return this.#http.json("POST", `/v1/tenant/${tenant}/timeline`, request);
  }

  /** Removes a timeline. Throws Conflict while it has children. */
  async deleteTimeline(tenant: TenantId, timeline: TimelineId): Promise<void> {
    await this.#http.json("DELETE", `/v1/tenant/${tenant}/timeline/${timeline}`);
  }

  /**
   * Creates a root timeline from the tar of the data directory of a cluster that was shut down
   * cleanly. Its WAL goes on at last_record_lsn of the answer.
   */
  importBasebackup(
    tenant: TenantId,
    timeline: TimelineId,
    pgVersion: number,
    tar: ReadableStream<Uint8Array<ArrayBuffer>> | Uint8Array<ArrayBuffer>,
  ): Promise<TimelineInfo> {
    const path = `/v1/tenant/${tenant}/timeline/${timeline}/import_basebackup`;
    return this.#http.send("PUT", `${path}?pg_version=${pgVersion}`, tar, "application/x-tar");
  }

  /**
   * Where a timeline stood at a time: `lsn` is the end of the last commit at it or before it. Looks
   * at nothing behind `endLsn`, and waits for that.
   */
  lsnByTimestamp(
    tenant: TenantId,
    timeline: TimelineId,
    time: Temporal.Instant,
    endLsn: string,
  ): Promise<{ lsn: string; kind: "present" | "future" | "past" | "nodata" }> {
    const query = new URLSearchParams({ timestamp: time.toString(), end_lsn: endLsn });
    const path = `/v1/tenant/${tenant}/timeline/${timeline}/get_lsn_by_timestamp`;
    return this.#http.json("GET", `${path}?${query}`);
  }

  /** A page of a relation at `lsn` (default: the last record) and how it was put together. */
  explainPage(
    tenant: TenantId,
    timeline: TimelineId,
    page: PageName,
    lsn?: string,
  ): Promise<PageExplanation> {
    const hex = (value: number, digits: number) => value.toString(16).padStart(digits, "0");
    const relation = [page.spc, page.db, page.rel].map((oid) => hex(oid, 8)).join("");
    const query = new URLSearchParams({
      key: `00${relation}${hex(page.fork, 2)}${hex(page.block, 8)}`,
      explain: "true",
      ...(lsn === undefined ? {} : { lsn }),
    });
    return this.#http.json("GET", `/v1/tenant/${tenant}/timeline/${timeline}/getpage?${query}`);
  }

  /** Writes everything that was ingested to disk; answers disk_consistent_lsn. */
  checkpoint(tenant: TenantId, timeline: TimelineId): Promise<{ disk_consistent_lsn: string }> {
    return this.#http.json("PUT", `/v1/tenant/${tenant}/timeline/${timeline}/checkpoint`);
  }

  /**
   * Makes the image layers that are due, or with `force` of every page that is read from several
   * values, and rewrites delta layers in key order where it is time; answers when it is done.
   */
  compact(tenant: TenantId, timeline: TimelineId, force: boolean): Promise<CompactionResult> {
    const query = force ? "?force_image_layer_creation=true" : "";
    return this.#http.json("PUT", `/v1/tenant/${tenant}/timeline/${timeline}/compact${query}`);
  }
}
