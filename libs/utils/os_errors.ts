/** What the operating system refuses, said as everything else is: what cannot be done, and why. */

/** `No space left on device (os error 28): open '/a/b'`, as Deno words it; the path may be missing. */
const OS_ERROR = /^([A-Z][^:()"]*) \(os error (\d+)\)(?:: (\w+) '([^']*)'(?: -> '[^']*')?)?$/;

/** The same at the end of a message of ours: `Cannot do this: No space left on device (os error 28)`. */
const QUOTED = /^(Cannot (?:(?!\(os error ).)*: [A-Z][^:()"]*) \(os error (\d+)\)$/s;

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
  const withWayOut = (text: string, number: string) =>
    WAYS_OUT[number] === undefined ? text : `${text}; ${WAYS_OUT[number]}`;
  const [, said, cause] = QUOTED.exec(thrown.message) ?? [];
  if (said !== undefined) return withWayOut(said, cause!);
  const [, why, number, verb, path] = OS_ERROR.exec(thrown.message) ?? [];
  if (why === undefined || why.startsWith("Cannot ")) return undefined;
  const what = verb === undefined ? "Cannot go on" : `Cannot ${VERBS[verb] ?? verb} "${path}"`;
  return withWayOut(`${what}: ${why}`, number!);
}
