/**
 * First reads: after a restart of everything, with none of the files in the page cache. Ours has
 * not a page of its own then: each comes from the pageserver, out of its layer files. Those have
 * images of pages where the pageserver found them worth it; and of all that is read from records,
 * after it was told so.
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
  const asItIs = await inTurns(sides, rounds, measure);
  for (const side of sides) await side.compact();
  const ours = sides.filter(({ name }) => name === "ours");
  const compacted = new Map([...asItIs, ...await inTurns(ours, rounds, measure)]);
  const row = (what: string, from: typeof asItIs, pick: (times: Times) => number): Row => (
    { what, unit: "ms", values: valuesOf(from, pick) }
  );
  const scan = `sequential scan of ${scale * 13} MB`;
  const read = `read by primary key, mean of ${READS}`;
  const forced = "after a forced neon timeline compact";
  return {
    title: "First reads, nothing cached anywhere",
    rows: [
      { ...row(scan, asItIs, ({ scanMs }) => scanMs), aim: "0.5" },
      row(read, asItIs, ({ readsMs }) => readsMs),
      row(`${scan}, ${forced}`, compacted, ({ scanMs }) => scanMs),
      row(`${read}, ${forced}`, compacted, ({ readsMs }) => readsMs),
    ],
  };
}
