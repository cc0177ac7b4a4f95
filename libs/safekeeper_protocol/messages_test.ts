/** Round trips of every message, golden bytes of the fixed layouts, and refusals. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { ByteReader, ByteWriter } from "../utils/bytes.ts";
import { Corrupt } from "../utils/errors.ts";
import { encodeHex } from "../utils/hex.ts";
import type { TenantId, TimelineId } from "../utils/id.ts";
import type { Lsn } from "../utils/lsn.ts";
import { decodeFeedback, encodeFeedback, type PageserverFeedback } from "./feedback.ts";
import { type MembershipConfiguration, readMembership, writeMembership } from "./membership.ts";
import {
  type AcceptorMessage,
  decodeAcceptorMessage,
  decodeProposerMessage,
  encodeAcceptorMessage,
  encodeAppendRequest,
  encodeProposerMessage,
  NO_HOT_STANDBY,
} from "./messages.ts";
import type { TermHistory } from "./term_history.ts";

function record<T>(shape: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<T> {
  return fc.record(shape, { noNullPrototype: true }) as fc.Arbitrary<T>;
}
const u32 = fc.integer({ min: 0, max: 0xffffffff });
const safe = fc.maxSafeNat();
const lsn = safe as fc.Arbitrary<Lsn>;
const host = fc.stringMatching(/^[a-z0-9.:-]{0,20}$/);
const member = record({ id: safe, host, pgPort: fc.integer({ min: 0, max: 65535 }) });
/** Any but one that has begun and has nobody in it, which is refused. */
const membership: fc.Arbitrary<MembershipConfiguration> = fc.tuple(
  u32,
  fc.array(member, { maxLength: 5 }),
  fc.array(member, { maxLength: 3 }),
).filter(([generation, members]) => generation === 0 || members.length > 0)
  .map(([generation, members, newMembers]) =>
    newMembers.length === 0 ? { generation, members } : { generation, members, newMembers }
  );
const history: fc.Arbitrary<TermHistory> = fc.array(fc.tuple(fc.nat(1000), fc.nat(1 << 30)), {
  maxLength: 6,
}).map((steps) => {
  let term = 0;
  let at = 0;
  return steps.map(([t, l]) => ({ term: term += t + 1, lsn: (at += l) as Lsn }));
});
const id = fc.uint8Array({ minLength: 16, maxLength: 16 }).map(encodeHex);
const feedback: fc.Arbitrary<PageserverFeedback> = record({
  currentTimelineSize: safe,
  lastReceivedLsn: lsn,
  diskConsistentLsn: lsn,
  remoteConsistentLsn: lsn,
  replyTime: fc.integer({ min: -(2 ** 50), max: 2 ** 50 }),
  shardNumber: fc.nat(8),
  corruptionDetected: fc.boolean(),
});

Deno.test("readMembership() refuses one that has begun and has nobody in it", () => {
  const writer = new ByteWriter("big");
  writeMembership(writer, { generation: 1, members: [] });
  const reader = new ByteReader(writer.bytes(), "big", "a membership");
  assert.throws(() => readMembership(reader), /generation 1 is empty/);
});

Deno.test("encodeProposerMessage() round-trips every message", () => {
  const message = fc.oneof(
    record({
      kind: fc.constant("greeting" as const),
      tenantId: id as fc.Arbitrary<TenantId>,
      timelineId: id as fc.Arbitrary<TimelineId>,
      membership,
      pgVersionNum: u32,
      systemId: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      walSegmentSize: u32,
    }),
    record({ kind: fc.constant("vote" as const), generation: u32, term: safe }),
    record({
      kind: fc.constant("elected" as const),
      generation: u32,
      term: safe,
      startStreamingAt: lsn,
      termHistory: history,
    }),
  );
  fc.assert(fc.property(message, (m) => {
    assert.deepEqual(decodeProposerMessage(encodeProposerMessage(m)), m);
  }));
});

