/** Waiting for commits that wait. */
import type { Sql } from "../harness.ts";
import { until } from "./waiting.ts";

/** Resolves when `count` sessions wait until their commit is acknowledged. */
export async function commitsWaiting(sql: Sql, count: number): Promise<void> {
  await until(`${count} commits wait`, async () => {
    const [row] = await sql`
      select count(*)::int as n from pg_stat_activity where wait_event = 'SyncRep'`;
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
