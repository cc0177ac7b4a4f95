/** Listening at addresses from the settings: a port that is taken is an error that names it. */
import type { Hono } from "hono";
import { type Address, parseAddress } from "../utils/address.ts";
import { Conflict } from "../utils/errors.ts";

/** Starts a server at "host:port". Throws Conflict naming the address if it is taken. */
export function listenAt<T>(address: string, listen: (at: Address) => T): T {
  try {
    return listen(parseAddress(address));
  } catch (thrown) {
    if (!(thrown instanceof Deno.errors.AddrInUse)) throw thrown;
    throw new Conflict(`Cannot listen at ${address}: another process does`);
  }
}

/** Serves an API. Throws as listenAt() does. */
export function serveHttp(address: string, api: Hono): Deno.HttpServer<Deno.NetAddr> {
  return listenAt(address, (at) => Deno.serve({ ...at, onListen: () => {} }, api.fetch));
}
