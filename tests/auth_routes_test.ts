/**
 * What tokens open, of a local Neon that wants them: every route of every daemon's HTTP API, as its
 * router has them, every call of the broker, and every command of the page service and the WAL
 * service. A token for one tenant opens nothing of another.
 */
import assert from "node:assert/strict";
import { type ClientHttp2Session, connect } from "node:http2";
import { join } from "node:path";
import { status } from "@grpc/grpc-js";
import { brokerService } from "../broker/messages.ts";
import { computeRules, httpApi as computeApi } from "../compute/http_api.ts";
import { newKeyPair } from "../libs/auth/keys.ts";
import { PgClient } from "../libs/pgwire/client.ts";
import type { ServerError } from "../libs/pgwire/messages.ts";
import {
  encodeProposerMessage,
  START_WAL_PUSH_COMMAND,
} from "../libs/safekeeper_protocol/messages.ts";
import { NO_MEMBERSHIP } from "../libs/safekeeper_protocol/membership.ts";
import { parseAddress } from "../libs/utils/address.ts";
import type { TenantId, TimelineId } from "../libs/utils/id.ts";
import type { RouteRules } from "../libs/daemon/http_guard.ts";
import { httpApi as pageserverApi, pageserverRules } from "../pageserver/http_api.ts";
import { httpApi as safekeeperApi, safekeeperRules } from "../safekeeper/http_api.ts";
import { runNeon, type TestNeon, testWithNeon } from "./harness.ts";
import { brokenTokens, tokenOf } from "./support/tokens.ts";

const OPEN = new Set(["GET /v1/status", "GET /metrics"]);

/** A branch. */
interface Subject {
  readonly tenantId: TenantId;
  readonly timelineId: TimelineId;
}

/** Routes of a daemon's HTTP API, and the scope that opens all of them. */
interface Api {
  readonly name: string;
  readonly address: string;
  readonly routes: readonly { readonly method: string; readonly path: string }[];
  readonly rules: RouteRules;
  readonly whole: Readonly<Record<string, string | readonly string[]>>;
}

function apisOf(neon: TestNeon): Api[] {
  const { pageservers, safekeepers, compute } = neon.local.environment().config;
  const routes = (api: { routes: { method: string; path: string }[] }) =>
    api.routes.filter(({ method }) => method !== "ALL");
  return [
    {
      name: "pageserver",
      address: pageservers[0]!.listen_http_addr,
      routes: routes(pageserverApi({} as never)),
      rules: pageserverRules,
      whole: { scope: "pageserverapi" },
    },
    {
      name: "safekeeper",
      address: `127.0.0.1:${safekeepers[0]!.http_port}`,
      routes: routes(safekeeperApi(1, {} as never, undefined)),
      rules: safekeeperRules,
      whole: { scope: "safekeeperdata" },
    },
    {
      name: "compute",
      address: compute.listen_http_addr,
      routes: routes(computeApi({} as never, undefined)),
      rules: computeRules,
      whole: { scope: "compute_ctl:admin", aud: ["compute"] },
    },
  ];
}

async function request(
  { address }: Api,
  method: string,
  path: string,
  token?: string,
): Promise<number> {
  const response = await fetch(`http://${address}${path}`, {
    method,
    headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
  });
  await response.body?.cancel();
  return response.status;
}

/** The refusals of every route of an API, for a branch that a token is not for. */
async function checkRoutes(neon: TestNeon, api: Api, victim: Subject, other: Subject) {
  const { directory } = neon.local;
  const broken = await brokenTokens(directory, api.whole);
  const foreign: Record<string, string> = {};
  const claims = {
    "another tenant": { scope: "tenant", tenant_id: other.tenantId },
    "an endpoint of another tenant": {
      scope: "tenantendpoint",
      tenant_id: other.tenantId,
      endpoint_id: "main",
    },
    "its own endpoint's": {
      scope: "tenantendpoint",
      tenant_id: victim.tenantId,
      endpoint_id: "main",
    },
    "another endpoint": { compute_id: "other" },
    "the pageserver": { scope: "pageserverapi" },
    "the safekeepers": { scope: "safekeeperdata" },
    "the compute host": { scope: "compute_ctl:admin", aud: [api.name] },
  };
  for (const [name, what] of Object.entries(claims)) {
    const isRight = "scope" in what && what.scope === api.whole["scope"];
    if (!isRight) foreign[name] = await tokenOf(directory, what);
  }
  /** What opens a part of the API, and nothing else of it. */
  const partly = {
    tenant: await tokenOf(directory, { scope: "tenant", tenant_id: victim.tenantId }),
    endpoint: await tokenOf(directory, { compute_id: "main" }),
  };
  let refused = 0;
  for (const { method, path: pattern } of api.routes) {
    const path = pattern.replace(":tenant", victim.tenantId)
      .replace(":timeline", victim.timelineId).replace(":name", "main");
    if (OPEN.has(`${method} ${pattern}`)) {
      assert.equal(await request(api, method, path), 200, `${api.name} ${pattern}`);
      continue;
    }
    const where = (what: string) => `${api.name}: ${method} ${path} with ${what}`;
    assert.equal(await request(api, method, path), 401, where("nothing"));
    for (const [what, token] of Object.entries(broken)) {
      assert.equal(await request(api, method, path, token), 401, where(what));
    }
    for (const [what, token] of Object.entries(foreign)) {
      assert.equal(await request(api, method, path, token), 403, where(what));
    }
    for (const [what, token] of Object.entries(partly)) {
      if (api.rules[`${method} ${pattern}`] === what) continue;
      assert.equal(await request(api, method, path, token), 403, where(`its own ${what}`));
    }
    refused++;
  }
  assert.ok(refused >= 8, `${api.name} has ${refused} routes that are not open`);
}

