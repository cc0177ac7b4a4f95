/**
 * WAL that the proposer does not hold in memory, for a safekeeper that lags: read from one that has
 * it, with START_REPLICATION in the proposer's term, and handed on in order.
 */
import { Unavailable } from "../../libs/utils/errors.ts";
import type { TenantId, TimelineId } from "../../libs/utils/id.ts";
import { addLsn, formatLsn, type Lsn } from "../../libs/utils/lsn.ts";
import { PgClient } from "../../libs/pgwire/client.ts";
import { ReplicationTag, XLOG_DATA_HEADER_BYTES } from "../../libs/pgwire/replication.ts";
import type { Term } from "../../libs/safekeeper_protocol/term_history.ts";
import type { SafekeeperAddress } from "./safekeeper_link.ts";
import { readU64 } from "./wire.ts";

/** A safekeeper's log of a timeline in a term. */
export interface LogOfTerm {
  readonly source: SafekeeperAddress;
  readonly tenantId: TenantId;
  readonly timelineId: TimelineId;
  /** The source serves its log of this term, committed or not, and stops if its term changes. */
  readonly term: Term;
}

/** What to copy, and to whom. */
interface CatchUpOptions extends LogOfTerm {
  readonly from: Lsn;
  /** False when enough was copied or the receiver is gone. */
  goesOn(): boolean;
  /** Takes the WAL up to `endLsn`; `wal` is valid until the promise settles. */
  send(wal: Uint8Array, endLsn: Lsn): Promise<void>;
}

/** Copies until `goesOn` says no. Throws what the connection throws, or Unavailable. */
export async function catchUp(options: CatchUpOptions): Promise<void> {
  const { source, tenantId, timelineId, term } = options;
  const client = await PgClient.connect({ hostname: source.host, port: source.pgPort }, {
    user: "wal_proposer",
    database: "replication",
    application_name: "wal_proposer_recovery",
    options: `-c timeline_id=${timelineId} -c tenant_id=${tenantId}`,
  });
  try {
    let at = options.from;
    const copy = await client.copyBoth(
      `START_REPLICATION PHYSICAL ${formatLsn(at)} (term='${term}')`,
    );
    while (options.goesOn()) {
      const payload = await copy.receive();
      if (payload === undefined) {
        throw new Unavailable(`safekeeper ${source.id} ended its stream at ${formatLsn(at)}`);
      }
      if (payload[0] !== ReplicationTag.xlogData) continue;
      const start = readU64(payload, 1);
      if (start !== at) {
        throw new Unavailable(`safekeeper ${source.id} sent ${formatLsn(start)}, not the next WAL`);
      }
      at = addLsn(at, payload.length - XLOG_DATA_HEADER_BYTES);
      await options.send(payload.subarray(XLOG_DATA_HEADER_BYTES), at);
    }
  } finally {
    client.close();
  }
}
