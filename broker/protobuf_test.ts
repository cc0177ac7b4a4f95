/** Our encoding of the broker's messages against protobuf.js, which reads storage_broker.proto. */
import assert from "node:assert/strict";
import { loadSync } from "@grpc/proto-loader";
import fc from "fast-check";
import { brokerService } from "./messages.ts";
import { decodeMessage, encodeMessage } from "./protobuf.ts";
import { typedMessage } from "./shapes.ts";

interface Method {
  readonly path: string;
  readonly requestStream: boolean;
  readonly responseStream: boolean;
  readonly requestSerialize: (message: object) => Uint8Array;
  readonly requestDeserialize: (bytes: Uint8Array) => object;
  readonly responseSerialize: (message: object) => Uint8Array;
  readonly responseDeserialize: (bytes: Uint8Array) => object;
}

const path = new URL("./storage_broker.proto", import.meta.url);
const options = { keepCase: true, longs: Number, enums: String, defaults: true, oneofs: true };
const definition = loadSync(decodeURIComponent(path.pathname), options);
const theirs = definition["storage_broker.BrokerService"] as unknown as Record<string, Method>;
const ours = brokerService as unknown as Record<string, Method>;

/** The same with text for bytes, and without what is absent. */
function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return `bytes ${[...value]}`;
  if (Array.isArray(value)) return value.map(plain);
  if (value === null || typeof value !== "object") return value;
  const entries = Object.entries(value).filter(([name, content]) =>
    !name.startsWith("_") && content !== null && content !== undefined && content !== ""
  );
  return Object.fromEntries(entries.map(([name, content]) => [name, plain(content)]));
}

const bytes = fc.uint8Array({ maxLength: 20 });
const number = fc.oneof(fc.nat(200), fc.maxSafeNat());
const text = fc.string({ unit: "binary", maxLength: 20 });
const key = fc.option(fc.record({ tenant_id: bytes, timeline_id: bytes }));
const maybe = fc.option(text, { nil: undefined });
const type = fc.constantFrom(
  "UNKNOWN",
  "SAFEKEEPER_TIMELINE_INFO",
  "SAFEKEEPER_DISCOVERY_REQUEST",
  "SAFEKEEPER_DISCOVERY_RESPONSE",
);
const info = fc.record({
  safekeeper_id: number,
  tenant_timeline_id: key,
  last_log_term: number,
  flush_lsn: number,
  commit_lsn: number,
  backup_lsn: number,
  remote_consistent_lsn: number,
  peer_horizon_lsn: number,
  local_start_lsn: number,
  safekeeper_connstr: text,
  availability_zone: maybe,
  term: number,
  http_connstr: text,
  standby_horizon: number,
  https_connstr: maybe,
});
const typed = fc.record({
  type,
  safekeeper_timeline_info: fc.option(info, { nil: undefined }),
  safekeeper_discovery_request: fc.option(fc.record({ tenant_timeline_id: key }), {
    nil: undefined,
  }),
  safekeeper_discovery_response: fc.option(
    fc.record({
      safekeeper_id: number,
      tenant_timeline_id: key,
      commit_lsn: number,
      safekeeper_connstr: text,
      availability_zone: maybe,
      standby_horizon: number,
    }),
    { nil: undefined },
  ),
});
const requests: Record<string, fc.Arbitrary<object>> = {
  PublishSafekeeperInfo: info,
  SubscribeSafekeeperInfo: fc.oneof(
    fc.constant({ all: {} }),
    fc.record({ tenant_timeline_id: key }),
  ),
  SubscribeByFilter: fc.record({
    types: fc.array(fc.record({ type }), { maxLength: 4 }),
    tenant_timeline_id: fc.option(fc.record({ enabled: fc.boolean(), tenant_timeline_id: key })),
  }),
  PublishOne: typed,
};

Deno.test("the service is that of storage_broker.proto", () => {
  const shape = (service: Record<string, Method>) =>
    Object.entries(service).map(([name, { path, requestStream, responseStream }]) => //
    [name, path, requestStream, responseStream]).sort();
  assert.deepEqual(shape(ours), shape(theirs));
});

for (const [name, request] of Object.entries(requests)) {
  Deno.test(`what is asked by ${name} is what protobuf.js takes it for, and the other way`, () => {
    const [mine, other] = [ours[name]!, theirs[name]!];
    fc.assert(fc.property(request, (message) => {
      const expected = plain(other.requestDeserialize(other.requestSerialize(message)));
      assert.deepEqual(plain(mine.requestDeserialize(other.requestSerialize(message))), expected);
      assert.deepEqual(plain(other.requestDeserialize(mine.requestSerialize(message))), expected);
    }));
  });
}

Deno.test("answers are what protobuf.js takes them for, and the other way", () => {
  for (const [name, answer] of [["SubscribeSafekeeperInfo", info], ["SubscribeByFilter", typed]]) {
    const [mine, other] = [ours[name as string]!, theirs[name as string]!];
    fc.assert(fc.property(answer as fc.Arbitrary<object>, (message) => {
      const expected = plain(other.responseDeserialize(other.responseSerialize(message)));
      assert.deepEqual(plain(mine.responseDeserialize(other.responseSerialize(message))), expected);
      assert.deepEqual(plain(other.responseDeserialize(mine.responseSerialize(message))), expected);
    }));
  }
});

Deno.test("decodeMessage() passes over fields that it does not know, of every wire type", () => {
  const known = encodeMessage(typedMessage, { type: "SAFEKEEPER_TIMELINE_INFO" });
  const unknown = [0xf8, 1, 0x96, 1, 0xf9, 1, ...Array(8).fill(7), 0xfa, 1, 2, 9, 9, 0xfd, 1];
  const all = Uint8Array.from([...unknown, 1, 2, 3, 4, ...known]);
  assert.deepEqual(decodeMessage(typedMessage, all), decodeMessage(typedMessage, known));
});

Deno.test("decodeMessage() refuses what is no message", () => {
  const broken: [number[], RegExp][] = [
    [[0x08], /its end is missing/],
    [[0x08, ...Array(11).fill(0xff)], /too long/],
    [[0x12, 5, 1], /its end is missing/],
    [[0x12, 0xff, 0xff, 0xff, 0xff, 0x7f], /its end is missing/],
    [[0xf9, 1, 1, 2], /its end is missing/],
    [[0xfb, 1], /no wire type 3/],
    [[0x12, 3, 0x52, 1, 0xff], /not UTF-8/],
  ];
  for (const [content, why] of broken) {
    assert.throws(() => decodeMessage(typedMessage, Uint8Array.from(content)), {
      name: "BadRequest",
      message: why,
    });
  }
});
