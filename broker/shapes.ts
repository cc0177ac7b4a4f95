/** The broker's messages, as storage_broker.proto describes them; a test compares the two. */
import type { Shape } from "./protobuf.ts";

/** Names of MessageType by number; 1 is none. */
const MESSAGE_TYPES = [
  "UNKNOWN",
  "",
  "SAFEKEEPER_TIMELINE_INFO",
  "SAFEKEEPER_DISCOVERY_REQUEST",
  "SAFEKEEPER_DISCOVERY_RESPONSE",
] as const;

const tenantTimelineId: Shape = {
  fields: [
    { number: 1, name: "tenant_id", kind: "bytes" },
    { number: 2, name: "timeline_id", kind: "bytes" },
  ],
};

export const empty: Shape = { fields: [] };

export const safekeeperTimelineInfo: Shape = {
  fields: [
    { number: 1, name: "safekeeper_id", kind: "uint64" },
    { number: 2, name: "tenant_timeline_id", kind: tenantTimelineId },
    { number: 3, name: "last_log_term", kind: "uint64" },
    { number: 4, name: "flush_lsn", kind: "uint64" },
    { number: 5, name: "commit_lsn", kind: "uint64" },
    { number: 6, name: "backup_lsn", kind: "uint64" },
    { number: 7, name: "remote_consistent_lsn", kind: "uint64" },
    { number: 8, name: "peer_horizon_lsn", kind: "uint64" },
    { number: 9, name: "local_start_lsn", kind: "uint64" },
    { number: 10, name: "safekeeper_connstr", kind: "string" },
    { number: 11, name: "availability_zone", kind: "string", rule: "optional" },
    { number: 12, name: "term", kind: "uint64" },
    { number: 13, name: "http_connstr", kind: "string" },
    { number: 14, name: "standby_horizon", kind: "uint64" },
    { number: 15, name: "https_connstr", kind: "string", rule: "optional" },
  ],
};

const oneof = "subscription_key";

export const subscribeRequest: Shape = {
  fields: [
    { number: 1, name: "all", kind: empty, oneof },
    { number: 2, name: "tenant_timeline_id", kind: tenantTimelineId, oneof },
  ],
};

const filterTenantTimelineId: Shape = {
  fields: [
    { number: 1, name: "enabled", kind: "bool" },
    { number: 2, name: "tenant_timeline_id", kind: tenantTimelineId },
  ],
};

const typeSubscription: Shape = {
  fields: [{ number: 1, name: "type", kind: MESSAGE_TYPES }],
};

export const filterRequest: Shape = {
  fields: [
    { number: 1, name: "types", kind: typeSubscription, rule: "repeated" },
    { number: 2, name: "tenant_timeline_id", kind: filterTenantTimelineId },
  ],
};

const discoveryRequest: Shape = {
  fields: [{ number: 1, name: "tenant_timeline_id", kind: tenantTimelineId }],
};

const discoveryResponse: Shape = {
  fields: [
    { number: 1, name: "safekeeper_id", kind: "uint64" },
    { number: 2, name: "tenant_timeline_id", kind: tenantTimelineId },
    { number: 3, name: "commit_lsn", kind: "uint64" },
    { number: 4, name: "safekeeper_connstr", kind: "string" },
    { number: 5, name: "availability_zone", kind: "string", rule: "optional" },
    { number: 6, name: "standby_horizon", kind: "uint64" },
  ],
};

export const typedMessage: Shape = {
  fields: [
    { number: 1, name: "type", kind: MESSAGE_TYPES },
    { number: 2, name: "safekeeper_timeline_info", kind: safekeeperTimelineInfo },
    { number: 3, name: "safekeeper_discovery_request", kind: discoveryRequest },
    { number: 4, name: "safekeeper_discovery_response", kind: discoveryResponse },
  ],
};
