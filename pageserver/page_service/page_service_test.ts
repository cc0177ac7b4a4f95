import assert from "node:assert/strict";
import { gunzipSync } from "node:zlib";
import { decodeLazyFilesMap } from "../../libs/basebackup/lazy_files_map.ts";
import { Rmgr } from "../../libs/postgres/constants.ts";
import { DbState, decodeControlFile } from "../../libs/postgres/control_file.ts";
import type { RelTag } from "../../libs/postgres/relation.ts";
import { PgClient } from "../../libs/pgwire/client.ts";
import type { CopyBoth } from "../../libs/pgwire/copy_both.ts";
import { ByteReader, ByteWriter } from "../../libs/utils/bytes.ts";
import { Corrupt } from "../../libs/utils/errors.ts";
import { addLsn, formatLsn, type Lsn } from "../../libs/utils/lsn.ts";
import { TarReader } from "../../libs/utils/tar.ts";
import { HEAP, SYSTEM_ID, type TestCluster, u32s } from "../cluster_fixture.ts";
import { withPageService } from "./cluster_service_fixture.ts";

const LATEST = 2n ** 64n - 1n;
const WAIT_LSN_TIMEOUT_MS = 300;

/** Runs `body` with a page service on the cluster, a client of it, and its port. */
function withService(
  body: (cluster: TestCluster, client: PgClient, port: number) => Promise<void>,
): Promise<void> {
  return withPageService(WAIT_LSN_TIMEOUT_MS, async (cluster, port) => {
    const client = await PgClient.connect({ hostname: "127.0.0.1", port }, { user: "test" });
    try {
      await body(cluster, client, port);
    } finally {
      client.close();
    }
  });
}

function ids({ timeline }: TestCluster): string {
  return `${timeline.tenantId} ${timeline.timelineId}`;
}

/** The bytes of a version 3 request; LSNs default to "latest, as of now". */
function request(
  tag: number,
  body: (writer: ByteWriter) => void,
  requestLsn = LATEST,
  notModifiedSince: Lsn | bigint = 1n,
  id = 7n,
): Uint8Array {
  const writer = new ByteWriter("big").u8(tag).u64(id).u64(requestLsn);
  writer.u64(BigInt(notModifiedSince));
  body(writer);
  return writer.bytes().slice();
}

const relation = (tag: RelTag) => (writer: ByteWriter) =>
  void writer.u32(tag.spc).u32(tag.db).u32(tag.rel).u8(tag.fork);
const block = (tag: RelTag, number: number) => (writer: ByteWriter) => {
  relation(tag)(writer);
  writer.u32(number);
};

async function ask(copy: CopyBoth, ...requests: Uint8Array[]): Promise<Uint8Array[]> {
  for (const bytes of requests) copy.queue(bytes);
  await copy.flush();
  const answers: Uint8Array[] = [];
  for (const _ of requests) answers.push((await copy.receive())!.slice());
  return answers;
}

/** Checks tag and echo of an answer, and returns its payload. */
function payload(asked: Uint8Array, answer: Uint8Array, tag: number): Uint8Array {
  assert.equal(answer[0], tag, tag === 103 ? "an error" : errorText(answer));
  const echo = tag === 103 ? 25 : asked.length;
  assert.deepEqual(answer.subarray(1, echo), asked.subarray(1, echo));
  return answer.subarray(echo);
}

function errorText(answer: Uint8Array): string {
  return new TextDecoder().decode(answer.subarray(25, -1));
}

