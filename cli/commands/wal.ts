/**
 * `neon wal dump|stats|verify`: what is in WAL, of files or of a branch, and whether our redo of it
 * gives PostgreSQL's pages. docs/wal-tools.md has examples.
 */
import { Command } from "../command.ts";
import { BadRequest } from "../../libs/utils/errors.ts";
import { formatLsn } from "../../libs/utils/lsn.ts";
import type { RecordCursor } from "../../libs/postgres/wal/record_cursor.ts";
import { matchesFilter, type RecordFilter } from "../../libs/postgres/wal/record_filter.ts";
import { recordJson, recordLine } from "../../libs/postgres/wal/record_text.ts";
import { type WalCount, WalCounts } from "../../libs/postgres/wal/wal_counts.ts";
import { openEnvironment, tenantOf } from "../control_plane/environment.ts";
import { withExamples } from "../help.ts";
import { count, tenantId } from "../options.ts";
import { printHint, printJson, printLine, printTable } from "../output.ts";
import { BLOCK_MAX, fork, relation, type RelationArgument, rmgrs } from "../wal_options.ts";
import { branchWal, fileWal, type WalSource } from "../wal_source.ts";
import { verifyWal } from "../wal_verify.ts";

/** Lines gathered before they are written. */
const LINES_AT_ONCE = 1000;

const SOURCE_HELP = "a WAL segment file, or a directory with segments (or with pg_wal)";

/** Options of dump and stats together. */
interface FilterOptions {
  rmgr?: Set<number>;
  relation?: RelationArgument;
  fork?: number;
  block?: number;
  xid?: number;
  fullpage?: true;
}

function filterOf(options: FilterOptions): RecordFilter {
  if (options.block !== undefined && options.relation === undefined) {
    throw new BadRequest("Cannot look for a block: name its relation with --relation");
  }
  return {
    rmids: options.rmgr,
    relation: options.relation,
    fork: options.fork ?? options.relation?.fork,
    block: options.block,
    xid: options.xid,
    fullPage: options.fullpage,
  };
}

/** A command that reads WAL, with the options that say which records. */
function reading(name: string, description: string) {
  return new Command(name)
    .description(description)
    .argument("[path]", SOURCE_HELP)
    .argument("[start]", "first position, as --start, or name of the first segment")
    .argument("[end]", "last position, as --end, or name of the last segment")
    .option("--branch <branch>", "read the WAL of this branch from a safekeeper instead of files")
    .option("--tenant-id <tenant>", "which tenant (default: the default one)", tenantId)
    .option("-s, --start <lsn>", "from the first record at this LSN or later")
    .option("-e, --end <lsn>", "only records that end here or before")
    .option("-r, --rmgr <name>", "only this resource manager (may be repeated)", rmgrs)
    .option("-R, --relation <spc/db/rel>", "only records about this relation", relation)
    .option("-F, --fork <main|fsm|vm|init>", "only records about this fork", fork)
    .option(
      "-B, --block <n>",
      "with --relation, only records about this block",
      count(0, BLOCK_MAX),
    )
    .option("-x, --xid <xid>", "only records of this transaction", count(0))
    .option("-w, --fullpage", "only records with a page image")
    .option("-n, --limit <n>", "stop after this many records", count(0))
    .option("--json", "print JSON");
}

/** What reading() parsed. */
interface ReadOptions extends FilterOptions {
  branch?: string;
  tenantId?: ReturnType<typeof tenantId>;
  start?: string;
  end?: string;
  limit?: number;
  json?: true;
}

function sourceOf(
  path: string | undefined,
  start: string | undefined,
  end: string | undefined,
  options: ReadOptions,
): Promise<WalSource> {
  const range = { start: options.start ?? start, end: options.end ?? end };
  if (options.branch !== undefined) {
    // Without files the positional arguments are the positions.
    const shifted = { start: range.start ?? path, end: options.end ?? start };
    const env = openEnvironment();
    return branchWal(env, tenantOf(env, options.tenantId), options.branch, path ? shifted : range);
  }
  if (path === undefined) {
    throw new BadRequest("Cannot read WAL: name a segment file, a directory, or a --branch");
  }
  return Promise.resolve(fileWal(path, range));
}

/** Shows matching records to `visit`; says on standard error where the WAL ended. */
async function readMatching(
  source: WalSource,
  options: ReadOptions,
  visit: (cursor: RecordCursor) => void,
): Promise<void> {
  const filter = filterOf(options);
  const limit = options.limit ?? Infinity;
  let shown = 0;
  if (limit === 0) return;
  const end = await source.read((cursor) => {
    if (!matchesFilter(cursor, filter)) return true;
    visit(cursor);
    return ++shown < limit;
  });
  if (end.reason === undefined) return;
  printHint(`The WAL ends at ${formatLsn(end.lsn)}: ${end.reason}`);
  if (source.end !== undefined && end.lsn < source.end) Deno.exitCode = 1;
}

