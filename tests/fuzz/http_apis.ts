/**
 * Damaged requests to the HTTP APIs of all roles: each gets an answer that is not a fault of ours,
 * a request that makes sense is answered all the while, and what was made can be opened again.
 */
import assert from "node:assert/strict";
import { serveHttp } from "../../libs/daemon/listen.ts";
import { newTenantId, newTimelineId } from "../../libs/utils/id.ts";
import { ComputeHost } from "../../compute/compute_host.ts";
import { httpApi as computeApi } from "../../compute/http_api.ts";
import { Launcher } from "../../compute/postgres_process.ts";
import { PrivateSocket } from "../../compute/private_socket.ts";
import { ReadyDirectories } from "../../compute/ready_directories.ts";
import { StartPages } from "../../compute/start_pages.ts";
import { WalChannels } from "../../compute/wal_channels.ts";
import { ReadyFiles } from "../../compute/ready_files.ts";
import { withCluster } from "../../pageserver/cluster_fixture.ts";
import { Compactor } from "../../pageserver/compaction/compactor.ts";
import { httpApi as pageserverApi } from "../../pageserver/http_api.ts";
import { TenantManager } from "../../pageserver/repository/tenant_manager.ts";
import { httpApi as safekeeperApi } from "../../safekeeper/http_api.ts";
import { withDirectory } from "../../safekeeper/safekeeper_fixture.ts";
import { Timelines } from "../../safekeeper/timelines.ts";
import type { SeededRandom } from "../load/random.ts";
import { assertOwnsNoFault, exchange } from "./exchange.ts";
import { joined, mutated, mutatedJson, mutatedLine } from "./mutations.ts";

const TOGETHER = 4;

/** One request that makes sense. */
interface Request {
  readonly method: string;
  readonly path: string;
  readonly body?: unknown;
}

type Api = Parameters<typeof serveHttp>[1];

function head(method: string, path: string, headers: readonly string[]): Uint8Array<ArrayBuffer> {
  const lines = [`${method} ${path} HTTP/1.1`, "Host: localhost", ...headers, "", ""];
  return new TextEncoder().encode(lines.join("\r\n"));
}

/** A request's bytes, damaged in one way or another. */
function damaged({ method, path, body }: Request, random: SeededRandom): Uint8Array {
  const close = "Connection: close";
  const json = (value: unknown) =>
    new TextEncoder().encode(value === undefined ? "" : JSON.stringify(value));
  const whole = (pathSent: string, bytes: Uint8Array, length = bytes.length) =>
    joined(head(method, pathSent, [close, `Content-Length: ${length}`]), bytes);
  switch (random.between(0, 8)) {
    case 0: // anywhere
      return mutated(whole(path, json(body)), random);
    case 1: // a body that is not JSON any more
      return whole(path, mutated(json(body), random));
    case 2: { // a path that does not parse
      const words = path.replaceAll("/", " ");
      const sent = encodeURI(mutatedLine(words, random).replaceAll(" ", "/"));
      return whole(random.pick([sent, `${sent}%`, `${path}%ff%00`, `${path}/..`]), json(body));
    }
    case 3: // a length that is not so
      return whole(path, json(body), random.pick([0, 1, 2 ** 31, 2 ** 53, -1]));
    case 4: { // pieces, of which the last may be missing
      const chunk = new TextEncoder().encode(random.pick(["5\r\n", "ffffffff\r\n", "-1\r\n", "x"]));
      const end = new TextEncoder().encode(random.pick(["", "\r\n0\r\n\r\n", "0"]));
      const chunked = head(method, path, [close, "Transfer-Encoding: chunked"]);
      return joined(chunked, chunk, json(body), end);
    }
    case 5: // another method
      return joined(head(random.pick(["GET", "PUT", "DELETE", "PATCH", "\u0000"]), path, [close]));
    default: // parts of the wrong kind
      return whole(path, json(mutatedJson(body ?? {}, random)));
  }
}

async function fuzzApi(
  name: string,
  api: Api,
  requests: readonly (() => Request)[],
  random: SeededRandom,
  cases: number,
  mayFail = /^$/,
): Promise<void> {
  const server = serveHttp("127.0.0.1:0", api);
  const { port } = server.addr;
  try {
    for (let done = 0; done < cases; done += TOGETHER) {
      const bytes = Array.from(
        { length: TOGETHER },
        () => damaged(random.pick(requests)(), random),
      );
      const pieces = random.fork();
      const answers = bytes.map((one) => exchange(port, one, pieces));
      const status = await fetch(`http://127.0.0.1:${port}/v1/status`);
      assert.equal(status.status, 200);
      await status.body?.cancel();
      for (const [i, { text }] of (await Promise.all(answers)).entries()) {
        assertOwnsNoFault(name, text);
        const sent = new TextDecoder("latin1").decode(bytes[i]!).slice(0, 1500);
        const isFault = text.startsWith("HTTP/1.1 500") && !mayFail.test(text);
        assert.ok(!isFault, `${name}: ${sent}\n\n${text}`);
      }
    }
  } finally {
    await server.shutdown();
  }
}

