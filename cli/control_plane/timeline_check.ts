/** Whether a timeline id that somebody chose is free. */
import { Conflict } from "../../libs/utils/errors.ts";
import type { TenantId, TimelineId } from "../../libs/utils/id.ts";
import { pageserverClient } from "./clients.ts";
import type { Environment } from "./environment.ts";

/** Throws Conflict if the tenant has the timeline; a random id (undefined) is new. */
export async function checkTimelineNew(
  env: Environment,
  tenant: TenantId,
  timeline: TimelineId | undefined,
): Promise<void> {
  if (timeline === undefined) return;
  const known = await pageserverClient(env).timelines(tenant);
  if (!known.some((info) => info.timeline_id === timeline)) return;
  throw new Conflict(
    `Cannot create timeline ${timeline}: it exists already; choose another id, or name it with ` +
      `"neon mappings map"`,
  );
}
