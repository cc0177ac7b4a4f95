/** The table of one version: what was seen of each record in all runs, and what is wrong with it. */
import type { PgVersion } from "../../libs/postgres/versions.ts";
import { allRecordNames } from "../../libs/postgres/rmgr_names.ts";
import { unwrittenRecords } from "../../pageserver/wal_verify/unwritten.ts";
import type { VerifyReport } from "./verify_run.ts";

interface Line {
  seen: number;
  applied: number;
  compared: number;
  different: number;
  failed: number;
}

/** Sums over reports of one version. */
export class CoverageTable {
  readonly #version: PgVersion;
  readonly #lines: Map<string, Line> = new Map();
  /** Pages of resource managers without redo: there are none in core PostgreSQL. */
  #adopted = 0;
  #differentAfter = 0;

  constructor(version: PgVersion) {
    this.#version = version;
  }

  add(report: VerifyReport): void {
    this.#differentAfter += report.after.differences.length;
    for (const { record, adopted, ...counts } of report.coverage) {
      const line = this.#lines.get(record) ??
        { seen: 0, applied: 0, compared: 0, different: 0, failed: 0 };
      for (const key of Object.keys(line) as (keyof Line)[]) line[key] += counts[key];
      this.#lines.set(record, line);
      this.#adopted += adopted;
    }
  }

  /** One line a record, in the order of resource managers; then those that were not reached. */
  lines(): string[] {
    const names = allRecordNames(this.#version).filter((name) => this.#lines.has(name));
    const rows = names.map((name) => {
      const { seen, applied, compared, different, failed } = this.#lines.get(name)!;
      return [name, ...[seen, applied, compared, different, failed].map(String)];
    });
    const header = ["RECORD", "SEEN", "REDONE", "COMPARED", "DIFFERENT", "FAILED"];
    const widths = header.map((title, i) =>
      Math.max(title.length, ...rows.map((row) => row[i]!.length))
    );
    const pad = (cell: string, i: number) =>
      i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!);
    const missing = allRecordNames(this.#version).filter((name) => !this.#lines.has(name));
    const reasons = unwrittenRecords(this.#version);
    return [
      ...[header, ...rows].map((row) => row.map(pad).join("  ")),
      ...missing.map((name) => `not reached: ${name} (${reasons.get(name) ?? "no reason known"})`),
    ];
  }

  /** Images compared, by resource manager. */
  imagesByRmgr(): Map<string, number> {
    const sums = new Map<string, number>();
    for (const [name, { compared }] of this.#lines) {
      const rmgr = name.split(" ")[0]!;
      if (compared > 0) sums.set(rmgr, (sums.get(rmgr) ?? 0) + compared);
    }
    return sums;
  }

  /** How many records were reached, of how many. */
  reached(): string {
    const names = allRecordNames(this.#version);
    return `${names.filter((name) => this.#lines.has(name)).length} of ${names.length}`;
  }

  /** What must not be: differences, failures, and (after all workloads) records not as listed. */
  faults(complete: boolean): string[] {
    const found: string[] = [];
    for (const [name, { different, failed }] of this.#lines) {
      if (different > 0) found.push(`${name}: ${different} images differ`);
      if (failed > 0) found.push(`${name}: ${failed} changes could not be replayed`);
    }
    if (this.#adopted > 0) found.push(`${this.#adopted} images of pages without redo`);
    if (this.#differentAfter > 0) found.push(`${this.#differentAfter} pages differ from the files`);
    const names = allRecordNames(this.#version);
    const reasons = unwrittenRecords(this.#version);
    for (const name of this.#lines.keys()) {
      if (!names.includes(name)) found.push(`${name}: a record of an unknown name`);
      if (reasons.has(name)) {
        found.push(`${name}: is written after all, not "${reasons.get(name)}"`);
      }
    }
    if (!complete) return found;
    const missing = names.filter((name) => !this.#lines.has(name) && !reasons.has(name));
    return [...found, ...missing.map((name) => `${name}: not reached, and not listed as such`)];
  }
}
