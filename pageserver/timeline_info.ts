/** What the HTTP API says about a timeline. */
import { PAGE_SIZE } from "../libs/postgres/constants.ts";
import { formatLsn, INVALID_LSN, type Lsn } from "../libs/utils/lsn.ts";
import type { TimelineInfo } from "./client.ts";
import type { Timeline } from "./repository/timeline.ts";
import { servedTimeline } from "./served_timeline.ts";
import type { WalReceivers } from "./wal_receiver/wal_receivers.ts";

function lsnOrNull(lsn: Lsn): string | null {
  return lsn === INVALID_LSN ? null : formatLsn(lsn);
}

interface LogicalSize {
  readonly bytes: number;
  readonly isAccurate: boolean;
}

/** The last sizes that were added up: going through all relations takes a while. */
const sizes = new WeakMap<Timeline, { lsn: Lsn; bytes: number }>();

/** Bytes of all relations at the timeline's end; added up again only if it has grown since. */
function logicalSize(timeline: Timeline): LogicalSize {
  const lsn = timeline.lastRecordLsn;
  const known = sizes.get(timeline);
  if (known?.lsn === lsn) return { bytes: known.bytes, isAccurate: true };
  let blocks = 0;
  servedTimeline(timeline).relations.forEachRelation(lsn, (_tag, count) => blocks += count);
  const bytes = blocks * PAGE_SIZE;
  sizes.set(timeline, { lsn, bytes });
  return { bytes, isAccurate: true };
}

/** What was added up last, perhaps for an ancestor; nothing if that was never done. */
function knownLogicalSize(timeline: Timeline): LogicalSize {
  for (let at: Timeline | undefined = timeline; at !== undefined; at = at.ancestor) {
    const known = sizes.get(at);
    if (known === undefined) continue;
    return { bytes: known.bytes, isAccurate: at === timeline && known.lsn === at.lastRecordLsn };
  }
  return { bytes: 0, isAccurate: false };
}

/** Describes `timeline` as of now; with "known size" at once, whatever is in it. */
export function timelineInfo(
  timeline: Timeline,
  receivers: WalReceivers,
  sizing: "exact size" | "known size" = "exact size",
): TimelineInfo {
  const size = sizing === "exact size" ? logicalSize(timeline) : knownLogicalSize(timeline);
  const served = servedTimeline(timeline);
  const source = receivers.sourceOf(timeline);
  const disk = formatLsn(timeline.diskConsistentLsn);
  return {
    tenant_id: timeline.tenantId,
    timeline_id: timeline.timelineId,
    ancestor_timeline_id: timeline.ancestorTimelineId ?? null,
    ancestor_lsn: lsnOrNull(timeline.ancestorLsn),
    last_record_lsn: formatLsn(timeline.lastRecordLsn),
    prev_record_lsn: lsnOrNull(timeline.prevRecordLsn),
    disk_consistent_lsn: disk,
    remote_consistent_lsn: disk,
    remote_consistent_lsn_visible: disk,
    initdb_lsn: formatLsn(timeline.initdbLsn),
    min_readable_lsn: formatLsn(timeline.startLsn),
    applied_gc_cutoff_lsn: formatLsn(timeline.startLsn),
    current_logical_size: size.bytes,
    current_logical_size_is_accurate: size.isAccurate,
    current_physical_size: timeline.physicalSizeBytes,
    pg_version: timeline.pgVersion,
    state: timeline.state,
    state_reason: timeline.problem ?? null,
    wal_source_connstr: source ?? null,
    walreceiver_status: source === undefined ? "Not connected" : `Streaming from ${source}`,
    system_id: served.control.systemId.toString(),
    wal_segment_size: served.control.walSegmentSize,
  };
}
