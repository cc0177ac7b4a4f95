/**
 * WAL that an endpoint has from elsewhere than its own stream, with real safekeepers: the tail that
 * a killed Postgres left behind, and what logical slots need of the time before the start.
 */
import assert from "node:assert/strict";
import { WAL_SEGMENT_SIZE } from "../libs/postgres/constants.ts";
import type { SlotState } from "../libs/postgres/replication_slot.ts";
import { segmentName, segmentNumber, segmentStart } from "../libs/postgres/wal/segment.ts";
import { INVALID_LSN, type Lsn } from "../libs/utils/lsn.ts";
import { TEST_IDENTITY, TestWal } from "../safekeeper/safekeeper_fixture.ts";
import { fetchSlotsWal } from "./carried/slot_wal.ts";
import { takeWalTail } from "./wal_tail.ts";
import { START, WAIT_MS, withCluster, write } from "./wal_proposer/safekeepers_fixture.ts";

const { version } = TEST_IDENTITY;

async function withData(body: (pgdata: string) => Promise<void>): Promise<void> {
  const pgdata = Deno.makeTempDirSync({ prefix: "compute_test_" });
  Deno.mkdirSync(`${pgdata}/pg_wal`);
  try {
    await body(pgdata);
  } finally {
    Deno.removeSync(pgdata, { recursive: true });
  }
}

function nameOf(lsn: number): string {
  return segmentName(1, segmentNumber(lsn as Lsn, WAL_SEGMENT_SIZE), WAL_SEGMENT_SIZE);
}

/** Puts WAL from `start` on into segment files of full size. */
function writeSegments(pgdata: string, start: Lsn, wal: Uint8Array): void {
  for (let done = 0; done < wal.length;) {
    const at = start + done;
    const count = Math.min(wal.length - done, WAL_SEGMENT_SIZE - at % WAL_SEGMENT_SIZE);
    using file = Deno.openSync(`${pgdata}/pg_wal/${nameOf(at)}`, { write: true, create: true });
    file.truncateSync(WAL_SEGMENT_SIZE);
    file.seekSync(at % WAL_SEGMENT_SIZE, Deno.SeekMode.Start);
    file.writeSync(wal.subarray(done, done + count));
    done += count;
  }
}

/** Bytes of WAL out of segment files. */
function readSegments(pgdata: string, start: number, end: number): Uint8Array {
  const wal = new Uint8Array(end - start);
  for (let done = 0; done < wal.length;) {
    const offset = (start + done) % WAL_SEGMENT_SIZE;
    const bytes = Deno.readFileSync(`${pgdata}/pg_wal/${nameOf(start + done)}`);
    const part = bytes.subarray(offset, offset + wal.length - done);
    wal.set(part, done);
    done += part.length;
  }
  return wal;
}

Deno.test("takeWalTail() takes the whole records behind what was sent, and no part of one", async () => {
  await withCluster((cluster) =>
    withData(async (pgdata) => {
      const proposer = cluster.propose();
      await proposer.elected(WAIT_MS);
      const wal = new TestWal(START);
      const sent = wal.append(3, 3000);
      write(proposer, sent.subarray(0, sent.length - 800)); // in the middle of a record
      wal.append(5, 9000);
      const end = wal.end;
      wal.append(1, 5000);
      writeSegments(pgdata, START, wal.bytes().subarray(0, wal.end - START - 1000));
      await takeWalTail({ pgdata, version, proposer });
      assert.equal(proposer.endLsn, end);
      assert.equal(proposer.commitLsn, end);
      await takeWalTail({ pgdata, version, proposer });
      assert.equal(proposer.endLsn, end, "there is nothing more");
      await proposer.stop();
      const next = cluster.propose();
      assert.equal((await next.elected(WAIT_MS)).startLsn, end);
      await next.stop();
    })
  );
});

Deno.test("takeWalTail() looks some way back in a long log, and takes nothing that is damaged", async () => {
  await withCluster((cluster) =>
    withData(async (pgdata) => {
      const proposer = cluster.propose();
      await proposer.elected(WAIT_MS);
      const wal = new TestWal(START);
      write(proposer, wal.append(60, 100_000));
      const good = wal.append(2, 9000);
      const end = wal.end;
      const damaged = wal.append(1, 9000);
      damaged[500]! ^= 1;
      const all = new Uint8Array([...wal.bytes().subarray(0, end - START), ...damaged]);
      writeSegments(pgdata, START, all);
      assert.ok(good.length > 0);
      await takeWalTail({ pgdata, version, proposer });
      assert.equal(proposer.commitLsn, end);
      await proposer.stop();
    })
  );
});

function slot(name: string, restartLsn: Lsn): SlotState {
  const persistent = { database: 5, isPersistent: true, catalogXmin: 700 };
  return { name, ...persistent, restartLsn, confirmedLsn: restartLsn };
}

Deno.test("fetchSlotsWal() fetches from the oldest slot's segment; a slot without WAL is dropped", async () => {
  await withCluster((cluster) =>
    withData(async (pgdata) => {
      const first = cluster.propose();
      await first.elected(WAIT_MS);
      const wal = new TestWal(START);
      write(first, wal.append(400, 100_000)); // two segments and a half
      await first.committed(wal.end, WAIT_MS);
      await first.stop();
      const second = cluster.propose();
      const { donor, term, startLsn } = await second.elected(WAIT_MS);
      const fetching = {
        source: donor,
        tenantId: cluster.tenantId,
        timelineId: cluster.timelineId,
        term,
        pgdata,
        owner: undefined,
        walSegmentSize: WAL_SEGMENT_SIZE,
        startLsn,
      };
      const old = slot("old", START);
      const newer = slot("newer", (START + WAL_SEGMENT_SIZE + 100_000) as Lsn);
      const slots = [newer, old, slot("none", INVALID_LSN)];
      for (const { name } of slots) {
        Deno.mkdirSync(`${pgdata}/pg_replslot/${name}`, { recursive: true });
      }
      assert.deepEqual(await fetchSlotsWal(fetching, slots), slots);
      assert.deepEqual(readSegments(pgdata, START, startLsn), wal.bytes());

      Deno.removeSync(cluster.segmentPath(donor.id, nameOf(START)));
      const from = segmentStart(
        segmentNumber(newer.restartLsn, WAL_SEGMENT_SIZE),
        WAL_SEGMENT_SIZE,
      );
      Deno.removeSync(`${pgdata}/pg_wal`, { recursive: true });
      Deno.mkdirSync(`${pgdata}/pg_wal`);
      const left = await fetchSlotsWal(fetching, slots);
      assert.deepEqual(left.map(({ name }) => name), ["newer", "none"]);
      assert.deepEqual(readSegments(pgdata, from, startLsn), wal.bytes(from));
      const there = [...Deno.readDirSync(`${pgdata}/pg_replslot`)].map(({ name }) => name);
      assert.deepEqual(there.sort(), ["newer", "none"]);
      await second.stop();
    })
  );
});
