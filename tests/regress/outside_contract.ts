/**
 * Tests that ask for what is outside the contract (docs/limits.md), by name and with the reason.
 *
 * Such a test may not fail just anyhow. The same suite runs on a stock cluster that is kept from
 * the same thing (reference_cluster.ts), and a test of this list must give the same output there,
 * but for the words in which the kernel refuses. All other tests must pass.
 */
import type { SuiteName, TestOutcome } from "./types.ts";

const TABLESPACES = "CREATE TABLESPACE is refused";

/** Why a test is outside, by its suite and name. */
const OUTSIDE: Readonly<Record<SuiteName, Readonly<Record<string, string>>>> = {
  regress: {
    test_setup: TABLESPACES,
    database: TABLESPACES,
    stats: TABLESPACES,
    tablespace: TABLESPACES,
  },
  isolation: {},
  contrib: {
    "amcheck/check_heap": TABLESPACES,
    "citext/create_index_acl": TABLESPACES,
  },
};

/** How a test is to be taken. */
export type Verdict =
  | { readonly kind: "passed" }
  | { readonly kind: "outside"; readonly reason: string }
  /** The tests are of another minor release, and stock PostgreSQL of this one gives the same. */
  | { readonly kind: "release" }
  | { readonly kind: "failed"; readonly why: string };

/** Judges a test of an endpoint by what the reference cluster gave. */
export function judge(
  suite: SuiteName,
  { name, passed, diff }: TestOutcome,
  reference: TestOutcome | undefined,
  isSameRelease: boolean,
): Verdict {
  if (passed) return { kind: "passed" };
  const reason = OUTSIDE[suite][name];
  const isSame = reference !== undefined && !reference.passed &&
    essence(reference.diff) === essence(diff);
  if (reason !== undefined && isSame) return { kind: "outside", reason };
  if (isSame && !isSameRelease) return { kind: "release" };
  if (reason !== undefined) return { kind: "failed", why: `${reason}, but it differs elsewhere` };
  return { kind: "failed", why: isSame ? "so it does on stock PostgreSQL" : "it passes on stock" };
}

/** A diff without file names and times, object ids, and the kernel's reason. */
function essence(diff: string): string {
  return diff.replace(/^(diff|---|\+\+\+) .*\n/gm, "")
    .replace(/(directory "pg_tblspc\/)\d+(": ).*/g, "$1N$2refused");
}
