/** Waiting for commits that wait. */
import type { Sql } from "../harness.ts";
import { until } from "./waiting.ts";

/**
 * Resolves when `count` sessions wait until their commit is acknowledged. One of them waits for the
 * sync of the WAL (the event has other letters before 17), the others for the lock that it holds;
 * without the library all wait for the standby.
 */
export async function commitsWaiting(sql: Sql, count: number): Promise<void> {
  await until(`${count} commits wait`, async () => {
    const [row] = await sql`
      select count(*)::int as n from pg_stat_activity
      where backend_type = 'client backend'
        and lower(wait_event) in ('walsync', 'walwrite', 'syncrep')`;
    return row!["n"] === count;
  });
}

/** Whether a promise has settled by now. */
export async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  let settled = false;
  promise.then(() => settled = true, () => settled = true);
  await new Promise((resolve) => setTimeout(resolve, 0));
  return settled;
}
