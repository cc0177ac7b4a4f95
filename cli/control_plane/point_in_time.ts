/** From a time to the LSN at which a branch stood then. */
import { BadRequest } from "../../libs/utils/errors.ts";
import type { TenantId, TimelineId } from "../../libs/utils/id.ts";
import { formatLsn, type Lsn, parseLsn } from "../../libs/utils/lsn.ts";
import { pageserverClient } from "./clients.ts";
import { branchName } from "./config.ts";
import type { Environment } from "./environment.ts";

/**
 * The end of everything that was committed on a timeline by `time`; `committed` is what is now.
 * Throws BadRequest for a time that has not come yet, and for one before the timeline's first
 * commit.
 */
export async function lsnAsOf(
  env: Environment,
  tenant: TenantId,
  timeline: TimelineId,
  time: Temporal.Instant,
  committed: Lsn,
): Promise<Lsn> {
  const name = branchName(env.config, tenant, timeline) ?? timeline;
  const refuse = (why: string) =>
    new BadRequest(`Cannot read branch "${name}" as of ${time}: ${why}`);
  const now = Temporal.Now.instant();
  if (Temporal.Instant.compare(time, now) > 0) {
    throw refuse(`that is in the future, it is ${now.round("second")} now`);
  }
  const pageserver = pageserverClient(env);
  const end = formatLsn(committed);
  const { lsn, kind } = await pageserver.lsnByTimestamp(tenant, timeline, time, end);
  if (kind === "present" || kind === "future") return parseLsn(lsn);
  if (kind === "nodata") throw refuse("nothing has been committed on it; give an LSN instead");
  const { ancestor_timeline_id: ancestor } = await pageserver.timeline(tenant, timeline);
  if (ancestor === null) throw refuse(`its first commit is later; it begins at LSN ${lsn}`);
  const parent = branchName(env.config, tenant, ancestor as TimelineId) ?? ancestor;
  throw refuse(
    `it was branched off later, at LSN ${lsn}; what is older is on its ancestor, "${parent}"`,
  );
}
