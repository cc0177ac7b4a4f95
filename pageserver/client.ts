/**
 * Client of the pageserver's HTTP API, used by the CLI and by the compute host.
 *
 * Paths and fields are Neon's. A refused request throws the class of libs/utils/errors.ts that fits
 * its status, with the server's own message; a server that cannot be reached throws Unavailable.
 */
import {
  BadRequest,
  Conflict,
  Corrupt,
  messageOf,
  NotFound,
  TimedOut,
  Unavailable,
} from "../libs/utils/errors.ts";
import type { TenantId, TimelineId } from "../libs/utils/id.ts";

/** Overrides of a tenant's settings, as they are stored. */
type TenantConfigJson = Record<string, unknown>;

/** A tenant as the API shows it. */
export interface TenantInfo {
  id: string;
  state: { slug: "Active" | "Broken" };
  current_physical_size: number;
  attachment_status: { slug: "attached" };
  generation: number;
  /** Only in the answer about one tenant. */
  timelines?: string[];
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
  /** Bytes of all relations at last_record_lsn. */
  current_logical_size: number;
  current_logical_size_is_accurate: boolean;
  current_physical_size: number;
  pg_version: number;
  state: "Active" | "Broken" | "Stopping";
  /** Safekeeper that WAL comes from now, host:port. */
  wal_source_connstr: string | null;
  walreceiver_status: string;
  /** The cluster's system identifier, in decimal digits. */
  system_id: string;
  /** Bytes of a WAL segment. */
  wal_segment_size: number;
}

/** The body of a timeline creation: a branch. */
interface TimelineCreateRequest {
  new_timeline_id: string;
  ancestor_timeline_id: string;
  ancestor_start_lsn?: string;
}

/** One pageserver. */
export class PageserverClient {
  readonly #base: string;

  /** `address` is "host:port" of the HTTP API. */
  constructor(address: string) {
    this.#base = `http://${address}`;
  }

  /** Who answers. */
  status(): Promise<{ id: number }> {
    return this.#json("GET", "/v1/status");
  }

  /** All tenants that are attached. */
  tenants(): Promise<TenantInfo[]> {
    return this.#json("GET", "/v1/tenant");
  }

  /** One tenant, with the ids of its timelines. */
  tenant(tenant: TenantId): Promise<TenantInfo> {
    return this.#json("GET", `/v1/tenant/${tenant}`);
  }

  /** Creates or attaches a tenant at a generation. */
  async attach(tenant: TenantId, generation: number, config?: TenantConfigJson): Promise<void> {
    const body = {
      mode: "AttachedSingle",
      generation,
      ...(config === undefined ? {} : { tenant_conf: config }),
    };
    await this.#json("PUT", `/v1/tenant/${tenant}/location_config`, body);
  }

  /** Stops serving a tenant; its files stay. */
  async detach(tenant: TenantId): Promise<void> {
    const body = { mode: "Detached", tenant_conf: {} };
    await this.#json("PUT", `/v1/tenant/${tenant}/location_config`, body);
  }

  /** Removes a tenant and its files. */
  async deleteTenant(tenant: TenantId): Promise<void> {
    await this.#json("DELETE", `/v1/tenant/${tenant}`);
  }

  /** Overrides and effective settings of a tenant. */
  tenantConfig(tenant: TenantId): Promise<
    { tenant_specific_overrides: TenantConfigJson; effective_config: TenantConfigJson }
  > {
    return this.#json("GET", `/v1/tenant/${tenant}/config`);
  }

  /** Replaces a tenant's overrides. */
  async setTenantConfig(tenant: TenantId, config: TenantConfigJson): Promise<void> {
    await this.#json("PUT", "/v1/tenant/config", { tenant_id: tenant, ...config });
  }

  /** All timelines of a tenant. */
  timelines(tenant: TenantId): Promise<TimelineInfo[]> {
    return this.#json("GET", `/v1/tenant/${tenant}/timeline`);
  }

  /** One timeline. */
  timeline(tenant: TenantId, timeline: TimelineId): Promise<TimelineInfo> {
    return this.#json("GET", `/v1/tenant/${tenant}/timeline/${timeline}`);
  }

  /** Creates a branch; the same request again gives the same timeline. */
  createBranch(tenant: TenantId, request: TimelineCreateRequest): Promise<TimelineInfo> {
    return this.#json("POST", `/v1/tenant/${tenant}/timeline`, request);
  }

  /** Removes a timeline. Throws Conflict while it has children. */
  async deleteTimeline(tenant: TenantId, timeline: TimelineId): Promise<void> {
    await this.#json("DELETE", `/v1/tenant/${tenant}/timeline/${timeline}`);
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
    return this.#request("PUT", `${path}?pg_version=${pgVersion}`, tar, "application/x-tar");
  }

  /** Writes everything that was ingested to disk; answers disk_consistent_lsn. */
  checkpoint(tenant: TenantId, timeline: TimelineId): Promise<{ disk_consistent_lsn: string }> {
    return this.#json("PUT", `/v1/tenant/${tenant}/timeline/${timeline}/checkpoint`);
  }

  #json<T>(method: string, path: string, body?: unknown): Promise<T> {
    const text = body === undefined ? undefined : JSON.stringify(body);
    return this.#request(method, path, text, "application/json");
  }

  async #request<T>(
    method: string,
    path: string,
    body: string | Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array<ArrayBuffer>> | undefined,
    contentType: string,
  ): Promise<T> {
    let response: Response;
    try {
      response = await fetch(this.#base + path, {
        method,
        ...(body === undefined ? {} : { body, headers: { "content-type": contentType } }),
      });
    } catch (thrown) {
      throw new Unavailable(`Cannot reach the pageserver at ${this.#base}: ${messageOf(thrown)}`);
    }
    const text = await response.text();
    if (response.ok) return (text === "" ? undefined : JSON.parse(text)) as T;
    throw failure(response.status, errorText(text));
  }
}

function errorText(body: string): string {
  try {
    return (JSON.parse(body) as { msg: string }).msg;
  } catch {
    return body;
  }
}

function failure(status: number, message: string): Error {
  switch (status) {
    case 400:
    case 406:
    case 412:
      return new BadRequest(message);
    case 404:
      return new NotFound(message);
    case 409:
      return new Conflict(message);
    case 503:
      return new Unavailable(message);
    case 504:
      return new TimedOut(message);
    default:
      return new Corrupt(message);
  }
}
