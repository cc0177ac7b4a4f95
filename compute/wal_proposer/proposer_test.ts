/** The proposer's decisions one by one: elections, where logs part, commit, and losing the term. */
import assert from "node:assert/strict";
import type { AcceptorGreeting, VoteResponse } from "../../libs/safekeeper_protocol/messages.ts";
import {
  type MembershipConfiguration,
  NO_MEMBERSHIP,
} from "../../libs/safekeeper_protocol/membership.ts";
import type { TermHistory } from "../../libs/safekeeper_protocol/term_history.ts";
import { newTenantId, newTimelineId } from "../../libs/utils/id.ts";
import { INVALID_LSN, type Lsn } from "../../libs/utils/lsn.ts";
import { Conversation } from "./conversation.ts";
import type { AppendRange, Effect } from "./effects.ts";
import { Proposer } from "./proposer.ts";

const BASE: TermHistory = [{ term: 0, lsn: 100 as Lsn }];

function greeting(nodeId: number, term: number, membership = NO_MEMBERSHIP): AcceptorGreeting {
  return { kind: "greeting", nodeId, membership, term };
}

function vote(term: number, flush: number, history: TermHistory = BASE, given = true) {
  const response: VoteResponse = {
    kind: "vote",
    generation: 0,
    term,
    voteGiven: given,
    flushLsn: flush as Lsn,
    truncateLsn: 100 as Lsn,
    termHistory: history,
  };
  return response;
}

function newRange(): AppendRange {
  return { begin: INVALID_LSN, end: INVALID_LSN, commit: INVALID_LSN, truncate: INVALID_LSN };
}

/** A short form of effects: "vote 0 @5", "elected", "follow 1 from 100", "drop 2: why". */
function texts(effects: Effect[]): string[] {
  return effects.map((effect) => {
    switch (effect.kind) {
      case "send":
        return effect.message.kind === "vote"
          ? `vote ${effect.peer} @${effect.message.term}`
          : `follow ${effect.peer} from ${effect.message.startStreamingAt}`;
      case "drop":
        return `drop ${effect.peer}: ${effect.why}`;
      case "deposed":
        return `deposed: ${effect.why}`;
      case "join":
        return `join ${effect.peer} is ${effect.member.id}`;
      case "again":
      case "leave":
        return `${effect.kind} ${effect.peer}`;
      case "membership":
        return `membership ${effect.membership.generation}`;
      default:
        return effect.kind;
    }
  });
}

function greet(proposer: Proposer, terms: (number | undefined)[]): string[] {
  terms.forEach((term, peer) => {
    if (term === undefined) return;
    proposer.connected(peer);
    proposer.greeted(peer, greeting(peer + 1, term));
  });
  return texts(proposer.takeEffects());
}

/** Three safekeepers, all empty and greeted, the term 1 won by two votes. */
function elected(): Proposer {
  const proposer = new Proposer([1, 2, 3]);
  greet(proposer, [0, 0, 0]);
  proposer.voted(0, vote(1, 100));
  proposer.voted(1, vote(1, 100));
  proposer.takeEffects();
  return proposer;
}

Deno.test("a campaign starts when a quorum has greeted, one above the highest term seen", () => {
  const proposer = new Proposer([1, 2, 3]);
  assert.deepEqual(greet(proposer, [4]), []);
  proposer.connected(1);
  proposer.greeted(1, greeting(2, 7));
  assert.deepEqual(texts(proposer.takeEffects()), ["vote 0 @8", "vote 1 @8"]);
  proposer.connected(2);
  proposer.greeted(2, greeting(3, 0));
  assert.deepEqual(texts(proposer.takeEffects()), ["vote 2 @8"], "latecomers are asked, too");
});

Deno.test("the donor is the voter with the newest last term, then the longest log", () => {
  const proposer = new Proposer([1, 2, 3]);
  greet(proposer, [5, 5, 5]);
  const older: TermHistory = [...BASE, { term: 3, lsn: 120 as Lsn }];
  const newer: TermHistory = [...BASE, { term: 4, lsn: 120 as Lsn }];
  proposer.voted(0, vote(6, 900, older));
  proposer.voted(1, vote(6, 200, newer));
  assert.equal(proposer.donor, 1);
  assert.equal(proposer.startLsn, 200);
  assert.deepEqual(proposer.history, [...newer, { term: 6, lsn: 200 }]);
  assert.deepEqual(
    texts(proposer.takeEffects()),
    ["elected", "follow 0 from 120", "follow 1 from 200"],
  );
});

