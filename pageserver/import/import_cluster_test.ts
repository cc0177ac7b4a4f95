import assert from "node:assert/strict";
import { twoPhaseFile } from "../../libs/postgres/two_phase.ts";
import { BadRequest, Conflict } from "../../libs/utils/errors.ts";
import { newTimelineId } from "../../libs/utils/id.ts";
import { formatLsn } from "../../libs/utils/lsn.ts";
import { clusterTar, HEAP, withCluster } from "../cluster_fixture.ts";
import { restoreTracker } from "../ingest/wal_ingest.ts";
import { twophaseKey } from "../repository/key.ts";
import { servedTimeline } from "../served_timeline.ts";
import { importCluster } from "./import_cluster.ts";

Deno.test("importCluster() makes a root timeline of what the tar holds", () =>
  withCluster(async (cluster) => {
    const { timeline, served, reader } = cluster;
    const lsn = timeline.lastRecordLsn;
    assert.equal(formatLsn(lsn), "0/10000A0"); // behind the checkpoint record at 0/1000028
    assert.equal(formatLsn(timeline.prevRecordLsn), "0/1000028");
    const relations: string[] = [];
    served.relations.forEachRelation(
      lsn,
      (t, blocks) => relations.push(`${t.db}/${t.rel}/${t.fork}=${blocks}`),
    );
    assert.deepEqual(relations, ["5/16384/0=3", "5/16384/2=1", "5/16385/0=1"]);
    assert.deepEqual(served.relations.databases(lsn), [
      { spc: 1663, db: 1, hasRelmap: false },
      { spc: 1663, db: 5, hasRelmap: true },
    ]);
    const object = cluster.manager.interner.relation(HEAP.spc, HEAP.db, HEAP.rel, HEAP.fork);
    const found = reader.relationPage(served, HEAP, object, 2, lsn);
    assert.equal(found.bytes[found.offset + 5000], 3);
    await Promise.resolve();
  }));

Deno.test("importCluster() again gives the same timeline, another version is a conflict", () =>
  withCluster(async ({ tenant, manager, timeline }) => {
    const id = timeline.timelineId;
    const again = await importCluster(tenant, manager.interner, id, 17, clusterTar());
    assert.equal(again, timeline);
    await assert.rejects(importCluster(tenant, manager.interner, id, 16, clusterTar()), Conflict);
  }));

Deno.test("importCluster() refuses what is not a whole cluster, and leaves nothing", () =>
  withCluster(async ({ tenant, manager }) => {
    const id = newTimelineId();
    const cut = async function* () {
      for await (const chunk of clusterTar()) yield chunk.subarray(0, 30_000);
    };
    await assert.rejects(importCluster(tenant, manager.interner, id, 17, cut()));
    await assert.rejects(importCluster(tenant, manager.interner, id, 16, clusterTar()), BadRequest);
    assert.equal(tenant.timelines.has(id), false);
    await importCluster(tenant, manager.interner, id, 17, clusterTar());
    assert.equal(tenant.timelines.has(id), true);
  }));

Deno.test("importCluster() keeps prepared transactions, and refuses files that cannot be one", () =>
  withCluster(async ({ tenant, manager }) => {
    const state = Uint8Array.of(1, 2, 3);
    const importWith = (name: string, content: Uint8Array) => {
      const tar = clusterTar({ [`pg_twophase/${name}`]: content });
      return importCluster(tenant, manager.interner, newTimelineId(), 17, tar);
    };
    const timeline = await importWith("00000000000002B0", twoPhaseFile(state));
    const lsn = timeline.lastRecordLsn;
    assert.deepEqual(timeline.getValue(twophaseKey(688), lsn), state);
    assert.deepEqual([...restoreTracker(servedTimeline(timeline), lsn).preparedXids], [688]);
    const tooNew = importWith("00000000000002BC", twoPhaseFile(state)); // 700 is the next xid
    await assert.rejects(tooNew, /BadRequest: .*00000000000002BC.* 700$/);
    await assert.rejects(importWith("000002B0", twoPhaseFile(state)), BadRequest);
    await assert.rejects(importWith("00000000000002B0", state), BadRequest);
  }));
