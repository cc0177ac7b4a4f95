/**
 * The safekeeper's HTTP API, paths and fields as Neon's, errors as in libs/daemon/http_api.ts.
 *
 *   GET    /v1/status, /metrics
 *   POST   /v1/tenant/timeline          make a timeline
 *   GET    /v1/tenant/timeline          list
 *   GET    /v1/tenant/T/timeline/TL     state
 *   DELETE /v1/tenant/T/timeline/TL, /v1/tenant/T     also from remote storage, but for
 *                                                     ?only_local=true
 *   POST   /v1/tenant/T/timeline/TL/term_bump {term?}
 *   PUT    /v1/tenant/T/timeline/TL/membership {mconf}   answers where the log stands behind it
 *   POST   /v1/pull_timeline {tenant_id, timeline_id, http_hosts, mconf}
 *                                        get a timeline from its members, unless it is here
 *   POST   /v1/tenant/T/timeline/TL/checkpoint        bring the control file up to date
 */
import type { Context, Hono } from "hono";
import { z } from "zod";
import type { Authenticator } from "../libs/auth/authenticator.ts";
import { newHttpApi, readJson } from "../libs/daemon/http_api.ts";
import type { RouteRules } from "../libs/daemon/http_guard.ts";
import { addressSetting, hostSetting } from "../libs/daemon/config_file.ts";
import { WAL_SEGMENT_SIZE } from "../libs/postgres/constants.ts";
import { pgVersion } from "../libs/postgres/versions.ts";
import {
  MEMBERS_MAX,
  type MembershipConfiguration,
  membershipJson,
  membershipOf,
} from "../libs/safekeeper_protocol/membership.ts";
import { BadRequest } from "../libs/utils/errors.ts";
import { parseTenantId, parseTimelineId, type TenantId } from "../libs/utils/id.ts";
import { logger } from "../libs/utils/log.ts";
import { formatLsn, parseLsn } from "../libs/utils/lsn.ts";
import type { Timeline } from "./timeline.ts";
import { timelineStatus } from "./timeline_info.ts";
import { type NewTimeline, pgMajorOf } from "./timeline_state.ts";
import type { MembershipAnswer } from "./client.ts";
import type { Timelines } from "./timelines.ts";

const log = logger("safekeeper", "http");

/** Which token each route wants (libs/daemon/http_guard.ts). */
export const safekeeperRules: RouteRules = {
  "POST /v1/tenant/timeline": "server",
  "GET /v1/tenant/timeline": "server",
  "DELETE /v1/tenant/:tenant": "tenant",
  "GET /v1/tenant/:tenant/timeline/:timeline": "tenant",
  "DELETE /v1/tenant/:tenant/timeline/:timeline": "tenant",
  "POST /v1/tenant/:tenant/timeline/:timeline/term_bump": "tenant",
  "POST /v1/tenant/:tenant/timeline/:timeline/checkpoint": "tenant",
  "PUT /v1/tenant/:tenant/timeline/:timeline/membership": "server",
  "POST /v1/pull_timeline": "server",
};

const U32_MAX = 0xffffffff;
const U64_MAX = 2n ** 64n - 1n;

// What is kept in control files has to fit into them
const MemberBody = z.object({
  id: z.int().min(0),
  host: hostSetting,
  pg_port: z.int().min(0).max(65535),
});

const MembershipBody = z.object({
  generation: z.int().min(0).max(U32_MAX),
  members: z.array(MemberBody).max(MEMBERS_MAX),
  new_members: z.array(MemberBody).max(MEMBERS_MAX).nullish(),
}).transform((mconf) => membershipOf({ ...mconf, new_members: mconf.new_members ?? null }));

const CreateBody = z.object({
  tenant_id: z.string(),
  timeline_id: z.string(),
  mconf: MembershipBody.nullish(),
  pg_version: z.int(),
  system_id: z.union([z.string().regex(/^\d{1,20}$/), z.int().min(0)])
    .refine((id) => BigInt(id) <= U64_MAX, "expected a number of 64 bits").nullish(),
  wal_seg_size: z.int().nullish(),
  start_lsn: z.string(),
  commit_lsn: z.string().nullish(),
});

const TermBumpBody = z.object({ term: z.int().min(0).nullish() });

const SwitchBody = z.object({ mconf: MembershipBody });

const PullBody = z.object({
  tenant_id: z.string(),
  timeline_id: z.string(),
  http_hosts: z.array(addressSetting).min(1),
  mconf: MembershipBody,
});

