/** The environment that daemons run in. */

/**
 * Turns of the event loop between two looks at the sockets. Deno's own value is 61 while there is
 * other work: beside work in slices of a millisecond, a request would wait for 61 of them.
 */
const TURNS_BETWEEN_LOOKS = 1;

/**
 * The environment of a daemon: nothing but what Deno and the user's own NEON_ settings need, and
 * `more` of the user's variables.
 */
export function daemonEnvironment(more: readonly string[]): Record<string, string> {
  const kept = Object.entries(Deno.env.toObject()).filter(([name]) =>
    ["HOME", "PATH", "DENO_DIR", "XDG_CACHE_HOME", "TMPDIR", ...more].includes(name) ||
    name.startsWith("NEON_") || name.startsWith("GRPC_")
  );
  return {
    ...Object.fromEntries(kept),
    NO_COLOR: "1",
    DENO_TOKIO_EVENT_INTERVAL: String(TURNS_BETWEEN_LOOKS),
  };
}