async function allowed(neon: TestNeon, subject: Subject): Promise<void> {
  const [pageserver, safekeeper, compute] = apisOf(neon) as [Api, Api, Api];
  const tenant = `/v1/tenant/${subject.tenantId}`;
  const timeline = `${tenant}/timeline/${subject.timelineId}`;
  const sign = (claims: Parameters<typeof tokenOf>[1]) => tokenOf(neon.local.directory, claims);
  const own = await sign({ scope: "tenant", tenant_id: subject.tenantId });
  for (const path of [tenant, `${tenant}/timeline`, timeline, `${timeline}/layer`]) {
    assert.equal(await request(pageserver, "GET", path, own), 200, path);
  }
  assert.equal(await request(safekeeper, "GET", timeline, own), 200);
  assert.equal(await request(safekeeper, "POST", `${timeline}/checkpoint`, own), 200);
  const endpoint = await neon.run("endpoint", "generate-jwt", "main");
  assert.match(endpoint, /^[\w-]+\.[\w-]+\.[\w-]+$/); // no newline
  assert.equal(await request(compute, "GET", "/v1/endpoints/main", endpoint), 200);
  assert.equal(await request(compute, "GET", "/v1/endpoints", endpoint), 403);
  const scopes = {
    "compute_ctl:admin": [compute, "/v1/endpoints"],
    pageserverapi: [pageserver, "/v1/tenant"],
    safekeeperdata: [safekeeper, "/v1/tenant/timeline"],
    tenant: [pageserver, tenant],
  } as const;
  for (const [scope, [api, path]] of Object.entries(scopes)) {
    const token = await neon.run("endpoint", "generate-jwt", "main", "-s", scope);
    assert.equal(await request(api, "GET", path, token), 200, scope);
  }
}

/** Runs a command with a token; answers the error's code, or "ok". */
async function tryCommand(
  address: string,
  token: string | undefined,
  { tenantId, timelineId }: Subject,
  command: string,
): Promise<string> {
  const startup = {
    user: "x",
    database: "replication",
    options: `-c timeline_id=${timelineId} -c tenant_id=${tenantId}`,
  };
  let client: PgClient | undefined;
  try {
    client = await PgClient.connect(parseAddress(address), startup, undefined, () => token);
    if (command === START_WAL_PUSH_COMMAND) {
      const copy = await client.copyBoth(command);
      copy.queue(encodeProposerMessage({
        kind: "greeting",
        tenantId,
        timelineId,
        membership: NO_MEMBERSHIP,
        pgVersionNum: 170000,
        systemId: 0n,
        walSegmentSize: 16 * 1024 * 1024,
      }));
      await copy.flush();
      await copy.receive();
    } else if (/^(pagestream|START_REPLICATION)/.test(command)) await client.copyBoth(command);
    else if (/^(base|full)backup/.test(command)) {
      for await (const _ of client.copyOut(command)) break;
    } else await client.query(command);
    return "ok";
  } catch (thrown) {
    return (thrown as ServerError).code ?? String(thrown);
  } finally {
    client?.close();
  }
}

