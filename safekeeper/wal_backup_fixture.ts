/**
 * For tests of WAL in remote storage: one safekeeper's timelines and WAL service in this process,
 * on small segments and a clock that the test moves, and a proposer that writes the same WAL every
 * time.
 */
import assert from "node:assert/strict";
import { advanceOverHeaders } from "../libs/postgres/wal/segment.ts";
import { readSenderMessage } from "../libs/pgwire/replication.ts";
import type { PgServer } from "../libs/pgwire/server.ts";
import type { RemoteStorage } from "../libs/remote_storage/remote_storage.ts";
import { highestCommonPoint } from "../libs/safekeeper_protocol/term_history.ts";
import { parseTenantId, parseTimelineId } from "../libs/utils/id.ts";
import { alignLsn, formatLsn, type Lsn } from "../libs/utils/lsn.ts";
import { connectTo, TEST_IDENTITY, TestProposer, TestWal } from "./safekeeper_fixture.ts";
import type { Timeline } from "./timeline.ts";
import { Timelines } from "./timelines.ts";
import type { WalBackup, WalBackupSettings } from "./wal_backup.ts";
import { serveWal } from "./wal_service.ts";

/** Bytes of a segment. */
export const SEGMENT = 1 << 20;
/** Within a segment, as that of a branch. */
export const START = (3 * SEGMENT + 0x6100) as Lsn;
const RECORD_BYTES = 9_000;

const tenantId = parseTenantId("11111111111111111111111111111111");
const timelineId = parseTimelineId("22222222222222222222222222222222");

/** In front of the keys of the timeline's objects. */
export const PREFIX = `${tenantId}/${timelineId}/`;

/** Everything is done at once. */
export const EAGER: WalBackupSettings = {
  partialTimeoutMs: 0,
  offload: true,
  minResidentMs: 0,
  parallelUploads: 5,
};

/** Every fourth segment ends with a record. */
const EVEN_END = 4 * SEGMENT;

/** Bytes of the next record, so that one ends exactly there. */
function nextRecordBytes(at: Lsn): number {
  const boundary = at - at % EVEN_END + EVEN_END;
  for (let bytes = 300; bytes <= 2 * RECORD_BYTES && boundary - at < 2 * RECORD_BYTES; bytes++) {
    const record = 24 + 5 + bytes; // header, header of its data, data
    if (alignLsn(advanceOverHeaders(at, record, SEGMENT)) === boundary) return bytes;
  }
  return RECORD_BYTES;
}

/** The WAL that every writer writes, from START to the first record that ends at `end` or later. */
export function expectedWal(end: Lsn): TestWal {
  const wal = new TestWal(START, undefined, { ...TEST_IDENTITY, segmentSize: SEGMENT });
  for (let n = 0; wal.end < end; n++) wal.append(1, nextRecordBytes(wal.end), n);
  return wal;
}

/** See the head of the file. */
export class TestSafekeeper {
  readonly timelines: Timelines;
  readonly timeline: Timeline;
  readonly address: string;
  readonly #server: PgServer;
  readonly #storage: RemoteStorage | undefined;
  /** What the clock shows. */
  nowMs = 0;

  constructor(
    directory: string,
    storage: RemoteStorage | undefined,
    settings: WalBackupSettings = EAGER,
    id = 1,
  ) {
    this.#storage = storage;
    const remote = storage === undefined ? undefined : { storage, settings, now: () => this.nowMs };
    this.timelines = new Timelines(directory, id, remote);
    this.timeline = this.timelines.create({
      tenantId,
      timelineId,
      pgVersionNum: 170011,
      systemId: TEST_IDENTITY.systemId,
      walSegmentSize: SEGMENT,
      startLsn: START,
    });
    this.#server = serveWal(this.timelines, { hostname: "127.0.0.1", port: 0 });
    this.address = `127.0.0.1:${this.#server.port}`;
  }

