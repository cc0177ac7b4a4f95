/**
 * Tokens: JSON Web Tokens (RFC 7519) in compact form, signed with Ed25519 (RFC 8037).
 *
 *     base64url({"alg":"EdDSA","typ":"JWT"}) . base64url(claims) . base64url(signature)
 *
 * One algorithm, and no header can choose another: keys are Ed25519 keys, and a header that says
 * anything but "EdDSA", or asks for extensions ("crit"), is refused before a key is looked at.
 */
import { Unauthorized } from "../utils/errors.ts";

const ALGORITHM = "Ed25519";
/** A longer one is not looked at; ours have less than 500 characters. */
const TOKEN_CHARACTERS_MAX = 4096;
const COMPACT = /^([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)$/;

const HEADER = encodePart(new TextEncoder().encode('{"alg":"EdDSA","typ":"JWT"}'));

function encodePart(bytes: Uint8Array): string {
  return bytes.toBase64({ alphabet: "base64url", omitPadding: true });
}

function decodePart(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.fromBase64(text, { alphabet: "base64url" });
}

/** The JSON object in a part; undefined if it is none. */
function objectIn(part: string): Record<string, unknown> | undefined {
  try {
    const decoder = new TextDecoder("utf-8", { fatal: true });
    const value: unknown = JSON.parse(decoder.decode(decodePart(part)));
    const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
    return isObject ? value as Record<string, unknown> : undefined;
  } catch {
    return undefined;
  }
}

/** Makes a token. */
export async function signToken(
  key: CryptoKey,
  claims: Readonly<Record<string, unknown>>,
): Promise<string> {
  const signed = `${HEADER}.${encodePart(new TextEncoder().encode(JSON.stringify(claims)))}`;
  const signature = await crypto.subtle.sign(ALGORITHM, key, new TextEncoder().encode(signed));
  return `${signed}.${encodePart(new Uint8Array(signature))}`;
}

/** The claims of a token that one of the keys has signed. Throws Unauthorized. */
export async function verifiedClaims(
  keys: readonly CryptoKey[],
  token: string,
): Promise<Record<string, unknown>> {
  const [, header, claims, signature] = token.length > TOKEN_CHARACTERS_MAX
    ? []
    : COMPACT.exec(token) ?? [];
  if (header === undefined || claims === undefined || signature === undefined) {
    throw new Unauthorized("Cannot authenticate: the token is not a JWT");
  }
  const head = objectIn(header);
  if (head?.["alg"] !== "EdDSA" || head["crit"] !== undefined) {
    throw new Unauthorized("Cannot authenticate: the token is not a JWT signed with EdDSA");
  }
  const signed = new TextEncoder().encode(`${header}.${claims}`);
  if (!await isSignedByOne(keys, signature, signed)) {
    throw new Unauthorized("Cannot authenticate: no known key has signed the token");
  }
  const found = objectIn(claims);
  if (found === undefined) throw new Unauthorized("Cannot authenticate: the token has no claims");
  return found;
}

async function isSignedByOne(
  keys: readonly CryptoKey[],
  signature: string,
  signed: Uint8Array<ArrayBuffer>,
): Promise<boolean> {
  let bytes: Uint8Array<ArrayBuffer>;
  try {
    bytes = decodePart(signature);
  } catch {
    return false;
  }
  for (const key of keys) {
    if (await crypto.subtle.verify(ALGORITHM, key, bytes, signed)) return true;
  }
  return false;
}
