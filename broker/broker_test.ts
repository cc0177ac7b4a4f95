import assert from "node:assert/strict";
import { Authenticator } from "../libs/auth/authenticator.ts";
import { signToken } from "../libs/auth/jwt.ts";
import { newKeyPair, readPrivateKey } from "../libs/auth/keys.ts";
import { newTenantId, newTimelineId } from "../libs/utils/id.ts";
import { toLsn } from "../libs/utils/lsn.ts";
import { BrokerClient, type SafekeeperTimelineInfo } from "./client.ts";
import { fromWire, toWire, type WireTypedMessage } from "./messages.ts";
import { SubscriberRegistry, SUBSCRIBERS_MAX, TIMELINE_QUEUE_LIMIT } from "./registry.ts";
import { infoMessage, timelineOf, wantedByFilter, wantedInfos } from "./requests.ts";
import { serveBroker } from "./server.ts";

function info(commit: number): SafekeeperTimelineInfo {
  const lsn = toLsn(commit);
  return {
    safekeeperId: 1,
    tenantId: newTenantId(),
    timelineId: newTimelineId(),
    term: 3,
    lastLogTerm: 2,
    flushLsn: lsn,
    commitLsn: lsn,
    backupLsn: lsn,
    remoteConsistentLsn: lsn,
    peerHorizonLsn: lsn,
    localStartLsn: lsn,
    standbyHorizon: lsn,
    safekeeperConnstr: "127.0.0.1:5454",
    httpConnstr: "127.0.0.1:7676",
  };
}

Deno.test("fromWire() returns what toWire() was given, beyond 32 bits too", () => {
  const original = info(2 ** 52 + 8);
  assert.deepEqual(fromWire(toWire(original)), original);
});

Deno.test("registry drops messages for a subscriber that does not read, and only for it", () => {
  const registry = new SubscriberRegistry();
  const [message, timeline] = infoMessage(toWire(info(8)));
  const seen: WireTypedMessage[] = [];
  let waiting = 0;
  const types = new Set([message.type]);
  registry.add({ timeline, types, queued: () => waiting, send: () => waiting++ });
  const remove = registry.add({ timeline, types, queued: () => 0, send: (m) => seen.push(m) });
  for (let i = 0; i < 100; i++) registry.publish(message, timeline);
  assert.equal(waiting, TIMELINE_QUEUE_LIMIT);
  assert.equal(seen.length, 100);
  assert.equal(registry.dropped, 100 - TIMELINE_QUEUE_LIMIT);
  remove();
  assert.equal(registry.size, 1);
});

Deno.test("registry takes no more than so many subscribers", () => {
  const registry = new SubscriberRegistry();
  const subscriber = { timeline: undefined, types: new Set<string>(), queued: () => 0, send() {} };
  const removes = Array.from({ length: SUBSCRIBERS_MAX }, () => registry.add({ ...subscriber }));
  assert.throws(() => registry.add(subscriber), /^Unavailable: Cannot subscribe: 1024 others do$/);
  removes[0]!();
  registry.add(subscriber);
});

Deno.test("requests that name half a timeline, or none, are refused", () => {
  const tenant_id = new Uint8Array(16).fill(1);
  const whole = { tenant_id, timeline_id: new Uint8Array(16).fill(2) };
  const key = "01".repeat(16) + "02".repeat(16);
  const halves = [
    null,
    { tenant_id, timeline_id: new Uint8Array(15) },
    { tenant_id: new Uint8Array(0), timeline_id: whole.timeline_id },
    { tenant_id: new Uint8Array(17), timeline_id: whole.timeline_id },
  ];
  const type = "SAFEKEEPER_TIMELINE_INFO";
  const byKey = "tenant_timeline_id" as const;
  assert.equal(wantedInfos({ subscription_key: "all" }).timeline, undefined);
  const named = wantedInfos({ subscription_key: byKey, tenant_timeline_id: whole });
  assert.equal(named.timeline, key);
  assert.throws(
    () => wantedInfos({}),
    /^BadRequest: Cannot use the request: it names no timeline$/,
  );
  const filter = { enabled: true, tenant_timeline_id: whole };
  assert.equal(wantedByFilter({ types: [{ type }], tenant_timeline_id: filter }).timeline, key);
  const off = { enabled: false, tenant_timeline_id: halves[1]! };
  assert.equal(wantedByFilter({ types: [{ type }], tenant_timeline_id: off }).timeline, undefined);
  for (const half of halves) {
    assert.throws(
      () => wantedInfos({ subscription_key: byKey, tenant_timeline_id: half }),
      /^BadRequest: Cannot use the request: (it names no timeline|its \w+_id has \d+ bytes)/,
    );
    const filter = { enabled: true, tenant_timeline_id: half };
    assert.throws(
      () => wantedByFilter({ types: [{ type }], tenant_timeline_id: filter }),
      /^BadRequest/,
    );
    const wire = { ...toWire(info(8)), tenant_timeline_id: half };
    assert.throws(() => infoMessage(wire), /^BadRequest/);
  }
});

