import assert from "node:assert/strict";
import { join } from "node:path";
import { Authenticator } from "../auth/authenticator.ts";
import { signToken } from "../auth/jwt.ts";
import { newKeyPair, readPrivateKey } from "../auth/keys.ts";
import { parseTenantId } from "../utils/id.ts";
import { logger } from "../utils/log.ts";
import { newHttpApi } from "./http_api.ts";
import type { RouteRules } from "./http_guard.ts";

const ONE = parseTenantId("ab".repeat(16));
const OTHER = parseTenantId("cd".repeat(16));

const RULES: RouteRules = {
  "GET /v1/tenant": "server",
  "GET /v1/tenant/:tenant": "tenant",
  "GET /v1/tenant/:tenant/timeline/:timeline": "tenant",
};

Deno.test("a route is opened by the token that its rule names; one without a rule by the server's", async () => {
  const directory = Deno.makeTempDirSync();
  const { privatePem, publicPem } = await newKeyPair();
  Deno.writeTextFileSync(join(directory, "private.pem"), privatePem);
  Deno.writeTextFileSync(join(directory, "public.pem"), publicPem);
  const key = await readPrivateKey(join(directory, "private.pem"));
  const authenticator = await Authenticator.open("safekeeper", join(directory, "public.pem"));
  const api = newHttpApi(logger("test"), { id: 1 }, { rules: RULES, authenticator });
  for (const path of [...Object.keys(RULES), "GET /v1/new/:tenant"]) {
    api.get(path.slice(4), (c) => c.json({}));
  }
  api.get("/v1/tenant/:tenant/*", (c) => c.json({}));
  const whole = `Bearer ${await signToken(key, { scope: "safekeeperdata" })}`;
  const tenant = `bearer  ${await signToken(key, { scope: "tenant", tenant_id: ONE })}`;
  const expired = `Bearer ${await signToken(key, { scope: "safekeeperdata", exp: 1 })}`;
  const status = async (path: string, authorization?: string, method = "GET") => {
    const headers = authorization === undefined ? {} : { authorization };
    const response = await api.request(path, { method, headers });
    if (response.status === 401) {
      assert.equal(response.headers.get("www-authenticate"), "Bearer");
    }
    return response.status;
  };
  for (const open of ["/v1/status", "/metrics"]) assert.equal(await status(open), 200);

  /** Status without a token, with the tenant's, with the whole server's. */
  const expected: [string, number, number, number][] = [
    ["/v1/tenant", 401, 403, 200],
    [`/v1/tenant/${ONE}`, 401, 200, 200],
    [`/v1/tenant/${ONE.toUpperCase()}`, 401, 200, 200],
    [`/v1/tenant/${OTHER}`, 401, 403, 200],
    [`/v1/tenant/${ONE}/timeline/x`, 401, 200, 200],
    [`/v1/tenant/${OTHER}/timeline/x`, 401, 403, 200],
    [`/v1/tenant/${OTHER}/timeline/${ONE}`, 401, 403, 200],
    [`/v1/tenant/%61${ONE.slice(1)}`, 401, 200, 200],
    [`/v1/tenant/%${ONE}`, 401, 403, 200],
    [`/v1/new/${ONE}`, 401, 403, 200],
    [`/v1/tenant/${ONE}/other`, 401, 403, 200],
    ["/v1/nothing", 401, 403, 404],
    ["/v1/tenant/nothing", 401, 403, 200],
  ];
  for (const [path, none, ofTenant, ofServer] of expected) {
    const found = [await status(path), await status(path, tenant), await status(path, whole)];
    assert.deepEqual(found, [none, ofTenant, ofServer], path);
  }
  assert.equal(await status("/v1/tenant", undefined, "HEAD"), 401);
  assert.equal(await status("/v1/tenant", whole, "HEAD"), 200);
  const malformed = ["Bearer", "Bearer ", "Basic x", whole.slice(7), `${whole} x`, `${whole}x`];
  for (const authorization of [...malformed, expired]) {
    assert.equal(await status("/v1/tenant", authorization), 401, authorization);
  }
  const reload = "/v1/reload_auth_validation_keys";
  assert.equal(await status(reload, tenant, "POST"), 403);
  assert.equal(await status(reload, whole, "POST"), 200);
  Deno.removeSync(directory, { recursive: true });
});

Deno.test("without authentication nobody is asked, and there are no keys to reload", async () => {
  const api = newHttpApi(logger("test"), {}, { rules: RULES, authenticator: undefined });
  api.get("/v1/tenant", (c) => c.json({}));
  assert.equal((await api.request("/v1/tenant")).status, 200);
  const reload = await api.request("/v1/reload_auth_validation_keys", { method: "POST" });
  assert.equal(reload.status, 400);
});