Deno.test("encodeAppendRequest() round-trips", () => {
  fc.assert(
    fc.property(
      u32,
      safe,
      fc.nat(2 ** 30),
      lsn,
      lsn,
      fc.uint8Array({ maxLength: 300 }),
      (generation, term, begin, commitLsn, truncateLsn, wal) => {
        const m = {
          kind: "append" as const,
          generation,
          term,
          beginLsn: begin as Lsn,
          endLsn: (begin + wal.length) as Lsn,
          commitLsn,
          truncateLsn,
          wal,
        };
        const around = new Uint8Array([1, 2, ...encodeAppendRequest(m), 3]);
        const decoded = decodeProposerMessage(around, 2, around.length - 1);
        assert.ok(decoded.kind === "append");
        assert.deepEqual({ ...decoded, wal: Uint8Array.from(decoded.wal) }, {
          ...m,
          wal: Uint8Array.from(wal),
        });
      },
    ),
  );
});

Deno.test("encodeAcceptorMessage() round-trips every message", () => {
  const message: fc.Arbitrary<AcceptorMessage> = fc.oneof(
    record({ kind: fc.constant("greeting" as const), nodeId: safe, membership, term: safe }),
    record({
      kind: fc.constant("vote" as const),
      generation: u32,
      term: safe,
      voteGiven: fc.boolean(),
      flushLsn: lsn,
      truncateLsn: lsn,
      termHistory: history,
    }),
    record({
      kind: fc.constant("append" as const),
      generation: u32,
      term: safe,
      flushLsn: lsn,
      commitLsn: lsn,
      hotStandby: record({ time: fc.integer(), xmin: safe, catalogXmin: safe }),
      feedback,
    }),
    record({
      kind: fc.constant("append" as const),
      generation: u32,
      term: safe,
      flushLsn: lsn,
      commitLsn: lsn,
      hotStandby: fc.constant(NO_HOT_STANDBY),
    }),
  );
  fc.assert(fc.property(message, (m) => {
    assert.deepEqual(decodeAcceptorMessage(encodeAcceptorMessage(m)), m);
  }));
});

Deno.test("messages have the documented bytes", () => {
  const vote = encodeProposerMessage({ kind: "vote", generation: 2, term: 3 });
  assert.equal(encodeHex(vote), "76" + "00000002" + "0000000000000003");
  const append = encodeAppendRequest({
    kind: "append",
    generation: 1,
    term: 2,
    beginLsn: 0x1_0000_0010 as Lsn,
    endLsn: 0x1_0000_0012 as Lsn,
    commitLsn: 5 as Lsn,
    truncateLsn: 4 as Lsn,
    wal: Uint8Array.of(0xaa, 0xbb),
  });
  assert.equal(
    encodeHex(append),
    "61" + "00000001" + "0000000000000002" + "0000000100000010" + "0000000100000012" +
      "0000000000000005" + "0000000000000004" + "aabb",
  );
});

Deno.test("decodeFeedback() skips unknown keys and takes the newer names", () => {
  const text = new TextEncoder();
  const bytes = Uint8Array.of(
    2,
    ...text.encode("from_the_future\0"),
    ...[0, 0, 0, 3, 1, 2, 3],
    ...text.encode("disk_consistent_lsn\0"),
    ...[0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 1, 0],
  );
  assert.equal(decodeFeedback(bytes).diskConsistentLsn, 256);
});

Deno.test("decodeFeedback() round-trips", () => {
  fc.assert(fc.property(feedback, (f) => assert.deepEqual(decodeFeedback(encodeFeedback(f)), f)));
});

Deno.test("decodeProposerMessage() refuses garbage with Corrupt, never with another error", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
    for (const decode of [decodeProposerMessage, decodeAcceptorMessage]) {
      try {
        decode(bytes);
      } catch (thrown) {
        assert.ok(thrown instanceof Corrupt, String(thrown));
      }
    }
  }));
});
