/**
 * A safekeeper as a process of its own, under the permissions that it is started with in earnest:
 * WAL pushed over a socket, kill -9, restart, the next election, replication of the committed
 * bytes.
 */
import assert from "node:assert/strict";
import {
  queuePageserverFeedback,
  queueStandbyStatus,
  readSenderMessage,
} from "../libs/pgwire/replication.ts";
import type { CopyBoth } from "../libs/pgwire/copy_both.ts";
import { encodeFeedback } from "../libs/safekeeper_protocol/feedback.ts";
import type { AppendRequest } from "../libs/safekeeper_protocol/messages.ts";
import { highestCommonPoint } from "../libs/safekeeper_protocol/term_history.ts";
import { newTenantId, newTimelineId, type TimelineId } from "../libs/utils/id.ts";
import { formatLsn, INVALID_LSN, type Lsn, parseLsn } from "../libs/utils/lsn.ts";
import {
  connectTo,
  Daemon,
  TestProposer,
  TestWal,
  withDirectory,
  writeConfig,
} from "./safekeeper_fixture.ts";

const START = parseLsn("0/2000000");
const tenantId = newTenantId();
const timelineId = newTimelineId();

/** Greets, wins `term`, and follows up to where the logs part. */
async function elect(proposer: TestProposer, term: number, start: Lsn | undefined): Promise<Lsn> {
  assert.equal((await proposer.greet(tenantId, timelineId)).nodeId, 7);
  await proposer.send({ kind: "vote", generation: 0, term });
  const vote = await proposer.receive("vote");
  assert.equal(vote.voteGiven, true);
  const lsn = start ?? vote.flushLsn;
  const termHistory = [...vote.termHistory.filter((entry) => entry.lsn <= lsn), { term, lsn }];
  const startStreamingAt = highestCommonPoint(termHistory, vote.termHistory, vote.flushLsn)!.lsn;
  await proposer.send({ kind: "elected", generation: 0, term, startStreamingAt, termHistory });
  return startStreamingAt;
}

function appendRequest(term: number, begin: Lsn, wal: Uint8Array, commit: Lsn): AppendRequest {
  return {
    kind: "append",
    generation: 0,
    term,
    beginLsn: begin,
    endLsn: (begin + wal.length) as Lsn,
    commitLsn: commit,
    truncateLsn: START,
    wal,
  };
}

function append(proposer: TestProposer, term: number, begin: Lsn, wal: Uint8Array, commit: Lsn) {
  return proposer.send(appendRequest(term, begin, wal, commit));
}

const REPLICATION_OPTIONS = {
  options: `-c tenant_id=${tenantId} timeline_id=${timelineId}`,
  application_name: "pageserver-1",
};

async function receiveWal(copy: CopyBoth, from: Lsn, to: Lsn): Promise<Uint8Array> {
  const found = new Uint8Array(to - from);
  for (let at = 0; at < found.length;) {
    const payload = await copy.receive();
    assert.ok(payload !== undefined, "the stream goes on");
    const message = readSenderMessage(payload);
    if (message.kind !== "xlogData") continue;
    assert.equal(message.start, from + at);
    assert.ok(message.start + message.wal.length <= to, "nothing beyond the committed WAL");
    found.set(message.wal, at);
    at += message.wal.length;
  }
  return found;
}

