/**
 * How a timeline's state looks to others: JSON of the HTTP API (Neon's field names; LSNs as text),
 * and the information published to the broker.
 */
import type { SafekeeperTimelineInfo } from "../broker/client.ts";
import { membershipJson } from "../libs/safekeeper_protocol/membership.ts";
import { formatLsn, INVALID_LSN } from "../libs/utils/lsn.ts";
import type { TimelineStatus } from "./client.ts";
import { standbyHorizon } from "./receivers.ts";
import type { Timeline } from "./timeline.ts";

/** Addresses that a safekeeper publishes. */
export interface PublishedIdentity {
  readonly nodeId: number;
  /** host:port of the WAL service. */
  readonly pgAddress: string;
  /** host:port of the HTTP API. */
  readonly httpAddress: string;
}

/** The answer of GET /v1/tenant/T/timeline/TL. */
export function timelineStatus(timeline: Timeline): TimelineStatus {
  const { acceptor } = timeline;
  const { state } = acceptor;
  return {
    tenant_id: state.tenantId,
    timeline_id: state.timelineId,
    mconf: membershipJson(state.membership),
    acceptor_state: {
      term: state.term,
      epoch: acceptor.lastLogTerm,
      term_history: state.termHistory.map(({ term, lsn }) => ({ term, lsn: formatLsn(lsn) })),
    },
    pg_info: {
      pg_version: state.pgVersionNum,
      system_id: state.systemId.toString(),
      wal_seg_size: state.walSegmentSize,
    },
    flush_lsn: formatLsn(acceptor.flushLsn),
    timeline_start_lsn: formatLsn(state.timelineStartLsn),
    first_lsn: formatLsn(timeline.firstLsn),
    local_start_lsn: formatLsn(state.localStartLsn),
    commit_lsn: formatLsn(acceptor.commitLsn),
    backup_lsn: formatLsn(timeline.backup === undefined ? INVALID_LSN : acceptor.backupLsn),
    peer_horizon_lsn: formatLsn(acceptor.peerHorizonLsn),
    remote_consistent_lsn: formatLsn(acceptor.remoteConsistentLsn),
    eviction_state: state.offloadedLsn === undefined
      ? "Present"
      : { Offloaded: formatLsn(state.offloadedLsn) },
    partial_backup: state.partialBackup.map((partial) => ({
      name: partial.name,
      status: partial.status,
      flush_lsn: formatLsn(partial.flushLsn),
      commit_lsn: formatLsn(partial.commitLsn),
      term: partial.term,
    })),
    walsenders: [...timeline.receivers].map((receiver) => ({
      appname: receiver.name,
      sent_lsn: formatLsn(receiver.sentLsn),
      applied_lsn: formatLsn(receiver.appliedLsn),
    })),
    walreceivers: timeline.proposers.size,
  };
}

/** What the broker is told. */
export function brokerInfo(
  timeline: Timeline,
  identity: PublishedIdentity,
): SafekeeperTimelineInfo {
  const { acceptor } = timeline;
  return {
    safekeeperId: identity.nodeId,
    tenantId: timeline.tenantId,
    timelineId: timeline.timelineId,
    term: acceptor.state.term,
    lastLogTerm: acceptor.lastLogTerm,
    flushLsn: acceptor.flushLsn,
    commitLsn: acceptor.commitLsn,
    backupLsn: timeline.backup === undefined ? INVALID_LSN : acceptor.backupLsn,
    remoteConsistentLsn: acceptor.remoteConsistentLsn,
    peerHorizonLsn: acceptor.peerHorizonLsn,
    localStartLsn: acceptor.state.localStartLsn,
    standbyHorizon: standbyHorizon(timeline.receivers),
    safekeeperConnstr: identity.pgAddress,
    httpConnstr: identity.httpAddress,
  };
}
