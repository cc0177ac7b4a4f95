import assert from "node:assert/strict";
import { z } from "zod";
import { parseAddress } from "../utils/address.ts";
import { BadRequest, Conflict, NotFound, TimedOut, Unavailable } from "../utils/errors.ts";
import { HttpClient } from "../utils/http_client.ts";
import { logger } from "../utils/log.ts";
import { addressSetting, logLevelSetting, readConfigFile } from "./config_file.ts";
import { newHttpApi, readJson } from "./http_api.ts";
import { serveHttp } from "./listen.ts";

/** Runs `body` with a server of `api` on a free port. */
async function withServer(
  api: ReturnType<typeof newHttpApi>,
  body: (address: string) => Promise<void>,
): Promise<void> {
  const server = serveHttp("127.0.0.1:0", api);
  try {
    await body(`127.0.0.1:${server.addr.port}`);
  } finally {
    await server.shutdown();
  }
}

const someApi = () =>
  newHttpApi(logger("test"), { id: 7 }, { rules: {}, authenticator: undefined });

Deno.test("an error goes over HTTP with its class and its message", async () => {
  const api = someApi();
  const kinds = { BadRequest, Conflict, NotFound, TimedOut, Unavailable };
  for (const [name, Kind] of Object.entries(kinds)) {
    api.get(`/${name}`, () => {
      throw new Kind(`Cannot do ${name}`);
    });
  }
  api.get("/SyntaxError", () => parseAddress("nothing") as never);
  await withServer(api, async (address) => {
    const client = new HttpClient("the server", address);
    for (const [name, Kind] of Object.entries(kinds)) {
      await assert.rejects(
        client.json("GET", `/${name}`),
        (thrown) => thrown instanceof Kind && thrown.message === `Cannot do ${name}`,
      );
    }
    await assert.rejects(client.json("GET", "/SyntaxError"), BadRequest);
    await assert.rejects(client.json("PUT", "/other"), /^NotFound: Cannot find PUT \/other$/);
    assert.deepEqual(await client.json("GET", "/v1/status"), { id: 7 });
    const metrics = await fetch(`http://${address}/metrics`);
    assert.match(metrics.headers.get("content-type")!, /^text\/plain/);
    await metrics.body?.cancel();
  });
});

Deno.test("readJson() says what is wrong with a body, and takes none as an empty one", async () => {
  const api = someApi();
  api.put("/", async (c) => c.json(await readJson(c, z.object({ count: z.int().optional() }))));
  await withServer(api, async (address) => {
    const client = new HttpClient("the server", address);
    assert.deepEqual(await client.json("PUT", "/", { count: 1 }), { count: 1 });
    assert.deepEqual(await client.json("PUT", "/"), {});
    await assert.rejects(client.json("PUT", "/", { count: "x" }), /BadRequest: .*[^]*count/);
    await assert.rejects(client.send("PUT", "/", "{", "application/json"), /is not JSON/);
  });
});

Deno.test("readJson() reads no more than it has to, and the rest holds up nobody", async () => {
  const api = someApi();
  api.put("/", async (c) => c.json(await readJson(c, z.unknown())));
  await withServer(api, async (address) => {
    const client = new HttpClient("the server", address);
    const put = (body: string) => client.send("PUT", "/", body, "application/json");
    await assert.rejects(
      put(`"${"x".repeat(2_000_000)}"`),
      /BadRequest: .*more than 1048576 bytes/,
    );
    await assert.rejects(put("[".repeat(200) + "]".repeat(200)), /BadRequest: .*100 deep/);
    await put(`"${"[".repeat(200)}\\"["`); // in a text
    // Nobody reads this body: the server still ends the connection
    const { hostname, port } = parseAddress(address);
    using connection = await Deno.connect({ hostname, port });
    const head =
      "PUT /none HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 50000\r\n\r\n";
    await connection.write(new TextEncoder().encode(head + "x".repeat(50_000)));
    const answer = await new Response(connection.readable).text();
    assert.match(answer, /^HTTP\/1.1 404 /);
  });
});

Deno.test("a server that is not there is Unavailable, a slow one TimedOut, a taken port Conflict", async () => {
  const api = someApi();
  const answer = Promise.withResolvers<void>();
  api.get("/slow", async (c) => {
    await answer.promise;
    return c.json({});
  });
  let gone = "";
  await withServer(api, async (address) => {
    gone = address;
    const client = new HttpClient("the server", address, 20);
    await assert.rejects(client.json("GET", "/slow"), TimedOut);
    answer.resolve();
    assert.throws(() => serveHttp(address, api), Conflict);
  });
  await assert.rejects(
    new HttpClient("the server", gone).json("GET", "/"),
    (thrown) =>
      thrown instanceof Unavailable && thrown.message.includes(`the server at http://${gone}`),
  );
});

Deno.test("parseAddress() takes host:port and nothing else", () => {
  assert.deepEqual(parseAddress("127.0.0.1:80"), { hostname: "127.0.0.1", port: 80 });
  assert.deepEqual(parseAddress("[::1]:0"), { hostname: "::1", port: 0 });
  for (const text of ["", "localhost", ":80", "a:", "a:65536", "a b:1", "a:1x"]) {
    assert.throws(() => parseAddress(text), SyntaxError, text);
  }
});

Deno.test("readConfigFile() names the file and the key that is wrong", () => {
  const path = Deno.makeTempFileSync({ suffix: ".toml" });
  const schema = z.strictObject({ listen: addressSetting, log_level: logLevelSetting });
  const read = (text: string) => {
    Deno.writeTextFileSync(path, text);
    return readConfigFile(path, schema);
  };
  assert.deepEqual(read('listen = "a:1"'), { listen: "a:1", log_level: "info" });
  const refused: [string, RegExp][] = [
    ["listen = ", /Cannot read/],
    ['listen = "a"', /listen/],
    ['listen = "a:1"\nlisten_port = 1', /listen_port/],
  ];
  for (const [text, why] of refused) {
    assert.throws(
      () => read(text),
      (thrown) =>
        thrown instanceof BadRequest && thrown.message.includes(path) && why.test(thrown.message),
    );
  }
  Deno.removeSync(path);
  assert.throws(() => readConfigFile(path, schema), BadRequest);
});
