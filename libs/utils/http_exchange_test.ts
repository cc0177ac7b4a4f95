/** Tests of the small HTTP client: against Deno's own server, and against answers as bytes. */
import assert from "node:assert/strict";
import type { Address } from "./address.ts";
import { exchange, type HttpRequest } from "./http_exchange.ts";

const GET: HttpRequest = { method: "GET", path: "/", headers: {} };
const encode = (text: string) => new TextEncoder().encode(text);
const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

/** Runs `work` against a server that answers every connection with these pieces, and hangs up. */
async function withAnswer<T>(
  pieces: readonly string[],
  work: (address: Address) => Promise<T>,
): Promise<T> {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const serving = (async () => {
    using connection = await listener.accept();
    await connection.read(new Uint8Array(65536));
    for (const piece of pieces) {
      if (await connection.write(encode(piece)).catch(() => 0) === 0) return; // it has enough
      await new Promise((resolve) => setTimeout(resolve)); // so that it is a piece of its own
    }
  })();
  try {
    return await work({ hostname: "127.0.0.1", port: listener.addr.port });
  } finally {
    await serving;
  }
}

/** Each text cut into its characters, too. */
function ways(text: string): string[][] {
  return [[text], [...text]];
}

Deno.test("what Deno's server is asked and answers arrives, bodies of all kinds and sizes", async () => {
  const seen: string[] = [];
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
    seen.push(`${request.method} ${new URL(request.url).pathname} ${request.headers.get("x-a")}`);
    const body = new Uint8Array(await request.arrayBuffer());
    const isStream = request.headers.get("x-a") === "stream";
    return new Response(isStream ? new Blob([body]).stream() : body, { status: 201 });
  });
  const { port } = server.addr;
  for (const hostname of ["127.0.0.1", "localhost"]) {
    for (const kind of ["plain", "stream"]) {
      for (const length of [0, 1, 5000, 3_000_000]) {
        const bytes = crypto.getRandomValues(new Uint8Array(Math.min(length, 60_000)));
        const body = new Uint8Array(length).map((_, i) => bytes[i % bytes.length]!);
        const answer = await exchange({ hostname, port }, {
          method: "PUT",
          path: "/some/path?a=b",
          headers: { "x-a": kind },
          body: kind === "stream" ? new Blob([body]).stream() : body,
        });
        assert.equal(answer.status, 201);
        assert.deepEqual(answer.body, body, `${kind} ${length}`);
        assert.equal(seen.at(-1), `PUT /some/path ${kind}`);
      }
    }
  }
  await server.shutdown();
});

Deno.test("an answer ends where its headers say, in whatever pieces it comes", async () => {
  const answers: [string, number, string][] = [
    ["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, "hello"],
    ["HTTP/1.1 200 OK\r\nContent-Length:5\r\n\r\nhello and more", 200, "hello"],
    ["HTTP/1.0 404 \r\n\r\nto the end", 404, "to the end"],
    ["HTTP/1.1 204 No Content\r\n\r\n", 204, ""],
    ["HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200, ""],
    [
      "HTTP/1.1 503 x\r\ntransfer-encoding: Chunked\r\n\r\n" +
      "3;a=b\r\nabc\r\nA\r\n0123456789\r\n0\r\nx: y\r\n\r\n",
      503,
      "abc0123456789",
    ],
  ];
  for (const [text, status, body] of answers) {
    for (const pieces of ways(text)) {
      const answer = await withAnswer(pieces, (address) => exchange(address, GET));
      assert.deepEqual([answer.status, decode(answer.body)], [status, body], text);
    }
  }
});

Deno.test("what is cut short, or is not HTTP, is an error and never a part of an answer", async () => {
  const short = /closed before the answer was complete/;
  const other = /is not one of HTTP/;
  const answers: [string, RegExp][] = [
    ["", short],
    ["HTTP/1.1 200 OK\r\n", short],
    ["HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello", short],
    ["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", short],
    ["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel", short],
    ["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n\r\n", other],
    ["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nabc\r\n", other],
    ["HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n", /unknown transfer encoding "gzip"/],
    ["HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", other],
    ["HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n", other],
    ["SSH-2.0-OpenSSH\r\n\r\n", other],
    ["x".repeat(70_000), other],
  ];
  for (const [text, why] of answers) {
    await withAnswer([text], (address) => assert.rejects(exchange(address, GET), why, text));
  }
});

Deno.test("an aborted request ends at once, whether it is answered, connected or neither", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const address = { hostname: "127.0.0.1", port: listener.addr.port };
  const controller = new AbortController();
  const asking = exchange(address, GET, controller.signal);
  using connection = await listener.accept();
  controller.abort(new Error("no more"));
  await assert.rejects(asking, /no more/);
  const bytes = new Uint8Array(1000);
  while (await connection.read(bytes) !== null); // it was closed at the other side, too
  await assert.rejects(exchange(address, GET, controller.signal), /no more/);
});

Deno.test("a server that answers before it has read everything is heard; a source that fails is told", async () => {
  const large = { ...GET, method: "PUT", body: new Uint8Array(200_000) };
  const text = "HTTP/1.1 400 Bad\r\ncontent-length: 2\r\n\r\nno";
  const endless = new ReadableStream<Uint8Array<ArrayBuffer>>({
    pull: (controller) => controller.enqueue(new Uint8Array(1000)),
  });
  for (const body of [large.body, endless]) {
    using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const address = { hostname: "127.0.0.1", port: listener.addr.port };
    const asking = exchange(address, { ...large, body });
    using connection = await listener.accept();
    await connection.read(new Uint8Array(100));
    await connection.write(encode(text));
    const answer = await asking;
    assert.deepEqual([answer.status, decode(answer.body)], [400, "no"]);
  }
  const failing = new ReadableStream<Uint8Array<ArrayBuffer>>({
    pull: () => Promise.reject(new Error("the disk is gone")),
  });
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const address = { hostname: "127.0.0.1", port: listener.addr.port };
  await assert.rejects(exchange(address, { ...large, body: failing }), /the disk is gone/);
});
