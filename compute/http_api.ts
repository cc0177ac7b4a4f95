/**
 * The compute host's management API; errors as in libs/daemon/http_api.ts.
 *
 *   GET    /v1/status
 *   GET    /v1/endpoints, /v1/endpoints/NAME
 *   POST   /v1/endpoints/NAME/start    an EndpointSpec; answers when a query was answered
 *   POST   /v1/endpoints/NAME/stop     {"mode": "fast" | "immediate"}; answers when nothing runs
 *   POST   /v1/endpoints/NAME/configure    {"settings": {...}} of the host's own; now in force
 *   DELETE /v1/endpoints/NAME
 *   GET    /v1/timelines/TENANT/TIMELINE    the running writer and what it has committed
 *   PUT    /v1/timelines/TENANT/TIMELINE/membership    {"mconf"}: its safekeepers have changed
 *   POST   /v1/timelines/TENANT/TIMELINE/sync    a SyncRequest; commits what a quorum holds
 *   GET    /metrics
 */
import type { Context, Hono } from "hono";
import { z } from "zod";
import type { Authenticator } from "../libs/auth/authenticator.ts";
import { hostSetting } from "../libs/daemon/config_file.ts";
import { newHttpApi, readJson } from "../libs/daemon/http_api.ts";
import type { RouteRules } from "../libs/daemon/http_guard.ts";
import { BadRequest } from "../libs/utils/errors.ts";
import { parseTenantId, parseTimelineId } from "../libs/utils/id.ts";
import { logger } from "../libs/utils/log.ts";
import { MEMBERS_MAX } from "../libs/safekeeper_protocol/membership.ts";
import type { EndpointSpec, SyncRequest } from "./client.ts";
import type { ComputeHost } from "./compute_host.ts";
import { failedStarts, startSeconds } from "./metrics.ts";

const log = logger("compute", "http");

/**
 * Which token each route wants (libs/daemon/http_guard.ts). A start names programs, and which
 * tenant it is: it is not for who may only use one endpoint.
 */
export const computeRules: RouteRules = {
  "GET /v1/endpoints": "server",
  "GET /v1/endpoints/:name": "endpoint",
  "POST /v1/endpoints/:name/start": "server",
  "POST /v1/endpoints/:name/stop": "endpoint",
  "POST /v1/endpoints/:name/configure": "server",
  "DELETE /v1/endpoints/:name": "server",
  "GET /v1/timelines/:tenant/:timeline": "server",
  "POST /v1/timelines/:tenant/:timeline/sync": "server",
  "PUT /v1/timelines/:tenant/:timeline/membership": "server",
};

const port = z.int().min(1).max(65535);

const tenantSchema = z.string().transform((text) => parseTenantId(text));
const timelineSchema = z.string().transform((text) => parseTimelineId(text));
const safekeepersSchema = z
  .array(z.strictObject({ id: z.int().min(0), host: hostSetting, pg_port: port }))
  .min(1).max(32)
  .refine((list) => new Set(list.map(({ id }) => id)).size === list.length, "ids are distinct");

const settingsSchema = z.record(z.string().regex(/^[a-z_][a-z0-9_.]*$/), z.string());
const tokenSchema = z.string().regex(/^[A-Za-z0-9._-]{1,1000}$/).optional();
const membersSchema = z
  .array(z.strictObject({ id: z.int().min(0), host: z.string(), pg_port: port })).max(MEMBERS_MAX);
const mconfSchema = z.strictObject({
  generation: z.int().min(1),
  members: membersSchema.min(1),
  new_members: membersSchema.min(1).nullable(),
});

const specSchema = z.strictObject({
  endpoint_id: z.string(),
  tenant_id: tenantSchema,
  timeline_id: timelineSchema,
  mode: z.union([
    z.enum(["Primary", "Replica"]),
    z.strictObject({ Static: z.string().regex(/^[0-9A-F]{1,8}\/[0-9A-F]{1,8}$/) }),
  ]),
  pg_version: z.int().min(14).max(18),
  pg_port: port,
  pg_bin_dir: z.string().startsWith("/"),
  pageserver: z.strictObject({ host: hostSetting, port }),
  safekeepers: safekeepersSchema,
  storage_auth_token: tokenSchema,
  mconf: mconfSchema.optional(),
  postgres_user: z.strictObject({ uid: z.int().min(1), gid: z.int().min(0) }).optional(),
  settings: settingsSchema.optional(),
  eager: z.boolean().optional(),
});

const syncSchema = z.strictObject({
  tenant_id: tenantSchema,
  timeline_id: timelineSchema,
  pg_version: z.int().min(14).max(18),
  safekeepers: safekeepersSchema,
  storage_auth_token: tokenSchema,
  mconf: mconfSchema.optional(),
});

const configureSchema = z.strictObject({ settings: settingsSchema });
const membershipSchema = z.strictObject({ mconf: mconfSchema });

const stopSchema = z.strictObject({ mode: z.enum(["fast", "immediate"]) });

/** The API over one host. */
export function httpApi(host: ComputeHost, authenticator: Authenticator | undefined): Hono {
  const app = newHttpApi(log, { id: 1 }, { rules: computeRules, authenticator });
  app.get("/v1/endpoints", (c) => c.json(host.list()));
  app.get("/v1/endpoints/:name", (c) => c.json(host.find(c.req.param("name")).status()));
  app.post("/v1/endpoints/:name/start", (c) => start(host, c));
  app.post("/v1/endpoints/:name/stop", async (c) => {
    const { mode } = await readJson(c, stopSchema);
    return c.json(await host.find(c.req.param("name")).stop(mode));
  });
  app.post("/v1/endpoints/:name/configure", async (c) => {
    const { settings } = await readJson(c, configureSchema);
    return c.json(await host.find(c.req.param("name")).configure(settings));
  });
  app.delete("/v1/endpoints/:name", async (c) => {
    await host.delete(c.req.param("name"));
    return c.json({});
  });
  app.get("/v1/timelines/:tenant/:timeline", async (c) => {
    const tenant = parseTenantId(c.req.param("tenant"));
    const timeline = parseTimelineId(c.req.param("timeline"));
    return c.json(await host.writerOf(tenant, timeline));
  });
  app.put("/v1/timelines/:tenant/:timeline/membership", async (c) => {
    const tenant = parseTenantId(c.req.param("tenant"));
    const timeline = parseTimelineId(c.req.param("timeline"));
    const { mconf } = await readJson(c, membershipSchema);
    return c.json(host.reconfigure(tenant, timeline, mconf));
  });
  app.post("/v1/timelines/:tenant/:timeline/sync", async (c) => {
    return c.json(await host.sync(await readJson(c, syncSchema) as SyncRequest));
  });
  return app;
}

async function start(host: ComputeHost, c: Context): Promise<Response> {
  const spec = await readJson(c, specSchema) as EndpointSpec;
  if (spec.endpoint_id !== c.req.param("name")) {
    throw new BadRequest(
      `Cannot start endpoint "${c.req.param("name")}": its spec is of "${spec.endpoint_id}"`,
    );
  }
  const began = performance.now();
  try {
    const status = await host.start(spec);
    startSeconds.observe((performance.now() - began) / 1000);
    return c.json(status);
  } catch (thrown) {
    failedStarts.inc();
    throw thrown;
  }
}