Deno.test("an append continues where the last ended, at most 128 KiB, with the commit LSN", () => {
  const proposer = elected();
  const range = newRange();
  assert.ok(proposer.nextAppend(0, 200_000 as Lsn, range));
  assert.deepEqual([range.begin, range.end], [100, 131172]);
  assert.ok(proposer.nextAppend(0, 200_000 as Lsn, range));
  assert.deepEqual([range.begin, range.end], [131172, 200_000]);
  assert.ok(!proposer.nextAppend(0, 200_000 as Lsn, range));
  assert.ok(proposer.heartbeat(0, range));
  assert.deepEqual([range.begin, range.end], [200_000, 200_000]);
});

Deno.test("commit is what a majority has on disk at or past the start of the term", () => {
  const proposer = elected();
  const range = newRange();
  for (const peer of [0, 1]) proposer.nextAppend(peer, 300 as Lsn, range);
  assert.ok(!proposer.appended(0, 1, 300 as Lsn), "one of three is no majority");
  assert.ok(proposer.appended(1, 1, 108 as Lsn));
  assert.equal(proposer.commitLsn, 108);
  assert.ok(proposer.owesCommit(0));
  assert.ok(proposer.appended(1, 1, 300 as Lsn));
  assert.equal(proposer.commitLsn, 300);
  assert.equal(proposer.truncateLsn, 100, "the third has nothing yet");
});

Deno.test("WAL may wait for one beside a majority; the first commit that one outruns moves it", () => {
  const proposer = elected();
  const range = newRange();
  const waiting = () => [0, 1, 2].filter((peer) => proposer.mayWait(peer));
  proposer.voted(2, vote(1, 100));
  assert.deepEqual(waiting(), [2]);
  for (const peer of [0, 1, 2]) proposer.nextAppend(peer, 500 as Lsn, range);
  proposer.appended(0, 1, 500 as Lsn);
  assert.deepEqual(waiting(), [2]);
  assert.ok(proposer.appended(2, 1, 500 as Lsn));
  assert.deepEqual(waiting(), [1], "it hangs, or is slow");
  proposer.appended(1, 1, 500 as Lsn);
  assert.deepEqual(waiting(), [1]);
  proposer.disconnected(0);
  assert.deepEqual(waiting(), [0], "both others are needed");
});

Deno.test("WAL that slots need is not given up, though every safekeeper has it", () => {
  const proposer = elected();
  proposer.voted(2, vote(1, 100));
  const range = newRange();
  proposer.keepWalFrom(200);
  for (const peer of [0, 1, 2]) proposer.nextAppend(peer, 300 as Lsn, range);
  for (const peer of [0, 1, 2]) proposer.appended(peer, 1, 300 as Lsn);
  assert.equal(proposer.commitLsn, 300);
  assert.equal(proposer.truncateLsn, 200);
  proposer.keepWalFrom(Infinity);
  assert.equal(proposer.truncateLsn, 300);
});

Deno.test("a position beyond what was sent is not ours: it is not counted", () => {
  const proposer = elected();
  assert.ok(!proposer.appended(0, 1, 500 as Lsn));
  assert.ok(!proposer.appended(1, 1, 500 as Lsn));
  assert.equal(proposer.commitLsn, INVALID_LSN);
});

Deno.test("a safekeeper that says it has what nobody sent is dropped", () => {
  const proposer = elected();
  proposer.nextAppend(0, 300 as Lsn, newRange());
  assert.ok(!proposer.appended(1, 1, 300 as Lsn), "sent to another one");
  assert.deepEqual(texts(proposer.takeEffects()), []);
  assert.ok(!proposer.appended(1, 1, 308 as Lsn));
  assert.deepEqual(texts(proposer.takeEffects()), [
    "drop 1: it has WAL to 0/134, of which nothing beyond 0/12C was sent: it cannot be believed",
  ]);
  assert.ok(!proposer.isStreaming(1));
});

