/** What a coverage run holds to be a fault. */
import assert from "node:assert/strict";
import { allRecordNames } from "../../libs/postgres/rmgr_names.ts";
import { PG_VERSIONS, pgVersion } from "../../libs/postgres/versions.ts";
import { unwrittenRecords } from "../../pageserver/wal_verify/unwritten.ts";
import { CoverageTable } from "./coverage_table.ts";
import type { VerifyReport } from "./verify_run.ts";

const VERSION = pgVersion(17);

/** A report in which these records were seen once, with these counts besides. */
function report(records: readonly string[], counts = {}, after: string[] = []): VerifyReport {
  const coverage = records.map((record) => ({
    ...{ record, seen: 1, applied: 1, compared: 1, different: 0, failed: 0, adopted: 0 },
    ...counts,
  }));
  return { coverage, after: { compared: {}, differences: after } } as unknown as VerifyReport;
}

function faults(...reports: VerifyReport[]): string[] {
  const table = new CoverageTable(VERSION);
  for (const one of reports) table.add(one);
  return table.faults(true);
}

const unwritten = unwrittenRecords(VERSION);
const written = allRecordNames(VERSION).filter((name) => !unwritten.has(name));

Deno.test("all records that are written, in several runs, are no fault", () => {
  assert.deepEqual(faults(report(written)), []);
  assert.deepEqual(faults(report(written.slice(0, 50)), report(written.slice(50))), []);
});

Deno.test("a record that is missed, unknown, or written after all is a fault", () => {
  assert.match(faults(report(written.slice(1)))[0]!, /^XLOG CHECKPOINT_SHUTDOWN: not reached/);
  assert.match(faults(report([...written, "Heap UNKNOWN (f0)"]))[0]!, /unknown name/);
  assert.match(faults(report([...written, "XLOG NOOP"]))[0]!, /^XLOG NOOP: is written after all/);
});

Deno.test("a difference, a failure or a page without redo is a fault", () => {
  const rest = report(written.slice(1));
  const first = written.slice(0, 1);
  assert.match(faults(rest, report(first, { different: 2 }))[0]!, /: 2 images differ$/);
  assert.match(faults(rest, report(first, { failed: 1 }))[0]!, /: 1 changes could not/);
  assert.match(faults(rest, report(first, { adopted: 3 }))[0]!, /^3 images of pages without redo/);
  assert.match(faults(rest, report(first, {}, ["a page"]))[0]!, /^1 pages differ from the files/);
});

Deno.test("every record that is said to be unwritten has that name in some version", () => {
  for (const version of PG_VERSIONS) {
    for (const name of unwrittenRecords(version).keys()) {
      assert.ok(allRecordNames(version).includes(name), `${name} in ${version.major}`);
    }
  }
});
