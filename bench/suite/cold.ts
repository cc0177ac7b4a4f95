/**
 * First reads: after a restart of everything, with none of the files in the page cache. Ours has
 * not a page of its own then: each comes from the pageserver, out of its layer files.
 */
import { query, timedMs } from "../our_side.ts";
import type { Group } from "./row.ts";
import { inTurns, type Side, valuesOf } from "./sides.ts";

const ACCOUNTS_OF_A_BRANCH = 100_000;
const READS = 200;

interface Times {
  scanMs: number;
  readsMs: number;
}

async function coldMs(side: Side, statements: readonly string[]): Promise<number> {
  await side.restartCold();
  // What the first session of a server costs is not what is measured
  await query(side.target, "SELECT 1");
  return await timedMs(() => query(side.target, ...statements));
}

/** Rows to read, the same for all sides of a round: spread evenly, from another start each time. */
function readsByKey(accounts: number, round: number): string[] {
  const step = Math.floor(accounts / READS);
  return Array.from(
    { length: READS },
    (_, n) => `SELECT abalance FROM pgbench_accounts WHERE aid = ${n * step + round * 37 + 1}`,
  );
}

/** Measures on pgbench's accounts. */
export async function cold(
  sides: readonly Side[],
  scale: number,
  rounds: number,
): Promise<Group> {
  for (const side of sides) {
    await query(side.target, "VACUUM pgbench_accounts", "CHECKPOINT");
    await side.settle();
  }
  const results = await inTurns(sides, rounds, async (side, round): Promise<Times> => ({
    scanMs: await coldMs(side, ["SELECT sum(abalance) FROM pgbench_accounts"]),
    readsMs: await coldMs(side, readsByKey(scale * ACCOUNTS_OF_A_BRANCH, round)) / READS,
  }));
  return {
    title: "First reads, nothing cached anywhere",
    rows: [
      {
        what: `sequential scan of ${scale * 13} MB`,
        unit: "ms",
        values: valuesOf(results, ({ scanMs }) => scanMs),
        aim: "0.5",
      },
      {
        what: `read by primary key, mean of ${READS}`,
        unit: "ms",
        values: valuesOf(results, ({ readsMs }) => readsMs),
      },
    ],
  };
}