Deno.test("terms that no elections can have reached depose nobody", () => {
  const absurd = Number.MAX_SAFE_INTEGER;
  const fresh = new Proposer([1, 2, 3]);
  const [dropped, ...asked] = greet(fresh, [absurd, 4, 5]);
  assert.match(dropped!, /^drop 0: it has seen term 9007199254740991, others are at 4: it cannot/);
  assert.deepEqual(asked, ["vote 1 @6", "vote 2 @6"]);
  const proposer = elected();
  assert.ok(!proposer.appended(0, absurd, 100 as Lsn));
  assert.match(texts(proposer.takeEffects())[0]!, /^drop 0: it has seen term 9007199254740991/);
  proposer.voted(2, vote(absurd, 100));
  assert.match(texts(proposer.takeEffects())[0]!, /^drop 2: it has seen term 9007199254740991/);
  proposer.connected(2);
  proposer.greeted(2, greeting(3, 2 ** 53));
  assert.match(texts(proposer.takeEffects())[0]!, /^drop 2: it has seen term 9007199254740992/);
  assert.equal(proposer.state, "elected");
});

Deno.test("a vote with a log of a term that nobody has won is not counted", () => {
  const proposer = new Proposer([1, 2, 3]);
  greet(proposer, [0, 0, 0]);
  proposer.voted(0, vote(1, 200, [...BASE, { term: 1, lsn: 150 as Lsn }]));
  const [why] = texts(proposer.takeEffects());
  assert.equal(why, "drop 0: its WAL is of term 1 already, at term 1: it cannot be believed");
  proposer.voted(1, vote(1, 100));
  proposer.voted(2, { ...vote(1, 100), truncateLsn: 900 as Lsn });
  assert.equal(proposer.state, "elected");
  assert.equal(proposer.truncateLsn, 100, "nobody lets WAL go that a voter does not have");
});

Deno.test("acknowledgements survive a lost connection; a log that lost them is refused", () => {
  const proposer = elected();
  const range = newRange();
  for (const peer of [0, 1]) proposer.nextAppend(peer, 300 as Lsn, range);
  proposer.appended(0, 1, 300 as Lsn);
  proposer.disconnected(0);
  assert.ok(proposer.appended(1, 1, 300 as Lsn));
  proposer.connected(0);
  proposer.greeted(0, greeting(1, 1));
  const history = proposer.history;
  proposer.voted(0, vote(1, 200, history, false));
  assert.match(texts(proposer.takeEffects()).at(-1)!, /^drop 0: it acknowledged 0\/12C and now/);
  proposer.connected(0);
  proposer.greeted(0, greeting(1, 1));
  proposer.voted(0, vote(1, 300, history, false));
  assert.equal(texts(proposer.takeEffects()).at(-1), "follow 0 from 300");
});

Deno.test("a refused vote costs the campaign, a higher term after the election everything", () => {
  const proposer = new Proposer([1, 2, 3]);
  greet(proposer, [1, 1]);
  proposer.voted(0, vote(9, 100, BASE, false));
  assert.deepEqual(texts(proposer.takeEffects()), ["retry"]);
  proposer.voted(1, vote(2, 100));
  assert.deepEqual(texts(proposer.takeEffects()), [], "a vote of the lost campaign");
  proposer.campaign();
  assert.deepEqual(texts(proposer.takeEffects()), ["vote 0 @10", "vote 1 @10"]);
  proposer.voted(0, vote(10, 100));
  proposer.voted(1, vote(10, 100));
  proposer.takeEffects();
  assert.equal(proposer.state, "elected");
  proposer.appended(1, 11, INVALID_LSN);
  assert.match(texts(proposer.takeEffects()).join(), /^deposed: .* safekeeper 2 has seen term 11$/);
  assert.ok(!proposer.nextAppend(0, 500 as Lsn, newRange()));
});