Deno.test("pagestream_v3 answers each kind of request, echoing it", () =>
  withService(async (cluster, client) => {
    const copy = await client.copyBoth(`pagestream_v3 ${ids(cluster)}`);
    const requests = [
      request(0, relation(HEAP)),
      request(0, relation({ ...HEAP, rel: 1 })),
      request(1, relation(HEAP)),
      request(2, block(HEAP, 1)),
      request(3, (w) => void w.u32(5)),
      request(4, (w) => void w.u8(0).u32(0)),
    ];
    const answers = await ask(copy, ...requests);
    const body = (i: number, tag: number) => payload(requests[i]!, answers[i]!, tag);
    assert.deepEqual([...body(0, 100)], [1]);
    assert.deepEqual([...body(1, 100)], [0]);
    assert.deepEqual([...body(2, 101)], [0, 0, 0, 3]);
    assert.deepEqual(body(3, 102), new Uint8Array(8192).fill(2));
    assert.equal(new ByteReader(body(4, 104), "big", "size").u64(), 5n * 8192n);
    assert.equal(body(5, 105).length, 4 + 8192);
    copy.close();
  }));

Deno.test("pagestream_v2 has neither request ids nor echoes", () =>
  withService(async (cluster, client) => {
    const copy = await client.copyBoth(`PAGESTREAM_V2 ${ids(cluster)}`);
    const v3 = request(2, block(HEAP, 0));
    const v2 = Uint8Array.from([v3[0]!, ...v3.subarray(9)]);
    const [page] = await ask(copy, v2);
    assert.equal(page!.length, 1 + 8192);
    const beyond = request(2, block(HEAP, 3));
    const [error] = await ask(copy, Uint8Array.from([beyond[0]!, ...beyond.subarray(9)]));
    assert.match(new TextDecoder().decode(error!), /^g.*it has 3 blocks\0$/);
    copy.close();
  }));

Deno.test("what does not exist is not remembered, however often it is asked for", () =>
  withService(async (cluster, client) => {
    const copy = await client.copyBoth(`pagestream_v3 ${ids(cluster)}`);
    const { interner } = cluster.manager;
    await ask(copy, request(2, block(HEAP, 1)));
    const known = interner.size;
    for (let rel = 20_000; rel < 20_100; rel++) {
      const none = { ...HEAP, rel };
      await ask(copy, request(0, relation(none)), request(2, block(none, 0)));
      await ask(copy, request(4, (w) => void w.u8(1).u32(rel)));
    }
    assert.equal(interner.size, known);
    copy.close();
  }));

Deno.test("what cannot be served is error 103, and the stream goes on", () =>
  withService(async (cluster, client) => {
    const copy = await client.copyBoth(`pagestream_v3 ${ids(cluster)}`);
    const end = cluster.timeline.lastRecordLsn;
    const cases: [Uint8Array, RegExp][] = [
      [request(2, block(HEAP, 3)), /block 3 of 1663\/5\/16384 .* it has 3 blocks/],
      [request(2, block({ ...HEAP, rel: 9 }, 0)), /1663\/5\/9 .* does not exist/],
      [request(1, relation({ ...HEAP, fork: 1 })), /does not exist/],
      [request(2, block({ ...HEAP, rel: 0 }, 0)), /relation 0/],
      [request(4, (w) => void w.u8(4).u32(0)), /SLRU kind 4/],
      [request(4, (w) => void w.u8(0).u32(9)), /does not exist/],
      [request(2, block(HEAP, 0), 0n, 0n), /LSN 0\/0/],
      [request(2, block(HEAP, 0), 16n, 24n), /below not_modified_since/],
      [request(2, block(HEAP, 0), LATEST, addLsn(end, 8)), /0\/10000A8/],
    ];
    for (const [asked, expected] of cases) {
      const [answer] = await ask(copy, asked);
      payload(asked, answer!, 103);
      assert.match(errorText(answer!), expected);
    }
    const [page] = await ask(copy, request(2, block(HEAP, 0)));
    assert.equal(page![0], 102);
    copy.close();
  }));

