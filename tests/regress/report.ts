/** What a run gave, as tables. */
import { markdownTable } from "../../bench/report.ts";
import { formatLsn } from "../../libs/utils/lsn.ts";
import { judge, type Verdict } from "./outside_contract.ts";
import type { StorageProof } from "./storage_proof.ts";
import type { SuiteRun } from "./types.ts";

/** Everything. */
export interface Report {
  /** Version of the server. */
  readonly server: string;
  /** Version of the tests and client programs. */
  readonly build: string;
  readonly suites: readonly SuiteRun[];
  readonly proof: StorageProof;
  /** The same suites on the reference cluster. */
  readonly reference: readonly SuiteRun[];
}

/** Differences shown of each kind. */
const SHOWN = 20;

/** Lines shown of the diff of a test. */
const DIFF_LINES = 60;

/** Prints it; true if everything is as it should be. */
export function printReport({ server, build, suites, proof, reference }: Report): boolean {
  const rows: string[][] = [];
  let failures = 0;
  for (const run of suites) {
    const normal = reference.find(({ suite }) => suite === run.suite)!;
    const verdicts = run.tests.map((test) => {
      const same = normal.tests.find(({ name }) => name === test.name);
      return { test, verdict: judge(run.suite, test, same, server === build) };
    });
    const count = (kind: Verdict["kind"]) =>
      verdicts.filter(({ verdict }) => verdict.kind === kind).length;
    failures += count("failed");
    rows.push([
      run.round === 1 ? run.suite : `${run.suite}, round ${run.round}`,
      String(run.tests.length),
      ...(["passed", "outside", "release", "failed"] as const).map((kind) => String(count(kind))),
      `${run.seconds} s`,
      `${normal.seconds} s`,
    ]);
    for (const { test, verdict } of verdicts) {
      if (verdict.kind === "outside") console.log(`${test.name}: ${verdict.reason}`);
      if (verdict.kind === "release") {
        console.log(`${test.name}: ${server} gives the same on stock, the test is of ${build}`);
      }
      if (verdict.kind !== "failed") continue;
      const lines = test.diff.split("\n").slice(0, DIFF_LINES).join("\n");
      console.log(`${run.suite}/${test.name} FAILED, ${verdict.why}:\n${lines}`);
    }
  }
  console.log(`\nPostgreSQL ${server}, tests of ${build}\n`);
  const kinds = ["passed", "outside the contract", "other release", "failed"];
  const head = ["suite", "tests", ...kinds, "time", "stock"];
  console.log(markdownTable(head, rows) + "\n");
  return printProof(proof) && failures === 0;
}

function printProof({ lsn, pages, freshPages, dump, amcheck, noticed }: StorageProof): boolean {
  const oracleRow = (what: string, { forks, pages, slruPages, differences }: typeof freshPages) => [
    what,
    `${forks} forks; ${pages.written} pages written, ${pages.fetched} fetched, ` +
    `${pages.absent} not read; ${slruPages} SLRU pages`,
    String(differences.length),
  ];
  console.log(markdownTable([`storage at ${formatLsn(lsn)}`, "compared", "differences"], [
    oracleRow("pages of the endpoint", pages),
    oracleRow("pages of a fresh endpoint", freshPages),
    [
      "dumps",
      `${dump.lines} lines, ${dump.sequencesAhead} sequences ahead`,
      String(dump.differences.length),
    ],
    [
      "amcheck",
      `${amcheck.relations} relations, ${amcheck.pages} pages, ${amcheck.ginIndexes} GIN indexes`,
      String(amcheck.complaints.length),
    ],
    ["a changed byte", noticed ? "noticed" : "not noticed", noticed ? "0" : "1"],
  ]));
  const all = [
    ...pages.differences.slice(0, SHOWN),
    ...freshPages.differences.slice(0, SHOWN),
    ...dump.differences.slice(0, SHOWN),
    ...amcheck.complaints.slice(0, SHOWN),
  ];
  for (const text of all) console.log(text);
  return all.length === 0 && noticed;
}
