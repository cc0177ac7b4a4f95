/**
 * The pageserver's management API: Neon's paths and fields; errors as in libs/daemon/http_api.ts.
 */
import type { Context, Hono } from "hono";
import { z } from "zod";
import type { Authenticator } from "../libs/auth/authenticator.ts";
import type { RouteRules } from "../libs/daemon/http_guard.ts";
import { newHttpApi, readJson, requestBody } from "../libs/daemon/http_api.ts";
import { PAGE_SIZE } from "../libs/postgres/constants.ts";
import { formatTimestamp, instantToTimestamp } from "../libs/postgres/timestamp.ts";
import { pageHeaderSize } from "../libs/postgres/wal/segment.ts";
import { BadRequest, NotFound } from "../libs/utils/errors.ts";
import {
  parseTenantId,
  parseTimelineId,
  type TenantId,
  type TimelineId,
} from "../libs/utils/id.ts";
import { logger } from "../libs/utils/log.ts";
import { addLsn, formatLsn, type Lsn, parseLsn } from "../libs/utils/lsn.ts";
import type { CompactionResult, TenantInfo } from "./client.ts";
import { lastCommit, lsnAtTime } from "./commit_marks.ts";
import type { Compactor } from "./compaction/compactor.ts";
import { importCluster } from "./import/import_cluster.ts";
import { httpMetrics } from "./metrics.ts";
import { explainPage } from "./page_service/explain_page.ts";
import type { PageReader } from "./page_service/page_reader.ts";
import { readKey } from "./page_service/read_key.ts";
import { parseKey } from "./repository/key.ts";
import type { Tenant } from "./repository/tenant.ts";
import type { Timeline } from "./repository/timeline.ts";
import type { TenantManager } from "./repository/tenant_manager.ts";
import { servedTimeline } from "./served_timeline.ts";
import { timelineInfo } from "./timeline_info.ts";
import type { WalReceivers } from "./wal_receiver/wal_receivers.ts";

const log = logger("pageserver", "http");

/** What the API works on. */
interface HttpApiContext {
  readonly id: number;
  readonly manager: TenantManager;
  readonly reader: PageReader;
  readonly receivers: WalReceivers;
  readonly compactor: Compactor;
  readonly waitLsnTimeoutMs: number;
  /** Aborted when the server stops. */
  readonly signal: AbortSignal;
  readonly authenticator?: Authenticator | undefined;
}

/** Which token each route wants (libs/daemon/http_guard.ts). */
export const pageserverRules: RouteRules = {
  "GET /v1/tenant": "server",
  "GET /v1/tenant/:tenant": "tenant",
  "DELETE /v1/tenant/:tenant": "tenant",
  "PUT /v1/tenant/:tenant/location_config": "server",
  "PUT /v1/tenant/config": "server",
  "GET /v1/tenant/:tenant/config": "tenant",
  "GET /v1/tenant/:tenant/timeline": "tenant",
  "POST /v1/tenant/:tenant/timeline": "tenant",
  "GET /v1/tenant/:tenant/timeline/:timeline": "tenant",
  "DELETE /v1/tenant/:tenant/timeline/:timeline": "tenant",
  "PUT /v1/tenant/:tenant/timeline/:timeline/import_basebackup": "tenant",
  "PUT /v1/tenant/:tenant/timeline/:timeline/checkpoint": "tenant",
  "PUT /v1/tenant/:tenant/timeline/:timeline/compact": "tenant",
  "GET /v1/tenant/:tenant/timeline/:timeline/layer": "tenant",
  "GET /v1/tenant/:tenant/timeline/:timeline/getpage": "tenant",
  "GET /v1/tenant/:tenant/timeline/:timeline/get_lsn_by_timestamp": "tenant",
  "GET /v1/tenant/:tenant/timeline/:timeline/get_timestamp_of_lsn": "tenant",
};

