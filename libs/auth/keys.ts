/**
 * The keys of tokens, as PEM files: one private key that signs (PKCS #8), and public keys that
 * verify (SubjectPublicKeyInfo), as `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout`
 * write them. While keys are exchanged there are several public ones: in one file one behind the
 * other, or in several files of a directory.
 */
import { join } from "node:path";
import { BadRequest, messageOf } from "../utils/errors.ts";

const ALGORITHM = { name: "Ed25519" };
const PRIVATE_LABEL = "PRIVATE KEY";
const PUBLIC_LABEL = "PUBLIC KEY";
const LINE_CHARACTERS = 64;

function pemOf(label: string, der: ArrayBuffer): string {
  const text = new Uint8Array(der).toBase64();
  const lines = text.match(new RegExp(`.{1,${LINE_CHARACTERS}}`, "g")) ?? [];
  return [`-----BEGIN ${label}-----`, ...lines, `-----END ${label}-----`, ""].join("\n");
}

/** What is in the PEM blocks of this label. Throws SyntaxError for one that is not base64. */
function derIn(pem: string, label: string): Uint8Array<ArrayBuffer>[] {
  const block = new RegExp(`-----BEGIN ${label}-----([^-]*)-----END ${label}-----`, "g");
  return [...pem.matchAll(block)].map(([, body]) => Uint8Array.fromBase64(body!));
}

/** A new pair of keys, as the contents of their files. */
export async function newKeyPair(): Promise<{ privatePem: string; publicPem: string }> {
  const { privateKey, publicKey } = await crypto.subtle.generateKey(
    ALGORITHM,
    true,
    ["sign", "verify"],
  ) as CryptoKeyPair;
  return {
    privatePem: pemOf(PRIVATE_LABEL, await crypto.subtle.exportKey("pkcs8", privateKey)),
    publicPem: pemOf(PUBLIC_LABEL, await crypto.subtle.exportKey("spki", publicKey)),
  };
}

/** Reads the key that signs. Throws BadRequest that names the file. */
export async function readPrivateKey(path: string): Promise<CryptoKey> {
  try {
    const [der] = derIn(Deno.readTextFileSync(path), PRIVATE_LABEL);
    if (der === undefined) throw new Error(`there is no "${PRIVATE_LABEL}" in it`);
    return await crypto.subtle.importKey("pkcs8", der, ALGORITHM, false, ["sign"]);
  } catch (thrown) {
    throw new BadRequest(`Cannot use the private key "${path}": ${messageOf(thrown)}`);
  }
}

/** Reads the keys that verify, of a file or of all *.pem of a directory. Throws BadRequest. */
export async function readPublicKeys(path: string): Promise<CryptoKey[]> {
  try {
    const files = Deno.statSync(path).isDirectory
      ? [...Deno.readDirSync(path)].filter(({ name }) => name.endsWith(".pem"))
        .map(({ name }) => join(path, name))
      : [path];
    const ders = files.flatMap((file) => derIn(Deno.readTextFileSync(file), PUBLIC_LABEL));
    if (ders.length === 0) throw new Error(`there is no "${PUBLIC_LABEL}" in it`);
    return await Promise.all(
      ders.map((der) => crypto.subtle.importKey("spki", der, ALGORITHM, false, ["verify"])),
    );
  } catch (thrown) {
    throw new BadRequest(`Cannot use the public keys in "${path}": ${messageOf(thrown)}`);
  }
}
