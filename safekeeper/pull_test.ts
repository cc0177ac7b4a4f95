/** A timeline goes from one safekeeper to another, over real sockets. */
import assert from "node:assert/strict";
import { Conflict } from "../libs/utils/errors.ts";
import { newTenantId, newTimelineId } from "../libs/utils/id.ts";
import { parseAddress } from "../libs/utils/address.ts";
import { formatLsn, type Lsn, parseLsn } from "../libs/utils/lsn.ts";
import { SafekeeperClient } from "./client.ts";
import { safekeeperConfig } from "./config.ts";
import { PULLING_SUFFIX, pullTimeline } from "./pull.ts";
import { type Safekeeper, startSafekeeper } from "./safekeeper.ts";
import { TEST_IDENTITY, TestProposer, TestWal, withDirectory } from "./safekeeper_fixture.ts";
import { Timelines } from "./timelines.ts";

const START = parseLsn("0/2080028");
const SEGMENT_BYTES = 1 << 20;
const tenantId = newTenantId();
const timelineId = newTimelineId();

function start(directory: string, id: number): Safekeeper {
  const path = `${directory}/${id}`;
  Deno.mkdirSync(path, { recursive: true });
  const addresses = { listen_pg_addr: "127.0.0.1:0", listen_http_addr: "127.0.0.1:0" };
  const config = safekeeperConfig.parse({ id, ...addresses, log_level: "error" });
  return startSafekeeper(path, config, { publish() {} });
}

function clientOf(safekeeper: Safekeeper): SafekeeperClient {
  return new SafekeeperClient(safekeeper.httpAddress);
}

function membership(generation: number, ...safekeepers: [number, Safekeeper][]) {
  const members = safekeepers.map(([id, { pgAddress }]) => ({
    id,
    host: "127.0.0.1",
    pgPort: parseAddress(pgAddress).port,
  }));
  return { generation, members };
}

/** Writes WAL of term 4 into a new timeline, of which all but the last record is committed. */
async function write(safekeeper: Safekeeper): Promise<{ wal: TestWal; commitLsn: Lsn }> {
  await clientOf(safekeeper).createTimeline({
    tenantId,
    timelineId,
    pgVersion: 170011,
    startLsn: START,
    systemId: TEST_IDENTITY.systemId,
    walSegmentSize: SEGMENT_BYTES,
  });
  const wal = new TestWal(START, undefined, { ...TEST_IDENTITY, segmentSize: SEGMENT_BYTES });
  wal.append(90, 25_000);
  const commitLsn = wal.end;
  wal.append(1, 100);
  const proposer = await TestProposer.connect(safekeeper.pgAddress);
  await proposer.greet(tenantId, timelineId, SEGMENT_BYTES);
  await proposer.send({ kind: "vote", generation: 0, term: 4 });
  const { termHistory } = await proposer.receive("vote");
  const history = [...termHistory, { term: 4, lsn: START }];
  const position = { startStreamingAt: START, termHistory: history };
  await proposer.send({ kind: "elected", generation: 0, term: 4, ...position });
  const bytes = wal.bytes();
  for (let at = 0; at < bytes.length; at += 131072) {
    const part = bytes.subarray(at, at + 131072);
    const beginLsn = (START + at) as Lsn;
    const range = { beginLsn, endLsn: (beginLsn + part.length) as Lsn, truncateLsn: START };
    await proposer.send({ kind: "append", generation: 0, term: 4, ...range, commitLsn, wal: part });
  }
  while ((await proposer.receive("append")).flushLsn < wal.end);
  proposer.close();
  return { wal, commitLsn };
}

