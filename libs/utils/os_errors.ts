/** What the operating system refuses, said as everything else is: what cannot be done, and why. */

/** `No space left on device (os error 28): open '/a/b'`, as Deno words it; the path may be missing. */
const OS_ERROR = /^([A-Z][^:()"]*) \(os error (\d+)\)(?:: (\w+) '([^']*)'(?: -> '[^']*')?)?$/;

/** What Deno calls an operation, where people call it something else. */
const VERBS: Readonly<Record<string, string>> = {
  mkdir: "make",
  readdir: "read",
  readfile: "read",
  stat: "look at",
  writefile: "write",
};

/** By number (Linux), what helps. */
const WAYS_OUT: Readonly<Record<string, string>> = {
  1: "run neon as the user who made it",
  13: "run neon as the user who made it, or change its permissions",
  24: 'raise the limit of open files ("ulimit -n")',
  28: "free some space, then run it again",
  30: "make it writable, then run it again",
  122: "free some space, then run it again",
};

/** The message of an error of the operating system for people; undefined for any other error. */
export function describeOsError(thrown: unknown): string | undefined {
  if (!(thrown instanceof Error)) return undefined;
  const [, why, number, verb, path] = OS_ERROR.exec(thrown.message) ?? [];
  if (why === undefined) return undefined;
  const what = why.startsWith("Cannot ")
    ? "" // it is said already
    : verb === undefined
    ? "Cannot go on: "
    : `Cannot ${VERBS[verb] ?? verb} "${path}": `;
  const wayOut = WAYS_OUT[number!];
  return `${what}${why}${wayOut === undefined ? "" : `; ${wayOut}`}`;
}
