/**
 * The broker's client, used by safekeepers (publish) and pageservers (subscribe). Both directions
 * reconnect by themselves: the broker may be restarted at any time, and what it missed is published
 * again by the next round.
 */
import { type ClientReadableStream, type ClientWritableStream, credentials } from "@grpc/grpc-js";
import type { Client } from "@grpc/grpc-js";
import { messageOf } from "../libs/utils/errors.ts";
import { logger } from "../libs/utils/log.ts";
import {
  brokerService,
  fromWire,
  type SafekeeperTimelineInfo,
  toWire,
  type WireTimelineInfo,
} from "./messages.ts";

export type { SafekeeperTimelineInfo } from "./messages.ts";

const log = logger("broker", "client");

const RECONNECT_DELAY_MS = 200;
/** Infos that may wait for the connection; older positions are worthless, so more are dropped. */
const PUBLISH_QUEUE_LIMIT = 4096;

interface BrokerStub extends Client {
  PublishSafekeeperInfo(
    done: (error: Error | null) => void,
  ): ClientWritableStream<WireTimelineInfo>;
  SubscribeSafekeeperInfo(request: { all: Record<string, never> }): ClientReadableStream<
    WireTimelineInfo
  >;
}

/** A connection to the broker, made on first use. */
export class BrokerClient {
  readonly #stub: BrokerStub;
  #publishing: ClientWritableStream<WireTimelineInfo> | undefined;
  #subscription: ClientReadableStream<WireTimelineInfo> | undefined;
  readonly #timers = new Set<ReturnType<typeof setTimeout>>();
  #closed = false;

  /** `endpoint` is "http://host:port" or "host:port". */
  constructor(endpoint: string) {
    const Stub = brokerService();
    this.#stub = new Stub(endpoint.replace(/^http:\/\//, ""), credentials.createInsecure(), {
      "grpc.initial_reconnect_backoff_ms": 100,
      "grpc.min_reconnect_backoff_ms": 100,
      "grpc.max_reconnect_backoff_ms": 1000,
      "grpc.enable_http_proxy": 0, // and so its variables are not looked at
    }) as unknown as BrokerStub;
  }

  /** Tells the broker where a timeline stands. Never waits and never throws. */
  publish(info: SafekeeperTimelineInfo): void {
    if (this.#closed) return;
    const stream = (this.#publishing ??= this.#openPublishing());
    if (stream.writableLength < PUBLISH_QUEUE_LIMIT) stream.write(toWire(info));
  }

  #openPublishing(): ClientWritableStream<WireTimelineInfo> {
    const forget = () => {
      if (this.#publishing === stream) this.#publishing = undefined;
    };
    const stream = this.#stub.PublishSafekeeperInfo(forget);
    stream.on("error", forget);
    return stream;
  }

  /** Calls `onInfo` for every info of every timeline, across reconnects, until close(). */
  subscribeAll(onInfo: (info: SafekeeperTimelineInfo) => void): void {
    if (this.#closed) return;
    const stream = this.#stub.SubscribeSafekeeperInfo({ all: {} });
    this.#subscription = stream;
    let ended = false;
    const again = () => {
      if (ended || this.#closed) return;
      ended = true;
      const timer = setTimeout(() => {
        this.#timers.delete(timer);
        this.subscribeAll(onInfo);
      }, RECONNECT_DELAY_MS);
      this.#timers.add(timer);
    };
    stream.on("data", (wire: WireTimelineInfo) => {
      try {
        onInfo(fromWire(wire));
      } catch (thrown) {
        log.warning("ignoring an info: {message}", { message: messageOf(thrown) });
      }
    });
    stream.on("error", again);
    stream.on("end", again);
  }

  /** Ends everything. */
  close(): void {
    this.#closed = true;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#publishing?.cancel();
    this.#subscription?.cancel();
    this.#stub.close();
  }
}
