/**
 * Checking what was read from a small text file (TOML, JSON) before it is used as the type that it
 * should have. A check gives the first thing that is wrong, in one line that says where:
 *
 *     problemIn({ port: "x" }, table<{ port: number }>({ port: whole(1, 65535) }))
 *     // 'port must be a whole number from 1 to 65535, it is "x"'
 */

/** What is wrong with the value found at `at`, or undefined. */
type Check = (value: unknown, at: string) => string | undefined;

/** A check that also takes that there is nothing. */
interface OptionalCheck {
  readonly optional: Check;
}

/** Longest value that a message repeats. */
const SHOWN_MAX = 60;

function wrong(at: string, expected: string, value: unknown): string {
  const what = at === "" ? "it" : at;
  if (value === undefined) return `${what} is missing, it must be ${expected}`;
  const text = typeof value === "bigint" ? String(value) : JSON.stringify(value) ?? String(value);
  const shown = text.length > SHOWN_MAX ? `${text.slice(0, SHOWN_MAX)}...` : text;
  return `${at === "" ? "" : `${at} `}must be ${expected}, it is ${shown}`;
}

/** A whole number. */
export function whole(least: number, most: number): Check {
  return (value, at) =>
    Number.isSafeInteger(value) && Number(value) >= least && Number(value) <= most
      ? undefined
      : wrong(at, `a whole number from ${least} to ${most}`, value);
}

/** A text that matches; `expected` says what it is, for people. */
export function text(pattern: RegExp, expected: string): Check {
  return (value, at) =>
    typeof value === "string" && pattern.test(value) ? undefined : wrong(at, expected, value);
}

/** True or false. */
export const flag: Check = (value, at) =>
  typeof value === "boolean" ? undefined : wrong(at, "true or false", value);

/** Exactly one of these. */
export function choice(...values: readonly string[]): Check {
  const expected = values.map((value) => JSON.stringify(value)).join(" or ");
  return (value, at) => values.includes(value as string) ? undefined : wrong(at, expected, value);
}

/** Whatever one of the checks takes. */
export function either(...checks: readonly Check[]): Check {
  return (value, at) => {
    const problems = checks.map((check) => check(value, at));
    return problems.includes(undefined) ? undefined : problems[0];
  };
}

/** A list, with at least so many entries. */
export function list(entry: Check, least = 0): Check {
  return (value, at) => {
    if (!Array.isArray(value)) return wrong(at, "a list", value);
    if (value.length < least) return `${at} must have ${least} or more entries`;
    return first(value.map((item, i) => () => entry(item, `${at}[${i}]`)));
  };
}

/** A list of exactly these. */
export function tuple(...entries: readonly Check[]): Check {
  return (value, at) =>
    Array.isArray(value) && value.length === entries.length
      ? first(entries.map((entry, i) => () => entry(value[i], `${at}[${i}]`)))
      : wrong(at, `a list of ${entries.length}`, value);
}

/** A table with keys of any name. */
export function mapOf(entry: Check, key: Check = () => undefined): Check {
  return (value, at) =>
    isTable(value)
      ? first(
        Object.entries(value).map(([name, item]) => () =>
          key(name, `the key ${below(at, name)}`) ?? entry(item, below(at, name))
        ),
      )
      : wrong(at, "a table", value);
}

/** May be missing. */
export function optional(check: Check): OptionalCheck {
  return { optional: check };
}

/** A check for each key of `T`. */
export type Shape<T> = {
  readonly [K in keyof T]-?: undefined extends T[K] ? OptionalCheck : Check;
};

/** A table with exactly the keys of `T`. */
export function table<T>(keys: Shape<T>): Check {
  return (value, at) => {
    if (!isTable(value)) return wrong(at, "a table", value);
    const unknown = Object.keys(value).find((key) => !Object.hasOwn(keys, key));
    if (unknown !== undefined) return `${below(at, unknown)} is not a known key`;
    return first(
      Object.entries<Check | OptionalCheck>(keys).map(([key, check]) => () => {
        const item = value[key];
        if (typeof check === "function") return check(item, below(at, key));
        return item === undefined ? undefined : check.optional(item, below(at, key));
      }),
    );
  };
}

/** What is wrong with a value, in one line; undefined if nothing is. */
export function problemIn(value: unknown, check: Check): string | undefined {
  return check(value, "");
}

function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function below(at: string, key: string): string {
  return at === "" ? key : `${at}.${key}`;
}

function first(checks: readonly (() => string | undefined)[]): string | undefined {
  for (const check of checks) {
    const problem = check();
    if (problem !== undefined) return problem;
  }
  return undefined;
}