Deno.test("requests with types, contents or numbers that do not fit are refused", () => {
  for (const type of ["UNKNOWN", "toString", 99]) {
    assert.throws(
      () => wantedByFilter({ types: [{ type }] }),
      /^BadRequest: .* no message of type/,
    );
  }
  assert.throws(() => wantedByFilter({ types: [] }), /^BadRequest: .* asks for no type$/);
  assert.throws(
    () => timelineOf({ type: "SAFEKEEPER_DISCOVERY_REQUEST", safekeeper_timeline_info: null }),
    /^BadRequest: .* without its content$/,
  );
  const wire = { ...toWire(info(8)), commit_lsn: 2 ** 53 };
  assert.throws(() => infoMessage(wire), /^BadRequest: .* commit_lsn is out of range$/);
});

Deno.test({
  name: "client hears what another publishes, also after the broker was restarted",
  // grpc-js keeps its DNS and backoff timers beyond close()
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async () => {
    let broker = await serveBroker("127.0.0.1:0");
    const address = `127.0.0.1:${broker.port}`;
    const subscriber = new BrokerClient(address);
    const publisher = new BrokerClient(`http://${address}`);
    let expected = info(16);
    let heard = Promise.withResolvers<void>();
    subscriber.subscribeAll((received) => {
      if (received.timelineId === expected.timelineId) heard.resolve();
    });
    // Publishing is repeated, as safekeepers do: a message before the subscription is nobody's.
    const repeat = setInterval(() => publisher.publish(expected), 10);
    await heard.promise;
    broker.close();
    broker = await serveBroker(address);
    expected = info(24);
    heard = Promise.withResolvers<void>();
    await heard.promise;
    clearInterval(repeat);
    subscriber.close();
    publisher.close();
    broker.close();
  },
});

Deno.test({
  name: "with authentication only who has a token for all that safekeepers have is heard or hears",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async () => {
    const directory = Deno.makeTempDirSync();
    const { privatePem, publicPem } = await newKeyPair();
    Deno.writeTextFileSync(`${directory}/private.pem`, privatePem);
    Deno.writeTextFileSync(`${directory}/public.pem`, publicPem);
    const key = await readPrivateKey(`${directory}/private.pem`);
    const authenticator = await Authenticator.open("broker", `${directory}/public.pem`);
    const broker = await serveBroker("127.0.0.1:0", authenticator);
    const tokens = {
      right: await signToken(key, { scope: "safekeeperdata" }),
      "of a tenant": await signToken(key, { scope: "tenant", tenant_id: info(0).tenantId }),
      expired: await signToken(key, { scope: "safekeeperdata", exp: 1 }),
    };
    const heardBy: Record<string, number[]> = {};
    const clients = Object.entries(tokens).map(([name, token]) => {
      const client = new BrokerClient(`127.0.0.1:${broker.port}`, () => token);
      const heard: number[] = heardBy[name] = [];
      client.subscribeAll(({ safekeeperId }) => heard.push(safekeeperId));
      return client;
    });
    const anonymous = new BrokerClient(`127.0.0.1:${broker.port}`);
    const publishers = [...clients, anonymous];
    // Publishing is repeated, as safekeepers do
    const repeat = setInterval(() => {
      publishers.forEach((client, id) => client.publish({ ...info(8), safekeeperId: id }));
    }, 10);
    while (heardBy["right"]!.length < 50) await new Promise((resolve) => setTimeout(resolve, 10));
    clearInterval(repeat);
    assert.deepEqual(new Set(heardBy["right"]), new Set([0]));
    assert.deepEqual([heardBy["of a tenant"], heardBy["expired"]], [[], []]);
    assert.equal(broker.registry.size, 1);
    for (const client of publishers) client.close();
    broker.close();
    Deno.removeSync(directory, { recursive: true });
  },
});