Deno.test("a new member gets what is committed, as a whole or not at all", async () => {
  await withDirectory(async (directory) => {
    const first = start(directory, 1);
    let second = start(directory, 2);
    try {
      const hosts = [first.httpAddress];
      const joint = membership(1, [1, first], [2, second]);
      const pull = (conf = joint) =>
        clientOf(second).pullTimeline(tenantId, timelineId, hosts, conf);
      await assert.rejects(pull(), /no safekeeper has it/);
      const { commitLsn } = await write(first);
      await assert.rejects(pull(membership(1, [1, first])), /safekeeper 2 is not a member/);
      assert.deepEqual(await clientOf(second).listTimelines(), []);

      await pull();
      const status = await clientOf(second).timelineStatus(tenantId, timelineId);
      assert.equal(status.flush_lsn, formatLsn(commitLsn));
      assert.equal(status.commit_lsn, formatLsn(commitLsn));
      assert.equal(status.acceptor_state.term, 4);
      assert.equal(status.acceptor_state.epoch, 4);
      assert.equal(status.mconf.generation, 1);
      assert.equal(status.pg_info.system_id, TEST_IDENTITY.systemId.toString());
      await pull(); // again, it is there

      const of = (id: number) => `${directory}/${id}/${tenantId}/${timelineId}`;
      const names = [...Deno.readDirSync(of(2))].map(({ name }) => name)
        .filter((name) => /^[0-9A-F]{24}/.test(name)).sort();
      assert.equal(names.length, 3);
      for (const name of names) {
        const [mine, theirs] = [2, 1].map((id) => Deno.readFileSync(`${of(id)}/${name}`));
        const begin = parseInt(name.slice(16, 24), 16) * SEGMENT_BYTES;
        const whole = Math.min(SEGMENT_BYTES, commitLsn - begin);
        assert.deepEqual(mine!.subarray(0, whole), theirs!.subarray(0, whole), name);
      }

      await second.close();
      Deno.mkdirSync(`${of(2)}.pulling`); // of a pull that a crash has ended
      second = start(directory, 2);
      assert.deepEqual(await clientOf(second).timelineStatus(tenantId, timelineId), status);
      assert.throws(() => Deno.statSync(`${of(2)}.pulling`), Deno.errors.NotFound);
    } finally {
      await Promise.all([first.close(), second.close()]);
    }
  });
});

Deno.test("a pull that fails leaves nothing on the disk", async () => {
  await withDirectory(async (directory) => {
    const first = start(directory, 1);
    try {
      await write(first);
      const target = `${directory}/2/${tenantId}/${timelineId}`;
      const copied = () => [...Deno.readDirSync(target + PULLING_SUFFIX)].length;
      const request = {
        tenantId,
        timelineId,
        httpHosts: [first.httpAddress],
        membership: membership(1, [1, first], [2, first]),
      };
      const context = { nodeId: 2, hasRemote: false, token: undefined, directory: target };
      let asked = 0;
      const checkWanted = () => {
        if (++asked < 3) return;
        assert.ok(copied() > 0, "some of it was there");
        throw new Conflict("nobody wants it any more");
      };
      await assert.rejects(pullTimeline(request, { ...context, checkWanted }), /nobody wants it/);
      assert.deepEqual([...Deno.readDirSync(`${directory}/2/${tenantId}`)], []);
    } finally {
      await first.close();
    }
  });
});

Deno.test("a timeline that is deleted while it is pulled does not come", async () => {
  await withDirectory(async (directory) => {
    const first = start(directory, 1);
    const path = `${directory}/2`;
    Deno.mkdirSync(path);
    const second = new Timelines(path, 2);
    try {
      await write(first);
      const httpHosts = [first.httpAddress];
      const joint = membership(1, [1, first], [2, first]);
      const pull = () => second.pull({ tenantId, timelineId, httpHosts, membership: joint });
      const deletions = [
        () => second.delete(tenantId, timelineId, false),
        () => second.deleteTenant(tenantId, false),
      ];
      for (const remove of deletions) {
        const pulling = pull();
        const removing = remove();
        assert.throws(pull, /is being deleted/);
        await assert.rejects(pulling, /is being deleted/);
        await removing;
        assert.deepEqual([...second.all()], []);
        assert.deepEqual([...Deno.readDirSync(`${path}/${tenantId}`)], []);
      }
      await pull();
      assert.equal([...second.all()].length, 1);
    } finally {
      await Promise.all([first.close(), second.close()]);
    }
  });
});
