/** Work on much data at once: COPY, an index build, VACUUM. */
import { query, timedMs } from "../our_side.ts";
import type { Group, Row } from "./row.ts";
import { inTurns, type Side, valuesOf } from "./sides.ts";

/** About 130 bytes a row in the table. */
const MAKE_ROWS = "SELECT n, md5(n::text), repeat('x', 60), now() FROM generate_series(1, ROWS) n";

/**
 * Measures on a table of `rows` rows, which the servers read from one file in `directory`: one
 * that their user may write.
 */
export async function bulk(
  sides: readonly Side[],
  directory: string,
  rows: number,
  rounds: number,
): Promise<Group> {
  const file = `${directory}/rows.copy`;
  await query(sides[0]!.target, `COPY (${MAKE_ROWS.replace("ROWS", String(rows))}) TO '${file}'`);
  for (const { target } of sides) {
    const columns = "(n int, digest text, filler text, at timestamptz)";
    await query(target, `CREATE TABLE bulk ${columns} WITH (autovacuum_enabled = off)`);
  }
  const steps = [
    { what: `COPY of ${rows} rows`, before: ["TRUNCATE bulk"], timed: `COPY bulk FROM '${file}'` },
    { what: "index build (text)", before: [], timed: "CREATE INDEX ON bulk(digest)" },
    {
      what: "VACUUM of a third of the rows",
      before: ["DELETE FROM bulk WHERE n % 3 = 0"],
      timed: "VACUUM bulk",
    },
  ];
  const times = steps.map(() => new Map<Side["name"], number[]>());
  await inTurns(sides, rounds, async (side) => {
    for (const [at, { before, timed }] of steps.entries()) {
      if (before.length > 0) await query(side.target, ...before);
      await side.settle();
      const of = times[at]!;
      of.set(side.name, [
        ...of.get(side.name) ?? [],
        await timedMs(() => query(side.target, timed)),
      ]);
    }
    await query(side.target, "DROP INDEX bulk_digest_idx");
  });
  const measured: Row[] = steps.map(({ what }, at) => ({
    what,
    unit: "ms",
    values: valuesOf(times[at]!, (ms) => ms),
  }));
  for (const { target } of sides) await query(target, "DROP TABLE bulk");
  return { title: "Much data at once", rows: measured };
}
