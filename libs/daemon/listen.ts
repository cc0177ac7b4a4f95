/** Listening at addresses from the settings: a port that is taken is an error that names it. */
import type { Hono } from "hono";
import { type Address, parseAddress } from "../utils/address.ts";
import { Conflict, messageOf } from "../utils/errors.ts";
import { logger } from "../utils/log.ts";

const log = logger("http");

/** Pause before a server that has broken listens again. */
const AGAIN_MS = 100;

/** Starts a server at "host:port". Throws Conflict naming the address if it is taken. */
export function listenAt<T>(address: string, listen: (at: Address) => T): T {
  try {
    return listen(parseAddress(address));
  } catch (thrown) {
    if (!(thrown instanceof Deno.errors.AddrInUse)) throw thrown;
    throw new Conflict(`Cannot listen at ${address}: another process does`);
  }
}

/** A server of an API. */
interface HttpServer {
  readonly addr: Deno.NetAddr;
  /** Stops listening, and resolves when all requests are answered. */
  shutdown(): Promise<void>;
}

/** Serves an API. Throws as listenAt() does. */
export function serveHttp(address: string, api: Hono): HttpServer {
  return listenAt(address, (at) => new LastingServer(at, api));
}

/**
 * Deno's server ends when it cannot accept a connection, which is so when there are no descriptors.
 * This one then lets its connections go, and listens again at the same address.
 */
class LastingServer implements HttpServer {
  readonly addr: Deno.NetAddr;
  readonly #api: Hono;
  #server: Deno.HttpServer<Deno.NetAddr>;
  #again: ReturnType<typeof setTimeout> | undefined;
  #isStopping = false;

  constructor(at: Address, api: Hono) {
    this.#api = api;
    this.#server = this.#serve(at);
    this.addr = this.#server.addr;
  }

  #serve(at: Address): Deno.HttpServer<Deno.NetAddr> {
    const broken = new AbortController();
    const options = { ...at, onListen: () => {}, signal: broken.signal };
    const server = Deno.serve(options, this.#api.fetch);
    server.finished.catch((thrown) => {
      log.error("cannot accept a connection: {why}", { why: messageOf(thrown) });
      broken.abort();
      this.#listenAgain();
    });
    return server;
  }

  #listenAgain(): void {
    if (this.#isStopping) return;
    this.#again = setTimeout(() => {
      const { hostname, port } = this.addr;
      try {
        this.#server = this.#serve({ hostname, port });
      } catch {
        this.#listenAgain();
      }
    }, AGAIN_MS);
  }

  async shutdown(): Promise<void> {
    this.#isStopping = true;
    clearTimeout(this.#again);
    await this.#server.shutdown().catch(() => {}); // it was told when it broke
  }
}
