/**
 * The proposer's connection to one safekeeper: opened again for as long as the proposer lives, with
 * growing pauses. It only moves messages; the driver decides what they say.
 *
 * Writes never wait for anybody: messages gather in the send buffer while the socket is busy, and
 * the driver is told when it is free again. A safekeeper that hangs only fills its own socket.
 */
import { messageOf, TimedOut, Unavailable } from "../../libs/utils/errors.ts";
import type { TenantId, TimelineId } from "../../libs/utils/id.ts";
import type { TokenSource } from "../../libs/utils/token_source.ts";
import { PgClient } from "../../libs/pgwire/client.ts";
import type { CopyBoth } from "../../libs/pgwire/copy_both.ts";
import {
  allMembers,
  type MembershipConfiguration,
} from "../../libs/safekeeper_protocol/membership.ts";
import { START_WAL_PUSH_COMMAND } from "../../libs/safekeeper_protocol/messages.ts";
import { withinLimit } from "./time_limit.ts";

/** Where a safekeeper is. */
export interface SafekeeperAddress {
  readonly id: number;
  readonly host: string;
  readonly pgPort: number;
}

/** Longest wait for a connection and its COPY BOTH. */
const CONNECT_MS_MAX = 5000;
/** A safekeeper says little: a vote with the longest term history is the longest message. */
const MESSAGE_BYTES_MAX = 2 * 1024 * 1024;
/** Pauses between attempts. */
const RETRY_MS_MIN = 50;
const RETRY_MS_MAX = 2000;
const RETRY_GROWTH = 1.6;

/** What the driver learns from a link. All calls are synchronous. */
export interface LinkEvents {
  opened(peer: number): void;
  /** `payload` is valid during the call. */
  received(peer: number, payload: Uint8Array): void;
  /** The socket took everything that was flushed. */
  writable(peer: number): void;
  closed(peer: number, why: string): void;
}

/** Whose WAL goes over a link. */
interface LinkedTimeline {
  readonly tenantId: TenantId;
  readonly timelineId: TimelineId;
  /** For safekeepers that want one. */
  readonly token?: TokenSource | undefined;
}

/** See the head of the file. */
export class SafekeeperLink {
  readonly address: SafekeeperAddress;
  /** The stream, while one is open. */
  copy: CopyBoth | undefined;
  /** Rises with each connection. */
  session = 0;
  /** Times in ms of `performance.now`. */
  lastReceivedMs = 0;
  lastSentMs = 0;
  /** Why there is no connection, for messages. */
  problem = "not connected yet";
  readonly #peer: number;
  readonly #events: LinkEvents;
  readonly #startup: Readonly<Record<string, string>>;
  readonly #token: TokenSource | undefined;
  #stopped = false;
  /** The next connection is opened without a pause. */
  #atOnce = false;
  #retryMs = RETRY_MS_MIN;
  #wake: (() => void) | undefined;
  #done: Promise<void> | undefined;
  /** The connection that is being opened. */
  #attempt: AbortController | undefined;

