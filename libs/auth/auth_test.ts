import assert from "node:assert/strict";
import { join } from "node:path";
import fc from "fast-check";
import { BadRequest, Forbidden, Unauthorized } from "../utils/errors.ts";
import { parseTenantId } from "../utils/id.ts";
import { authorize, type Claims, type Needed, type Server } from "./access.ts";
import { Authenticator } from "./authenticator.ts";
import { readClaims } from "./claims.ts";
import { signToken, verifiedClaims } from "./jwt.ts";
import { newKeyPair, readPrivateKey, readPublicKeys } from "./keys.ts";

const ONE = parseTenantId("11".repeat(16));
const OTHER = parseTenantId("22".repeat(16));

/** A directory with pairs of keys: NAME.key and keys/NAME.pem. */
class KeyDirectory implements Disposable {
  readonly path = Deno.makeTempDirSync({ prefix: "auth-" });
  readonly keys = join(this.path, "keys");

  constructor() {
    Deno.mkdirSync(this.keys);
  }

  async add(name: string): Promise<CryptoKey> {
    const { privatePem, publicPem } = await newKeyPair();
    Deno.writeTextFileSync(join(this.path, `${name}.key`), privatePem);
    Deno.writeTextFileSync(join(this.keys, `${name}.pem`), publicPem);
    return await readPrivateKey(join(this.path, `${name}.key`));
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.path, { recursive: true });
  }
}

const encode = (value: unknown) =>
  new TextEncoder().encode(typeof value === "string" ? value : JSON.stringify(value))
    .toBase64({ alphabet: "base64url", omitPadding: true });

function refused(why: RegExp) {
  return (thrown: unknown) => thrown instanceof Unauthorized && why.test(thrown.message);
}

/** The token of RFC 8037, appendix A.4, and its key, in the frame that our files have. */
const RFC_8037_KEY = `-----BEGIN PUBLIC KEY-----
${
  new Uint8Array([
    ...[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00],
    ...Uint8Array.fromBase64("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", {
      alphabet: "base64url",
    }),
  ]).toBase64()
}
-----END PUBLIC KEY-----
`;
const RFC_8037_SIGNED = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
const RFC_8037_SIGNATURE =
  "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";

Deno.test("a signature is that of RFC 8037", async () => {
  using directory = new KeyDirectory();
  Deno.writeTextFileSync(join(directory.keys, "rfc.pem"), RFC_8037_KEY);
  const keys = await readPublicKeys(directory.keys);
  const token = `${RFC_8037_SIGNED}.${RFC_8037_SIGNATURE}`;
  // Its payload is a text: the signature is right, and what is wrong is said of the claims
  await assert.rejects(verifiedClaims(keys, token), refused(/has no claims/));
  const other = `${RFC_8037_SIGNED}.i${RFC_8037_SIGNATURE.slice(1)}`;
  await assert.rejects(verifiedClaims(keys, other), refused(/no known key/));
});

