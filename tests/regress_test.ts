/** How the regression run reads reports, compares dumps and judges failures. */
import assert from "node:assert/strict";
import { compareDumps } from "./regress/dumps.ts";
import { judge } from "./regress/outside_contract.ts";
import { parseOutcomes, splitDiffs } from "./regress/pg_regress.ts";

Deno.test("parseOutcomes() reads the reports of 15 and of later versions", () => {
  const before16 = "test test_setup                   ... ok          309 ms\n" +
    "parallel group (2 tests):  boolean char\n" +
    "     boolean                      ... ok           50 ms\n" +
    "     char                         ... FAILED       41 ms\n" +
    "test crashed                      ... FAILED (test process exited with exit code 2)   7 ms\n" +
    "==============\n 1 of 4 tests failed.\n";
  const since16 = "# parallel group (2 tests):  boolean char\n" +
    "ok 1         - test_setup                                309 ms\n" +
    "ok 2         + boolean                                    50 ms\n" +
    "not ok 3     + char                                       41 ms\n" +
    "# (test process exited with exit code 2)\n" +
    "not ok 4     - crashed                                     7 ms\n1..4\n";
  const diff =
    "diff -U3 /a/expected/char.out /a/results/char.out\n--- x\n+++ y\n@@ -1 +1 @@\n-a\n+b\n";
  const expected = [
    { name: "test_setup", passed: true, milliseconds: 309, diff: "" },
    { name: "boolean", passed: true, milliseconds: 50, diff: "" },
    { name: "char", passed: false, milliseconds: 41, diff },
    { name: "crashed", passed: false, milliseconds: 7, diff: "" },
  ];
  assert.deepEqual(parseOutcomes(before16, splitDiffs(diff)), expected);
  assert.deepEqual(parseOutcomes(since16, splitDiffs(diff)), expected);
});

Deno.test("judge() excuses a listed test only for what the reference gives as well", () => {
  const failed = (name: string, reason: string, more = "") => ({
    name,
    passed: false,
    milliseconds: 1,
    diff:
      `diff -U3 a ${reason}\n+ERROR:  could not create directory "pg_tblspc/${reason.length}": ` +
      `${reason}\n${more}`,
  });
  const ours = failed("test_setup", "Operation not permitted");
  const theirs = failed("test_setup", "Permission denied");
  assert.equal(judge("regress", ours, theirs, true).kind, "outside");
  assert.equal(judge("regress", ours, undefined, true).kind, "failed");
  assert.equal(judge("regress", ours, { ...theirs, passed: true }, true).kind, "failed");
  const another = failed("test_setup", "Operation not permitted", "+ERROR:  something else\n");
  assert.equal(judge("regress", another, theirs, true).kind, "failed");
  assert.equal(judge("regress", { ...ours, name: "boolean" }, theirs, true).kind, "failed");
  assert.equal(judge("regress", { ...ours, passed: true }, theirs, true).kind, "passed");
  assert.equal(judge("regress", { ...ours, name: "boolean" }, theirs, false).kind, "release");
  assert.equal(judge("regress", another, theirs, false).kind, "failed");
});

Deno.test("compareDumps() lets sequences run ahead, and nothing else differ", () => {
  const dump = (s: number, u: number, row: string) =>
    new Map([[
      "database d",
      "CREATE SEQUENCE public.s\n    START WITH 1\n    INCREMENT BY -3\n    CACHE 1;\n" +
      "CREATE UNLOGGED SEQUENCE public.u\n    START WITH 1\n    INCREMENT BY 1\n    CACHE 1;\n" +
      `COPY public.t (a) FROM stdin;\n${row}\n\\.\n` +
      `SELECT pg_catalog.setval('public.s', ${s}, true);\n` +
      `SELECT pg_catalog.setval('public.u', ${u}, true);\n`,
    ]]);
  const before = dump(-10, 50, "row");
  assert.deepEqual(compareDumps(before, dump(-106, 1, "row")), {
    lines: 14,
    sequencesAhead: 2,
    differences: [],
  });
  assert.equal(compareDumps(before, dump(-109, 50, "row")).differences.length, 1);
  assert.equal(compareDumps(before, dump(-7, 50, "row")).differences.length, 1);
  assert.equal(compareDumps(before, dump(-10, 50, "other")).differences.length, 1);
  assert.deepEqual(compareDumps(before, new Map()).differences, ["database d: only before"]);
});
