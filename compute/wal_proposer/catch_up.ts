/**
 * WAL that the proposer does not hold in memory, for a safekeeper that lags: read from one that has
 * it, with START_REPLICATION in the proposer's term, and handed on in order.
 */
import { receiveWal } from "../../libs/pgwire/wal_stream.ts";
import type { TenantId, TimelineId } from "../../libs/utils/id.ts";
import type { Lsn } from "../../libs/utils/lsn.ts";
import type { TokenSource } from "../../libs/utils/token_source.ts";
import type { Term } from "../../libs/safekeeper_protocol/term_history.ts";
import type { SafekeeperAddress } from "./safekeeper_link.ts";

/** A safekeeper's log of a timeline in a term. */
export interface LogOfTerm {
  readonly source: SafekeeperAddress;
  readonly tenantId: TenantId;
  readonly timelineId: TimelineId;
  readonly token?: TokenSource | undefined;
  /** The source serves its log of this term, committed or not, and stops if its term changes. */
  readonly term: Term;
}

/** What to copy, and to whom. */
interface CatchUpOptions extends LogOfTerm {
  readonly from: Lsn;
  /** A source that says nothing for so long is given up; one that lives says something each second. */
  readonly silenceMsMax: number;
  /** False when enough was copied or the receiver is gone. */
  goesOn(): boolean;
  /** Takes the WAL up to `endLsn`; `wal` is valid until the promise settles. */
  send(wal: Uint8Array, endLsn: Lsn): Promise<void>;
}

/** Copies until `goesOn` says no. Throws what receiveWal() throws. */
export function catchUp(options: CatchUpOptions): Promise<void> {
  const { source, tenantId, timelineId, token, term, from, silenceMsMax } = options;
  return receiveWal({
    hostname: source.host,
    port: source.pgPort,
    tenantId,
    timelineId,
    name: "wal_proposer_recovery",
    token,
    term,
    from,
    silenceMsMax,
    goesOn: () => options.goesOn(),
    take: (wal, endLsn) => options.send(wal, endLsn),
  });
}
