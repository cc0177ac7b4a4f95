/**
 * First reads: after a restart of everything, with none of the files in the page cache. Ours has
 * not a page of its own then: each comes from the pageserver, out of its layer files. Those have
 * images of pages once the pageserver has got round to it, and only records of WAL before that.
 */
import { query, timedMs } from "../our_side.ts";
import type { Group, Row } from "./row.ts";
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
  for (const side of sides) await query(side.target, "VACUUM pgbench_accounts", "CHECKPOINT");
  const measure = async (side: Side, round: number): Promise<Times> => ({
    scanMs: await coldMs(side, ["SELECT sum(abalance) FROM pgbench_accounts"]),
    readsMs: await coldMs(side, readsByKey(scale * ACCOUNTS_OF_A_BRANCH, round)) / READS,
  });
  const fromRecords = await inTurns(sides.filter(({ name }) => name === "ours"), rounds, measure);
  for (const side of sides) await side.compact();
  const results = await inTurns(sides, rounds, measure);
  const early = new Map([...results, ...fromRecords]);
  const scan = `sequential scan of ${scale * 13} MB`;
  const read = `read by primary key, mean of ${READS}`;
  const row = (what: string, from: typeof results, pick: (times: Times) => number): Row => (
    { what, unit: "ms", values: valuesOf(from, pick) }
  );
  return {
    title: "First reads, nothing cached anywhere",
    rows: [
      { ...row(scan, results, ({ scanMs }) => scanMs), aim: "0.5" },
      row(read, results, ({ readsMs }) => readsMs),
      row(`${scan}, before image layers were made`, early, ({ scanMs }) => scanMs),
      row(`${read}, before image layers were made`, early, ({ readsMs }) => readsMs),
    ],
  };
}