/** Every command of the PostgreSQL ports, for one branch, at an LSN that it has. */
function commandsOf(neon: TestNeon, { tenantId, timelineId }: Subject, lsn: string) {
  const { pageservers, safekeepers } = neon.local.environment().config;
  return {
    pageserver: {
      address: pageservers[0]!.listen_pg_addr,
      whole: { scope: "pageserverapi" },
      commands: [
        `pagestream_v2 ${tenantId} ${timelineId}`,
        `pagestream_v3 ${tenantId} ${timelineId}`,
        `basebackup ${tenantId} ${timelineId}`,
        `fullbackup ${tenantId} ${timelineId}`,
        `lease lsn ${tenantId} ${timelineId} ${lsn}`,
      ],
    },
    safekeeper: {
      address: `127.0.0.1:${safekeepers[0]!.pg_port}`,
      whole: { scope: "safekeeperdata" },
      commands: [
        "IDENTIFY_SYSTEM",
        "TIMELINE_STATUS",
        "SHOW wal_segment_size",
        `START_REPLICATION PHYSICAL ${lsn}`,
        `START_REPLICATION PHYSICAL ${lsn} (term='0')`,
        START_WAL_PUSH_COMMAND,
      ],
    },
  };
}

async function checkCommands(neon: TestNeon, victim: Subject, other: Subject, lsn: string) {
  const { directory } = neon.local;
  const own = { tenant_id: victim.tenantId };
  for (const [name, server] of Object.entries(commandsOf(neon, victim, lsn))) {
    const { address, whole, commands } = server;
    const right = [
      await tokenOf(directory, whole),
      await tokenOf(directory, { scope: "tenant", ...own }),
      await tokenOf(directory, { scope: "tenantendpoint", endpoint_id: "main", ...own }),
    ];
    const foreign = [
      await tokenOf(directory, { scope: "tenant", tenant_id: other.tenantId }),
      await tokenOf(directory, {
        scope: "tenantendpoint",
        tenant_id: other.tenantId,
        endpoint_id: "main",
      }),
      await tokenOf(directory, {
        scope: name === "pageserver" ? "safekeeperdata" : "pageserverapi",
      }),
      await tokenOf(directory, { compute_id: "main" }),
    ];
    const broken = await brokenTokens(directory, whole);
    for (const command of commands) {
      const attempt = (token?: string) => tryCommand(address, token, victim, command);
      assert.equal(await attempt(), "28000", `${command} without a token`);
      for (const token of foreign) assert.equal(await attempt(token), "42501", command);
      for (const token of right) assert.equal(await attempt(token), "ok", command);
    }
    for (const [what, token] of Object.entries(broken)) {
      assert.equal(await tryCommand(address, token, victim, commands[0]!), "28P01", what);
    }
  }
}

/** The status that a gRPC call with one message ends with, or "OK" when it is answered. */
async function callStatus(
  session: ClientHttp2Session,
  path: string,
  token?: string,
  message: Uint8Array = new Uint8Array(0),
): Promise<number> {
  const ended = Promise.withResolvers<number>();
  const stream = session.request({
    ":method": "POST",
    ":path": path,
    "content-type": "application/grpc",
    "te": "trailers",
    ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
  });
  const look = (headers: Record<string, unknown>) => {
    const status = headers["grpc-status"];
    if (status !== undefined) ended.resolve(Number(status));
  };
  stream.on("response", look);
  stream.on("trailers", look);
  stream.on("data", () => ended.resolve(status.OK)); // it is told what safekeepers publish
  stream.on("error", ended.reject);
  const prefixed = new Uint8Array(5 + message.length); // not compressed, and its length
  new DataView(prefixed.buffer).setUint32(1, message.length);
  prefixed.set(message, 5);
  stream.end(prefixed);
  try {
    return await ended.promise;
  } finally {
    stream.close();
  }
}

/**
 * Every call of the broker wants the token of all safekeepers. All over one connection: Deno's
 * HTTP/2 server may abort when one ends (an assertion of nghttp2 about closed streams).
 */
async function checkBroker(neon: TestNeon): Promise<void> {
  const address = neon.local.environment().config.broker.listen_addr;
  const session = connect(`http://${address}`);
  const broken = Promise.withResolvers<never>();
  broken.promise.catch(() => {}); // also when nobody waits any more
  session.on("error", broken.reject);
  try {
    await Promise.race([checkBrokerCalls(neon, session), broken.promise]);
  } finally {
    session.destroy();
  }
}

