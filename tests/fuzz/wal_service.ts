/**
 * Damaged dialogues with a safekeeper, beside a proposer and a receiver that must not notice. The
 * timeline that they are about may lose its votes and its log, but not its files' order: it opens
 * again.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { ByteWriter } from "../../libs/utils/bytes.ts";
import { newTenantId, newTimelineId } from "../../libs/utils/id.ts";
import { formatLsn, type Lsn, parseLsn } from "../../libs/utils/lsn.ts";
import { encodeFeedback } from "../../libs/safekeeper_protocol/feedback.ts";
import {
  encodeAppendRequest,
  encodeProposerMessage,
  START_WAL_PUSH_COMMAND,
} from "../../libs/safekeeper_protocol/messages.ts";
import { serveWal } from "../../safekeeper/wal_service.ts";
import {
  TEST_IDENTITY,
  TestProposer,
  TestWal,
  withDirectory,
} from "../../safekeeper/safekeeper_fixture.ts";
import { Timelines } from "../../safekeeper/timelines.ts";
import type { SeededRandom } from "../load/random.ts";
import { assertOwnsNoFault, exchange } from "./exchange.ts";
import { damaged, type PgMessage } from "./pg_dialogue.ts";

const START = parseLsn("0/2000028");
const IDENTITY = { ...TEST_IDENTITY, segmentSize: 1 << 20 };
const NEIGHBOUR_EVERY = 16;
const TOGETHER = 4;
/** Cases about one timeline. */
const VICTIM_CASES = 80;
const FEEDBACK = {
  currentTimelineSize: 1,
  lastReceivedLsn: START,
  diskConsistentLsn: START,
  remoteConsistentLsn: START,
  replyTime: 1,
  shardNumber: 1,
  corruptionDetected: true,
};

function newTimeline() {
  return {
    tenantId: newTenantId(),
    timelineId: newTimelineId(),
    pgVersionNum: 170011,
    systemId: IDENTITY.systemId,
    walSegmentSize: IDENTITY.segmentSize,
    startLsn: START,
  };
}

type NewTimeline = ReturnType<typeof newTimeline>;

const data = (payload: Uint8Array): PgMessage => ({ kind: "copyData", payload: payload.slice() });
const query = (text: string): PgMessage => ({ kind: "query", text });

/** A proposer that wins `term` and writes from the beginning. */
function push({ tenantId, timelineId }: NewTimeline, term: number): PgMessage[] {
  const wal = new TestWal(START, undefined, IDENTITY);
  const bytes = wal.append(5, 3000);
  const termHistory = [{ term, lsn: START }];
  const range = { beginLsn: START, endLsn: wal.end, commitLsn: START, truncateLsn: START };
  return [
    query(START_WAL_PUSH_COMMAND),
    ...[
      encodeProposerMessage({
        kind: "greeting",
        tenantId,
        timelineId,
        membership: { generation: 0, members: [{ id: 1, host: "a", pgPort: 1 }] },
        pgVersionNum: 170011,
        systemId: IDENTITY.systemId,
        walSegmentSize: IDENTITY.segmentSize,
      }),
      encodeProposerMessage({ kind: "vote", generation: 0, term }),
      encodeProposerMessage({
        kind: "elected",
        generation: 0,
        term,
        startStreamingAt: START,
        termHistory,
      }),
      encodeAppendRequest({ kind: "append", generation: 0, term, ...range, wal: bytes }),
      encodeAppendRequest({
        kind: "append",
        generation: 0,
        term,
        ...{ ...range, beginLsn: wal.end, commitLsn: wal.end },
        wal: new Uint8Array(0),
      }),
    ].map(data),
  ];
}

function replies(): PgMessage[] {
  const status = new ByteWriter("big").u8(0x72).lsn(START).lsn(START).lsn(START).i64(1n).u8(1);
  const standby = new ByteWriter("big").u8(0x68).i64(1n).u32(700).u32(0).u32(0).u32(0);
  const feedback = encodeFeedback(FEEDBACK);
  const pageserver = new ByteWriter("big").u8(0x7a).u64(BigInt(feedback.length)).raw(feedback);
  return [status, standby, pageserver].map((writer) => data(writer.bytes()));
}

