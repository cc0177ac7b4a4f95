import assert from "node:assert/strict";
import { newTenantId, newTimelineId } from "../libs/utils/id.ts";
import { toLsn } from "../libs/utils/lsn.ts";
import { BrokerClient, type SafekeeperTimelineInfo } from "./client.ts";
import { fromWire, toWire, type WireTypedMessage } from "./messages.ts";
import { SubscriberRegistry, TIMELINE_QUEUE_LIMIT, timelineKey } from "./registry.ts";
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
  const wire = toWire(info(8));
  const seen: WireTypedMessage[] = [];
  let waiting = 0;
  const timeline = timelineKey(wire.tenant_timeline_id);
  const types = undefined;
  registry.add({ timeline, types, queued: () => waiting, send: () => waiting++ });
  const remove = registry.add({ timeline, types, queued: () => 0, send: (m) => seen.push(m) });
  for (let i = 0; i < 100; i++) {
    registry.publish({ type: "SAFEKEEPER_TIMELINE_INFO", safekeeper_timeline_info: wire });
  }
  assert.equal(waiting, TIMELINE_QUEUE_LIMIT);
  assert.equal(seen.length, 100);
  assert.equal(registry.dropped, 100 - TIMELINE_QUEUE_LIMIT);
  remove();
  assert.equal(registry.size, 1);
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
