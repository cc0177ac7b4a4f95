/**
 * A logical dump of all that a server holds, and whether two servers hold the same.
 *
 * Data of unlogged tables is left out. Sequences may run ahead: PostgreSQL logs a sequence 32
 * values at a time (sequence.c, SEQ_LOG_VALS), so that one that comes back from WAL goes on behind
 * those; unlogged ones begin again.
 */
import { databasesOf, runClient, type Server } from "./client_programs.ts";

/** Values of a sequence that one record covers. */
const LOGGED_VALUES = 32;
/** How many differences are told apart. */
const SHOWN = 20;

/** Dumps by what they are of: "roles" or "database NAME". */
type Dumps = ReadonlyMap<string, string>;

/** Dumps everything. Throws if a program fails. */
export async function dumpAll(binDir: string, server: Server): Promise<Dumps> {
  const key = "--restrict-key=regress"; // else each dump has a random one
  const dumps = new Map<string, string>();
  const run = async (what: string, program: string, args: string[]) => {
    const { success, stdout, stderr } = await runClient(binDir, program, server, [...args, key]);
    if (!success) throw new Error(`${program} of ${what} failed: ${stderr.trim()}`);
    dumps.set(what, stdout);
  };
  await run("roles", "pg_dumpall", ["--globals-only"]);
  for (const database of await databasesOf(server)) {
    await run(`database ${database}`, "pg_dump", ["--no-unlogged-table-data", database]);
  }
  return dumps;
}

/** What comparing gave. */
export interface DumpComparison {
  lines: number;
  sequencesAhead: number;
  readonly differences: string[];
}

/** Compares line by line. */
export function compareDumps(before: Dumps, after: Dumps): DumpComparison {
  const comparison: DumpComparison = { lines: 0, sequencesAhead: 0, differences: [] };
  for (const what of new Set([...before.keys(), ...after.keys()])) {
    const [first, second] = [before.get(what), after.get(what)];
    if (first === undefined || second === undefined) {
      comparison.differences.push(`${what}: only ${first === undefined ? "after" : "before"}`);
    } else compareTexts(what, first, second, comparison);
  }
  return comparison;
}

function compareTexts(
  what: string,
  before: string,
  after: string,
  comparison: DumpComparison,
): void {
  const [first, second] = [before.split("\n"), after.split("\n")];
  const increments = incrementsOf(before);
  comparison.lines += first.length;
  for (let i = 0; i < Math.max(first.length, second.length); i++) {
    if (first[i] === second[i]) continue;
    if (isSequenceAhead(first[i], second[i], increments)) comparison.sequencesAhead++;
    else comparison.differences.push(`${what}, line ${i + 1}: "${second[i]}", was "${first[i]}"`);
    if (comparison.differences.length >= SHOWN) return;
  }
}

const SEQUENCE = /(?:CREATE( UNLOGGED)? SEQUENCE|SEQUENCE NAME) (\S+)[^;]*?INCREMENT BY (-?\d+)/g;
const SET_VALUE = /^SELECT pg_catalog\.setval\('(.*)', (-?\d+), (true|false)\);$/;

/** Steps of the sequences in a dump by name; undefined for those that are unlogged. */
function incrementsOf(dump: string): Map<string, bigint | undefined> {
  return new Map(
    [...dump.matchAll(SEQUENCE)].map((
      [, unlogged, name, step],
    ) => [name!, unlogged === undefined ? BigInt(step!) : undefined]),
  );
}

function isSequenceAhead(
  before: string | undefined,
  after: string | undefined,
  increments: ReadonlyMap<string, bigint | undefined>,
): boolean {
  const [, name, first] = SET_VALUE.exec(before ?? "") ?? [];
  const [, sameName, second] = SET_VALUE.exec(after ?? "") ?? [];
  if (name === undefined || name !== sameName || !increments.has(name)) return false;
  const step = increments.get(name);
  if (step === undefined) return true;
  const values = (BigInt(second!) - BigInt(first!)) / step;
  return values >= 0n && values <= LOGGED_VALUES;
}