  get backup(): WalBackup {
    return this.timeline.backup!;
  }

  /** Names of the timeline's objects in remote storage. */
  async remote(): Promise<string[]> {
    const objects = await Array.fromAsync(this.#storage!.list(PREFIX));
    return objects.map(({ key }) => key.slice(PREFIX.length));
  }

  /** Names of the segments on disk. */
  local(): string[] {
    return [...Deno.readDirSync(this.timeline.directory)].map(({ name }) => name)
      .filter((name) => /^[0-9A-F]{24}(\.partial)?$/.test(name)).sort();
  }

  /** The pageserver has everything, durably, and old WAL goes. */
  consumed(): Promise<void> {
    this.timeline.remoteConsistent(this.timeline.acceptor.commitLsn);
    return this.timeline.removeOldWal();
  }

  /** Receives committed WAL from `from` to its end, as a pageserver does. */
  async stream(from = START): Promise<Uint8Array> {
    const client = await connectTo(this.address, {
      options: `-c tenant_id=${tenantId} timeline_id=${timelineId}`,
      application_name: "pageserver-1",
    });
    try {
      const copy = await client.copyBoth(`START_REPLICATION PHYSICAL ${formatLsn(from)}`);
      const found = new Uint8Array(this.timeline.acceptor.commitLsn - from);
      for (let at = 0; at < found.length;) {
        const message = readSenderMessage((await copy.receive())!);
        if (message.kind !== "xlogData") continue;
        assert.equal(message.start, from + at);
        found.set(message.wal, at);
        at += message.wal.length;
      }
      return found;
    } finally {
      client.close();
    }
  }

  async close(): Promise<void> {
    await this.timelines.close();
    await this.#server.close();
  }
}

/** Wins a term and continues the WAL where it ends. */
export class TestWriter {
  readonly #proposer: TestProposer;
  readonly #term: number;
  /** End of the WAL that is acknowledged. */
  end: Lsn;

  private constructor(proposer: TestProposer, term: number, end: Lsn) {
    this.#proposer = proposer;
    this.#term = term;
    this.end = end;
  }

  static async elect(address: string): Promise<TestWriter> {
    const proposer = await TestProposer.connect(address);
    const { term: before } = await proposer.greet(tenantId, timelineId, SEGMENT);
    const term = before + 1;
    await proposer.send({ kind: "vote", generation: 0, term });
    const { flushLsn: lsn, termHistory } = await proposer.receive("vote");
    const history = [...termHistory, { term, lsn }];
    const startStreamingAt = highestCommonPoint(history, termHistory, lsn)!.lsn;
    assert.equal(startStreamingAt, lsn);
    await proposer.send({
      kind: "elected",
      generation: 0,
      term,
      startStreamingAt,
      termHistory: history,
    });
    return new TestWriter(proposer, term, lsn);
  }

  async #append(wal: Uint8Array, commitLsn: Lsn, flushed: Lsn): Promise<void> {
    for (let at = 0; at === 0 || at < wal.length; at += 131072) {
      const part = wal.subarray(at, at + 131072);
      await this.#proposer.send({
        kind: "append",
        generation: 0,
        term: this.#term,
        beginLsn: (this.end + at) as Lsn,
        endLsn: (this.end + at + part.length) as Lsn,
        commitLsn,
        truncateLsn: commitLsn,
        wal: part,
      });
    }
    while ((await this.#proposer.receive("append")).flushLsn < flushed);
    this.end = flushed;
  }

  /** Writes records up to `end` or a little further, and commits all of it. */
  async writeTo(end: Lsn): Promise<void> {
    const wal = expectedWal(end);
    await this.#append(wal.bytes(this.end), START, wal.end);
    await this.commit();
  }

  /** Tells that everything is committed. */
  commit(): Promise<void> {
    return this.#append(new Uint8Array(0), this.end, this.end);
  }

  close(): void {
    this.#proposer.close();
  }
}