/** The safekeeper's. */
export async function fuzzSafekeeperApi(random: SeededRandom, cases: number): Promise<void> {
  await withDirectory(async (directory) => {
    const timelines = new Timelines(directory, 1);
    const [tenant_id, timeline_id] = [newTenantId(), newTimelineId()];
    const member = { id: 1, host: "localhost", pg_port: 5454 };
    const mconf = {
      generation: 1,
      members: [member, { ...member, id: 2 }],
      new_members: [member],
    };
    const create = (id = newTimelineId()): Request => ({
      method: "POST",
      path: "/v1/tenant/timeline",
      body: {
        tenant_id,
        timeline_id: id,
        mconf,
        pg_version: 170011,
        system_id: "7012345678901234567",
        wal_seg_size: 1048576,
        start_lsn: "0/2000028",
        commit_lsn: "0/2000028",
      },
    });
    const path = `/v1/tenant/${tenant_id}/timeline/${timeline_id}`;
    const requests = [
      create(timeline_id),
      { ...create(timeline_id), path: "/v1/tenant/timeline?x=%zz" },
      { method: "GET", path: "/v1/tenant/timeline" },
      { method: "GET", path },
      { method: "DELETE", path: `${path}?only_local=true` },
      { method: "POST", path: `${path}/term_bump`, body: { term: 7 } },
      { method: "POST", path: `${path}/checkpoint` },
      { method: "PUT", path: `${path}/membership`, body: { mconf } },
      {
        method: "POST",
        path: "/v1/pull_timeline",
        body: { tenant_id, timeline_id: newTimelineId(), http_hosts: ["127.0.0.1:1"], mconf },
      },
    ];
    const all = [create, create, ...requests.map((request) => () => request)];
    await fuzzApi("safekeeper", safekeeperApi(1, timelines, undefined), all, random, cases);
    await timelines.close();
    await new Timelines(directory, 1).close(); // throws if one cannot be read
  });
}

/** The pageserver's. */
export async function fuzzPageserverApi(random: SeededRandom, cases: number): Promise<void> {
  await withCluster(async (cluster) => {
    const { manager, reader, timeline } = cluster;
    const receivers = cluster.receivers();
    const { signal } = new AbortController();
    const compactor = new Compactor({ manager, now: () => performance.now() });
    const api = pageserverApi({
      id: 1,
      manager,
      reader,
      receivers,
      compactor,
      waitLsnTimeoutMs: 20,
      signal,
    });
    const tenant = `/v1/tenant/${timeline.tenantId}`;
    const victim = newTenantId();
    const config = { checkpoint_distance: 1048576, checkpoint_timeout: "10m", other: [1, {}] };
    const requests: Request[] = [
      {
        method: "PUT",
        path: `/v1/tenant/${victim}/location_config`,
        body: { mode: "AttachedSingle", generation: 1, tenant_conf: config },
      },
      { method: "PUT", path: "/v1/tenant/config", body: { tenant_id: victim, ...config } },
      { method: "GET", path: `/v1/tenant/${victim}/config` },
      {
        method: "POST",
        path: `${tenant}/timeline`,
        body: {
          new_timeline_id: newTimelineId(),
          ancestor_timeline_id: timeline.timelineId,
          ancestor_start_lsn: "0/10000A0",
        },
      },
      { method: "GET", path: `${tenant}/timeline/${timeline.timelineId}/layer` },
      {
        method: "GET",
        path: `${tenant}/timeline/${timeline.timelineId}/getpage` +
          "?key=000000067F0000000500004000000000000001&lsn=0/10000A0&explain=true",
      },
      {
        method: "PUT",
        path: `${tenant}/timeline/${newTimelineId()}/import_basebackup?pg_version=17`,
        body: { not: "a tar" },
      },
    ];
    const all = requests.map((request) => () => request);
    await fuzzApi("pageserver", api, all, random, cases);
    await receivers.stop();
    await manager.shutdown();
    const again = TenantManager.open(cluster.directory, cluster);
    for (const { tenantId, generation } of again.list()) {
      assert.equal((await again.attach(tenantId, generation)).broken.size, 0);
    }
    await again.shutdown();
  });
}

/** The compute host's; what would start runs into a directory without programs. */
export async function fuzzComputeApi(random: SeededRandom, cases: number): Promise<void> {
  await withDirectory(async (directory) => {
    const walChannels = new WalChannels(`${directory}/wal.sock`);
    const host = new ComputeHost({
      launcher: new Launcher(`${directory}/none`, `${directory}/none`),
      sockets: new PrivateSocket(`${directory}/postgres.sock`),
      walChannels,
      bootId: "1",
      ready: new ReadyFiles(`${directory}/ready`),
      readyDirectories: new ReadyDirectories(`${directory}/ready_data`),
      startPages: new StartPages(),
    }, `${directory}/endpoints`);
    await host.adoptAll();
    const [tenant_id, timeline_id] = [newTenantId(), newTimelineId()];
    const safekeepers = [{ id: 1, host: "127.0.0.1", pg_port: 1 }];
    const requests: Request[] = [
      {
        method: "POST",
        path: "/v1/endpoints/main/start",
        body: {
          endpoint_id: "main",
          tenant_id,
          timeline_id,
          mode: { Static: "0/10000A0" },
          pg_version: 17,
          pg_port: 1,
          pg_bin_dir: "/nowhere",
          pageserver: { host: "127.0.0.1", port: 1 },
          safekeepers,
          settings: { work_mem: "1MB" },
        },
      },
      { method: "POST", path: "/v1/endpoints/main/stop", body: { mode: "fast" } },
      { method: "GET", path: "/v1/endpoints/main" },
      { method: "DELETE", path: "/v1/endpoints/main" },
      { method: "GET", path: `/v1/timelines/${tenant_id}/${timeline_id}` },
    ];
    const all = requests.map((request) => () => request);
    await fuzzApi(
      "compute host",
      computeApi(host, undefined),
      all,
      random,
      cases,
      /failed to lookup/,
    );
    await host.stopAll("immediate");
  });
}