function dialogues(victim: NewTimeline): PgMessage[][] {
  const { tenantId, timelineId } = victim;
  const startup: PgMessage = {
    kind: "startup",
    parameters: {
      user: "fuzz",
      options: `-c timeline_id=${timelineId} -c tenant_id=${tenantId}`,
      application_name: "safekeeper_1",
    },
  };
  const stream = (rest: string) => query(`START_REPLICATION PHYSICAL ${formatLsn(START)}${rest}`);
  return [
    ...[1, 2, 3, 1000].map((term) => [startup, ...push(victim, term)]),
    [startup, query("IDENTIFY_SYSTEM"), query("TIMELINE_STATUS"), stream(""), ...replies()],
    [startup, query("SHOW wal_segment_size"), stream(" TIMELINE 1 (term='1')"), ...replies()],
  ];
}

/** A proposer that goes on and on. */
class Neighbour {
  readonly #proposer: TestProposer;
  readonly #wal = new TestWal(START, undefined, IDENTITY);

  private constructor(proposer: TestProposer) {
    this.#proposer = proposer;
  }

  static async elect(address: string, { tenantId, timelineId }: NewTimeline): Promise<Neighbour> {
    const proposer = await TestProposer.connect(address);
    await proposer.greet(tenantId, timelineId, IDENTITY.segmentSize);
    await proposer.send({ kind: "vote", generation: 0, term: 1 });
    await proposer.receive("vote");
    const termHistory = [{ term: 1, lsn: START }];
    const elected = { startStreamingAt: START, termHistory };
    await proposer.send({ kind: "elected", generation: 0, term: 1, ...elected });
    return new Neighbour(proposer);
  }

  /** Writes a record and waits until it is acknowledged. */
  async write(): Promise<void> {
    const beginLsn = this.#wal.end;
    const wal = this.#wal.append(1, 3000);
    const endLsn = this.#wal.end;
    const range = { beginLsn, endLsn, commitLsn: beginLsn, truncateLsn: START };
    await this.#proposer.send({ kind: "append", generation: 0, term: 1, ...range, wal });
    while ((await this.#proposer.receive("append")).flushLsn < endLsn);
  }

  /** What it has written. */
  get bytes(): Uint8Array {
    return this.#wal.bytes();
  }

  close(): void {
    this.#proposer.close();
  }
}

/** Runs so many cases. */
export async function fuzzWalService(random: SeededRandom, cases: number): Promise<void> {
  await withDirectory(async (directory) => {
    const timelines = new Timelines(directory, 1);
    const spared = newTimeline();
    timelines.create(spared);
    const server = serveWal(timelines, { hostname: "127.0.0.1", port: 0 });
    const neighbour = await Neighbour.elect(`127.0.0.1:${server.port}`, spared);
    try {
      let all: PgMessage[][] = [];
      for (let done = 0; done < cases; done += TOGETHER) {
        if (done % VICTIM_CASES === 0) { // what it knows by now refuses most of what follows
          const fresh = newTimeline();
          timelines.create(fresh);
          all = dialogues(fresh);
        }
        const bytes = Array.from({ length: TOGETHER }, () => damaged(random.pick(all), random));
        const pieces = random.fork();
        const answers = bytes.map((one) => exchange(server.port, one, pieces));
        if (done % NEIGHBOUR_EVERY === 0) await neighbour.write();
        for (const { text } of await Promise.all(answers)) assertOwnsNoFault("WAL service", text);
      }
      await neighbour.write();
    } finally {
      neighbour.close();
      await timelines.close();
      await server.close();
    }
    const again = new Timelines(directory, 1); // throws if one of them does not open
    const timeline = again.get(spared.tenantId, spared.timelineId);
    const { bytes } = neighbour;
    assert.equal(timeline.acceptor.flushLsn, START + bytes.length);
    const reader = timeline.reader();
    const found = new Uint8Array(bytes.length);
    for (let at = 0; at < found.length;) {
      at += reader.read((START + at) as Lsn, found.subarray(at));
    }
    reader.close();
    assert.ok(Buffer.from(found).equals(bytes), "the neighbour's WAL is what it wrote");
    await again.close();
  });
}
