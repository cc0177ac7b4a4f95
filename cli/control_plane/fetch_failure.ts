/** Why something could not be fetched, in one line with the way out. */

/** What helps, by what the reason says. */
const WAYS_OUT: readonly [RegExp, string][] = [
  [
    /certificate|UnknownIssuer/,
    "if your system trusts who signed it (a proxy, say), set DENO_TLS_CA_STORE=system",
  ],
  [
    /error sending request|[Cc]onnect|dns error|timed out/,
    "it is fetched once, from the npm registry; HTTPS_PROXY names a proxy, NPM_CONFIG_REGISTRY " +
    "another registry",
  ],
  [
    /Permission denied|Read-only file system|Not a directory|os error (13|20|30)\b/,
    "set DENO_DIR to a directory that you may write to",
  ],
  [/No space left|os error 28\b/, "free some space, or set DENO_DIR to a directory with more"],
];

/**
 * The line for what Deno says when it cannot fetch a package: its first line, and the first of the
 * causes that it numbers, which has the others in it.
 */
export function fetchFailure(said: string): string {
  // deno-lint-ignore no-control-regex
  const lines = said.replace(/\x1b\[[0-9;]*m/g, "").trim().split("\n").map((line) => line.trim());
  const what = lines[0]!.replace(/^error: /, "");
  const cause = lines.find((line) => line.startsWith("0: "))?.slice("0: ".length);
  const why = cause === undefined ? what : `${what}: ${cause}`;
  const [, wayOut] = WAYS_OUT.find(([reason]) => reason.test(said)) ?? [];
  return wayOut === undefined ? why : `${why}; ${wayOut}`;
}
