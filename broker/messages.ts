/**
 * The broker's protocol as TypeScript sees it: the service of storage_broker.proto, the message
 * shapes that grpc gives and takes, and the form that safekeepers and pageservers use.
 */
import { Buffer } from "node:buffer";
import type { MethodDefinition, ServiceDefinition } from "@grpc/grpc-js";
import {
  idBytes,
  type TenantId,
  tenantIdFromBytes,
  type TimelineId,
  timelineIdFromBytes,
} from "../libs/utils/id.ts";
import { type Lsn, toLsn } from "../libs/utils/lsn.ts";
import { decodeMessage, encodeMessage, type Shape } from "./protobuf.ts";
import {
  empty,
  filterRequest,
  safekeeperTimelineInfo,
  subscribeRequest,
  typedMessage,
} from "./shapes.ts";

/** Where one safekeeper stands with one timeline. */
export interface SafekeeperTimelineInfo {
  readonly safekeeperId: number;
  readonly tenantId: TenantId;
  readonly timelineId: TimelineId;
  readonly term: number;
  readonly lastLogTerm: number;
  readonly flushLsn: Lsn;
  readonly commitLsn: Lsn;
  readonly backupLsn: Lsn;
  readonly remoteConsistentLsn: Lsn;
  readonly peerHorizonLsn: Lsn;
  readonly localStartLsn: Lsn;
  readonly standbyHorizon: Lsn;
  /** host:port of the WAL service. */
  readonly safekeeperConnstr: string;
  /** host:port of the HTTP API. */
  readonly httpConnstr: string;
}

/** TenantTimelineId on the wire. */
export interface WireTimelineKey {
  readonly tenant_id: Uint8Array;
  readonly timeline_id: Uint8Array;
}

/** SafekeeperTimelineInfo on the wire. */
export interface WireTimelineInfo {
  readonly safekeeper_id: number;
  readonly tenant_timeline_id: WireTimelineKey | null;
  readonly last_log_term: number;
  readonly flush_lsn: number;
  readonly commit_lsn: number;
  readonly backup_lsn: number;
  readonly remote_consistent_lsn: number;
  readonly peer_horizon_lsn: number;
  readonly local_start_lsn: number;
  readonly safekeeper_connstr: string;
  readonly term: number;
  readonly http_connstr: string;
  readonly standby_horizon: number;
}

/** TypedMessage on the wire, as far as the broker looks into it. */
export interface WireTypedMessage {
  readonly type: string;
  readonly safekeeper_timeline_info?: WireTimelineInfo | null;
  readonly safekeeper_discovery_request?: { tenant_timeline_id: WireTimelineKey | null } | null;
  readonly safekeeper_discovery_response?: { tenant_timeline_id: WireTimelineKey | null } | null;
}

function method(
  name: string,
  request: Shape,
  response: Shape,
  streams: "requests" | "responses" | "none",
): MethodDefinition<object, object> {
  const serialize = (shape: Shape) => (message: object) => {
    const { buffer } = encodeMessage(shape, message);
    return Buffer.from(buffer);
  };
  const deserialize = (shape: Shape) => (bytes: Uint8Array) => decodeMessage(shape, bytes);
  return {
    path: `/storage_broker.BrokerService/${name}`,
    requestStream: streams === "requests",
    responseStream: streams === "responses",
    requestSerialize: serialize(request),
    requestDeserialize: deserialize(request),
    responseSerialize: serialize(response),
    responseDeserialize: deserialize(response),
  };
}

const info = safekeeperTimelineInfo;

/** The gRPC service. */
export const brokerService = {
  PublishSafekeeperInfo: method("PublishSafekeeperInfo", info, empty, "requests"),
  SubscribeSafekeeperInfo: method("SubscribeSafekeeperInfo", subscribeRequest, info, "responses"),
  SubscribeByFilter: method("SubscribeByFilter", filterRequest, typedMessage, "responses"),
  PublishOne: method("PublishOne", typedMessage, empty, "none"),
} satisfies ServiceDefinition;

/** For the wire. */
export function toWire(info: SafekeeperTimelineInfo): WireTimelineInfo {
  return {
    safekeeper_id: info.safekeeperId,
    tenant_timeline_id: {
      tenant_id: idBytes(info.tenantId),
      timeline_id: idBytes(info.timelineId),
    },
    last_log_term: info.lastLogTerm,
    flush_lsn: info.flushLsn,
    commit_lsn: info.commitLsn,
    backup_lsn: info.backupLsn,
    remote_consistent_lsn: info.remoteConsistentLsn,
    peer_horizon_lsn: info.peerHorizonLsn,
    local_start_lsn: info.localStartLsn,
    safekeeper_connstr: info.safekeeperConnstr,
    term: info.term,
    http_connstr: info.httpConnstr,
    standby_horizon: info.standbyHorizon,
  };
}

/** From the wire. Throws SyntaxError or RangeError for ids and positions that make no sense. */
export function fromWire(wire: WireTimelineInfo): SafekeeperTimelineInfo {
  const key = wire.tenant_timeline_id;
  if (key === null) throw new SyntaxError("Cannot use a timeline info without a timeline");
  return {
    safekeeperId: wire.safekeeper_id,
    tenantId: tenantIdFromBytes(key.tenant_id),
    timelineId: timelineIdFromBytes(key.timeline_id),
    term: wire.term,
    lastLogTerm: wire.last_log_term,
    flushLsn: toLsn(wire.flush_lsn),
    commitLsn: toLsn(wire.commit_lsn),
    backupLsn: toLsn(wire.backup_lsn),
    remoteConsistentLsn: toLsn(wire.remote_consistent_lsn),
    peerHorizonLsn: toLsn(wire.peer_horizon_lsn),
    localStartLsn: toLsn(wire.local_start_lsn),
    standbyHorizon: toLsn(wire.standby_horizon),
    safekeeperConnstr: wire.safekeeper_connstr,
    httpConnstr: wire.http_connstr,
  };
}
