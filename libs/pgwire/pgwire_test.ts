import assert from "node:assert/strict";
import { Forbidden, Unauthorized } from "../utils/errors.ts";
import { parseTenantId } from "../utils/id.ts";
import { toLsn } from "../utils/lsn.ts";
import { PgClient } from "./client.ts";
import { MessageReader } from "./message_reader.ts";
import { readError, type ServerError } from "./messages.ts";
import {
  queueKeepalive,
  queueStandbyStatus,
  readReceiverMessage,
  readSenderMessage,
  reserveXlogData,
} from "./replication.ts";
import { type PgServer, type PgSession, servePg } from "./server.ts";

async function withServer(
  onConnection: (session: PgSession) => Promise<void>,
  use: (server: PgServer, connect: () => Promise<PgClient>) => Promise<void>,
): Promise<void> {
  const server = servePg({ hostname: "127.0.0.1", port: 0, onConnection });
  const clients: PgClient[] = [];
  try {
    await use(server, async () => {
      const client = await PgClient.connect({ hostname: "127.0.0.1", port: server.port }, {
        user: "someone",
        options: "-c timeline_id=ab -c tenant_id=cd",
      });
      clients.push(client);
      return client;
    });
  } finally {
    for (const client of clients) client.close();
    await server.close();
  }
}

Deno.test("query() returns rows, nulls and the tag, and the session survives an error", async () => {
  await withServer(async (session) => {
    assert.equal(session.options().get("timeline_id"), "ab");
    assert.equal(session.options().get("tenant_id"), "cd");
    for (let sql = await session.nextQuery(); sql !== undefined; sql = await session.nextQuery()) {
      if (sql === "bad") await session.sendError("42601", "Cannot do that");
      else await session.sendRows([{ name: "a", typeOid: 25 }], [[sql], [null]], "SELECT 2");
    }
  }, async (_server, connect) => {
    const client = await connect();
    await assert.rejects(
      client.query("bad"),
      (error: ServerError) => error.code === "42601" && error.message === "Cannot do that",
    );
    assert.deepEqual(await client.query("good ü"), {
      columns: ["a"],
      rows: [["good ü"], [null]],
      tag: "SELECT 2",
    });
  });
});

Deno.test("copyOut() yields every payload in order", async () => {
  await withServer(async (session) => {
    await session.nextQuery();
    await session.beginCopyOut();
    for (let i = 0; i < 300; i++) await session.copyData(new Uint8Array(1000).fill(i));
    await session.endCopyOut("COPY");
    await session.nextQuery();
  }, async (_server, connect) => {
    const client = await connect();
    let count = 0;
    for await (const part of client.copyOut("basebackup")) {
      assert.equal(part.length, 1000);
      assert.equal(part[999], count++ & 0xff);
    }
    assert.equal(count, 300);
  });
});

Deno.test("copyBoth() carries messages longer than the buffers both ways", async () => {
  await withServer(async (session) => {
    await session.nextQuery();
    const copy = await session.beginCopyBoth(1_000_000);
    for (let part = await copy.receive(); part !== undefined; part = await copy.receive()) {
      copy.queue(part.subarray(0, 1), part.subarray(1));
      if (!copy.buffered) await copy.flush();
    }
  }, async (_server, connect) => {
    const copy = await (await connect()).copyBoth("START_REPLICATION");
    const sizes = [0, 1, 5, 70_000, 131_097, 3, 500_000, 2];
    for (const [i, size] of sizes.entries()) copy.queue(new Uint8Array(size).fill(i + 1));
    await copy.flush();
    for (const [i, size] of sizes.entries()) {
      const part = await copy.receive();
      assert.equal(part?.length, size);
      assert.ok(part!.every((byte) => byte === i + 1));
    }
    assert.equal(copy.tryReceive(), undefined);
    const limited = await (await connect()).copyBoth("START_REPLICATION", 100_000);
    limited.queue(new Uint8Array(99_000));
    limited.queue(new Uint8Array(100_001));
    await limited.flush();
    assert.equal((await limited.receive())?.length, 99_000);
    await assert.rejects(limited.receive(), /its length is 100005/);
    limited.close();
  });
});

Deno.test("an error thrown by the handler reaches the client", async () => {
  await withServer(async (session) => {
    await session.nextQuery();
    throw new Error("Cannot go on");
  }, async (_server, connect) => {
    const client = await connect();
    await assert.rejects(client.query("anything"), /Cannot go on|closed/);
  });
});

Deno.test("replication payloads read back as they were assembled", async () => {
  const lsn = toLsn(2 ** 40 + 16);
  await withServer(async (session) => {
    await session.nextQuery();
    const copy = await session.beginCopyBoth(1_000_000);
    const at = reserveXlogData(copy, lsn, toLsn(lsn + 3), 5n, 3);
    copy.sendBytes.set([7, 8, 9], at);
    queueKeepalive(copy, lsn, 6n, true);
    await copy.flush();
    const status = readReceiverMessage((await copy.receive())!);
    assert.deepEqual(status, {
      kind: "status",
      written: lsn,
      flushed: lsn,
      applied: lsn,
      replyWanted: false,
    });
    await copy.finish();
  }, async (_server, connect) => {
    const copy = await (await connect()).copyBoth("START_REPLICATION");
    const data = readSenderMessage((await copy.receive())!);
    assert.equal(data.kind, "xlogData");
    if (data.kind === "xlogData") {
      assert.equal(data.start, lsn);
      assert.deepEqual([...data.wal], [7, 8, 9]);
    }
    assert.deepEqual(readSenderMessage((await copy.receive())!), {
      kind: "keepalive",
      endOfWal: lsn,
      replyWanted: true,
    });
    queueStandbyStatus(copy, lsn, 1n);
    await copy.flush();
    assert.equal(await copy.receive(), undefined);
  });
});