const locationSchema = z.object({
  mode: z.enum(["AttachedSingle", "AttachedMulti", "AttachedStale", "Secondary", "Detached"]),
  generation: z.int().min(0).max(0xffffffff).optional(),
  tenant_conf: z.record(z.string(), z.unknown()).optional(),
});

const createSchema = z.object({
  new_timeline_id: z.string(),
  ancestor_timeline_id: z.string(),
  ancestor_start_lsn: z.string().optional(),
});

const configSchema = z.looseObject({ tenant_id: z.string() });

/** The API over a pageserver's tenants. */
export function httpApi(context: HttpApiContext): Hono {
  const { id, authenticator } = context;
  const app = newHttpApi(log, { id }, { rules: pageserverRules, authenticator });
  tenantRoutes(app, context);
  timelineRoutes(app, context);
  timelineWorkRoutes(app, context);
  timeRoutes(app, context);
  return app;
}

function tenantId(c: Context): TenantId {
  return parseTenantId(c.req.param("tenant")!);
}

function timelineId(c: Context): TimelineId {
  return parseTimelineId(c.req.param("timeline")!);
}

function tenantInfo(id: TenantId, generation: number, tenant: Tenant): TenantInfo {
  let size = 0;
  for (const timeline of tenant.timelines.values()) size += timeline.physicalSizeBytes;
  return {
    id,
    state: { slug: "Active" },
    current_physical_size: size,
    attachment_status: { slug: "attached" },
    generation,
  };
}

function brokenTenantInfo(id: TenantId, generation: number, reason: string): TenantInfo {
  return {
    id,
    state: { slug: "Broken", data: { reason } },
    current_physical_size: 0,
    attachment_status: { slug: "attached" },
    generation,
  };
}

function tenantRoutes(app: Hono, { manager, receivers }: HttpApiContext): void {
  app.get("/v1/tenant", (c) => {
    const infos = manager.list().flatMap(({ tenantId, generation, tenant, problem }) => {
      if (problem !== undefined) return [brokenTenantInfo(tenantId, generation, problem)];
      return tenant === undefined ? [] : [tenantInfo(tenantId, generation, tenant)];
    });
    return c.json(infos);
  });
  app.get("/v1/tenant/:tenant", (c) => {
    const id = tenantId(c);
    const broken = manager.list().find(({ tenantId }) => tenantId === id)?.problem;
    if (broken !== undefined) return c.json(brokenTenantInfo(id, 0, broken));
    const tenant = manager.tenant(id);
    return c.json({
      ...tenantInfo(tenant.tenantId, tenant.generation, tenant),
      timelines: [...tenant.timelines.keys(), ...tenant.broken.keys()],
      broken_timelines: Object.fromEntries(tenant.broken),
    });
  });
  app.delete("/v1/tenant/:tenant", async (c) => {
    const id = tenantId(c);
    await receivers.forgetTenant(id);
    await manager.delete(id);
    return c.json(null);
  });
  app.put("/v1/tenant/:tenant/location_config", async (c) => {
    const id = tenantId(c);
    const body = await readJson(c, locationSchema);
    if (body.mode === "Detached") {
      await receivers.forgetTenant(id);
      await manager.detach(id);
    } else if (body.mode === "Secondary") {
      throw new BadRequest("Cannot attach a tenant as Secondary: there is no remote storage");
    } else {
      await manager.attach(id, body.generation ?? 1, body.tenant_conf);
      receivers.allow(id);
    }
    return c.json({ shards: [{ shard_id: id, node_id: 1 }], stripe_size: null });
  });
  app.put("/v1/tenant/config", async (c) => {
    const { tenant_id, ...config } = await readJson(c, configSchema);
    await manager.setConfig(parseTenantId(tenant_id), config);
    return c.json(null);
  });
  app.get("/v1/tenant/:tenant/config", (c) => {
    const tenant = manager.tenant(tenantId(c));
    return c.json({ tenant_specific_overrides: tenant.config, effective_config: tenant.config });
  });
}

