/** The acceptor's rules one by one: what each message makes it do, and what it refuses. */
import assert from "node:assert/strict";
import type { ProposerMessage } from "../libs/safekeeper_protocol/messages.ts";
import { Conflict, Corrupt } from "../libs/utils/errors.ts";
import { newTenantId, newTimelineId } from "../libs/utils/id.ts";
import type { Lsn } from "../libs/utils/lsn.ts";
import { Acceptor, type Effect } from "./acceptor.ts";
import { decodeTimelineState, encodeTimelineState } from "./control_file.ts";
import { newTimelineState, type TimelineState } from "./timeline_state.ts";

const NODE = 1;
const START = 0x1000000 as Lsn;
const MEMBERSHIP = { generation: 3, members: [{ id: NODE, host: "a", pgPort: 5454 }] };
const tenantId = newTenantId();
const timelineId = newTimelineId();

function fresh(): Acceptor {
  const state = newTimelineState({
    tenantId,
    timelineId,
    membership: MEMBERSHIP,
    pgVersionNum: 170010,
    walSegmentSize: 1 << 24,
    startLsn: START,
  });
  return new Acceptor(NODE, state, START);
}

/** Carries effects out as a driver whose records are as long as each append. */
function run(acceptor: Acceptor, effects: Effect[]): string[] {
  for (const effect of effects) {
    if (effect.kind === "persist") acceptor.persisted(effect.state);
    if (effect.kind === "truncate") acceptor.truncated(effect.lsn);
    if (effect.kind === "flush") acceptor.flushed(acceptor.writeLsn);
    if (effect.kind === "write") {
      const end = (effect.lsn + effect.bytes.length) as Lsn;
      acceptor.written(end, end);
    }
  }
  return effects.map((effect) => effect.kind);
}

function greeting(changes: object = {}): ProposerMessage {
  return {
    kind: "greeting",
    tenantId,
    timelineId,
    membership: MEMBERSHIP,
    pgVersionNum: 170011,
    systemId: 5n,
    walSegmentSize: 1 << 24,
    ...changes,
  };
}

function append(term: number, begin: number, bytes: number, commit = 0): ProposerMessage {
  return {
    kind: "append",
    generation: 3,
    term,
    beginLsn: begin as Lsn,
    endLsn: (begin + bytes) as Lsn,
    commitLsn: commit as Lsn,
    truncateLsn: START,
    wal: new Uint8Array(bytes),
  };
}

function elected(term: number, at: number): ProposerMessage {
  return {
    kind: "elected",
    generation: 3,
    term,
    startStreamingAt: at as Lsn,
    termHistory: [{ term: 0, lsn: START }, { term, lsn: at as Lsn }],
  };
}

/** Follows the proposer of term 1 with 80 bytes of WAL, of which `flushed` are durable. */
function following(flushed: number): Acceptor {
  const acceptor = fresh();
  run(acceptor, acceptor.handle({ kind: "vote", generation: 3, term: 1 }));
  run(acceptor, acceptor.handle(elected(1, START)));
  run(acceptor, acceptor.handle(append(1, START, 80)));
  acceptor.flushed((START + flushed) as Lsn);
  return acceptor;
}

Deno.test("a greeting teaches the system id, durably and once", () => {
  const acceptor = fresh();
  assert.deepEqual(run(acceptor, acceptor.handle(greeting({ systemId: 0n }))), ["reply"]);
  assert.deepEqual(run(acceptor, acceptor.handle(greeting())), ["persist", "reply"]);
  assert.equal(acceptor.state.systemId, 5n);
  assert.deepEqual(run(acceptor, acceptor.handle(greeting())), ["reply"]);
});

Deno.test("a greeting of another cluster, version, segment size or timeline is refused", () => {
  const acceptor = fresh();
  run(acceptor, acceptor.handle(greeting()));
  const wrong = [
    { systemId: 6n },
    { pgVersionNum: 160009 },
    { walSegmentSize: 1 << 20 },
    { timelineId: newTimelineId() },
    { tenantId: newTenantId() },
  ];
  for (const changes of wrong) assert.throws(() => acceptor.handle(greeting(changes)));
});

Deno.test("a newer membership is adopted only by a member, an older one is ignored", () => {
  const acceptor = fresh();
  const stranger = { generation: 4, members: [{ id: 2, host: "b", pgPort: 5454 }] };
  assert.throws(() => acceptor.handle(greeting({ membership: stranger })), Conflict);
  const joint = { ...stranger, newMembers: MEMBERSHIP.members };
  run(acceptor, acceptor.handle(greeting({ membership: joint })));
  assert.equal(acceptor.state.membership.generation, 4);
  run(acceptor, acceptor.handle(greeting()));
  assert.equal(acceptor.state.membership.generation, 4);
});

Deno.test("a message of another generation is refused", () => {
  const acceptor = following(80);
  const vote: ProposerMessage = { kind: "vote", generation: 2, term: 9 };
  for (const message of [vote, elected(9, START), append(1, START + 80, 8)]) {
    assert.throws(() => acceptor.handle({ ...message, generation: 2 } as typeof message), Conflict);
  }
});

Deno.test("a vote is flushed, persisted, then answered, and given once a term", () => {
  const acceptor = following(0);
  const effects = acceptor.handle({ kind: "vote", generation: 3, term: 2 });
  assert.deepEqual(run(acceptor, effects), ["flush", "persist", "reply"]);
  const reply = effects.at(-1)!;
  assert.ok(reply.kind === "reply" && reply.message.kind === "vote");
  assert.equal(reply.message.voteGiven, true);
  assert.equal(reply.message.flushLsn, START + 80);
  const again = acceptor.handle({ kind: "vote", generation: 3, term: 2 }).at(-1)!;
  assert.ok(again.kind === "reply" && again.message.kind === "vote");
  assert.equal(again.message.voteGiven, false);
});

