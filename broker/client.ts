/**
 * The broker's client, used by safekeepers (publish) and pageservers (subscribe). Both directions
 * reconnect by themselves: the broker may be restarted at any time, and what it missed is published
 * again by the next round.
 */
import {
  type Client,
  type ClientReadableStream,
  type ClientWritableStream,
  connectivityState,
  credentials,
  makeGenericClientConstructor,
  Metadata,
  type ServiceError,
  status,
} from "@grpc/grpc-js";
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
    metadata: Metadata,
    done: (error: ServiceError | null) => void,
  ): ClientWritableStream<WireTimelineInfo>;
  SubscribeSafekeeperInfo(
    request: { all: Record<string, never> },
    metadata: Metadata,
  ): ClientReadableStream<WireTimelineInfo>;
}

/** A connection to the broker, made on first use. */
export class BrokerClient {
  readonly #stub: BrokerStub;
  readonly #token: (() => string) | undefined;
  #publishing: ClientWritableStream<WireTimelineInfo> | undefined;
  #subscription: ClientReadableStream<WireTimelineInfo> | undefined;
  readonly #timers = new Set<ReturnType<typeof setTimeout>>();
  #closed = false;
  /** Why the broker lets us do nothing, as last logged. */
  #refusal = "";

  /** `endpoint` is "http://host:port" or "host:port"; `token` is for a broker that wants one. */
  constructor(endpoint: string, token?: () => string) {
    this.#token = token;
    const Stub = makeGenericClientConstructor(brokerService, "BrokerService");
    this.#stub = new Stub(endpoint.replace(/^http:\/\//, ""), credentials.createInsecure(), {
      "grpc.initial_reconnect_backoff_ms": 100,
      "grpc.min_reconnect_backoff_ms": 100,
      "grpc.max_reconnect_backoff_ms": 1000,
      "grpc.enable_http_proxy": 0, // and so its variables are not looked at
    }) as unknown as BrokerStub;
  }

  /** Whether there is a broker now. */
  get isConnected(): boolean {
    return this.#stub.getChannel().getConnectivityState(false) === connectivityState.READY;
  }

  /** Tells the broker where a timeline stands. Never waits and never throws. */
  publish(info: SafekeeperTimelineInfo): void {
    if (this.#closed) return;
    const stream = (this.#publishing ??= this.#openPublishing());
    if (stream.writableLength < PUBLISH_QUEUE_LIMIT) stream.write(toWire(info));
  }

  /** With our token. It is no reason to throw that there is none: the broker says what it wants. */
  #metadata(): Metadata {
    const metadata = new Metadata();
    try {
      const token = this.#token?.();
      if (token !== undefined) metadata.set("authorization", `Bearer ${token}`);
    } catch (thrown) {
      this.#refused(messageOf(thrown));
    }
    return metadata;
  }

  #ended(error: Partial<ServiceError> | null | undefined): void {
    const isRefused = error?.code === status.UNAUTHENTICATED ||
      error?.code === status.PERMISSION_DENIED;
    if (isRefused) this.#refused(error.details ?? "no reason given");
  }

  #refused(why: string): void {
    if (why === this.#refusal) return; // we try again and again
    this.#refusal = why;
    log.error("the broker refuses us: {why}", { why });
  }

  #openPublishing(): ClientWritableStream<WireTimelineInfo> {
    const forget = (error: ServiceError | null) => {
      this.#ended(error);
      if (this.#publishing === stream) this.#publishing = undefined;
    };
    const stream = this.#stub.PublishSafekeeperInfo(this.#metadata(), forget);
    stream.on("error", forget);
    return stream;
  }

  /** Calls `onInfo` for every info of every timeline, across reconnects, until close(). */
  subscribeAll(onInfo: (info: SafekeeperTimelineInfo) => void): void {
    if (this.#closed) return;
    const stream = this.#stub.SubscribeSafekeeperInfo({ all: {} }, this.#metadata());
    this.#subscription = stream;
    let ended = false;
    const again = (error?: Partial<ServiceError>) => {
      if (ended || this.#closed) return;
      this.#ended(error);
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
    stream.on("end", () => again());
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
