/**
 * The broker's listener. It greets itself once in a while: when nobody answers (Deno's HTTP/2
 * server accepts nothing more after there were no file descriptors), it lets go of what it has and
 * listens anew at the same address. Publishers and subscribers connect again by themselves.
 */
import { Server, ServerCredentials } from "@grpc/grpc-js";
import type { Authenticator } from "../libs/auth/authenticator.ts";
import { messageOf } from "../libs/utils/errors.ts";
import { logger } from "../libs/utils/log.ts";
import { greet } from "./listener_check.ts";
import { brokerService } from "./messages.ts";
import { SubscriberRegistry } from "./registry.ts";
import { brokerHandlers } from "./service.ts";

const log = logger("broker");

/** Longest message; they have some 300 bytes, and thousands may wait for a slow subscriber. */
const MESSAGE_BYTES_MAX = 4096;
/** Calls of one connection at the same time; our clients make two. */
const STREAMS_MAX = 256;

/** Time between two greetings. */
const CHECK_MS = 2000;
/** How long an answer may take; it takes a millisecond where the machine has time. */
const ANSWER_MS = 1000;
/** Greetings in a row without an answer after which the listener is given up. */
const SILENCES_MAX = 2;

/** A running broker. */
interface BrokerServer {
  readonly port: number;
  readonly registry: SubscriberRegistry;
  close(): void;
}

/** How the listener is watched. */
interface Watch {
  readonly checkMs: number;
  readonly answerMs: number;
}

/** Listens at `address` ("host:port", port 0 for a free one). Throws if it is taken. */
export async function serveBroker(
  address: string,
  authenticator?: Authenticator,
  watch: Watch = { checkMs: CHECK_MS, answerMs: ANSWER_MS },
): Promise<BrokerServer> {
  const registry = new SubscriberRegistry();
  const handlers = brokerHandlers(registry, authenticator);
  const newServer = () => {
    const server = new Server({
      "grpc.max_receive_message_length": MESSAGE_BYTES_MAX,
      "grpc.max_concurrent_streams": STREAMS_MAX,
    });
    server.addService(brokerService, handlers);
    return server;
  };
  const first = newServer();
  const port = await bind(first, address);
  const stopForgiving = forgiveBrokenStreams();
  const listener = new LastingListener(`${address.replace(/:\d+$/, "")}:${port}`, first, newServer);
  listener.watch(watch);
  const close = () => {
    listener.close();
    stopForgiving();
  };
  return { port, registry, close };
}

/**
 * A client may break its stream between grpc-js' look at it and the answer, which then throws where
 * nobody can catch it, and would end the process. Returns what undoes this.
 */
function forgiveBrokenStreams(): () => void {
  const forgive = (event: ErrorEvent) => {
    const { code, message } = event.error as { code?: string; message?: string };
    if (!code?.startsWith("ERR_HTTP2_")) return;
    event.preventDefault();
    log.debug("a client has broken its stream: {why}", { why: message });
  };
  addEventListener("error", forgive);
  return () => removeEventListener("error", forgive);
}

function bind(server: Server, address: string): Promise<number> {
  return new Promise((resolve, reject) => {
    server.bindAsync(address, ServerCredentials.createInsecure(), (error, bound) => {
      if (error === null) resolve(bound);
      else reject(error);
    });
  });
}

class LastingListener {
  readonly #address: string;
  readonly #newServer: () => Server;
  #server: Server;
  #isListening = true;
  #silences = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isClosed = false;

  constructor(address: string, server: Server, newServer: () => Server) {
    this.#address = address;
    this.#server = server;
    this.#newServer = newServer;
  }

  /** Greets itself from now on. */
  watch(watch: Watch): void {
    this.#timer = setTimeout(async () => {
      await this.#look(watch.answerMs);
      if (!this.#isClosed) this.watch(watch);
    }, watch.checkMs);
    Deno.unrefTimer(this.#timer);
  }

  async #look(answerMs: number): Promise<void> {
    if (this.#isListening) {
      const greeted = await greet(this.#address, answerMs);
      if (this.#isClosed || greeted === "unknown") return;
      this.#silences = greeted === "answered" ? 0 : this.#silences + 1;
      if (this.#silences < SILENCES_MAX) return;
      log.error("nobody is answered at {address}: listening anew", { address: this.#address });
      this.#silences = 0;
      this.#isListening = false;
      this.#server.forceShutdown();
    }
    await this.#listenAgain();
  }

  async #listenAgain(): Promise<void> {
    const server = this.#newServer();
    try {
      await bind(server, this.#address);
    } catch (thrown) {
      server.forceShutdown();
      const why = messageOf(thrown);
      log.error("cannot listen at {address}: {why}", { address: this.#address, why });
      return; // and again after the next pause
    }
    if (this.#isClosed) return server.forceShutdown();
    this.#server = server;
    this.#isListening = true;
    log.info("listening at {address} again", { address: this.#address });
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    this.#server.forceShutdown();
  }
}