function dump() {
  const made = reading("dump", "print WAL records, one a line").action(
    async (path, start, end, options) => {
      const source = await sourceOf(path, start, end, options as ReadOptions);
      let lines: string[] = [];
      const flush = () => {
        if (lines.length > 0) printLine(lines.join("\n"));
        lines = [];
      };
      try {
        await readMatching(source, options as ReadOptions, (cursor) => {
          lines.push(
            options.json
              ? JSON.stringify(recordJson(cursor, source.version))
              : recordLine(cursor, source.version),
          );
          if (lines.length >= LINES_AT_ONCE) flush();
        });
      } finally {
        flush();
      }
    },
  );
  return withExamples(
    made,
    ["neon wal dump --branch main --limit 20"],
    ["neon wal dump --branch main --rmgr Heap --fullpage --json"],
    ["neon wal dump /var/lib/pg/pg_wal --start 0/1500000 --relation 1663/5/16384"],
  );
}

function percent(part: number, whole: number): string {
  return whole === 0 ? "0.0" : (100 * part / whole).toFixed(1);
}

function statsRow(name: string, sum: WalCount, total: WalCount): string[] {
  const both = sum.recordBytes + sum.imageBytes;
  return [
    name,
    ...[
      String(sum.records),
      percent(sum.records, total.records),
      String(sum.recordBytes),
      percent(sum.recordBytes, total.recordBytes),
      String(sum.imageBytes),
      percent(sum.imageBytes, total.imageBytes),
      String(both),
      percent(both, total.recordBytes + total.imageBytes),
    ],
  ];
}

/** Sums of the record names that begin with the same resource manager. */
function byRmgr(byName: Map<string, WalCount>): Map<string, WalCount> {
  const sums = new Map<string, WalCount>();
  for (const [name, count] of byName) {
    const rmgr = name.split(" ")[0]!;
    const sum = sums.get(rmgr) ?? { records: 0, recordBytes: 0, imageBytes: 0 };
    sum.records += count.records;
    sum.recordBytes += count.recordBytes;
    sum.imageBytes += count.imageBytes;
    sums.set(rmgr, sum);
  }
  return sums;
}

function statsJson(counts: WalCounts): object {
  const json = (sum: WalCount) => ({
    records: sum.records,
    record_bytes: sum.recordBytes,
    image_bytes: sum.imageBytes,
  });
  const named = (sums: Map<string, WalCount>) =>
    Object.fromEntries([...sums].map(([name, sum]) => [name, json(sum)]));
  const byName = counts.byName();
  return { total: json(counts.total), rmgrs: named(byRmgr(byName)), records: named(byName) };
}

/** Each resource manager with its records below it, indented. */
function printStats(counts: WalCounts): void {
  const byName = counts.byName();
  const rows: string[][] = [];
  for (const [rmgr, sum] of byRmgr(byName)) {
    rows.push(statsRow(rmgr, sum, counts.total));
    for (const [name, count] of byName) {
      if (!name.startsWith(`${rmgr} `)) continue;
      rows.push(statsRow(`  ${name.slice(rmgr.length + 1)}`, count, counts.total));
    }
  }
  rows.push(statsRow("Total", counts.total, counts.total));
  const header = ["TYPE", "N", "%", "RECORD BYTES", "%", "FPI BYTES", "%", "BYTES", "%"];
  const widths = header.map((title, i) =>
    Math.max(title.length, ...rows.map((row) => row[i]!.length))
  );
  const right = (row: string[]) => row.map((cell, i) => i === 0 ? cell : cell.padStart(widths[i]!));
  printTable(right(header), rows.map(right));
}

function stats() {
  const made = reading("stats", "count WAL records and their bytes by resource manager and opcode")
    .action(async (path, start, end, options) => {
      const source = await sourceOf(path, start, end, options as ReadOptions);
      const counts = new WalCounts(source.version);
      await readMatching(source, options as ReadOptions, (cursor) => counts.add(cursor));
      if (options.json) printJson(statsJson(counts));
      else printStats(counts);
    });
  return withExamples(
    made,
    ["neon wal stats --branch main"],
    ["neon wal stats pg_wal/000000010000000000000003 --json"],
  );
}

function verify() {
  const made = new Command("verify")
    .description(
      "replay WAL over a copy of a cluster and compare each page with the image that " +
        "wal_consistency_checking put into the record (exit code 1 on differences)",
    )
    .requiredOption("--pgdata <dir>", "cold copy of the cluster as it was when the WAL began")
    .requiredOption("--wal <path>", SOURCE_HELP)
    .option("-s, --start <lsn>", "where to begin (default: the copy's last checkpoint)")
    .option("-e, --end <lsn>", "only records that end here or before")
    .option(
      "--after <dir>",
      "the cluster itself, stopped: compare pages that have no images as well",
    )
    .option("-n, --show <n>", "how many differing pages to print", count(0), 3)
    .option("--memory <MB>", "for pages; more of them go to a temporary file", count(1), 1024)
    .option("--json", "print JSON")
    .action(async (options) => {
      Deno.exitCode = await verifyWal(options);
    });
  return withExamples(made, ["neon wal verify --pgdata copy --wal data/pg_wal --after data"]);
}

/** The command. */
export function command(): Command {
  const made = new Command("wal").description("look into WAL, and verify our redo of it");
  for (const sub of [dump(), stats(), verify()]) made.addCommand(sub as unknown as Command);
  return withExamples(
    made as unknown as Command,
    ["neon wal dump --branch main --limit 20"],
    ["neon wal stats --branch main"],
  );
}
