import assert from "node:assert/strict";
import { setImmediate } from "node:timers/promises";
import { PgClient } from "../../libs/pgwire/client.ts";
import type { CopyBoth } from "../../libs/pgwire/copy_both.ts";
import { servePg } from "../../libs/pgwire/server.ts";
import { ByteWriter } from "../../libs/utils/bytes.ts";
import { newTenantId, newTimelineId } from "../../libs/utils/id.ts";
import { clusterTar } from "../cluster_fixture.ts";
import { importCluster } from "../import/import_cluster.ts";
import { TenantManager } from "../repository/tenant_manager.ts";
import { servePageServiceSession } from "./commands.ts";
import { PageReader } from "./page_reader.ts";

const PAGE_BYTES = 8192;
const BLOCKS = 1000;
const TABLE = { spc: 1663, db: 5, rel: 20000, fork: 0 };
const RUN = 128;

const now = () => performance.now();
const pause = () => setImmediate();

/** A table of BLOCKS blocks in image layers, each block full of its number. */
async function withTable(
  body: (manager: TenantManager, connect: () => Promise<CopyBoth>) => Promise<void>,
): Promise<void> {
  const directory = Deno.makeTempDirSync();
  const table = new Uint8Array(BLOCKS * PAGE_BYTES);
  const words = new Uint32Array(table.buffer);
  for (let at = 0; at < words.length; at++) words[at] = Math.floor(at / 2048);
  const made = TenantManager.open(directory, { now, pause });
  const tenant = await made.attach(newTenantId(), 1);
  const { tenantId } = tenant;
  const tar = clusterTar({ [`base/${TABLE.db}/${TABLE.rel}`]: table });
  const { interner } = made;
  const { timelineId } = await importCluster(tenant, interner, newTimelineId(), 17, tar);
  await made.shutdown();
  const manager = TenantManager.open(directory, { now, pause, readsAlongside: true });
  await manager.attach(tenantId, 1);
  const stopping = new AbortController();
  const context = {
    manager,
    reader: new PageReader(16 * PAGE_BYTES),
    waitLsnTimeoutMs: 1000,
    signal: stopping.signal,
    now,
    pause,
    unixNow: () => 1_800_000_000_000,
  };
  const server = servePg({
    hostname: "127.0.0.1",
    port: 0,
    onConnection: (session) => servePageServiceSession(session, context),
  });
  const clients: PgClient[] = [];
  const connect = async () => {
    const at = { hostname: "127.0.0.1", port: server.port };
    const client = await PgClient.connect(at, { user: "test" });
    clients.push(client);
    return await client.copyBoth(`pagestream_v3 ${tenantId} ${timelineId}`);
  };
  try {
    await body(manager, connect);
  } finally {
    for (const client of clients) client.close();
    stopping.abort();
    await server.close();
    await manager.shutdown();
    Deno.removeSync(directory, { recursive: true });
  }
}

/** Asks for these blocks at once, and checks that they come, in this order. */
async function read(copy: CopyBoth, blocks: readonly number[]): Promise<void> {
  for (const block of blocks) {
    const latest = 2n ** 64n - 1n;
    const writer = new ByteWriter("big").u8(2).u64(BigInt(block)).u64(latest).u64(1n);
    writer.u32(TABLE.spc).u32(TABLE.db).u32(TABLE.rel).u8(TABLE.fork).u32(block);
    copy.queue(writer.bytes());
  }
  await copy.flush();
  for (const block of blocks) {
    const answer = (await copy.receive())!;
    assert.equal(answer[0], 102, new TextDecoder().decode(answer.subarray(25)));
    const view = new DataView(answer.buffer, answer.byteOffset, answer.length);
    assert.equal(view.getBigUint64(1), BigInt(block));
    const at = answer.length - PAGE_BYTES;
    for (let n = 0; n < PAGE_BYTES; n += 1024) {
      assert.equal(view.getUint32(at + n, true), block);
    }
  }
}

const row = (first: number, count: number) => Array.from({ length: count }, (_, n) => first + n);

Deno.test("a page whose chunk is on its way from the disk is answered in its turn", () =>
  withTable(async (manager, connect) => {
    const copy = await connect();
    await read(copy, [0]);
    const before = manager.stats().cacheMisses;
    // One batch: after four pages this is a scan, and the chunk of block 100 is being read
    await read(copy, [...row(1, 10), 100, 5, 101]);
    assert.ok(manager.stats().cacheMisses - before <= 5, "the chunk is not read twice");
  }));

Deno.test("three connections that read a table together get each page of it", () =>
  withTable(async (manager, connect) => {
    const connections = await Promise.all([connect(), connect(), connect()]);
    let next = 0;
    await Promise.all(connections.map(async (copy) => {
      while (next < BLOCKS) {
        const first = next;
        next += RUN;
        await read(copy, row(first, Math.min(RUN, BLOCKS - first)));
      }
    }));
    const { cacheMisses } = manager.stats();
    assert.ok(cacheMisses < BLOCKS / 16, `${cacheMisses} reads of a page or a chunk`);
  }));
