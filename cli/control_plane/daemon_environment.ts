/** The environment that daemons run in, and the flags of V8 that all of them have. */

/**
 * What keeps daemons small. New objects have 2 MB before they are looked through instead of up to
 * 16, of which a daemon holds three: that is 4 to 11 MB less of each, and costs no time, since
 * hardly any object of ours lives. And a daemon may collect garbage in quiet times
 * (libs/daemon/quiet.ts).
 */
export const MEMORY_FLAGS = "--v8-flags=--max-semi-space-size=2,--expose-gc";

/**
 * Turns of the event loop between two looks at the sockets. Deno's own value is 61 while there is
 * other work: beside work in slices of a millisecond, a request would wait for 61 of them. A look
 * costs about 2 us, and a message takes two to four turns: with a look at each turn, a daemon that
 * has only messages to see to spends a quarter more on each.
 */
const TURNS_BETWEEN_LOOKS = { slices: 1, messages: 4 } as const;

/** What a daemon's event loop mostly has to do: work cut into slices, or messages. */
export type DaemonWork = keyof typeof TURNS_BETWEEN_LOOKS;

/** Where Deno finds its cache. */
const CACHE_VARIABLES = ["HOME", "DENO_DIR", "XDG_CACHE_HOME"];

/**
 * The environment of a daemon: what Deno needs, the tuning of gRPC, and `more` of the user's
 * variables. Anything else of the user's, such as tokens, stays with the command.
 */
export function daemonEnvironment(
  more: readonly string[],
  work: DaemonWork = "messages",
): Record<string, string> {
  const kept = Object.entries(Deno.env.toObject()).filter(([name]) =>
    CACHE_VARIABLES.includes(name) || more.includes(name) || name.startsWith("GRPC_")
  );
  return {
    ...Object.fromEntries(kept),
    NO_COLOR: "1",
    DENO_TOKIO_EVENT_INTERVAL: String(TURNS_BETWEEN_LOOKS[work]),
  };
}
