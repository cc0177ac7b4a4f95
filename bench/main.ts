/**
 * Ours against stock PostgreSQL, in one go: the same binaries, disk, user and buffer sizes, in
 * rounds in which the servers take turns (and change who goes first), so that what else the machine
 * does hits all of them. Medians and spreads; only ratios mean something, and above 1 ours is
 * better. Stock is given as shipped, and without full page images, which we do not need either.
 *
 * Run: deno task bench [--rounds 5] [--seconds 3] [--scale 20] [--rows 500000] [--large 100]
 * [--only transactions,bulk,cold,copies,memory,clone] [--save] [--json FILE]
 * (scales are pgbench's: 15 MB each)
 */
import { postgresUser } from "../cli/control_plane/host_user.ts";
import { startLocalNeon } from "../cli/local_neon.ts";
import { findPgbench } from "./pgbench.ts";
import { allowOptions, machine, numberOption, textOption, writeJson } from "./report.ts";
import { COMMON_SETTINGS, PG_MAJOR } from "./stock_postgres.ts";
import { bulk } from "./suite/bulk.ts";
import { cold } from "./suite/cold.ts";
import { copies } from "./suite/copies.ts";
import { firstQuery } from "./suite/first_query.ts";
import { memory } from "./suite/memory.ts";
import { type Figures, markdown, save } from "./suite/results.ts";
import { type Group, groupTable } from "./suite/row.ts";
import { openSides } from "./suite/sides.ts";
import { makeTables, transactions } from "./suite/transactions.ts";

/** pgbench's scale of about 50 MB. */
const SMALL = 3;
const GROUPS = ["transactions", "bulk", "cold", "copies", "memory", "clone"] as const;
type GroupName = typeof GROUPS[number];

function chosen(args: readonly string[]): readonly GroupName[] {
  const only = textOption(args, "only")?.split(",");
  const unknown = only?.find((name) => !GROUPS.some((known) => known === name));
  if (unknown !== undefined) throw new Error(`Cannot measure "${unknown}": ${GROUPS.join(", ")}`);
  return only === undefined ? GROUPS : GROUPS.filter((name) => only.includes(name));
}

/** A directory that PostgreSQL's user may write to. */
function exchangeDirectory(): string {
  const directory = Deno.makeTempDirSync({ prefix: "bench-" });
  const user = postgresUser();
  if (user !== undefined) Deno.chownSync(directory, user.uid, user.gid);
  return directory;
}

async function measure(args: readonly string[]): Promise<Group[]> {
  const rounds = numberOption(args, "rounds", 5);
  const seconds = numberOption(args, "seconds", 3);
  const scale = numberOption(args, "scale", 20);
  const names = chosen(args);
  const pgbench = findPgbench();
  const groups: Group[] = [];
  const add = async (name: GroupName, measured: () => Promise<Group | Group[]>) => {
    if (!names.includes(name)) return;
    for (const group of [await measured()].flat()) {
      groups.push(group);
      console.log(`\n${groupTable(group)}`);
    }
  };
  const directory = exchangeDirectory();
  try {
    await using local = await startLocalNeon({ pgVersion: PG_MAJOR });
    await using sides = await openSides(local);
    await makeTables(pgbench, sides.all, scale);
    const rows = numberOption(args, "rows", 500_000);
    await add("transactions", () => transactions(pgbench, sides.all, rounds, seconds));
    await add("bulk", () => bulk(sides.all, directory, rows, rounds));
    await add("cold", () => cold(sides.all, scale, rounds));
    await add("memory", () => memory(pgbench, local, sides.all.at(-1)!, 2 * seconds));
    const scales = [SMALL, numberOption(args, "large", 100)];
    await add("copies", () => copies(pgbench, local, sides.stock, scales, rounds));
    await add("clone", () => firstQuery(1));
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
  return groups;
}

async function main(args: readonly string[]): Promise<void> {
  allowOptions(args, ["large", "only", "rounds", "rows", "scale", "seconds", "json", "save"]);
  const description = machine();
  console.log(description);
  const groups = await measure(args);
  const figures: Figures = {
    date: new Date().toISOString().slice(0, 10),
    machine: `${description}, PostgreSQL ${PG_MAJOR}`,
    settings: `Both sides: ${
      Object.entries(COMMON_SETTINGS).map(([name, value]) => `${name}=${value}`).join(", ")
    }; stock with fsync=on, ours with one safekeeper.`,
    groups,
  };
  if (args.includes("--save")) save(figures);
  writeJson(args, { ...figures, markdown: markdown(figures) });
}

if (import.meta.main) await main(Deno.args);