function timelineRoutes(app: Hono, context: HttpApiContext): void {
  const { manager, receivers } = context;
  const path = "/v1/tenant/:tenant/timeline";
  app.get(path, (c) => {
    const tenant = manager.tenant(tenantId(c));
    return c.json([...tenant.timelines.values()].map((t) => timelineInfo(t, receivers)));
  });
  app.post(path, async (c) => {
    const observe = httpMetrics.createBranch.startTimer();
    const body = await readJson(c, createSchema);
    const tenant = manager.tenant(tenantId(c));
    const ancestor = tenant.timeline(parseTimelineId(body.ancestor_timeline_id));
    let lsn: Lsn | undefined;
    if (body.ancestor_start_lsn !== undefined) {
      const { walSegmentSize } = servedTimeline(ancestor).control;
      const wanted = parseLsn(body.ancestor_start_lsn);
      if (wanted < ancestor.startLsn) throw startsLater(ancestor, wanted);
      lsn = endOfRecord(wanted, walSegmentSize);
      // What is committed may still be on its way here.
      await ancestor.waitForLsn(lsn, context.waitLsnTimeoutMs, context.signal);
    }
    const id = parseTimelineId(body.new_timeline_id);
    const timeline = await tenant.createBranch(id, ancestor.timelineId, lsn);
    observe();
    return c.json(timelineInfo(timeline, receivers, "known size"), 201);
  });
  app.get(`${path}/:timeline`, (c) => {
    const timeline = manager.tenant(tenantId(c)).timeline(timelineId(c));
    const isQuick = c.req.query("known-logical-size") === "true";
    return c.json(timelineInfo(timeline, receivers, isQuick ? "known size" : "exact size"));
  });
  app.delete(`${path}/:timeline`, async (c) => {
    const tenant = manager.tenant(tenantId(c));
    const id = timelineId(c);
    await receivers.pause(tenant.tenantId, id);
    try {
      await tenant.deleteTimeline(id);
    } finally {
      receivers.resume(tenant.tenantId, id);
    }
    return c.json(null, 202);
  });
}

function startsLater(ancestor: Timeline, wanted: Lsn): BadRequest {
  const older = ancestor.ancestor === undefined
    ? ""
    : "; what is older is on its ancestor's branch";
  return new BadRequest(
    `Cannot branch timeline ${ancestor.timelineId} at ${formatLsn(wanted)}: it begins at ` +
      formatLsn(ancestor.startLsn) + older,
  );
}

/**
 * Nothing ends inside a page header or right behind it: such a position (pg_current_wal_lsn() gives
 * it when a page has just been filled) means the page boundary before.
 */
function endOfRecord(lsn: Lsn, walSegmentSize: number): Lsn {
  const inPage = lsn % PAGE_SIZE;
  const pageStart = addLsn(lsn, -inPage);
  return inPage <= pageHeaderSize(pageStart, walSegmentSize) ? pageStart : lsn;
}

