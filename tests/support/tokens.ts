/** Tokens for tests: right ones and every kind of wrong one. */
import { join } from "node:path";
import type { TokenClaims } from "../../cli/control_plane/tokens.ts";
import { signToken } from "../../libs/auth/jwt.ts";
import { newKeyPair, readPrivateKey } from "../../libs/auth/keys.ts";

const encode = (value: unknown) =>
  new TextEncoder().encode(JSON.stringify(value))
    .toBase64({ alphabet: "base64url", omitPadding: true });

/** Signs with the private key of a local Neon. */
export async function tokenOf(repoDir: string, claims: TokenClaims): Promise<string> {
  return await signToken(await readPrivateKey(join(repoDir, "auth_private_key.pem")), claims);
}

/** What would be right, but is expired, of another key, not signed at all and so on. */
export async function brokenTokens(
  repoDir: string,
  claims: TokenClaims,
): Promise<Record<string, string>> {
  const right = await tokenOf(repoDir, claims);
  const [header, body, signature] = right.split(".") as [string, string, string];
  const publicPem = Deno.readFileSync(join(repoDir, "auth_public_key.pem"));
  const hmac = { name: "HMAC", hash: "SHA-256" };
  const key = await crypto.subtle.importKey("raw", publicPem, hmac, false, ["sign"]);
  const confused = `${encode({ alg: "HS256", typ: "JWT" })}.${body}`;
  const mac = await crypto.subtle.sign("HMAC", key, new TextEncoder().encode(confused));
  const macText = new Uint8Array(mac).toBase64({ alphabet: "base64url", omitPadding: true });
  const strangers = Deno.makeTempFileSync();
  Deno.writeTextFileSync(strangers, (await newKeyPair()).privatePem);
  const stranger = await readPrivateKey(strangers);
  Deno.removeSync(strangers);
  return {
    "no token": "x",
    "no signature": `${header}.${body}.`,
    "alg none": `${encode({ alg: "none" })}.${body}.${signature}`,
    "the public key as a secret": `${confused}.${macText}`,
    "another key": await signToken(stranger, claims),
    "another body": `${header}.${encode({ ...claims, more: 1 })}.${signature}`,
    "expired": await tokenOf(repoDir, { ...claims, exp: 1_700_000_000 }),
    "not valid yet": await tokenOf(repoDir, { ...claims, nbf: 4_000_000_000 }),
    "another audience": await tokenOf(repoDir, { ...claims, aud: ["elsewhere"] }),
  };
}