Deno.test("a safekeeper keeps what it acknowledged over kill -9, and elects and serves again", async () => {
  await withDirectory(async (directory) => {
    writeConfig(directory);
    let daemon = await Daemon.start(directory);
    await daemon.http.createTimeline({ tenantId, timelineId, pgVersion: 17, startLsn: START });

    const first = await TestProposer.connect(daemon.pg);
    assert.equal(await elect(first, 1, undefined), START);
    const wal = new TestWal(START);
    const part = wal.append(40, 2500);
    await append(first, 1, START, part, START);
    const acknowledged = (await first.receive("append")).flushLsn;
    assert.equal(acknowledged, wal.end);
    await daemon.end("SIGKILL");
    first.close();

    daemon = await Daemon.start(directory);
    const second = await TestProposer.connect(daemon.pg);
    assert.equal(await elect(second, 2, undefined), acknowledged);
    const more = wal.append(150, 700);
    const pieces: AppendRequest[] = []; // in one write
    for (let at = 0; at < more.length; at += 3001) {
      const piece = more.subarray(at, at + 3001);
      pieces.push(appendRequest(2, (acknowledged + at) as Lsn, piece, acknowledged));
    }
    await second.send(...pieces);
    while ((await second.receive("append")).flushLsn < wal.end);
    const committed = wal.end;
    await append(second, 2, committed, wal.append(3, 100), committed);
    const last = await second.receive("append");
    assert.equal(last.commitLsn, committed);
    assert.equal(last.flushLsn, wal.end);

    const client = await connectTo(daemon.pg, REPLICATION_OPTIONS);
    const { columns, rows } = await client.query("IDENTIFY_SYSTEM");
    assert.deepEqual(columns, ["systemid", "timeline", "xlogpos", "dbname"]);
    assert.deepEqual(rows, [["7012345678901234567", "1", formatLsn(committed), null]]);
    assert.deepEqual((await client.query("TIMELINE_STATUS")).rows, [
      [formatLsn(wal.end), formatLsn(committed)],
    ]);
    const copy = await client.copyBoth(`START_REPLICATION PHYSICAL ${formatLsn(START)}`);
    const found = await receiveWal(copy, START, committed);
    assert.deepEqual(found, wal.bytes().subarray(0, committed - START));

    // A commit wakes the stream; feedback comes back to the proposer with the next answer.
    const feedback = encodeFeedback({
      currentTimelineSize: 0,
      lastReceivedLsn: committed,
      diskConsistentLsn: committed,
      remoteConsistentLsn: committed,
      replyTime: 5,
      shardNumber: 0,
      corruptionDetected: false,
    });
    const length = new Uint8Array(8);
    new DataView(length.buffer).setBigUint64(0, BigInt(feedback.length));
    copy.queue(Uint8Array.of(0x7a), length, feedback);
    await copy.flush();
    await append(second, 2, wal.end, new Uint8Array(0), wal.end);
    const tail = await receiveWal(copy, committed, wal.end);
    assert.deepEqual(tail, wal.bytes(committed));
    let answer = await second.receive("append");
    assert.equal(answer.commitLsn, wal.end);
    while (answer.feedback === undefined) {
      await append(second, 2, wal.end, new Uint8Array(0), wal.end);
      answer = await second.receive("append");
    }
    assert.equal(answer.feedback.remoteConsistentLsn, committed);

    // A recovering proposer of this term sees all durable WAL; one of another term nothing.
    const recovery = await connectTo(daemon.pg, REPLICATION_OPTIONS);
    const all = await recovery.copyBoth(`START_REPLICATION ${formatLsn(START)} (term='2')`);
    assert.deepEqual(await receiveWal(all, START, wal.end), wal.bytes());
    const refused = await connectTo(daemon.pg, REPLICATION_OPTIONS);
    const none = await refused.copyBoth(`START_REPLICATION ${formatLsn(START)} (term='1')`);
    await assert.rejects(none.receive(), /term is 2/);
    for (const each of [client, recovery, refused, second]) each.close();

    assert.equal((await daemon.end("SIGTERM")).code, 0);
    daemon = await Daemon.start(directory);
    const status = await daemon.http.timelineStatus(tenantId, timelineId);
    assert.equal(status.commit_lsn, formatLsn(wal.end));
    assert.equal(status.remote_consistent_lsn, formatLsn(committed));
    assert.equal(status.acceptor_state.term, 2);
    await daemon.end("SIGQUIT");
  });
});

Deno.test("what is committed gathers before it goes to a pageserver, and goes at once when it asks", async () => {
  await withDirectory(async (directory) => {
    writeConfig(directory);
    const daemon = await Daemon.start(directory);
    await daemon.http.createTimeline({ tenantId, timelineId, pgVersion: 17, startLsn: START });
    const proposer = await TestProposer.connect(daemon.pg);
    await elect(proposer, 1, undefined);
    const wal = new TestWal(START);
    const commit = async () => {
      const from = wal.end;
      await append(proposer, 1, from, wal.append(1, 100), from);
      await proposer.receive("append");
      await append(proposer, 1, wal.end, new Uint8Array(0), wal.end);
      await proposer.receive("append");
    };
    const client = await connectTo(daemon.pg, REPLICATION_OPTIONS);
    const copy = await client.copyBoth(`START_REPLICATION PHYSICAL ${formatLsn(START)}`);
    queuePageserverFeedback(
      copy,
      encodeFeedback({
        currentTimelineSize: 0,
        lastReceivedLsn: START,
        diskConsistentLsn: START,
        remoteConsistentLsn: START,
        replyTime: 5,
        shardNumber: 0,
        corruptionDetected: false,
      }),
    );
    /** Time between two messages of a commit each. */
    const gapMs = async (asks: boolean) => {
      const before = wal.end;
      await commit();
      await receiveWal(copy, before, wal.end);
      const began = performance.now();
      const middle = wal.end;
      await commit();
      if (asks) queueStandbyStatus(copy, middle, 1n, true);
      await copy.flush();
      await receiveWal(copy, middle, wal.end);
      return performance.now() - began;
    };
    const [gathered, asked]: [number[], number[]] = [[], []];
    for (let round = 0; round < 3; round++) {
      gathered.push(await gapMs(false));
      asked.push(await gapMs(true));
    }
    assert.ok(Math.max(...gathered) > 80, `${gathered} ms between messages`);
    assert.ok(Math.min(...asked) < 60, `${asked} ms until what was asked for came`);
    for (const each of [client, proposer]) each.close();
    await daemon.end("SIGTERM");
  });
});