Deno.test("somebody else's safekeeper in place of ours is refused", () => {
  const proposer = new Proposer([1, 2, 3]);
  proposer.connected(0);
  proposer.greeted(0, greeting(2, 0));
  assert.deepEqual(
    texts(proposer.takeEffects()),
    ["drop 0: safekeeper 2 answers in place of 1"],
  );
});

Deno.test("a resumed term ends if a safekeeper has WAL that was never written", () => {
  const history = [...BASE, { term: 3, lsn: 200 as Lsn }];
  const won = { term: 3, startLsn: 200 as Lsn, history, endLsnMax: 400 as Lsn };
  const proposer = Proposer.resume([1, 2, 3], won);
  assert.deepEqual(greet(proposer, [3, 3]), ["vote 0 @3", "vote 1 @3"]);
  proposer.voted(0, vote(3, 400, history, false));
  assert.deepEqual(texts(proposer.takeEffects()), ["follow 0 from 400"]);
  proposer.voted(1, vote(3, 408, history, false));
  assert.match(texts(proposer.takeEffects())[0]!, /^deposed: .* did not write$/);
});

function membership(
  generation: number,
  ids: number[],
  newIds?: number[],
): MembershipConfiguration {
  const list = (of: number[]) => of.map((id) => ({ id, host: "h", pgPort: id }));
  const conf = { generation, members: list(ids) };
  return newIds === undefined ? conf : { ...conf, newMembers: list(newIds) };
}

Deno.test("a joint membership needs a majority of both lists", () => {
  const joint = membership(2, [1], [2, 3, 4]);
  const proposer = new Proposer([1, 2, 3]);
  proposer.connected(0);
  proposer.greeted(0, greeting(1, 0, joint));
  // The new list has no majority yet
  assert.deepEqual(texts(proposer.takeEffects()), ["join 3 is 4", "membership 2"]);
  proposer.connected(1);
  proposer.greeted(1, greeting(2, 0, joint));
  assert.deepEqual(texts(proposer.takeEffects()), []);
  proposer.connected(2);
  proposer.greeted(2, greeting(3, 0, joint));
  assert.deepEqual(texts(proposer.takeEffects()), ["vote 0 @1", "vote 1 @1", "vote 2 @1"]);
});

/** The term 1 is won, and what is before 200 is on the disks of safekeepers 1 and 2. */
function committed(): Proposer {
  const proposer = elected();
  for (const peer of [0, 1]) {
    proposer.nextAppend(peer, 200 as Lsn, newRange());
    proposer.appended(peer, 1, 200 as Lsn);
  }
  proposer.takeEffects();
  return proposer;
}

/** A peer greets in the generation, and has what ends at `flush`. */
function greetAgain(proposer: Proposer, peer: number, flush: number, given: boolean): string[] {
  const history = given ? BASE : proposer.history;
  const id = [1, 2, 3, 4][peer]!;
  proposer.connected(peer);
  proposer.greeted(peer, greeting(id, given ? 0 : 1, proposer.membership));
  proposer.voted(peer, vote(1, flush, history, given));
  return texts(proposer.takeEffects());
}

Deno.test("an elected proposer goes over to other members and keeps its term", () => {
  const proposer = committed();
  proposer.reconfigure(membership(1, [1, 2, 3], [2, 3, 4]));
  assert.deepEqual(
    texts(proposer.takeEffects()),
    ["again 0", "again 1", "again 2", "join 3 is 4", "membership 1"],
  );
  assert.equal(proposer.state, "elected");
  assert.deepEqual(greetAgain(proposer, 0, 200, false), ["vote 0 @1", "follow 0 from 200"]);
  assert.deepEqual(greetAgain(proposer, 3, 100, true), ["vote 3 @1", "follow 3 from 100"]);
  greetAgain(proposer, 1, 200, false);
  for (const peer of [0, 1]) {
    proposer.nextAppend(peer, 300 as Lsn, newRange());
    assert.ok(!proposer.appended(peer, 1, 300 as Lsn), "the new members have no majority there");
  }
  proposer.nextAppend(3, 300 as Lsn, newRange());
  assert.ok(proposer.appended(3, 1, 250 as Lsn));
  assert.equal(proposer.commitLsn, 250);
});

