/** Waiting for replicas. */
import { parseLsn } from "../../libs/utils/lsn.ts";
import type { Sql } from "../harness.ts";
import { until } from "./waiting.ts";

/** Waits until the replica has replayed all that the primary has written; returns that position. */
export async function caughtUp(replica: Sql, primary: Sql): Promise<string> {
  const [now] = await primary`select pg_current_wal_flush_lsn()::text as lsn`;
  const written = parseLsn(now!["lsn"]);
  await until(`the replica is at ${now!["lsn"]}`, async () => {
    const [row] = await replica`select pg_last_wal_replay_lsn()::text as lsn`;
    return parseLsn(row!["lsn"]) >= written;
  });
  return now!["lsn"];
}