async function checkBrokerCalls(neon: TestNeon, session: ClientHttp2Session): Promise<void> {
  const { directory } = neon.local;
  const whole = { scope: "safekeeperdata" };
  const broken = await brokenTokens(directory, whole);
  const tenant = { scope: "tenant", tenant_id: neon.tenant.tenantId };
  const foreign = [
    await tokenOf(directory, tenant),
    await tokenOf(directory, { ...tenant, scope: "tenantendpoint", endpoint_id: "main" }),
    await tokenOf(directory, { scope: "pageserverapi" }),
  ];
  const methods = Object.values(brokerService);
  assert.equal(methods.length, 4);
  for (const { path } of methods) {
    for (const token of [undefined, ...Object.values(broken)]) {
      assert.equal(await callStatus(session, path, token), status.UNAUTHENTICATED, path);
    }
    for (const token of foreign) {
      assert.equal(await callStatus(session, path, token), status.PERMISSION_DENIED, path);
    }
  }
  const { path, requestSerialize } = brokerService.SubscribeSafekeeperInfo;
  const right = await tokenOf(directory, whole);
  assert.equal(await callStatus(session, path, right), status.INVALID_ARGUMENT);
  assert.equal(await callStatus(session, path, right, requestSerialize({ all: {} })), status.OK);
}

testWithNeon("a token opens what it is for, and nothing else", { auth: true }, async (neon) => {
  const victim = neon.tenant;
  const other = await neon.local.createTenant();
  const main = neon.connect(await neon.local.startEndpoint("main"));
  await main`create table t as select 1 as a`;
  for (const api of apisOf(neon)) await checkRoutes(neon, api, victim, other);
  await allowed(neon, victim);
  await checkBroker(neon);
  await checkCommands(neon, victim, other, victim.startLsn);
  // None of all that has changed anything
  assert.deepEqual([...await main`select a from t`], [{ a: 1 }]);
  await main`insert into t values (2)`;
  assert.equal((await neon.run("tenant", "list")).trim().split("\n").length, 2);
  await checkStrangeKey(neon);
});

/** What a command says whose key the daemons do not know; stopping needs none. */
async function checkStrangeKey({ local: { directory } }: TestNeon): Promise<void> {
  const path = join(directory, "auth_private_key.pem");
  const right = Deno.readTextFileSync(path);
  Deno.writeTextFileSync(path, (await newKeyPair()).privatePem);
  const commands = {
    "tenant list": /the public keys in \.neon must have one that fits/,
    "start": /storage_broker read the public keys/,
  };
  for (const [command, why] of Object.entries(commands)) {
    const { code, stderr } = await runNeon(directory, command.split(" "));
    assert.equal(code, 1, stderr);
    assert.match(stderr, /Cannot authenticate: no known key has signed the token/);
    assert.match(stderr, why);
  }
  const seen = await runNeon(directory, ["status"]);
  assert.equal(seen.code, 1);
  assert.match(seen.stderr, /^error: Cannot authenticate: no known key .* must have one that fits/);
  assert.match(seen.stdout, /^ pageserver .* running$/m);
  assert.match(seen.stdout, /^ main .* running$/m); // found by its process
  const stop = await runNeon(directory, ["stop"]);
  assert.deepEqual([stop.code, stop.stderr], [0, ""]);
  Deno.writeTextFileSync(path, right);
}

Deno.test("neon init --auth makes keys that only their owner can use; generate-jwt needs them", async () => {
  const directory = Deno.makeTempDirSync({ prefix: "neon-auth-init-" });
  Deno.chmodSync(directory, 0o755); // PostgreSQL's user passes through
  try {
    const repoDir = join(directory, ".neon");
    const run = async (...args: string[]) => {
      const { code, stdout, stderr } = await runNeon(repoDir, args, directory);
      return { code, text: stdout + stderr };
    };
    const made = await run("init", "--auth");
    assert.equal(made.code, 0, made.text);
    const modes = ["auth_private_key.pem", "auth_public_key.pem"]
      .map((name) => Deno.statSync(join(repoDir, name)).mode! & 0o777);
    assert.deepEqual(modes, [0o600, 0o644 & ~Deno.umask()]);
    const settings = Deno.readTextFileSync(join(repoDir, "compute", "compute.toml"));
    assert.match(settings, new RegExp(`auth_validation_public_key_path = "${repoDir}/auth_public`));
    const key = Deno.readTextFileSync(join(repoDir, "auth_private_key.pem"));
    const again = await run("init", "--auth", "--force", "remove-all-contents");
    assert.equal(again.code, 0, again.text);
    assert.notEqual(Deno.readTextFileSync(join(repoDir, "auth_private_key.pem")), key);
    const unknown = await run("endpoint", "generate-jwt", "main");
    assert.match(unknown.text, /^error: Cannot find endpoint "main"/);
    const scope = await run("endpoint", "generate-jwt", "main", "-s", "root");
    assert.deepEqual([scope.code, /tenantendpoint/.test(scope.text)], [2, true]);
    Deno.writeTextFileSync(join(repoDir, "auth_private_key.pem"), "");
    const start = await run("pageserver", "start");
    assert.equal(start.code, 1);
    assert.match(start.text, /Cannot use the private key .*: there is no "PRIVATE KEY" in it/);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});