Deno.test("a proposer that lost an election truncates nothing that is committed, and an old one is told", async () => {
  await withDirectory(async (directory) => {
    writeConfig(directory);
    const daemon = await Daemon.start(directory);
    await daemon.http.createTimeline({ tenantId, timelineId, pgVersion: 17, startLsn: START });
    const old = await TestProposer.connect(daemon.pg);
    await elect(old, 1, undefined);
    const wal = new TestWal(START);
    await append(old, 1, START, wal.append(2, 100), START);
    await old.receive("append");
    const cut = wal.end;
    await append(old, 1, cut, wal.append(2, 100), cut);
    await old.receive("append");

    const next = await TestProposer.connect(daemon.pg);
    assert.equal(await elect(next, 2, cut), cut, "uncommitted WAL of term 1 goes");
    await append(next, 2, cut, new Uint8Array(0), INVALID_LSN);
    assert.equal((await next.receive("append")).flushLsn, cut);
    await append(old, 1, wal.end, wal.append(1, 100), cut);
    const stale = await old.receive("append");
    assert.deepEqual([stale.term, stale.flushLsn], [2, 0]);

    const wrong = await TestProposer.connect(daemon.pg);
    await elect(wrong, 3, START);
    await assert.rejects(wrong.receive("append"), /committed up to/);
    const bump = await daemon.http.bumpTerm(tenantId, timelineId);
    assert.deepEqual(bump, { previous_term: 3, current_term: 4 });
    await append(next, 2, cut, new Uint8Array(0), INVALID_LSN);
    assert.equal((await next.receive("append")).term, 4);

    assert.equal(await daemon.http.deleteTimeline(tenantId, timelineId), true);
    assert.equal(await daemon.http.deleteTimeline(tenantId, timelineId), false);
    await assert.rejects(next.receive("append"), /deleted/);
    await assert.rejects(daemon.http.timelineStatus(tenantId, timelineId), { name: "NotFound" });
    for (const each of [old, next, wrong]) each.close();
    await daemon.end("SIGKILL");
  });
});

Deno.test("a safekeeper refuses a directory in use or of another id, and alone a timeline whose control file is torn or foreign", async () => {
  await withDirectory(async (directory) => {
    writeConfig(directory);
    const daemon = await Daemon.start(directory);
    await daemon.http.createTimeline({ tenantId, timelineId, pgVersion: 17, startLsn: START });
    await assert.rejects(Daemon.start(directory), /is running on it/);
    await daemon.end("SIGKILL");

    const whole = newTimelineId();
    const refusedAs = async (refused: TimelineId, why: RegExp) => {
      const daemon = await Daemon.start(directory);
      const { http } = daemon;
      await http.createTimeline({ tenantId, timelineId: whole, pgVersion: 17, startLsn: START });
      assert.equal((await http.timelineStatus(tenantId, whole)).flush_lsn, formatLsn(START));
      await assert.rejects(http.timelineStatus(tenantId, refused), (thrown: Error) => {
        assert.equal(thrown.name, "Unavailable");
        assert.match(thrown.message, why);
        return /restart safekeeper 7, or replace it/.test(thrown.message);
      });
      const again = { tenantId, timelineId: refused, pgVersion: 17, startLsn: START };
      await assert.rejects(http.createTimeline(again), why, "it is not made anew");
      const ids = (await http.listTimelines()).map(({ timeline_id }) => timeline_id);
      assert.ok(ids.includes(refused) && ids.includes(whole));
      await daemon.end("SIGTERM");
    };
    const path = `${directory}/${tenantId}/${timelineId}/safekeeper.control`;
    const good = Deno.readFileSync(path);
    Deno.writeFileSync(path, good.subarray(0, good.length - 9));
    await refusedAs(timelineId, /safekeeper\.control/);
    const altered = good.slice();
    altered[60]! ^= 1;
    Deno.writeFileSync(path, altered);
    await refusedAs(timelineId, /checksum mismatch/);
    const newer = good.slice();
    newer[4] = 99;
    Deno.writeFileSync(path, newer);
    await refusedAs(timelineId, /format version 99 is newer/);
    Deno.writeFileSync(path, good);
    const foreignId = newTimelineId();
    const foreign = `${directory}/${tenantId}/${foreignId}`;
    Deno.mkdirSync(foreign);
    Deno.copyFileSync(path, `${foreign}/safekeeper.control`);
    await refusedAs(foreignId, /belongs to/);
    const back = await Daemon.start(directory);
    assert.equal(
      (await back.http.timelineStatus(tenantId, timelineId)).flush_lsn,
      formatLsn(START),
    );
    assert.equal(await back.http.deleteTimeline(tenantId, foreignId), true);
    assert.equal(await back.http.deleteTimeline(tenantId, foreignId), false);
    await back.end("SIGTERM");
    assert.throws(() => Deno.statSync(foreign), Deno.errors.NotFound);
    Deno.writeTextFileSync(`${directory}/safekeeper.id`, "8\n");
    await assert.rejects(Daemon.start(directory), /it belongs to safekeeper 8/);
  });
});