Deno.test("an election truncates and then persists the history; the term first if it is new", () => {
  const acceptor = following(80);
  const effects = acceptor.handle(elected(3, START));
  assert.deepEqual(run(acceptor, effects), ["persist", "truncate", "persist"]);
  assert.equal(acceptor.flushLsn, START);
  assert.equal(acceptor.follows(3), true);
  assert.deepEqual(acceptor.handle(elected(2, START)), [], "a loser is ignored");
});

Deno.test("an election never truncates committed WAL, nor at another place than the logs part", () => {
  const acceptor = following(80);
  run(acceptor, acceptor.handle(append(1, START + 80, 0, START + 40)));
  assert.equal(acceptor.commitLsn, START + 40);
  assert.throws(() => acceptor.handle(elected(2, START)), /committed up to/);
  const [first, second] = [{ term: 0, lsn: START }, { term: 1, lsn: START }];
  const termHistory = [first, second, { term: 2, lsn: (START + 48) as Lsn }];
  const message = { kind: "elected" as const, generation: 3, term: 2, termHistory };
  assert.throws(() => acceptor.handle({ ...message, startStreamingAt: START }), /the logs part at/);
});

Deno.test("WAL is taken only in order, from the elected proposer of the current term", () => {
  const acceptor = following(80);
  assert.throws(() => acceptor.handle(append(1, START + 88, 8)), /it ends here/);
  assert.throws(() => acceptor.handle(append(1, START + 72, 8)), /it ends here/);
  assert.throws(() => acceptor.handle(append(2, START + 80, 8)), /before its proposer is elected/);
  run(acceptor, acceptor.handle({ kind: "vote", generation: 3, term: 2 }));
  assert.throws(() => acceptor.handle(append(2, START + 80, 8)), /before its proposer is elected/);
  const stale = acceptor.handle(append(1, START + 80, 8));
  assert.deepEqual(stale.map((effect) => effect.kind), ["reply"]);
});

Deno.test("the commit LSN follows the proposer as far as WAL is durable here", () => {
  const acceptor = following(40);
  const effects = acceptor.handle(append(1, START + 80, 8, START + 88));
  assert.equal(acceptor.commitLsn, START + 40);
  assert.deepEqual(run(acceptor, effects), ["write", "acknowledge"]);
  acceptor.flushed((START + 88) as Lsn);
  assert.equal(acceptor.commitLsn, START + 88);
  const effect = acceptor.checkpoint()!;
  run(acceptor, [effect]);
  assert.equal(acceptor.state.commitLsn, START + 88);
  assert.equal(acceptor.checkpoint(), undefined);
});

Deno.test("WAL that was committed and is missing is refused at the start", () => {
  const acceptor = following(80);
  const state = { ...acceptor.state, commitLsn: (START + 80) as Lsn };
  assert.throws(() => new Acceptor(NODE, state, (START + 72) as Lsn), Corrupt);
});

Deno.test("the control file keeps every field", () => {
  const acceptor = following(80);
  run(acceptor, acceptor.handle(greeting()));
  const joint = { ...MEMBERSHIP, newMembers: [{ id: 9, host: "::1", pgPort: 1 }] };
  const partial = { name: "p", term: 3, flushLsn: 100 as Lsn, commitLsn: 50 as Lsn, crc32c: 7 };
  const state: TimelineState = {
    ...acceptor.state,
    membership: joint,
    backupLsn: (1 << 24) as Lsn,
    partialBackup: [{ ...partial, status: "started" }, { ...partial, status: "deleting" }],
    offloadedLsn: 100 as Lsn,
  };
  const body = encodeTimelineState(state);
  assert.deepEqual(decodeTimelineState(body, "test"), state);
  const before = { ...state, partialBackup: [], offloadedLsn: undefined };
  const addedBytes = 8 + 8 + 4;
  const first = encodeTimelineState(before).slice(0, -addedBytes);
  assert.deepEqual(decodeTimelineState(first, "test", 1), {
    ...before,
    backupLsn: state.timelineStartLsn,
  });
});

Deno.test("switchMembership() flushes what is pending, and is durable; generations only rise", () => {
  const acceptor = fresh();
  const history = [...acceptor.state.termHistory, { term: 1, lsn: START }];
  run(
    acceptor,
    acceptor.handle({
      kind: "elected",
      generation: 3,
      term: 1,
      startStreamingAt: START,
      termHistory: history,
    }),
  );
  run(acceptor, acceptor.handle(append(1, START, 64)));
  const member = (id: number) => ({ id, host: "a", pgPort: 5454 });
  const joint = { generation: 4, members: [member(NODE)], newMembers: [member(7)] };
  assert.deepEqual(run(acceptor, acceptor.switchMembership(joint)), ["flush", "persist"]);
  assert.equal(acceptor.flushLsn, START + 64);
  assert.deepEqual(acceptor.state.membership, joint);
  assert.deepEqual(acceptor.switchMembership(joint), [], "the same again");
  assert.deepEqual(acceptor.switchMembership(MEMBERSHIP), [], "an older one");
  assert.equal(acceptor.state.membership.generation, 4);
  assert.throws(
    () => acceptor.handle(append(1, START + 64, 8)),
    /Cannot take WAL of membership generation 3/,
  );
});

Deno.test("switchMembership() refuses one without us, and another one of our generation", () => {
  const acceptor = fresh();
  const of = (generation: number, id: number) =>
    acceptor.switchMembership({ generation, members: [{ id, host: "a", pgPort: 1 }] });
  assert.throws(() => of(4, 7), /safekeeper 1 is not a member/);
  assert.throws(() => of(3, 7), /generation 3 has others/);
});
