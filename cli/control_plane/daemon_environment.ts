/** The environment that daemons run in. */

/**
 * Turns of the event loop between two looks at the sockets. Deno's own value is 61 while there is
 * other work: beside work in slices of a millisecond, a request would wait for 61 of them.
 */
const TURNS_BETWEEN_LOOKS = 1;

/** Where Deno finds its cache. */
const CACHE_VARIABLES = ["HOME", "DENO_DIR", "XDG_CACHE_HOME"];

/**
 * The environment of a daemon: what Deno needs, the tuning of gRPC, and `more` of the user's
 * variables. Anything else of the user's, such as tokens, stays with the command.
 */
export function daemonEnvironment(more: readonly string[]): Record<string, string> {
  const kept = Object.entries(Deno.env.toObject()).filter(([name]) =>
    CACHE_VARIABLES.includes(name) || more.includes(name) || name.startsWith("GRPC_")
  );
  return {
    ...Object.fromEntries(kept),
    NO_COLOR: "1",
    DENO_TOKIO_EVENT_INTERVAL: String(TURNS_BETWEEN_LOOKS),
  };
}
