import assert from "node:assert/strict";
import { serveHttp } from "../libs/daemon/listen.ts";
import { newTenantId, newTimelineId } from "../libs/utils/id.ts";
import { BadRequest, Conflict, NotFound } from "../libs/utils/errors.ts";
import { formatLsn } from "../libs/utils/lsn.ts";
import { PageserverClient } from "./client.ts";
import { Compactor } from "./compaction/compactor.ts";
import { clusterTar, SYSTEM_ID, type TestCluster, withCluster } from "./cluster_fixture.ts";
import { httpApi } from "./http_api.ts";
import { importRoot, openManager } from "./repository/repository_fixture.ts";

/** Runs `body` with the HTTP API on a cluster's parts, and a client of it. */
async function serving(
  { manager, reader, receivers }: Pick<TestCluster, "manager" | "reader" | "receivers">,
  body: (client: PageserverClient, base: string) => Promise<void>,
): Promise<void> {
  const started = receivers();
  const server = serveHttp(
    "127.0.0.1:0",
    httpApi({
      id: 42,
      manager,
      reader,
      receivers: started,
      compactor: new Compactor({ manager, now: () => performance.now() }),
      waitLsnTimeoutMs: 100,
      signal: new AbortController().signal,
    }),
  );
  const address = `127.0.0.1:${server.addr.port}`;
  try {
    await body(new PageserverClient(address), `http://${address}`);
  } finally {
    await server.shutdown();
    await started.stop();
  }
}

/** Runs `body` with the HTTP API on the cluster, and a client of it. */
function withApi(
  body: (cluster: TestCluster, client: PageserverClient, base: string) => Promise<void>,
): Promise<void> {
  return withCluster((cluster) => {
    const receivers = () => cluster.receivers();
    return serving({ ...cluster, receivers }, (client, base) => body(cluster, client, base));
  });
}

Deno.test("a tenant is attached, configured, listed and deleted", () =>
  withApi(async (_cluster, client) => {
    assert.deepEqual(await client.status(), { id: 42 });
    const id = newTenantId();
    await client.attach(id, 3, { checkpoint_timeout: "1m" });
    const info = await client.tenant(id);
    assert.deepEqual([info.id, info.generation, info.timelines], [id, 3, []]);
    assert.equal((await client.tenants()).length, 2);
    await assert.rejects(client.attach(id, 2), Conflict);
    await client.setTenantConfig(id, { checkpoint_distance: 1048576 });
    const { tenant_specific_overrides } = await client.tenantConfig(id);
    assert.deepEqual(tenant_specific_overrides, { checkpoint_distance: 1048576 });
    await client.detach(id);
    await assert.rejects(client.tenant(id));
    await client.attach(id, 4);
    await client.deleteTenant(id);
    await assert.rejects(client.tenant(id), NotFound);
  }));

Deno.test("a tenant or timeline that cannot be read is shown with the reason, and others are served", async () => {
  const directory = Deno.makeTempDirSync();
  const [good, bad, id] = [newTenantId(), newTenantId(), newTimelineId()];
  const before = openManager(directory);
  await before.attach(bad, 1);
  const tenant = await before.attach(good, 1);
  await importRoot(tenant, before, id);
  await before.shutdown();
  Deno.writeFileSync(`${directory}/tenants/${bad}/config`, new Uint8Array(7));
  Deno.truncateSync(`${directory}/tenants/${good}/timelines/${id}/index_part`, 30);
  await withCluster(async (cluster) => {
    const manager = openManager(directory);
    await serving({ ...cluster, manager, receivers: () => cluster.receivers() }, async (client) => {
      await client.attach(good, 2);
      const states = (await client.tenants()).map(({ id, state }) => [id, state.slug]).sort();
      assert.deepEqual(states, [[good, "Active"], [bad, "Broken"]].sort());
      const { state } = await client.tenant(bad);
      assert.match(state.slug === "Broken" ? state.data.reason : "", /config/);
      await assert.rejects(client.timelines(bad), /Cannot use tenant .*put a good copy .* back/);
      const { timelines, broken_timelines } = await client.tenant(good);
      assert.deepEqual(timelines, [id]);
      assert.match(broken_timelines![id]!, /index_part/);
      await assert.rejects(client.timeline(good, id), /index_part/);
      await client.deleteTenant(bad);
      assert.equal((await client.tenants()).length, 1);
    });
    await manager.shutdown();
  });
  Deno.removeSync(directory, { recursive: true });
});