Deno.test("readError() keeps code and message of an unknown severity", () => {
  const body = new TextEncoder().encode("SFATAL\0C57P01\0Mgoing down\0\0");
  const error = readError(body);
  assert.equal(error.code, "57P01");
  assert.equal(error.message, "going down");
});

Deno.test("a client's token is its password; without the right one there is no session", async () => {
  const one = parseTenantId("11".repeat(16));
  let sessions = 0;
  const server = servePg({
    hostname: "127.0.0.1",
    port: 0,
    login: (token) => {
      if (token !== "right") throw new Unauthorized("Cannot authenticate: no");
      return Promise.resolve({
        checkTenant(tenant) {
          if (tenant !== one) throw new Forbidden("Cannot allow this: no");
        },
      });
    },
    onConnection: async (session) => {
      sessions++;
      assert.throws(() => session.access.checkTenant(parseTenantId("22".repeat(16))), Forbidden);
      session.access.checkTenant(one);
      for (let sql = await session.nextQuery(); sql !== undefined;) {
        await session.sendRows([{ name: "a", typeOid: 25 }], [[sql]], "SELECT 1");
        sql = await session.nextQuery();
      }
    },
  });
  const connect = (token?: () => string) =>
    PgClient.connect({ hostname: "127.0.0.1", port: server.port }, { user: "x" }, undefined, token);
  const refusedWith = (code: string) => (error: ServerError) => error.code === code;
  try {
    const client = await connect(() => "right");
    assert.deepEqual((await client.query("hello")).rows, [["hello"]]);
    client.close();
    await assert.rejects(connect(() => "wrong"), refusedWith("28P01"));
    await assert.rejects(connect(() => ""), refusedWith("28P01"));
    await assert.rejects(connect(() => "x".repeat(70_000)), refusedWith("XX000"));
    await assert.rejects(connect(), refusedWith("28000"));
    assert.equal(sessions, 1);
    // What comes in place of a password is not run
    using raw = await Deno.connect({ hostname: "127.0.0.1", port: server.port });
    const startup = [0, 0, 0, 16, 0, 3, 0, 0, 0x75, 0, 0x78, 0, 0, 0, 0, 0];
    const query = [0x51, 0, 0, 0, 6, 0x78, 0];
    await raw.write(new Uint8Array([...startup, ...query]));
    const answer = new TextDecoder().decode(await new Response(raw.readable).bytes());
    assert.ok(answer.startsWith("R\0\0\0\x08\0\0\0\x03E"), answer);
    assert.match(answer, /FATAL.*28P01.*sent no password/s);
    assert.equal(sessions, 1);
  } finally {
    await server.close();
  }
});

Deno.test("a token that nobody asked for is no error", async () => {
  await withServer(async (session) => {
    const sql = await session.nextQuery();
    await session.sendRows([{ name: "a", typeOid: 25 }], [[sql!]], "SELECT 1");
  }, async (server) => {
    using raw = await Deno.connect({ hostname: "127.0.0.1", port: server.port });
    const startup = [0, 0, 0, 16, 0, 3, 0, 0, 0x75, 0, 0x78, 0, 0, 0, 0, 0];
    await raw.write(new Uint8Array([...startup, 0x70, 0, 0, 0, 6, 0x78, 0]));
    await raw.write(new Uint8Array([0x51, 0, 0, 0, 7, 0x68, 0x69, 0, 0x58, 0, 0, 0, 4]));
    const answer = new TextDecoder().decode(await new Response(raw.readable).bytes());
    assert.ok(answer.includes("D\0\0\0\x0c\0\x01\0\0\0\x02hi"), answer);
    assert.doesNotMatch(answer, /ERROR/);
  });
});

Deno.test("a message takes memory as it arrives, not as it claims to be long", async () => {
  const head = Uint8Array.of(0x64, 0x03, 0xff, 0xff, 0xff); // 64 MiB will follow, it says
  const parts: Uint8Array[] = [head, new Uint8Array(100_000)];
  const reader = new MessageReader({
    read(into) {
      const part = parts.shift();
      if (part === undefined) return Promise.resolve(null);
      const taken = part.subarray(0, into.length);
      into.set(taken);
      if (taken.length < part.length) parts.unshift(part.subarray(taken.length));
      return Promise.resolve(taken.length);
    },
  });
  assert.equal(await reader.next(), false);
  assert.ok(reader.bytes.length <= 4 * 100_000, `${reader.bytes.length} bytes`);
});

Deno.test("a client that says too much, or not who it is, is sent away", async () => {
  const server = servePg({
    hostname: "127.0.0.1",
    port: 0,
    startupMsMax: 50,
    onConnection: async (session) => void await session.nextQuery(),
  });
  const address = { hostname: "127.0.0.1", port: server.port };
  const talkative = await PgClient.connect(address, { user: "talkative" });
  await assert.rejects(talkative.query("x".repeat(10_000)), /its length is 10005/);
  talkative.close();
  using silent = await Deno.connect(address);
  await silent.write(Uint8Array.of(0, 0, 0, 50, 0, 3));
  assert.equal(await silent.read(new Uint8Array(1)).catch(() => null), null);
  await server.close();
});