Deno.test("a look-up that fails leaves nothing of the relation before to the next request", () =>
  withService(async (cluster, client) => {
    const copy = await client.copyBoth(`pagestream_v3 ${ids(cluster)}`);
    const { relations, timeline } = cluster.served;
    const other = { ...HEAP, rel: 16385 };
    const fail = () => {
      throw new Corrupt("Cannot read a layer: the disk says so");
    };
    const size = request(1, relation(other));
    const page = request(2, block(other, 0));
    const breaks = [
      () => timeline.getValue = fail,
      () => relations.relationAt = fail,
    ];
    for (const breakIt of breaks) {
      await ask(copy, request(2, block(HEAP, 0)));
      relations.forget();
      breakIt();
      const [refused] = await ask(copy, page);
      payload(page, refused!, 103);
      delete (timeline as Partial<typeof timeline>).getValue;
      delete (relations as Partial<typeof relations>).relationAt;
      const [blocks, content] = await ask(copy, size, page);
      assert.deepEqual([...payload(size, blocks!, 101)], [0, 0, 0, 1]);
      const [first] = payload(page, content!, 102);
      assert.equal(first, 4);
    }
    copy.close();
  }));

const truncateTo = (blocks: number) => ({
  rmid: Rmgr.SMGR,
  info: 0x20,
  main: u32s(blocks, HEAP.spc, HEAP.db, HEAP.rel, 1),
});

Deno.test("reads are as of the request's LSN, and wait for not_modified_since", () =>
  withService(async (cluster, client) => {
    const copy = await client.copyBoth(`pagestream_v3 ${ids(cluster)}`);
    const before = cluster.timeline.lastRecordLsn;
    const after = await cluster.ingest(truncateTo(2));
    const old = request(1, relation(HEAP), BigInt(before), before);
    const now = request(1, relation(HEAP));
    const [oldAnswer, newAnswer] = await ask(copy, old, now);
    assert.deepEqual([...payload(old, oldAnswer!, 101)], [0, 0, 0, 3]);
    assert.deepEqual([...payload(now, newAnswer!, 101)], [0, 0, 0, 2]);
    // The record is 48 bytes and its padding long: the next one ends as far behind this one.
    const next = addLsn(after, after - before);
    const waiting = request(1, relation(HEAP), LATEST, next);
    const asked = ask(copy, now, waiting);
    assert.equal(await cluster.ingest(truncateTo(1)), next);
    const [, answer] = await asked;
    assert.deepEqual([...payload(waiting, answer!, 101)], [0, 0, 0, 1]);
    copy.close();
  }));

Deno.test("more requests than a batch are answered in order", () =>
  withService(async (cluster, client) => {
    const copy = await client.copyBoth(`pagestream_v3 ${ids(cluster)}`);
    const requests = Array.from(
      { length: 100 },
      (_, i) => request(2, block(HEAP, i % 3), LATEST, 1n, BigInt(i)),
    );
    const answers = await ask(copy, ...requests);
    answers.forEach((answer, i) => {
      const page = payload(requests[i]!, answer, 102);
      assert.ok(page.every((byte) => byte === i % 3 + 1));
    });
    copy.close();
  }));

async function untar(chunks: AsyncIterable<Uint8Array>): Promise<Map<string, Uint8Array>> {
  const reader = new TarReader(chunks);
  const files = new Map<string, Uint8Array>();
  for (let entry = await reader.next(); entry !== undefined; entry = await reader.next()) {
    files.set(entry.name, await reader.wholeBody(entry.sizeBytes));
  }
  for await (const _chunk of chunks); // blocks behind the end mark
  return files;
}

async function* copies(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  for await (const chunk of chunks) yield chunk.slice();
}