Deno.test("a cluster is imported by HTTP, again with the same answer", () =>
  withApi(async ({ tenant }, client) => {
    const id = newTimelineId();
    const body = () => ReadableStream.from(clusterTar()) as ReadableStream<Uint8Array<ArrayBuffer>>;
    const info = await client.importBasebackup(tenant.tenantId, id, 17, body());
    assert.deepEqual(
      [info.last_record_lsn, info.prev_record_lsn, info.pg_version, info.system_id],
      ["0/10000A0", "0/1000028", 17, SYSTEM_ID.toString()],
    );
    assert.equal(info.current_logical_size, 5 * 8192);
    const again = await client.importBasebackup(tenant.tenantId, id, 17, body());
    assert.deepEqual(again, info);
    const garbage = new Uint8Array(1024).fill(1);
    const importing = client.importBasebackup(tenant.tenantId, newTimelineId(), 17, garbage);
    await assert.rejects(importing);
  }));

Deno.test("branches are made at an LSN or at the end, and deleted from the leaves", () =>
  withApi(async ({ tenant, timeline }, client) => {
    const [tenantId, root] = [tenant.tenantId, timeline.timelineId];
    const [id, child] = [newTimelineId(), newTimelineId()];
    const request = { new_timeline_id: id, ancestor_timeline_id: root };
    const made = await client.createBranch(tenantId, request);
    assert.equal(made.ancestor_lsn, formatLsn(timeline.lastRecordLsn));
    assert.deepEqual(await client.createBranch(tenantId, request), made);
    await client.createBranch(tenantId, {
      new_timeline_id: child,
      ancestor_timeline_id: id,
      ancestor_start_lsn: made.last_record_lsn,
    });
    assert.equal((await client.timelines(tenantId)).length, 3);
    await assert.rejects(client.deleteTimeline(tenantId, id), Conflict);
    await client.deleteTimeline(tenantId, child);
    await client.deleteTimeline(tenantId, id);
    await assert.rejects(client.timeline(tenantId, id), NotFound);
    const behindHeader = newTimelineId();
    await assert.rejects(
      client.createBranch(tenantId, {
        new_timeline_id: behindHeader,
        ancestor_timeline_id: root,
        ancestor_start_lsn: "0/1002018",
      }),
      /0\/1002000/,
    );
    const early = { ...request, new_timeline_id: newTimelineId(), ancestor_start_lsn: "0/8" };
    await assert.rejects(client.createBranch(tenantId, early), BadRequest);
  }));

Deno.test("checkpoint, layers, getpage and metrics", () =>
  withApi(async ({ tenant, timeline }, client, base) => {
    const path = `${base}/v1/tenant/${tenant.tenantId}/timeline/${timeline.timelineId}`;
    const { disk_consistent_lsn } = await client.checkpoint(tenant.tenantId, timeline.timelineId);
    assert.equal(disk_consistent_lsn, "0/10000A0");
    const layers = await (await fetch(`${path}/layer`)).json();
    assert.equal(layers.historic_layers[0].kind, "Image");
    const key = "000000067F00000005000040000000000001"; // block 1 of 1663/5/16384
    const page = await (await fetch(`${path}/getpage?key=${key}&lsn=0/10000A0`)).bytes();
    assert.deepEqual(page, new Uint8Array(8192).fill(2));
    const beyond = await fetch(`${path}/getpage?key=${key.replace(/1$/, "7")}`);
    assert.equal(beyond.status, 404);
    assert.match((await beyond.json()).msg, /it has 3 blocks/);
    const metrics = await (await fetch(`${base}/metrics`)).text();
    assert.match(metrics, /pageserver_smgr_query_seconds/);
    const unknown = await fetch(`${base}/v1/nothing`);
    assert.deepEqual([unknown.status, (await unknown.json()).msg], [
      404,
      "Cannot find GET /v1/nothing",
    ]);
  }));