Deno.test("what was acknowledged to another membership has to be acknowledged anew", () => {
  const proposer = committed();
  proposer.reconfigure(membership(1, [1, 2, 3], [2, 4, 5]));
  for (const peer of [3, 4]) {
    proposer.connected(peer);
    proposer.greeted(peer, greeting(peer + 1, 0, proposer.membership));
    proposer.voted(peer, vote(1, 100));
    proposer.nextAppend(peer, 300 as Lsn, newRange());
    assert.ok(!proposer.appended(peer, 1, 300 as Lsn));
  }
  proposer.takeEffects();
  proposer.reconfigure(membership(2, [2, 4, 5]));
  assert.deepEqual(
    texts(proposer.takeEffects()),
    ["leave 0", "leave 2", "again 3", "again 4", "membership 2"],
  );
  assert.equal(proposer.commitLsn, 200);
  assert.equal(proposer.flushedLsn(3), INVALID_LSN);
  assert.ok(!proposer.appended(0, 9, 300 as Lsn), "who left is not heard any more");
  assert.equal(proposer.state, "elected");
  proposer.connected(3);
  proposer.greeted(3, greeting(4, 2, proposer.membership));
  assert.equal(proposer.state, "deposed", "somebody won a later term meanwhile");
});

Deno.test("a change of members ends a campaign, and another one follows", () => {
  const proposer = new Proposer([1, 2, 3]);
  greet(proposer, [0, 0, 0]);
  proposer.voted(0, vote(1, 100));
  proposer.reconfigure(membership(1, [1, 2, 3], [1, 2, 4]));
  assert.equal(proposer.state, "collecting");
  proposer.takeEffects();
  for (const peer of [0, 1]) {
    proposer.connected(peer);
    proposer.greeted(peer, greeting(peer + 1, 1, proposer.membership));
  }
  assert.deepEqual(texts(proposer.takeEffects()), ["vote 0 @2", "vote 1 @2"]);
});

Deno.test("a term whose donor took its WAL away is stranded, and may be given up", () => {
  const proposer = new Proposer([1, 2, 3]);
  greet(proposer, [1, 1]);
  proposer.voted(0, vote(2, 300));
  proposer.voted(1, vote(2, 100));
  proposer.takeEffects();
  proposer.heartbeat(0, newRange());
  proposer.appended(0, 2, 300 as Lsn);
  assert.ok(!proposer.isStranded, "the donor can be copied from");
  proposer.disconnected(0);
  assert.ok(!proposer.isStranded, "without a quorum another election cannot be won either");
  proposer.connected(2);
  proposer.greeted(2, greeting(3, 1));
  proposer.voted(2, vote(2, 100));
  assert.ok(proposer.isStranded);
  proposer.takeEffects();
  proposer.giveUp("the donor is away");
  assert.deepEqual(texts(proposer.takeEffects()), ["deposed: the donor is away"]);
});

Deno.test("one that lags is served by whoever has the WAL and was heard last", () => {
  const proposer = elected();
  proposer.voted(2, vote(1, 100));
  proposer.takeEffects();
  const nothing = () => {};
  const conversation = new Conversation(proposer, {
    tenantId: newTenantId(),
    timelineId: newTimelineId(),
    pgVersionNum: 170011,
    walSegmentSize: 1 << 24,
  }, {
    send: nothing,
    heartbeat: nothing,
    drop: nothing,
    again: nothing,
    join: nothing,
    leave: nothing,
    membership: nothing,
    retry: nothing,
    elected: nothing,
    deposed: nothing,
  });
  const source = (heardMs: number[]) =>
    conversation.source(2, 3, 200 as Lsn, (peer) => heardMs[peer]!);
  assert.equal(source([1, 1, 1]), -1, "nobody has it");
  for (const peer of [0, 1]) {
    proposer.nextAppend(peer, 200 as Lsn, newRange());
    proposer.appended(peer, 1, 200 as Lsn);
  }
  assert.equal(source([5, 8, 9]), 1);
  assert.equal(source([8, 5, 9]), 0);
  proposer.disconnected(0);
  assert.equal(source([8, 5, 9]), 1);
});