Deno.test("basebackup --lazy has everything but relation data, pg_control last", () =>
  withService(async (cluster, client) => {
    const lsn = await cluster.ingest(truncateTo(2));
    const files = await untar(copies(client.copyOut(`basebackup ${ids(cluster)} --lazy`)));
    const names = [...files.keys()];
    assert.equal(names.at(-1), "global/pg_control");
    const wanted = ["base/5/", "base/5/PG_VERSION", "base/5/pg_filenode.map", "pg_xact/0000"];
    for (const name of [...wanted, "pg_twophase/", "pg_wal/summaries/", "base/1/PG_VERSION"]) {
      assert.ok(files.has(name), name);
    }
    assert.deepEqual(names.filter((name) => /16384|pg_wal\/0|pg_internal|conf$/.test(name)), [
      "pg_ident.conf",
      "postgresql.auto.conf",
    ]);
    const map = decodeLazyFilesMap(files.get("lazy_files.map")!);
    assert.deepEqual(map, {
      lsn,
      prevLsn: cluster.timeline.prevRecordLsn,
      pgMajor: 17,
      forks: [
        { ...HEAP, blocks: 2 },
        { ...HEAP, fork: 2, blocks: 1 },
        { ...HEAP, rel: 16385, blocks: 1 },
      ],
    });
    const control = decodeControlFile(files.get("global/pg_control")!);
    assert.deepEqual(
      [control.state, control.checkPointLsn, control.checkPoint.redo, control.systemId],
      [DbState.SHUT_DOWN, lsn, lsn, SYSTEM_ID],
    );
    assert.equal((await client.query("set x = 1")).tag, "SELECT 1"); // the session goes on
  }));

Deno.test("basebackup at an LSN, full and gzipped, has the pages and the WAL of that LSN", () =>
  withService(async (cluster, client) => {
    const lsn = cluster.timeline.lastRecordLsn;
    await cluster.ingest(truncateTo(1));
    const command = `basebackup ${ids(cluster)} ${formatLsn(lsn)} --gzip`;
    const parts: Uint8Array[] = [];
    for await (const chunk of client.copyOut(command)) parts.push(chunk.slice());
    const tar = gunzipSync(await new Blob(parts as BlobPart[]).bytes());
    const files = await untar((async function* () {
      yield tar;
    })());
    assert.equal(files.get("base/5/16384")!.length, 3 * 8192);
    assert.equal(files.get("pg_wal/000000010000000000000001")!.length, 16 * 1024 * 1024);
    assert.ok(files.has("postgresql.conf"));
    assert.equal(decodeControlFile(files.get("global/pg_control")!).checkPointLsn, lsn);
  }));

Deno.test("an unlogged relation is sent as its init fork, twice", () =>
  withService(async (cluster, client) => {
    const init = { ...HEAP, rel: 20000, fork: 3 };
    await cluster.ingest(
      { rmid: Rmgr.SMGR, info: 0x10, main: u32s(HEAP.spc, HEAP.db, 20000, 3) },
      { rmid: Rmgr.SMGR, info: 0x10, main: u32s(HEAP.spc, HEAP.db, HEAP.rel, 3) },
    );
    assert.equal(cluster.blocks(init), 0);
    const files = await untar(copies(client.copyOut(`basebackup ${ids(cluster)} --lazy`)));
    for (const name of ["20000", "20000_init", "16384", "16384_init"]) {
      assert.equal(files.get(`base/5/${name}`)?.length, 0, name);
    }
    const { forks } = decodeLazyFilesMap(files.get("lazy_files.map")!);
    assert.deepEqual(forks.map(({ rel }) => rel), [16385]);
  }));

Deno.test("leases are granted for LSNs that are there; unknown commands are errors", () =>
  withService(async (cluster, client) => {
    const lease = (lsn: Lsn) => client.query(`lease lsn ${ids(cluster)} ${formatLsn(lsn)}`);
    const { lastRecordLsn } = cluster.timeline;
    assert.deepEqual((await lease(lastRecordLsn)).rows, [["1800000600000"]]);
    assert.deepEqual((await lease(addLsn(lastRecordLsn, 8))).rows, [[null]]);
    await assert.rejects(client.query("show x"), /Cannot handle the command "show"/);
    await assert.rejects(client.query("pagestream_v3 1 2"), /tenant id/);
    const missing = ids(cluster).replace(/.$/, (last) => last === "0" ? "1" : "0");
    await assert.rejects(client.query(`basebackup ${missing}`), /Cannot find timeline/);
    await assert.rejects(client.query(`basebackup ${ids(cluster)} --fast`), /--fast/);
    const future = formatLsn(addLsn(lastRecordLsn, 800));
    await assert.rejects(client.query(`basebackup ${ids(cluster)} ${future}`), /0\/10003C0/);
  }));