Deno.test("verifiedClaims() takes what one of the keys has signed with EdDSA, nothing else", async () => {
  using directory = new KeyDirectory();
  const first = await directory.add("first");
  const second = await directory.add("second");
  const keys = await readPublicKeys(directory.keys);
  assert.equal(keys.length, 2);
  const claims = { scope: "tenant", tenant_id: ONE };
  for (const key of [first, second]) {
    assert.deepEqual(await verifiedClaims(keys, await signToken(key, claims)), claims);
  }
  const token = await signToken(first, claims);
  const [head, body, signature] = token.split(".") as [string, string, string];
  const publicPem = new TextEncoder().encode(
    Deno.readTextFileSync(join(directory.keys, "first.pem")),
  );
  const hmacKey = await crypto.subtle.importKey(
    "raw",
    publicPem,
    { name: "HMAC", hash: "SHA-256" },
    false,
    ["sign"],
  );
  const confused = `${encode({ alg: "HS256", typ: "JWT" })}.${body}`;
  const mac = await crypto.subtle.sign("HMAC", hmacKey, new TextEncoder().encode(confused));
  const macText = new Uint8Array(mac).toBase64({ alphabet: "base64url", omitPadding: true });
  /** Signed by the right key, and yet to be refused for its header. */
  const withHeader = async (header: unknown) => {
    const signed = `${encode(header)}.${body}`;
    const made = await crypto.subtle.sign("Ed25519", first, new TextEncoder().encode(signed));
    return `${signed}.${
      new Uint8Array(made).toBase64({ alphabet: "base64url", omitPadding: true })
    }`;
  };
  const { privateKey: stranger } = await crypto.subtle.generateKey("Ed25519", false, [
    "sign",
    "verify",
  ]) as CryptoKeyPair;
  const wrong: Record<string, [string, RegExp]> = {
    "nothing": ["", /not a JWT/],
    "two parts": [`${head}.${body}`, /not a JWT/],
    "four parts": [`${token}.${signature}`, /not a JWT/],
    "an empty signature": [`${head}.${body}.`, /not a JWT/],
    "a space": [`${token} `, /not a JWT/],
    "a long one": [`${head}.${body}.${"A".repeat(5000)}`, /not a JWT$/],
    "no signature, alg none": [`${encode({ alg: "none" })}.${body}.`, /not a JWT/],
    "alg none with a signature": [`${encode({ alg: "none" })}.${body}.${signature}`, /EdDSA/],
    "alg None": [`${encode({ alg: "None" })}.${body}.${signature}`, /EdDSA/],
    "HMAC with the public key": [`${confused}.${macText}`, /EdDSA/],
    "another algorithm, well signed": [await withHeader({ alg: "ES256" }), /EdDSA/],
    "no algorithm, well signed": [await withHeader({ typ: "JWT" }), /EdDSA/],
    "an extension, well signed": [await withHeader({ alg: "EdDSA", crit: ["b64"] }), /EdDSA/],
    "a header that is a list": [await withHeader(["EdDSA"]), /EdDSA/],
    "a header that is no JSON": [`${encode("{")}.${body}.${signature}`, /EdDSA/],
    "another key": [await signToken(stranger, claims), /no known key/],
    "other claims": [
      `${head}.${encode({ ...claims, tenant_id: OTHER })}.${signature}`,
      /no known key/,
    ],
    "half a signature": [`${head}.${body}.${signature.slice(0, 40)}`, /no known key/],
    "a signature of one letter": [`${head}.${body}.A`, /no known key/],
  };
  for (const [what, [text, why]] of Object.entries(wrong)) {
    await assert.rejects(verifiedClaims(keys, text), refused(why), what);
  }
});

Deno.test("whatever comes as a token is refused in order, or says what was signed", async () => {
  using directory = new KeyDirectory();
  const key = await directory.add("one");
  const keys = await readPublicKeys(directory.keys);
  const claims = { scope: "tenant", tenant_id: ONE };
  const token = await signToken(key, claims);
  const isRefusedOrSame = async (text: string) => {
    try {
      assert.deepEqual(await verifiedClaims(keys, text), claims);
    } catch (thrown) {
      assert.ok(thrown instanceof Unauthorized, String(thrown));
    }
  };
  const changed = fc.tuple(fc.nat(token.length - 1), fc.string({ minLength: 1, maxLength: 3 }))
    .map(([at, text]) => token.slice(0, at) + text + token.slice(at + 1));
  const part = fc.oneof(
    fc.base64String(),
    fc.json().map(encode),
    fc.constantFrom(...token.split(".")),
  );
  const joined = fc.array(part, { minLength: 2, maxLength: 4 }).map((parts) => parts.join("."));
  const texts = fc.oneof(changed, joined, fc.string());
  await fc.assert(fc.asyncProperty(texts, isRefusedOrSame), { numRuns: 500 });
});

