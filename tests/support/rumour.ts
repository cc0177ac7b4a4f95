/**
 * Tells the broker, ten times a second until it is killed, of a safekeeper that has more WAL than
 * all others and that is to be reached at another address:
 *
 *     deno run -A rumour.ts BROKER TENANT TIMELINE ADDRESS
 */
import { BrokerClient } from "../../broker/client.ts";
import { parseTenantId, parseTimelineId } from "../../libs/utils/id.ts";
import { INVALID_LSN, toLsn } from "../../libs/utils/lsn.ts";

const [endpoint, tenant, timeline, address] = Deno.args as [string, string, string, string];
const broker = new BrokerClient(endpoint);
const far = toLsn(2 ** 40);
setInterval(() => {
  broker.publish({
    safekeeperId: 99,
    tenantId: parseTenantId(tenant),
    timelineId: parseTimelineId(timeline),
    term: 1000,
    lastLogTerm: 1000,
    flushLsn: far,
    commitLsn: far,
    backupLsn: INVALID_LSN,
    remoteConsistentLsn: INVALID_LSN,
    peerHorizonLsn: INVALID_LSN,
    localStartLsn: INVALID_LSN,
    standbyHorizon: INVALID_LSN,
    safekeeperConnstr: address,
    httpConnstr: address,
  });
}, 100);
