/** The report of a verification, for people and as JSON. */
import { pageDiffLines } from "../../libs/postgres/page_text.ts";
import { formatLsn } from "../../libs/utils/lsn.ts";
import type { AfterComparison } from "./compare_after.ts";
import { unwrittenRecords } from "./unwritten.ts";
import type { VerifyResult } from "./verify.ts";

function sum(map: ReadonlyMap<string, number>): number {
  return [...map.values()].reduce((total, count) => total + count, 0);
}

function megabytesPerSecond(result: VerifyResult): number {
  return result.seconds > 0 ? result.walBytes / 1e6 / result.seconds : 0;
}

/** A table without borders; the first column to the left, numbers to the right. */
function table(header: string[], rows: string[][]): string[] {
  const widths = header.map((title, i) =>
    Math.max(title.length, ...rows.map((row) => row[i]!.length))
  );
  return [header, ...rows].map((row) =>
    " " + row.map((cell, i) => i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))
      .join("  ")
  );
}

function coverageLines(result: VerifyResult): string[] {
  const header = ["RECORD", "SEEN", "REDONE", "COMPARED", "DIFFERENT", "FAILED", "NO REDO"];
  const rows = result.coverage.map((line) => [
    line.record,
    ...[line.seen, line.applied, line.compared, line.different, line.failed, line.adopted]
      .map((count) => count === 0 ? "-" : String(count)),
  ]);
  return table(header, rows);
}

/** One line for each resource manager; records that are never written have their reason. */
function unseenLines({ unseen, version }: VerifyResult): string[] {
  const reasons = unwrittenRecords(version);
  const byRmgr = new Map<string, string[]>();
  for (const name of unseen.filter((one) => !reasons.has(one))) {
    const [rmgr, opcode] = name.split(" ") as [string, string];
    byRmgr.set(rmgr, [...byRmgr.get(rmgr) ?? [], opcode]);
  }
  return [
    ...[...byRmgr].map(([rmgr, opcodes]) => ` ${rmgr}: ${opcodes.join(", ")}`),
    "never in WAL:",
    ...[...reasons].map(([name, reason]) => ` ${name}: ${reason}`),
  ];
}

function differenceLines(result: VerifyResult, show: number): string[] {
  const { differences, differenceCount, failures } = result.checker;
  const lines: string[] = [];
  for (const found of differences.slice(0, show)) {
    lines.push(
      "",
      `${found.record} left ${found.page} different: ${found.bytes} bytes from ${found.offset}`,
      "(- ours, + PostgreSQL's; what PostgreSQL masks is masked)",
      ...pageDiffLines(found.ours, found.theirs, found.fork).map((line) => `  ${line}`),
    );
  }
  if (differenceCount > Math.min(show, differences.length)) {
    lines.push("", `${differenceCount} differences on ${differences.length} pages in all`);
  }
  if (failures.length > 0) lines.push("", "could not be replayed:");
  lines.push(...failures.slice(0, Math.max(show, 1)).map((message) => `  ${message}`));
  return lines;
}

function afterLines({ compared, differences }: AfterComparison, show: number): string[] {
  const pages = [...compared].map(([kind, count]) => `${count} of ${kind}`);
  return [
    `pages compared with the files after it: ${pages.join(", ") || "none"}; ` +
    `${differences.length} different`,
    ...differences.slice(0, Math.max(show, 1)).map((line) => `  ${line}`),
  ];
}

/** The report, with the page diffs of at most `show` differences. */
export function reportLines(result: VerifyResult, show: number): string[] {
  const { checker, end, start, records, seconds, walBytes } = result;
  const lines = [
    ...coverageLines(result),
    "",
    "not in this WAL:",
    ...unseenLines(result),
    ...differenceLines(result, show),
    "",
    `WAL of PostgreSQL ${result.version.major} from ${formatLsn(start)} to ${formatLsn(end.lsn)}` +
    (end.reason === undefined ? "" : ` (${end.reason})`),
    `${records} records, ${(walBytes / 1e6).toFixed(1)} MB in ${seconds.toFixed(1)} s: ` +
    `${megabytesPerSecond(result).toFixed(1)} MB/s with all comparisons`,
    `up to ${(result.memoryBytes / 1e6).toFixed(0)} MB of memory`,
    `${sum(checker.applied)} page changes redone, ${sum(checker.compared)} images compared, ` +
    `${checker.differenceCount} differences, ${sum(checker.failed)} failures`,
  ];
  if (result.after !== undefined) lines.push(...afterLines(result.after, show));
  if (checker.skipped > 0) {
    lines.push(`${checker.skipped} changes of pages that were unknown after a failure not judged`);
  }
  return lines;
}

/** The same as a JSON value. */
export function reportJson(result: VerifyResult, show: number): object {
  const { checker, end, start, records, seconds, walBytes } = result;
  return {
    pg_version: result.version.major,
    start_lsn: formatLsn(start),
    end_lsn: formatLsn(end.lsn),
    end_reason: end.reason ?? null,
    records,
    wal_bytes: walBytes,
    seconds,
    megabytes_per_second: megabytesPerSecond(result),
    memory_bytes: result.memoryBytes,
    redone: sum(checker.applied),
    compared: sum(checker.compared),
    differences: checker.differenceCount,
    failed: sum(checker.failed),
    skipped: checker.skipped,
    coverage: result.coverage,
    unseen: result.unseen,
    after: result.after === undefined ? null : {
      compared: Object.fromEntries(result.after.compared),
      differences: result.after.differences,
    },
    first_differences: checker.differences.slice(0, show).map((found) => ({
      record: found.record,
      page: found.page,
      bytes: found.bytes,
      offset: found.offset,
      diff: pageDiffLines(found.ours, found.theirs, found.fork),
    })),
    first_failures: checker.failures.slice(0, show),
  };
}