  constructor(
    peer: number,
    address: SafekeeperAddress,
    { tenantId, timelineId, token }: LinkedTimeline,
    events: LinkEvents,
  ) {
    this.#peer = peer;
    this.address = address;
    this.#startup = {
      user: "wal_proposer",
      database: "replication",
      application_name: "wal_proposer",
      options: `-c timeline_id=${timelineId} -c tenant_id=${tenantId}`,
    };
    this.#token = token;
    this.#events = events;
  }

  /** Connects, now and whenever the connection is lost. */
  start(): void {
    this.#done = this.#run();
  }

  /** Closes for good. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#attempt?.abort();
    this.copy?.close();
    this.#wake?.();
    await this.#done;
  }

  /** Whether it was closed for good. */
  get isStopped(): boolean {
    return this.#stopped;
  }

  /** Closes this connection; another one follows at once. */
  again(why: string): void {
    this.#atOnce = true;
    this.drop(why);
  }

  /** Closes this connection; another one follows after a pause. */
  drop(why: string): void {
    this.problem = why;
    const { copy } = this;
    this.copy = undefined;
    copy?.close();
  }

  /** True while a flushed batch is still on its way into the socket. */
  get busy(): boolean {
    return this.copy?.isLeaving ?? false;
  }

  /** Sends what was assembled in `copy`; what is assembled meanwhile goes out after it. */
  flush(): void {
    const { copy } = this;
    if (copy === undefined) return;
    this.lastSentMs = performance.now();
    try {
      copy.push();
    } catch (thrown) {
      this.drop(messageOf(thrown));
    }
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      try {
        await this.#converse();
      } catch (thrown) {
        this.problem = messageOf(thrown);
      }
      if (this.#stopped) return;
      if (this.#atOnce) {
        this.#atOnce = false;
        continue;
      }
      await this.#pause(this.#retryMs * (0.75 + Math.random() / 2));
      this.#retryMs = Math.min(RETRY_MS_MAX, this.#retryMs * RETRY_GROWTH);
    }
  }

  /** One connection, from its opening to its end. */
  async #converse(): Promise<void> {
    const copy = await this.#open();
    if (this.#stopped) return copy.close();
    this.copy = copy;
    this.session++;
    copy.watch(() => {
      if (this.copy === copy) this.#events.writable(this.#peer);
    });
    const openedMs = performance.now();
    let wokenMs = openedMs;
    this.lastReceivedMs = openedMs;
    this.#events.opened(this.#peer);
    let why = "the safekeeper closed the connection";
    try {
      while (this.copy === copy) {
        const payload = copy.tryReceive();
        if (payload !== undefined) {
          this.lastReceivedMs = wokenMs; // a part of a message does not count
          this.#events.received(this.#peer, payload);
        } else if (await copy.more()) wokenMs = performance.now();
        else break;
      }
      if (this.copy !== copy) why = this.problem;
    } catch (thrown) {
      why = this.copy === copy ? messageOf(thrown) : this.problem;
    } finally {
      this.copy = undefined;
      copy.close();
    }
    // One that is refused as soon as it has spoken is not asked again and again
    if (performance.now() - openedMs > RETRY_MS_MAX) this.#retryMs = RETRY_MS_MIN;
    this.problem = why;
    this.#events.closed(this.#peer, why);
  }

  /** Opens a connection, within a limit; one that is given up is closed. */
  async #open(): Promise<CopyBoth> {
    const attempt = new AbortController();
    this.#attempt = attempt;
    const givenUp = Promise.withResolvers<never>();
    attempt.signal.addEventListener("abort", () => {
      givenUp.reject(new Unavailable("the connection is not wanted any more"));
    });
    try {
      return await withinLimit(
        Promise.race([this.#openPush(attempt.signal), givenUp.promise]),
        CONNECT_MS_MAX,
        () => new TimedOut(`Cannot connect to safekeeper ${this.address.id}: no answer`),
      );
    } catch (thrown) {
      attempt.abort();
      throw thrown;
    } finally {
      this.#attempt = undefined;
    }
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.#wake?.(), ms);
      this.#wake = () => {
        clearTimeout(timer);
        this.#wake = undefined;
        resolve();
      };
    });
  }

  async #openPush(signal: AbortSignal): Promise<CopyBoth> {
    const { host, pgPort } = this.address;
    const address = { hostname: host, port: pgPort };
    const client = await PgClient.connect(address, this.#startup, signal, this.#token);
    try {
      return await client.copyBoth(START_WAL_PUSH_COMMAND, MESSAGE_BYTES_MAX);
    } catch (thrown) {
      client.close();
      throw thrown;
    }
  }
}

/** The safekeepers to connect to at first: those of the membership, if there is one. */
export function addressesOf(
  configured: readonly SafekeeperAddress[],
  membership: MembershipConfiguration,
): readonly SafekeeperAddress[] {
  if (membership.generation === 0) return configured;
  return allMembers(membership).map((m) => configured.find(({ id }) => id === m.id) ?? m);
}