function timelineWorkRoutes(app: Hono, context: HttpApiContext): void {
  const { manager, receivers, reader } = context;
  const path = "/v1/tenant/:tenant/timeline/:timeline";
  app.put(`${path}/import_basebackup`, async (c) => {
    const pgVersion = Number(c.req.query("pg_version") ?? NaN);
    const body = requestBody(c);
    if (c.req.raw.body === null) {
      throw new BadRequest("Cannot import a cluster: the request has no body");
    }
    const tenant = manager.tenant(tenantId(c));
    try {
      const id = timelineId(c);
      const timeline = await importCluster(tenant, manager.interner, id, pgVersion, body);
      return c.json(timelineInfo(timeline, receivers), 201);
    } finally {
      await body.return(undefined); // the rest of it, if something is wrong with the beginning
    }
  });
  app.put(`${path}/checkpoint`, async (c) => {
    const flushed = await manager.tenant(tenantId(c)).timeline(timelineId(c)).flush();
    return c.json({ disk_consistent_lsn: formatLsn(flushed) });
  });
  app.put(`${path}/compact`, async (c) => {
    const timeline = manager.tenant(tenantId(c)).timeline(timelineId(c));
    const force = c.req.query("force_image_layer_creation") === "true";
    const { images, deltas } = await context.compactor.compact(timeline, force);
    const result: CompactionResult = {
      image_layers: images.layers,
      image_pages: images.pages,
      image_bytes: images.bytes,
      failed_pages: images.failedPages,
      first_failure: images.firstFailure ?? null,
      replaced_delta_layers: deltas.replaced,
      delta_layers: deltas.layers,
      delta_bytes: deltas.bytes,
      delta_failure: deltas.failure ?? null,
    };
    return c.json(result);
  });
  app.get(`${path}/layer`, (c) => {
    const layers = manager.tenant(tenantId(c)).timeline(timelineId(c)).layerInfos();
    const inMemory = layers.filter((l) => l.kind === "Open" || l.kind === "Frozen");
    const show = (l: typeof layers[number]) => ({
      kind: l.kind,
      layer_file_name: l.fileName,
      layer_file_size: l.sizeBytes,
      lsn_start: formatLsn(l.lsnStart),
      lsn_end: formatLsn(l.lsnEnd),
      remote: false,
    });
    return c.json({
      in_memory_layers: inMemory.map(show),
      historic_layers: layers.filter((l) => !inMemory.includes(l)).map(show),
    });
  });
  app.get(`${path}/getpage`, async (c) => {
    const timeline = manager.tenant(tenantId(c)).timeline(timelineId(c));
    const key = parseKey(c.req.query("key") ?? "");
    const lsnText = c.req.query("lsn");
    const lsn = lsnText === undefined ? timeline.lastRecordLsn : parseLsn(lsnText);
    await timeline.waitForLsn(lsn, context.waitLsnTimeoutMs, context.signal);
    if (c.req.query("explain") === "true") {
      return c.json(explainPage(reader, servedTimeline(timeline), key, lsn));
    }
    const page = readKey(reader, servedTimeline(timeline), key, lsn);
    return c.body(page, 200, { "content-type": "application/octet-stream" });
  });
}

/** Between times and LSNs. */
function timeRoutes(app: Hono, context: HttpApiContext): void {
  const path = "/v1/tenant/:tenant/timeline/:timeline";
  const readable = async (c: Context, parameter: string) => {
    const timeline = context.manager.tenant(tenantId(c)).timeline(timelineId(c));
    const text = c.req.query(parameter);
    const lsn = text === undefined ? timeline.lastRecordLsn : parseLsn(text);
    // What is committed may still be on its way here.
    await timeline.waitForLsn(lsn, context.waitLsnTimeoutMs, context.signal);
    return { timeline, lsn };
  };
  app.get(`${path}/get_lsn_by_timestamp`, async (c) => {
    const time = instantToTimestamp(parseTime(c.req.query("timestamp")));
    const { timeline, lsn: end } = await readable(c, "end_lsn");
    const { lsn, kind } = lsnAtTime(timeline, time, end);
    return c.json({ lsn: formatLsn(lsn), kind });
  });
  app.get(`${path}/get_timestamp_of_lsn`, async (c) => {
    const { timeline, lsn } = await readable(c, "lsn");
    const mark = lastCommit(timeline, lsn);
    if (mark !== undefined) return c.json(formatTimestamp(mark.time));
    throw new NotFound(`Cannot tell the time of ${formatLsn(lsn)}: nothing was committed before`);
  });
}

function parseTime(text: string | undefined): Temporal.Instant {
  try {
    return Temporal.Instant.from(text ?? "");
  } catch {
    throw new BadRequest(
      `Cannot read the time "${text ?? ""}": give one such as 2026-11-21T17:46:15Z`,
    );
  }
}
