/** A port for a test that listens itself in a moment. */

/** A port of the loopback interface that nobody listens on now. */
export function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}