function newTimelineOf(body: z.infer<typeof CreateBody>): NewTimeline {
  const { mconf } = body;
  const pgVersionNum = body.pg_version < 100 ? body.pg_version * 10000 : body.pg_version;
  pgVersion(pgMajorOf(pgVersionNum)); // refuses a version that we do not know
  const startLsn = parseLsn(body.start_lsn);
  if (typeof body.commit_lsn === "string" && parseLsn(body.commit_lsn) !== startLsn) {
    throw new BadRequest(
      `Cannot create a timeline committed up to ${body.commit_lsn}: it has no WAL, so that must ` +
        `be its start ${formatLsn(startLsn)}`,
    );
  }
  return {
    tenantId: parseTenantId(body.tenant_id),
    timelineId: parseTimelineId(body.timeline_id),
    pgVersionNum,
    systemId: BigInt(body.system_id ?? 0),
    walSegmentSize: body.wal_seg_size ?? WAL_SEGMENT_SIZE,
    startLsn,
    ...(mconf ? { membership: mconf } : {}),
  };
}

function isOnlyLocal(c: Context): boolean {
  return c.req.query("only_local") === "true";
}

function switchMembership(timeline: Timeline, conf: MembershipConfiguration): MembershipAnswer {
  const previous = timeline.switchMembership(conf);
  const { state, lastLogTerm, flushLsn } = timeline.acceptor;
  return {
    previous_conf: membershipJson(previous),
    current_conf: membershipJson(state.membership),
    term: state.term,
    last_log_term: lastLogTerm,
    flush_lsn: formatLsn(flushLsn),
  };
}

/** The API over a safekeeper's timelines. */
export function httpApi(
  nodeId: number,
  timelines: Timelines,
  authenticator: Authenticator | undefined,
): Hono {
  const api = newHttpApi(log, { id: nodeId }, { rules: safekeeperRules, authenticator });
  const tenantOf = (c: Context): TenantId => parseTenantId(c.req.param("tenant")!);
  const timelineOf = (c: Context): Timeline =>
    timelines.get(tenantOf(c), parseTimelineId(c.req.param("timeline")!));

  api.post("/v1/tenant/timeline", async (c) => {
    const body = await readJson(c, CreateBody);
    return c.json(timelineStatus(timelines.create(newTimelineOf(body))));
  });
  api.get("/v1/tenant/timeline", (c) =>
    c.json(
      [
        ...[...timelines.all()].map(({ tenantId, timelineId }) => ({
          tenant_id: tenantId,
          timeline_id: timelineId,
          state: "Active",
          state_reason: null,
        })),
        ...timelines.broken().map(({ tenantId, timelineId, reason }) => ({
          tenant_id: tenantId,
          timeline_id: timelineId,
          state: "Broken",
          state_reason: reason,
        })),
      ],
    ));
  api.delete("/v1/tenant/:tenant", async (c) => {
    const deleted = await timelines.deleteTenant(tenantOf(c), isOnlyLocal(c));
    return c.json(Object.fromEntries(deleted.map((id) => [id, { dir_existed: true }])));
  });

  const timelinePath = "/v1/tenant/:tenant/timeline/:timeline";
  api.get(timelinePath, (c) => c.json(timelineStatus(timelineOf(c))));
  api.delete(timelinePath, async (c) => {
    const timelineId = parseTimelineId(c.req.param("timeline"));
    const existed = await timelines.delete(tenantOf(c), timelineId, isOnlyLocal(c));
    return c.json({ dir_existed: existed });
  });
  api.post(`${timelinePath}/term_bump`, async (c) => {
    const { term } = await readJson(c, TermBumpBody);
    const { previous, current } = timelineOf(c).bumpTerm(term ?? undefined);
    return c.json({ previous_term: previous, current_term: current });
  });
  api.put(`${timelinePath}/membership`, async (c) => {
    const { mconf } = await readJson(c, SwitchBody);
    return c.json(switchMembership(timelineOf(c), mconf));
  });
  api.post("/v1/pull_timeline", async (c) => {
    const { tenant_id, timeline_id, http_hosts, mconf } = await readJson(c, PullBody);
    const host = await timelines.pull({
      tenantId: parseTenantId(tenant_id),
      timelineId: parseTimelineId(timeline_id),
      httpHosts: http_hosts,
      membership: mconf,
    });
    return c.json({ safekeeper_host: host ?? null });
  });
  api.post(`${timelinePath}/checkpoint`, (c) => {
    timelineOf(c).checkpoint();
    return c.json({});
  });
  return api;
}
