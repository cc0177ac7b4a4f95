/**
 * Subscriptions on a new branch.
 *
 * A branch begins as a copy, enabled logical replication subscriptions included; they would consume
 * from the publisher's slot what the parent has not got yet. So the first Postgres on a branch that
 * has any runs without logical replication workers, only to disable them, and is then started
 * again. That costs a second start, once; a look at the length of pg_subscription spares it to all
 * others.
 */
import type { LazyFilesMap } from "../libs/basebackup/lazy_files_map.ts";
import { FORK_MAIN, GLOBAL_TABLESPACE } from "../libs/postgres/constants.ts";
import { readRelMap } from "../libs/postgres/relmap.ts";
import { pgVersion } from "../libs/postgres/versions.ts";
import { logger } from "../libs/utils/log.ts";
import type { PgClient } from "../libs/pgwire/client.ts";
import type { Election } from "./wal_proposer/options.ts";

const log = logger("compute", "subscriptions");

/** SubscriptionRelationId (pg_subscription.h). */
const PG_SUBSCRIPTION_OID = 6100;

/** True if nothing was ever written to the timeline: this is its first Postgres. */
export function isFirstStart(election: Election): boolean {
  return election.history[0]!.lsn === election.startLsn;
}

/** True if pg_subscription has pages, perhaps rows. `relationMap` is global/pg_filenode.map. */
export function mayHaveSubscriptions(map: LazyFilesMap, relationMap: Uint8Array): boolean {
  const name = "global/pg_filenode.map";
  const files = readRelMap(relationMap, pgVersion(map.pgMajor), name);
  const file = files.get(PG_SUBSCRIPTION_OID) ?? PG_SUBSCRIPTION_OID;
  return map.forks.some(({ spc, rel, fork, blocks }) =>
    spc === GLOBAL_TABLESPACE && rel === file && fork === FORK_MAIN && blocks > 0
  );
}

/** Disables all subscriptions of the cluster: the catalog is shared by its databases. */
export async function disableSubscriptions(client: PgClient, endpoint: string): Promise<void> {
  const { rows } = await client.query(
    "UPDATE pg_subscription SET subenabled = false WHERE subenabled RETURNING subname",
  );
  if (rows.length === 0) return;
  log.warning("{endpoint} is a new branch: disabled its subscriptions {names}", {
    endpoint,
    names: rows.map(([name]) => name).join(", "),
  });
}
