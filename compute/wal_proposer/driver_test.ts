/**
 * The proposer's driver against real safekeepers in this process, over real sockets, with WAL made
 * of real records: election, commit, one that was down and must be caught up, losing the term,
 * resuming.
 */
import assert from "node:assert/strict";
import { TestWal } from "../../safekeeper/safekeeper_fixture.ts";
import { formatLsn } from "../../libs/utils/lsn.ts";
import { START, WAIT_MS, withCluster, write } from "./safekeepers_fixture.ts";

Deno.test("WAL is committed by a quorum, and one that was down is caught up", async () => {
  await withCluster(async (cluster) => {
    await cluster.stop(3);
    const first = cluster.propose();
    const { startLsn, term } = await first.elected(WAIT_MS);
    assert.deepEqual([startLsn, term], [START, 1]);
    const wal = new TestWal(START);
    write(first, wal.append(40, 20_000));
    await first.committed(wal.end, WAIT_MS);
    await first.stop();

    await cluster.start(3); // it has nothing, and the next proposer starts behind all of that
    const second = cluster.propose();
    const next = await second.elected(WAIT_MS);
    assert.deepEqual([next.startLsn, next.term], [wal.end, 2]);
    await cluster.reaches(3, wal.end);
    write(second, wal.append(3, 100));
    await second.committed(wal.end, WAIT_MS);
    for (const id of [1, 2, 3]) await cluster.reaches(id, wal.end);
    await second.stop();
  });
});

Deno.test("a safekeeper that never answers delays nothing, and is left after a while", async () => {
  await withCluster(async (cluster) => {
    await using hung = await cluster.hang(2);
    const abandoned = hung.abandoned();
    const proposer = cluster.propose();
    const begun = performance.now();
    const { startLsn } = await proposer.elected(WAIT_MS);
    const wal = new TestWal(startLsn);
    write(proposer, wal.append(100, 1000));
    await proposer.committed(wal.end, WAIT_MS);
    const limitMs = 4000; // it is given five seconds to answer
    assert.ok(performance.now() - begun < limitMs, "the election and the commit did not wait");
    await abandoned;
    const again = cluster.propose();
    await again.elected(WAIT_MS);
    const stopping = performance.now();
    await Promise.all([proposer.stop(), again.stop()]);
    assert.ok(performance.now() - stopping < limitMs, "neither did the stop");
  });
});

Deno.test("WAL that is broken as Postgres sends it is nowhere acknowledged, and the record is named", async () => {
  await withCluster(async (cluster) => {
    const proposer = cluster.propose();
    await proposer.elected(WAIT_MS);
    const wal = new TestWal(START);
    write(proposer, wal.append(3, 2000));
    const good = wal.end;
    await proposer.committed(good, WAIT_MS);
    const broken = wal.append(1, 2000);
    broken[700]! ^= 1;
    write(proposer, broken);
    write(proposer, wal.append(3, 2000));
    const reason = new RegExp(`record at ${formatLsn(good)}: its checksum is wrong`);
    await assert.rejects(proposer.committed(wal.end, 500), reason);
    assert.equal(proposer.commitLsn, good);
    for (const id of [1, 2, 3]) assert.equal(await cluster.flushLsn(id), formatLsn(good));
    await proposer.stop();
  });
});

Deno.test("WAL that was being gathered for one goes to it before the stop", async () => {
  await withCluster(async (cluster) => {
    const proposer = cluster.propose();
    const { startLsn } = await proposer.elected(WAIT_MS);
    const wal = new TestWal(startLsn);
    write(proposer, wal.append(1, 100));
    for (const id of [1, 2, 3]) await cluster.reaches(id, wal.end);
    for (let writes = 0; writes < 2; writes++) write(proposer, wal.append(1, 100));
    await proposer.committed(wal.end, WAIT_MS);
    await proposer.stop();
    for (const id of [1, 2, 3]) await cluster.reaches(id, wal.end);
  });
});

Deno.test("a second proposer deposes the first", async () => {
  await withCluster(async (cluster) => {
    const deposed = Promise.withResolvers<string>();
    const first = cluster.propose({ onDeposed: deposed.resolve });
    await first.elected(WAIT_MS);
    const wal = new TestWal(START);
    write(first, wal.append(1, 1000));
    await first.committed(wal.end, WAIT_MS);
    const second = cluster.propose();
    assert.equal((await second.elected(WAIT_MS)).startLsn, wal.end);
    const lost = new TestWal(wal.end);
    write(first, lost.append(1, 1000));
    assert.match(await deposed.promise, /has seen term 2/);
    await first.stop();
    await second.stop();
  });
});

Deno.test("a resumed proposer goes on under its own term", async () => {
  await withCluster(async (cluster) => {
    const first = cluster.propose();
    const won = await first.elected(WAIT_MS);
    const wal = new TestWal(START);
    const head = wal.append(2, 3000);
    write(first, head);
    await first.committed(wal.end, WAIT_MS);
    await first.stop();

    const middle = wal.end;
    wal.append(2, 3000);
    const second = cluster.propose({
      resume: { ...won, endLsnMax: wal.end, streamFrom: START },
    });
    write(second, wal.bytes(START));
    await second.committed(wal.end, WAIT_MS);
    assert.equal(second.term, 1);
    assert.ok(middle < wal.end);
    await second.stop();
  });
});

Deno.test("elected() says what each safekeeper answered when there is no quorum", async () => {
  await withCluster(async (cluster) => {
    await cluster.stop(1);
    await cluster.stop(2);
    const proposer = cluster.propose();
    await assert.rejects(
      proposer.elected(300),
      /Cannot win an election within 0.3 s \(safekeeper 1: .*refused.*; safekeeper 2: .*refused/s,
    );
    await proposer.stop();
  });
});
