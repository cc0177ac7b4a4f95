/** Network addresses as text, "host:port". An IPv6 host may stand in brackets. */
import { Unavailable } from "./errors.ts";

/** A place to listen at or to connect to. */
export interface Address {
  readonly hostname: string;
  readonly port: number;
}

/** Parses "host:port". Throws SyntaxError for anything else. */
export function parseAddress(text: string): Address {
  const match = /^(?:\[([^\]\s]+)\]|([^[\]\s]+)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port > 65535) {
    throw new SyntaxError(
      `Cannot use an address that is not host:port: current value is "${text}"`,
    );
  }
  return { hostname: match[1] ?? match[2]!, port };
}

/**
 * What connecting to `address` threw, as it is to be passed on: an address that this process may
 * not connect to is Unavailable with the way out, because Deno's own message is for programmers.
 */
export function connectError(thrown: unknown, address: string): unknown {
  if (!(thrown instanceof Deno.errors.NotCapable)) return thrown;
  return new Unavailable(
    `this process may not connect to ${address}: a daemon may connect to what was configured ` +
      `when it started; restart it after a change`,
  );
}