Deno.test("readClaims() takes what is understood, valid now and for this server", () => {
  const read = (json: unknown, server: Server = "pageserver") => readClaims(json, server, 1000);
  assert.deepEqual(read({ scope: "tenant", tenant_id: ONE, endpoint_id: null, iat: 1 }), {
    scope: "tenant",
    tenantId: ONE,
  });
  assert.deepEqual(read({ scope: "tenantendpoint", tenant_id: ONE, endpoint_id: "main" }), {
    scope: "tenantendpoint",
    tenantId: ONE,
    endpointId: "main",
  });
  assert.deepEqual(read({ scope: "pageserverapi", exp: 1001, nbf: 1000 }), {
    scope: "pageserverapi",
  });
  assert.deepEqual(read({ compute_id: "main" }), { computeId: "main" });
  const admin = { scope: "compute_ctl:admin", aud: ["compute"] };
  assert.deepEqual(read(admin, "compute"), { scope: "compute_ctl:admin" });
  const wrong: [unknown, RegExp][] = [
    [{ scope: "pageserverapi", exp: 1000 }, /has expired/],
    [{ scope: "pageserverapi", nbf: 1000.5 }, /not valid yet/],
    [{ scope: "pageserverapi", exp: "1001" }, /claims are not known/],
    [{ scope: "pageserverapi", aud: "safekeeper" }, /another audience/],
    [admin, /another audience/],
    [{ scope: "compute_ctl:admin" }, /another audience/],
    [{ scope: "root" }, /claims are not known/],
    [{ scope: "tenant" }, /does not say what it opens/],
    [{ scope: "tenant", tenant_id: "1" }, /claims are not known/],
    [{ scope: "tenantendpoint", tenant_id: ONE }, /does not say what it opens/],
    [{ tenant_id: ONE }, /does not say what it opens/],
    [{}, /does not say what it opens/],
    [[], /claims are not known/],
  ];
  for (const [json, why] of wrong) {
    assert.throws(() => read(json), refused(why), JSON.stringify(json));
  }
});

Deno.test("authorize() opens exactly what the table of scopes says", () => {
  const tokens: Record<string, Claims> = {
    tenant: { scope: "tenant", tenantId: ONE },
    data: { scope: "tenantendpoint", tenantId: ONE, endpointId: "main" },
    pageserver: { scope: "pageserverapi" },
    safekeeper: { scope: "safekeeperdata" },
    admin: { scope: "compute_ctl:admin" },
    endpoint: { computeId: "main" },
  };
  const needs: Record<string, Needed> = {
    server: { of: "server" },
    tenant: { of: "tenant", tenantId: ONE },
    "other tenant": { of: "tenant", tenantId: OTHER },
    data: { of: "tenant data", tenantId: ONE },
    "other data": { of: "tenant data", tenantId: OTHER },
    endpoint: { of: "endpoint", name: "main" },
    "other endpoint": { of: "endpoint", name: "other" },
  };
  const all = Object.keys(needs);
  const opened: Record<Server, Record<string, string[]>> = {
    pageserver: { pageserver: all, tenant: ["tenant", "data"], data: ["data"] },
    safekeeper: { safekeeper: all, tenant: ["tenant", "data"], data: ["data"] },
    broker: { safekeeper: all },
    compute: { admin: all, endpoint: ["endpoint"] },
  };
  for (const [server, byToken] of Object.entries(opened)) {
    for (const [name, claims] of Object.entries(tokens)) {
      for (const [what, needed] of Object.entries(needs)) {
        const act = () => authorize(server as Server, claims, needed);
        const where = `${name} at ${server} for ${what}`;
        if (byToken[name]?.includes(what)) assert.doesNotThrow(act, where);
        else assert.throws(act, Forbidden, where);
      }
    }
  }
});

Deno.test("keys are exchanged one by one: two at once, in a directory or in one file", async () => {
  using directory = new KeyDirectory();
  const old = await directory.add("old");
  const server = await Authenticator.open("pageserver", directory.keys);
  const check = async (key: CryptoKey) =>
    await server.check(`Bearer ${await signToken(key, { scope: "pageserverapi" })}`, {
      of: "server",
    });
  await check(old);
  const fresh = await directory.add("fresh");
  await assert.rejects(check(fresh), refused(/no known key/));
  assert.equal(await server.reload(), 2);
  await check(old);
  await check(fresh);
  Deno.removeSync(join(directory.keys, "old.pem"));
  assert.equal(await server.reload(), 1);
  await assert.rejects(check(old), refused(/no known key/));
  await check(fresh);
  Deno.writeTextFileSync(join(directory.keys, "fresh.pem"), "nothing");
  await assert.rejects(server.reload(), BadRequest);
  await check(fresh);

  const [one, two] = [await newKeyPair(), await newKeyPair()];
  const file = join(directory.path, "both.pem");
  Deno.writeTextFileSync(file, one.publicPem + two.publicPem);
  assert.equal((await readPublicKeys(file)).length, 2);
  for (
    const text of [one.privatePem, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"]
  ) {
    Deno.writeTextFileSync(file, text);
    await assert.rejects(readPublicKeys(file), BadRequest);
  }
  await assert.rejects(readPrivateKey(file), BadRequest);
  await assert.rejects(Authenticator.open("broker", join(directory.path, "none")), BadRequest);
});
