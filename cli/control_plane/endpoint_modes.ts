/** What an endpoint does (writes, follows, stays at an LSN), as text and checked. */
import type { EndpointMode } from "../../compute/client.ts";
import { BadRequest } from "../../libs/utils/errors.ts";
import type { TenantId, TimelineId } from "../../libs/utils/id.ts";
import { alignLsn, formatLsn, type Lsn, parseLsn } from "../../libs/utils/lsn.ts";
import { pageserverClient } from "./clients.ts";
import type { Environment } from "./environment.ts";
import { lsnAsOf } from "./point_in_time.ts";
import { committedPosition } from "./timelines.ts";

/** What the options of a new endpoint say. Throws BadRequest if both are given. */
export function endpointMode(hotStandby: boolean, lsn: Lsn | undefined): EndpointMode {
  if (lsn === undefined) return hotStandby ? "Replica" : "Primary";
  if (hotStandby) {
    throw new BadRequest(
      "Cannot make an endpoint that both stays at an LSN and follows the branch: use --lsn or " +
        "--hot-standby",
    );
  }
  return { Static: formatLsn(alignLsn(lsn)) };
}

/** The mode of an endpoint that stays where its branch was at `time`. Throws as lsnAsOf(). */
export async function modeAsOf(
  env: Environment,
  tenant: TenantId,
  timeline: TimelineId,
  time: Temporal.Instant,
): Promise<EndpointMode> {
  const committed = await committedPosition(env, tenant, timeline);
  return { Static: formatLsn(await lsnAsOf(env, tenant, timeline, time, committed)) };
}

/** For lists and messages: "Primary", "Replica" or "Static 0/16B5A50". */
export function formatMode(mode: EndpointMode): string {
  return typeof mode === "string" ? mode : `Static ${mode.Static}`;
}

/** Throws BadRequest if a static endpoint's LSN is not part of its timeline. */
export async function checkStaticLsn(
  env: Environment,
  tenant: TenantId,
  timeline: TimelineId,
  mode: EndpointMode,
): Promise<void> {
  if (typeof mode !== "string") await checkReadable(env, tenant, timeline, parseLsn(mode.Static));
}

/** Throws BadRequest if a timeline begins after an LSN or has nothing committed up to it. */
export async function checkReadable(
  env: Environment,
  tenant: TenantId,
  timeline: TimelineId,
  lsn: Lsn,
): Promise<void> {
  const text = formatLsn(lsn);
  const info = await pageserverClient(env).timeline(tenant, timeline);
  if (lsn < parseLsn(info.min_readable_lsn)) {
    throw new BadRequest(
      `Cannot read timeline ${timeline} at ${text}: it begins at ${info.min_readable_lsn}` +
        (info.ancestor_lsn === null ? "" : "; what is older is on its ancestor's branch"),
    );
  }
  if (lsn <= parseLsn(info.last_record_lsn)) return;
  const end = await committedPosition(env, tenant, timeline);
  if (lsn <= end) return;
  throw new BadRequest(
    `Cannot read timeline ${timeline} at ${text}: it ends at ${formatLsn(end)}`,
  );
}
