/**
 * Damaged bytes and damaged messages to a broker, beside a publisher and a subscriber that must not
 * notice, and a subscriber that never reads.
 */
import assert from "node:assert/strict";
import { connect } from "node:net";
import { BrokerClient, type SafekeeperTimelineInfo } from "../../broker/client.ts";
import { brokerService, toWire } from "../../broker/messages.ts";
import { serveBroker } from "../../broker/server.ts";
import { newTenantId, newTimelineId } from "../../libs/utils/id.ts";
import { type Lsn, toLsn } from "../../libs/utils/lsn.ts";
import type { SeededRandom } from "../load/random.ts";
import { until } from "../support/waiting.ts";
import { assertOwnsNoFault, exchange } from "./exchange.ts";
import { call, frame, message, PREFACE, settings } from "./http2_bytes.ts";
import { anything, joined, mutated } from "./mutations.ts";

const NEIGHBOUR_EVERY = 16;
const TOGETHER = 4;
/**
 * An HTTP/2 server may go on with calls of a client that sends nothing more: so long that one waits
 * for the end, then it goes.
 */
const PATIENCE_MS = 500;
/** Messages to a subscriber that never reads: more than twice as many as are kept for it. */
const FLOOD = 10_000;

const EIGHT = toLsn(8);

function someInfo(commitLsn: Lsn): SafekeeperTimelineInfo {
  return {
    safekeeperId: 1,
    tenantId: newTenantId(),
    timelineId: newTimelineId(),
    term: 1,
    lastLogTerm: 1,
    flushLsn: EIGHT,
    commitLsn,
    backupLsn: EIGHT,
    remoteConsistentLsn: EIGHT,
    peerHorizonLsn: EIGHT,
    localStartLsn: EIGHT,
    standbyHorizon: EIGHT,
    safekeeperConnstr: "127.0.0.1:1",
    httpConnstr: "127.0.0.1:1",
  };
}

/** Requests of every kind as bytes, by the path of their method. */
function requests(): [path: string, content: Uint8Array][] {
  const info = toWire(someInfo(EIGHT));
  const { tenant_timeline_id } = info;
  const type = "SAFEKEEPER_TIMELINE_INFO";
  const made: [name: keyof typeof brokerService, request: object][] = [
    ["PublishSafekeeperInfo", info],
    ["PublishOne", { type, safekeeper_timeline_info: info }],
    [
      "PublishOne",
      {
        type: "SAFEKEEPER_DISCOVERY_REQUEST",
        safekeeper_discovery_request: { tenant_timeline_id },
      },
    ],
    ["SubscribeSafekeeperInfo", { all: {} }],
    ["SubscribeSafekeeperInfo", { tenant_timeline_id }],
    ["SubscribeByFilter", { types: [{ type }] }],
    [
      "SubscribeByFilter",
      { types: [{ type }], tenant_timeline_id: { enabled: true, tenant_timeline_id } },
    ],
  ];
  return made.map(([name, request]) => {
    const { path, requestSerialize } = brokerService[name];
    return [path, requestSerialize(request)];
  });
}

/** A publisher and a subscriber that go on and on. */
class Neighbours {
  readonly #subscriber: BrokerClient;
  readonly #publisher: BrokerClient;
  #commitLsn = EIGHT;
  readonly #heard = new Set<Lsn>();

  constructor(port: number) {
    this.#subscriber = new BrokerClient(`127.0.0.1:${port}`);
    this.#publisher = new BrokerClient(`127.0.0.1:${port}`);
    this.#subscriber.subscribeAll(({ commitLsn }) => this.#heard.add(commitLsn));
  }

  /** Publishes `count` infos, the last again and again until it is heard. */
  async publish(count: number): Promise<void> {
    for (let i = 0; i < count; i++) {
      this.#commitLsn = toLsn(this.#commitLsn + 8);
      this.#publisher.publish(someInfo(this.#commitLsn));
      if (i % 1000 === 999) await this.#hear();
    }
    await this.#hear();
  }

  async #hear(): Promise<void> {
    await until("a subscriber hears what is published", () => {
      const isHeard = this.#heard.has(this.#commitLsn);
      if (!isHeard) this.#publisher.publish(someInfo(this.#commitLsn));
      return isHeard;
    });
    this.#heard.clear();
  }

  close(): void {
    this.#subscriber.close();
    this.#publisher.close();
  }
}

/** Connects a subscriber to everything that leaves the server no room for an answer. */
async function deafSubscriber(port: number): Promise<() => void> {
  const { path, requestSerialize } = brokerService.SubscribeSafekeeperInfo;
  const socket = connect({ host: "127.0.0.1", port });
  socket.on("error", () => {});
  const subscription = message(1, requestSerialize({ all: {} }), true);
  const bytes = joined(PREFACE, settings(0), call(1, path), subscription);
  await new Promise((resolve) => socket.write(bytes, resolve));
  return () => socket.destroy();
}

/** Now and then a frame that has nothing to do with the call, or ends it (RST_STREAM is 3). */
function anyFrame(stream: number, random: SeededRandom): Uint8Array {
  if (random.next() < 0.5) return new Uint8Array(0);
  const type = random.pick([3, 3, random.between(0, 10)]);
  const payload = type === 3 ? Uint8Array.of(0, 0, 0, random.between(0, 14)) : anything(random, 24);
  return frame(type, random.between(0, 255), random.pick([0, stream]), payload);
}

/** One connection: damage to what is asked, to how it is said, or to both. */
function connection(random: SeededRandom): Uint8Array {
  const all = requests();
  const others = all.map(([_, content]) => content);
  const calls = Array.from({ length: random.between(1, 4) }, (_, i) => {
    const [path, content] = random.pick(all);
    const stream = 2 * i + 1;
    const messages = Array.from({ length: random.between(1, 3) }, () => {
      const damaged = random.next() < 0.7 ? mutated(content, random, others) : content;
      return message(stream, damaged, random.next() < 0.5);
    });
    return joined(call(stream, path), ...messages, anyFrame(stream, random));
  });
  const bytes = joined(PREFACE, settings(65_535), ...calls);
  return random.next() < 0.5 ? mutated(bytes, random, calls) : bytes;
}

/** Runs so many cases. */
export async function fuzzBroker(random: SeededRandom, cases: number): Promise<void> {
  const broker = await serveBroker("127.0.0.1:0");
  const { port, registry } = broker;
  const neighbours = new Neighbours(port);
  try {
    await neighbours.publish(1);
    for (let done = 0; done < cases; done += TOGETHER) {
      const pieces = random.fork();
      const bytes = Array.from({ length: TOGETHER }, () => connection(random));
      const answers = bytes.map((one) => exchange(port, one, pieces, PATIENCE_MS));
      if (done % NEIGHBOUR_EVERY === 0) await neighbours.publish(1);
      for (const { text } of await Promise.all(answers)) assertOwnsNoFault("broker", text);
    }
    await until("no subscriber of a lost connection is left", () => registry.size === 1);
    const leave = await deafSubscriber(port);
    await until("it has subscribed", () => registry.size === 2);
    await neighbours.publish(FLOOD);
    assert.ok(registry.dropped > FLOOD / 2, `only ${registry.dropped} were dropped`);
    leave();
    await until("it is gone", () => registry.size === 1);
    await neighbours.publish(1);
  } finally {
    neighbours.close();
    broker.close();
  }
}
